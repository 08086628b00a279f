"""A selector as a step of imbalanced-learn's Pipeline."""

from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, OneToOneFeatureMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import (
    UNUSED,
    MetadataRouter,
    MethodMapping,
    process_routing,
)

from sklearn_skmm.data._weights import read_selected
from sklearn_skmm.meta._containers import n_samples_of, take_samples
from sklearn_skmm.meta._coreset_estimator import check_positions
from sklearn_skmm.meta._steps import fit_before_last
from sklearn_skmm.utils._sklearn import HasMethods, _fit_context, _num_samples, _routing_enabled
from sklearn_skmm.utils._validation import all_or_nothing


class CoresetSampler(OneToOneFeatureMixin, MetaEstimatorMixin, BaseEstimator):
    """Replace the training data by a coreset, in a Pipeline of imbalanced-learn.

    A selector has both `transform` and `fit_resample`, which imbalanced-learn refuses in a step
    that is not the last. This has `fit_resample` alone: the steps after it are fitted on the
    coreset, and predict for all samples. imbalanced-learn does not have to be installed.

    Parameters
    ----------
    selector : selector or Pipeline
        A selector, or a Pipeline that ends in one, such as one of a `GradientSketcher` and a
        selector. A clone of it is fitted.

    Attributes
    ----------
    selector_ : selector or Pipeline
        The fitted selector.
    sample_indices_ : ndarray of shape (n_coreset,), dtype int
        Positions of the coreset in X. Samples that were passed as ``selected`` are part of it, and
        come first.
    n_features_in_ : int
        Number of features seen in `fit`, if the selector has this attribute.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if the selector has this attribute.

    See Also
    --------
    CoresetEstimator : Fits an estimator on a coreset, in pipelines of scikit-learn too.

    Notes
    -----
    In a Pipeline of imbalanced-learn, ``sample_weight`` and ``selected`` reach the selector only
    with metadata routing enabled, and only if the selector requests them with `set_fit_request`.
    Without routing, imbalanced-learn ignores parameters such as ``coresetsampler__selected``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_skmm import CoresetSampler, SkMMSelector
    >>> X, y = load_digits(return_X_y=True)
    >>> sampler = CoresetSampler(SkMMSelector(100, random_state=0))
    >>> X_coreset, y_coreset = sampler.fit_resample(X, y)
    >>> X_coreset.shape, y_coreset.shape
    ((100, 64), (100,))
    """

    _estimator_type = "sampler"  # as imbalanced-learn tells samplers

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "selector": [HasMethods(["fit_transform"])]
    }

    # The selector requests metadata, not this.
    __metadata_request__fit: ClassVar[dict] = {"sample_weight": UNUSED, "selected": UNUSED}
    __metadata_request__fit_resample: ClassVar[dict] = __metadata_request__fit

    def __init__(self, selector):
        self.selector = selector

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, *, sample_weight=None, selected=None):
        """Select a coreset of X.

        Parameters
        ----------
        X : array-like, sparse matrix, dataframe, mapping or data set
            Samples: whatever the selector, or the first step of the Pipeline, accepts.
        y : array-like of shape (n_samples,), default=None
            Targets, which are passed to the selector too.
        sample_weight, selected
            As in `fit` of the selector. If metadata routing is enabled, it has to request them.

        Returns
        -------
        self : object
            The fitted sampler. If `fit` raises, it is left as it was.
        """
        n_samples = n_samples_of(X)
        if y is not None and _num_samples(y) != n_samples:
            raise ValueError(
                "Found input variables with inconsistent numbers of samples: "
                f"[{n_samples}, {_num_samples(y)}]"
            )
        given: dict[str, Any] = {"sample_weight": sample_weight, "selected": selected}
        given = {name: value for name, value in given.items() if value is not None}
        with all_or_nothing(self):
            self.selector_ = clone(self.selector)
            if _routing_enabled():
                given = process_routing(self, "fit", **given).selector.fit_transform
                indices = self.selector_.fit_transform(X, y, **given)
            else:
                features, final = fit_before_last(self.selector_, X, y)
                indices = final.fit_transform(features, y, **given)
            indices = check_positions(indices, n_samples, self)
            already = read_selected(given.get("selected"), n_samples)
            if already is not None:  # the coreset is both together
                indices = np.concatenate([np.flatnonzero(already), indices])
            self.sample_indices_ = indices
        return self

    def fit_resample(self, X, y=None, *, sample_weight=None, selected=None):
        """Select a coreset of X, and return its samples.

        Parameters
        ----------
        X : array-like, sparse matrix, dataframe, mapping or data set
            Samples: whatever the selector, or the first step of the Pipeline, accepts.
        y : array-like of shape (n_samples,), default=None
            Targets, which are passed to the selector too.
        sample_weight, selected
            As in `fit`.

        Returns
        -------
        X_resampled : same kind as X
            The coreset: the samples in `selected`, in the order of X, and then the new ones.
        y_resampled : same kind as y, or None
            Their targets.
        """
        indices = self.fit(X, y, sample_weight=sample_weight, selected=selected).sample_indices_
        return take_samples(X, indices), None if y is None else take_samples(y, indices)

    @property
    def n_features_in_(self):
        """Number of features seen in `fit`."""
        return self.selector_.n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the features seen in `fit`."""
        return self.selector_.feature_names_in_

    def get_metadata_routing(self):
        """Return how scikit-learn routes metadata.

        Returns
        -------
        router : MetadataRouter
            Metadata is passed to the selector's `fit_transform`.
        """
        mapping = MethodMapping().add(caller="fit", callee="fit_transform")
        with suppress(ValueError):  # imbalanced-learn, when it is imported, adds this method
            mapping.add(caller="fit_resample", callee="fit_transform")
        return MetadataRouter(owner=self).add(selector=self.selector, method_mapping=mapping)

    def __sklearn_tags__(self):
        """Return the tags: what X may hold is what the selector accepts."""
        tags = super().__sklearn_tags__()
        inner = get_tags(self.selector)
        tags.estimator_type = "sampler"
        tags.input_tags, tags.target_tags = inner.input_tags, inner.target_tags
        return tags
