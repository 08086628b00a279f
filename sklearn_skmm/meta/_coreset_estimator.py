"""A meta-estimator that fits its estimator on a coreset only."""

from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags, indexable
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sklearn_skmm.data._weights import read_selected
from sklearn_skmm.meta._classes import classes_in, with_all_classes
from sklearn_skmm.meta._weights import weight_parameter
from sklearn_skmm.utils._sklearn import (
    HasMethods,
    _check_method_params,
    _fit_context,
    _num_samples,
    _routing_enabled,
    _safe_indexing,
)
from sklearn_skmm.utils._validation import all_or_nothing


def _estimator_has(method):
    """Make a method available if the estimator, fitted or not, has it."""

    def check(self):
        getattr(getattr(self, "estimator_", self.estimator), method)
        return True

    return check


class CoresetEstimator(CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator):
    """Fit an estimator on the coreset that a selector chooses from the training data.

    It predicts and scores like the estimator inside. Use it to tune the parameters of a selector by
    the score of an estimator, with a plain `GridSearchCV`. This needs labels.

    Parameters
    ----------
    estimator : estimator
        Any classifier or regressor. A clone of it is fitted on the coreset.
    selector : selector or Pipeline
        A selector, or a Pipeline that ends in one. A clone of it is fitted on all training data.
    use_sample_weight : bool, default=False
        Whether to pass the selector's `sample_weight_` to the estimator's `fit`, multiplied by
        weights that are given to `fit`, unless the selector got these too. In a Pipeline they go to
        the last step or, if metadata routing is enabled, to all steps that request
        ``sample_weight``.
    all_classes : bool, default=True
        Whether `classes_`, and the columns of `predict_proba`, `predict_log_proba` and
        `decision_function`, are for all classes of y in `fit`, also for those without a sample in
        the coreset. Their probability is 0, and their decision function is the smallest finite
        number. With False they are those of the estimator inside.

    Attributes
    ----------
    estimator_ : estimator
        The estimator fitted on the coreset.
    selector_ : selector or Pipeline
        The fitted selector.
    sample_indices_ : ndarray of shape (n_to_select,), dtype int
        Positions of the coreset in the training data. Samples that were passed to the selector as
        ``selected`` are part of it, and come first.
    classes_ : ndarray of shape (n_classes,)
        Classes of y or, with ``all_classes=False``, in the coreset. Only for classifiers.
    n_features_in_ : int
        Number of features seen in `fit`, if the estimator has this attribute.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if the estimator has this attribute.

    Raises
    ------
    TypeError
        In `fit`, if ``use_sample_weight=True`` and the estimator's `fit` accepts no weights.
    ValueError
        In `decision_function` and the like, if the coreset lacks classes and the estimator's
        columns are not those of its classes, such as those of pairs of classes.

    See Also
    --------
    SkMMSelector : Selection by moment matching.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_skmm import CoresetEstimator, UniformSelector
    >>> X, y = load_digits(return_X_y=True)
    >>> model = CoresetEstimator(
    ...     LogisticRegression(max_iter=1000), UniformSelector(200, random_state=0)
    ... ).fit(X / 16, y)
    >>> model.sample_indices_.shape, model.classes_.shape
    ((200,), (10,))
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "estimator": [HasMethods(["fit"])],
        "selector": [HasMethods(["fit_transform"])],
        "use_sample_weight": ["boolean"],
        "all_classes": ["boolean"],
    }

    def __init__(self, estimator, selector, *, use_sample_weight=False, all_classes=True):
        self.estimator = estimator
        self.selector = selector
        self.use_sample_weight = use_sample_weight
        self.all_classes = all_classes

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, **params):
        """Select a coreset of X and fit the estimator on it.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            The training data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Targets. They are passed to the selector too.
        **params : dict
            Metadata for the estimator's `fit`. Values with one entry per sample are restricted to
            the coreset. If metadata routing is enabled, metadata that the selector or the estimator
            requests.

        Returns
        -------
        self : object
            The fitted estimator. A `fit` that fails leaves it as it was.
        """
        context = self._init_callback_context(max_subtasks=2)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        with all_or_nothing(self):
            X, y = indexable(X, y)
            if _routing_enabled():
                routed = process_routing(self, "fit", **params)
                select_params, fit_params = routed.selector.fit_transform, routed.estimator.fit
            else:
                select_params, fit_params = {}, params
            self.selector_ = clone(self.selector)
            task = context.subcontext(task_name="select")
            with task.propagate_callback_context(self.selector_):
                indices = self.selector_.fit_transform(X, y, **select_params)
            indices = check_positions(indices, _num_samples(X), self)
            given = read_selected(select_params.get("selected"), _num_samples(X))
            if given is not None:  # the coreset is both together
                indices = np.concatenate([np.flatnonzero(given), indices])
            task.call_on_fit_task_end(estimator=self)
            fit_params = dict(_check_method_params(X, fit_params, indices=indices))
            estimator = clone(self.estimator)
            if self.use_sample_weight:
                self._add_weights(estimator, fit_params, select_params)
            task = context.subcontext(task_name="fit")
            y_coreset = None if y is None else _safe_indexing(y, indices)
            args = (_safe_indexing(X, indices), y_coreset)
            if hasattr(estimator, "set_callbacks"):
                with task.propagate_callback_context(estimator):
                    estimator.fit(*args, **fit_params)
            else:
                # Without this branch, scikit-learn warns that the step shows no progress.
                estimator.fit(*args, **fit_params)
            task.call_on_fit_task_end(estimator=self)
            self.estimator_ = estimator
            self.sample_indices_ = indices
            # None if the estimator knows all classes.
            self._classes = classes_in(y, estimator) if self.all_classes else None
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _add_weights(self, estimator, fit_params, select_params):
        name, final = weight_parameter(estimator), self.selector_
        while isinstance(final, Pipeline):
            final = final[-1]
        if not hasattr(final, "sample_weight_"):
            raise TypeError(
                "CoresetEstimator with use_sample_weight=True needs a selector with the attribute "
                f"sample_weight_. Got {self.selector!r} instead."
            )
        weight, given = final.sample_weight_, fit_params.get(name)
        if hasattr(final, "given_weight_"):
            weight = np.concatenate([final.given_weight_, weight])
        # Weights that the selector had are in its own already.
        alone = given is None or select_params.get("sample_weight") is not None
        fit_params[name] = weight if alone else weight * np.asarray(given)

    @available_if(_estimator_has("predict"))
    def predict(self, X, **params):
        """Predict with the estimator fitted on the coreset.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples.
        **params : dict
            Metadata for the estimator's method of the same name.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            The predictions.
        """
        return self._delegate("predict", X, **params)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X, **params):
        """Predict class probabilities with the estimator fitted on the coreset.

        Parameters
        ----------
        X, **params
            As in `predict`.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.
        """
        return self._by_class("predict_proba", X, **params)

    @available_if(_estimator_has("predict_log_proba"))
    def predict_log_proba(self, X, **params):
        """Predict logarithms of class probabilities with the estimator fitted on the coreset.

        Parameters
        ----------
        X, **params
            As in `predict`.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes)
            Logarithms of the probabilities, in the order of `classes_`.
        """
        return self._by_class("predict_log_proba", X, **params)

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X, **params):
        """Return confidence scores of the estimator fitted on the coreset.

        Parameters
        ----------
        X, **params
            As in `predict`.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_classes)
            The estimator's decision function.
        """
        return self._by_class("decision_function", X, **params)

    @available_if(_estimator_has("score"))
    def score(self, X, y=None, **params):
        """Return the score of the estimator fitted on the coreset.

        Parameters
        ----------
        X, **params
            As in `predict`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Targets of the samples.

        Returns
        -------
        score : float
            The estimator's own score, by default accuracy or R².
        """
        return self._delegate("score", X, y, **params)

    def _delegate(self, method, *args, **params):
        check_is_fitted(self)
        if _routing_enabled():
            params = process_routing(self, method, **params).estimator[method]
        return getattr(self.estimator_, method)(*args, **params)

    def _by_class(self, method, X, **params):
        """Return what the method of the estimator returns, with a column for each class."""
        values = self._delegate(method, X, **params)
        if self._classes is None:
            return values
        known, settings = self.estimator_.classes_, self.estimator_.get_params()
        # Support vector machines may have a column for each pair of classes.
        pairs = method == "decision_function" and any(
            value == "ovo"
            for name, value in settings.items()
            if name.endswith("decision_function_shape")
        )
        return with_all_classes(method, values, known, self._classes, pairs=pairs)

    @property
    def classes_(self):
        """Classes of y or, with ``all_classes=False``, in the coreset. Only for classifiers."""
        known = self._fitted_attribute("classes_")
        return known if self._classes is None else self._classes

    @property
    def n_features_in_(self):
        """Number of features seen in `fit`."""
        return self._fitted_attribute("n_features_in_")

    @property
    def feature_names_in_(self):
        """Names of the features seen in `fit`."""
        return self._fitted_attribute("feature_names_in_")

    def _fitted_attribute(self, name):
        if "estimator_" not in vars(self):
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r} before it is fitted."
            )
        return getattr(self.estimator_, name)

    def get_metadata_routing(self):
        """Return how scikit-learn routes metadata.

        Returns
        -------
        router : MetadataRouter
            Metadata of `fit` is passed to the selector's `fit_transform` and the estimator's `fit`.
            Metadata of any other method is passed to the same method of the estimator.
        """
        mapping = MethodMapping()
        for method in (
            "fit",
            "predict",
            "predict_proba",
            "predict_log_proba",
            "decision_function",
            "score",
        ):
            mapping.add(caller=method, callee=method)
        return (
            MetadataRouter(owner=self)
            .add(
                selector=self.selector,
                method_mapping=MethodMapping().add(caller="fit", callee="fit_transform"),
            )
            .add(estimator=self.estimator, method_mapping=mapping)
        )

    def __sklearn_tags__(self):
        """Return the estimator's tags; what X may hold has to be accepted by both."""
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags = inner.target_tags
        tags.input_tags = inner.input_tags
        accepted = get_tags(self.selector).input_tags
        for kind in ("sparse", "allow_nan", "string"):
            both = getattr(tags.input_tags, kind) and getattr(accepted, kind)
            setattr(tags.input_tags, kind, both)
        return tags


def knowing_all_classes(estimator, selector, y):
    """Return the estimator, or a `CoresetEstimator` of it if y has classes that it was not shown.

    Parameters
    ----------
    estimator, selector : estimator and selector
        Both fitted: the estimator on the coreset.
    y : array-like of shape (n_samples,)
        Targets of all samples.

    Returns
    -------
    model : estimator
        Its `predict_proba` has a column for each class of y.
    """
    classes = classes_in(y, estimator)
    if classes is None:
        return estimator
    model = CoresetEstimator(estimator, selector)
    model.estimator_, model.selector_, model._classes = estimator, selector, classes
    return model


def check_positions(indices, n_samples, owner):
    """Return what the selector of a meta-estimator returned, if these are positions of samples.

    Parameters
    ----------
    indices : object
        What `fit_transform` of the selector returned.
    n_samples : int
        Number of samples that it was given.
    owner : estimator
        The meta-estimator, named in messages.

    Returns
    -------
    indices : ndarray of shape (n_to_select,), dtype int
        The positions.
    """
    name = type(owner).__name__
    indices = np.asarray(indices)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise TypeError(
            f"The 'selector' parameter of {name} must be a selector, or a Pipeline that ends in "
            "one, whose fit_transform returns integer positions of shape (n_to_select,). Got an "
            f"array of shape {indices.shape} and dtype {indices.dtype} from {owner.selector!r} "
            "instead."
        )
    if indices.size and indices.max() >= n_samples:
        raise ValueError(
            f"The 'selector' parameter of {name} must select positions in X. Got positions outside "
            f"of X from {owner.selector!r} instead."
        )
    return indices
