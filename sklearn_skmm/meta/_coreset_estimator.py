"""A meta-estimator that learns from a coreset only."""

from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags, indexable
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

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
    """Let a method exist where the estimator, fitted or not, has it."""

    def check(self):
        getattr(getattr(self, "estimator_", self.estimator), method)
        return True

    return check


class CoresetEstimator(CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator):
    """Fit an estimator on the coreset that a selector picks from the training data.

    Predicts, scores and looks like the estimator inside, so that a search with labels over the
    selector's parameters is a plain `GridSearchCV`.

    Parameters
    ----------
    estimator : estimator
        Any classifier or regressor; a clone of it is fitted on the coreset.
    selector : selector or Pipeline
        A selector, or a Pipeline that ends in one. A clone of it sees the whole training data.
    use_sample_weight : bool, default=False
        Pass the selector's `sample_weight_` to the estimator's `fit`.

    Attributes
    ----------
    estimator_ : estimator
        The estimator fitted on the coreset.
    selector_ : selector or Pipeline
        The fitted selector.
    sample_indices_ : ndarray of shape (n_to_select,), dtype int
        Positions of the coreset in the training data.
    classes_ : ndarray of shape (n_classes,)
        Classes in the coreset, for classifiers.
    n_features_in_ : int
        Number of features in `fit`, where the estimator tells.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where the estimator tells.

    Raises
    ------
    TypeError
        In `fit`, if weights are asked for and the estimator's `fit` takes none.

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
    }

    def __init__(self, estimator, selector, *, use_sample_weight=False):
        self.estimator = estimator
        self.selector = selector
        self.use_sample_weight = use_sample_weight

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, **params):
        """Select a coreset of X and fit the estimator on it.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            The training data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Targets. The selector gets them too.
        **params : dict
            Metadata for the estimator's `fit`; what has an entry per sample is cut to the
            coreset. With metadata routing enabled, what the selector or the estimator requests.

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
                indices = self._check_indices(
                    self.selector_.fit_transform(X, y, **select_params), X
                )
            task.call_on_fit_task_end(estimator=self)
            fit_params = dict(_check_method_params(X, fit_params, indices=indices))
            estimator = clone(self.estimator)
            if self.use_sample_weight:
                self._add_weights(estimator, fit_params)
            task = context.subcontext(task_name="fit")
            y_coreset = None if y is None else _safe_indexing(y, indices)
            args = (_safe_indexing(X, indices), y_coreset)
            if hasattr(estimator, "set_callbacks"):
                with task.propagate_callback_context(estimator):
                    estimator.fit(*args, **fit_params)
            else:
                # Without this, scikit-learn warns that progress of this step is not shown.
                estimator.fit(*args, **fit_params)
            task.call_on_fit_task_end(estimator=self)
            self.estimator_ = estimator
            self.sample_indices_ = indices
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def _check_indices(self, indices, X):
        indices = np.asarray(indices)
        if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
            raise TypeError(
                "The 'selector' parameter must be a selector or a Pipeline that ends in one, whose "
                "fit_transform returns integer positions of shape (n_to_select,); got an array of "
                f"shape {indices.shape} and dtype {indices.dtype} from {self.selector!r}."
            )
        if indices.size and indices.max() >= _num_samples(X):
            raise ValueError(f"{self.selector!r} selected positions outside of X.")
        return indices

    def _add_weights(self, estimator, fit_params):
        final = self.selector_[-1] if isinstance(self.selector_, Pipeline) else self.selector_
        if not has_fit_parameter(estimator, "sample_weight"):
            raise TypeError(
                f"use_sample_weight=True, but the fit of {type(estimator).__name__} takes no "
                "sample_weight."
            )
        weight = final.sample_weight_
        given = fit_params.get("sample_weight")
        fit_params["sample_weight"] = weight if given is None else weight * np.asarray(given)

    @available_if(_estimator_has("predict"))
    def predict(self, X, **params):
        """Predict with the estimator fitted on the coreset.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples.
        **params : dict
            Metadata for the estimator's `predict`.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            What the estimator predicts.
        """
        return self._delegate("predict", X, **params)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X, **params):
        """Return class probabilities of the estimator fitted on the coreset.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples.
        **params : dict
            Metadata for the estimator's `predict_proba`.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.
        """
        return self._delegate("predict_proba", X, **params)

    @available_if(_estimator_has("predict_log_proba"))
    def predict_log_proba(self, X, **params):
        """Return logarithms of the class probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples.
        **params : dict
            Metadata for the estimator's `predict_log_proba`.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes)
            Logarithms, in the order of `classes_`.
        """
        return self._delegate("predict_log_proba", X, **params)

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X, **params):
        """Return the decision function of the estimator fitted on the coreset.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples.
        **params : dict
            Metadata for the estimator's `decision_function`.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_classes)
            Confidence scores.
        """
        return self._delegate("decision_function", X, **params)

    @available_if(_estimator_has("score"))
    def score(self, X, y=None, **params):
        """Return the estimator's own score.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Their targets.
        **params : dict
            Metadata for the estimator's `score`.

        Returns
        -------
        score : float
            As the estimator defines it: accuracy or R² by default.
        """
        return self._delegate("score", X, y, **params)

    def _delegate(self, method, *args, **params):
        check_is_fitted(self)
        if _routing_enabled():
            params = process_routing(self, method, **params).estimator[method]
        return getattr(self.estimator_, method)(*args, **params)

    @property
    def classes_(self):
        """Classes in the coreset, for classifiers."""
        return self._fitted_attribute("classes_")

    @property
    def n_features_in_(self):
        """Number of features in `fit`."""
        return self._fitted_attribute("n_features_in_")

    @property
    def feature_names_in_(self):
        """Names of the features in `fit`."""
        return self._fitted_attribute("feature_names_in_")

    def _fitted_attribute(self, name):
        if "estimator_" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no {name!r} before fit.")
        return getattr(self.estimator_, name)

    def get_metadata_routing(self):
        """Tell scikit-learn where metadata goes.

        Returns
        -------
        router : MetadataRouter
            Metadata of `fit` goes to the selector's `fit_transform` and the estimator's `fit`,
            that of every other method to the same method of the estimator.
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
        """Take over what the estimator is, and what both accept."""
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.target_tags = inner.target_tags
        tags.input_tags = inner.input_tags
        tags.input_tags.sparse &= get_tags(self.selector).input_tags.sparse
        return tags
