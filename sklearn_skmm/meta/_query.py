"""A selector as a query strategy of scikit-activeml."""

import warnings
from numbers import Integral
from typing import ClassVar

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from sklearn.base import BaseEstimator, clone
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.pipeline import Pipeline
from sklearn.utils import check_scalar, indexable
from sklearn.utils.validation import check_consistent_length

from sklearn_skmm.data import open_samples
from sklearn_skmm.data._labels import read_labels
from sklearn_skmm.utils._sklearn import HasMethods, _fit_context, _num_samples, _safe_indexing
from sklearn_skmm.utils._validation import all_or_nothing


class SelectorQuery(BaseEstimator):
    """Query the samples that a selector chooses: a pool-based strategy of scikit-activeml.

    Use it for active learning. In each round, `query` returns the samples to label next. Samples
    that are already labelled count as part of the coreset and are not queried again.

    Each query asks the selector for a coreset of all samples. The coreset is as large as the
    labelled samples and the batch together. Every labelled sample then replaces one selected
    sample, and the selected samples that are left are queried. The replaced samples are those of
    the assignment with the smallest sum of squared distances, measured in the features that the
    selector sees. Where there are none, because the selector looks at no values and X is text, for
    instance, they are chosen at random.

    The class has the interface of ``SingleAnnotatorPoolQueryStrategy``. If scikit-activeml is
    installed, the class is registered as one, so that ``SubSamplingWrapper`` and plots accept it.

    Parameters
    ----------
    selector : selector or Pipeline
        A selector that needs no labels, or a Pipeline that ends in one. Its `n_to_select` is
        replaced in each query.
    missing_label : scalar, str or None, default=nan
        Value in y that marks a missing label.

    Attributes
    ----------
    selector_ : selector or Pipeline
        The selector fitted in the last query.

    See Also
    --------
    CoresetEstimator : Fits an estimator on a coreset of labelled data.

    Notes
    -----
    Selectors choose sets of samples, so there is no meaningful utility per sample. The utilities
    returned with ``return_utilities=True`` are 1 for the samples that are about to be queried and 0
    for the other candidates. They cannot be compared between calls, which
    ``ParallelUtilityEstimationWrapper`` would have to do.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import SelectorQuery, SkMMSelector
    >>> X = np.random.RandomState(0).normal(size=(200, 8))
    >>> y = np.full(200, np.nan)  # nothing is labelled yet
    >>> strategy = SelectorQuery(SkMMSelector(1, random_state=0))
    >>> first = strategy.query(X, y, batch_size=10)
    >>> y[first] = 0  # what the annotator says
    >>> second = strategy.query(X, y, batch_size=10)
    >>> len(np.union1d(first, second))
    20
    """

    _parameter_constraints: ClassVar[dict[str, list | str]] = {
        "selector": [HasMethods(["fit", "transform", "fit_transform"])],
        "missing_label": "no_validation",
    }

    def __init__(self, selector, *, missing_label=np.nan):
        self.selector = selector
        self.missing_label = missing_label
        _register_with_skactiveml()

    def __setstate__(self, state):
        """Restore from a pickle, perhaps in a process that has not registered the class yet."""
        super().__setstate__(state)
        _register_with_skactiveml()

    @_fit_context(prefer_skip_nested_validation=False)
    def query(self, X, y, candidates=None, batch_size=1, return_utilities=False):
        """Choose the samples to label next.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            All samples, labelled and unlabelled.
        y : array-like of shape (n_samples,)
            Labels of the samples, `missing_label` where there is none.
        candidates : array-like of shape (n_candidates,) or (n_candidates, n_features), default=None
            Positions in X of the samples that may be queried, or these samples themselves, which
            are then appended to X. None means all unlabelled samples.
        batch_size : int, default=1
            Number of samples to query. If there are fewer candidates, all of them are queried.
        return_utilities : bool, default=False
            Whether to return the utilities too.

        Returns
        -------
        query_indices : ndarray of shape (batch_size,), dtype int
            Positions in X, or in `candidates` if these are samples.
        utilities : ndarray of shape (batch_size, n_samples) or (batch_size, n_candidates)
            Only with ``return_utilities=True``. In row b, 1 for the samples that are queried in
            place b or later, 0 for other candidates, and NaN for all samples that can no longer be
            queried.

        Warns
        -----
        UserWarning
            If there are fewer candidates than `batch_size`.

        Raises
        ------
        ValueError
            If there are no candidates, or some of them are labelled.
        """
        check_scalar(batch_size, "batch_size", Integral, min_val=1)
        check_consistent_length(X, y)
        (X,) = indexable(X)
        n_samples = _num_samples(X)
        missing = self._is_missing(y)
        labelled = np.flatnonzero(~missing)
        # Positions count from here. It is not 0 if the candidates are samples appended to X.
        offset = 0
        if candidates is None:
            candidate_rows = np.flatnonzero(missing)
        elif np.ndim(candidates) == 1:
            candidate_rows = self._check_positions(candidates, missing)
        else:
            offset = n_samples
            X = _append_rows(X, candidates)
            candidate_rows = np.arange(offset, _num_samples(X))
        if not candidate_rows.size:
            raise ValueError("There is no candidate to query: every sample is labelled.")
        if batch_size > candidate_rows.size:
            warnings.warn(
                f"batch_size={batch_size} is larger than the number of candidates, "
                f"{candidate_rows.size}. All candidates are queried.",
                stacklevel=2,
            )
            batch_size = candidate_rows.size
        with all_or_nothing(self):
            queried = self._select_unlabelled(X, labelled, candidate_rows, batch_size)
        if not return_utilities:
            return queried - offset
        utilities = np.full((batch_size, _num_samples(X)), np.nan)
        utilities[:, candidate_rows] = 0.0
        for b in range(batch_size):
            utilities[b, queried[b:]] = 1.0
            utilities[b, queried[:b]] = np.nan
        return queried - offset, utilities[:, offset:]

    def _select_unlabelled(self, X, labelled, candidate_rows, batch_size):
        """Return the selected samples that no labelled sample replaces."""
        selector = clone(self.selector)
        final = selector[-1] if isinstance(selector, Pipeline) else selector
        final.set_params(n_to_select=len(labelled) + batch_size)
        pool = np.union1d(labelled, candidate_rows)
        if len(pool) == _num_samples(X):
            selected = selector.fit_transform(X)
        else:
            # Select from labelled samples and candidates, but match all samples.
            selected = pool[selector.fit(X).transform(_safe_indexing(X, pool))]
        self.selector_ = selector
        unlabelled_selected = selected[~np.isin(selected, labelled)]
        unselected_labelled = np.setdiff1d(labelled, selected)
        if not unselected_labelled.size:
            return unlabelled_selected
        features = _safe_indexing(X, np.concatenate([unselected_labelled, unlabelled_selected]))
        if isinstance(selector, Pipeline):
            features = selector[:-1].transform(features)
        n_labelled = len(unselected_labelled)
        try:
            features = open_samples(features).X
        except (TypeError, ValueError):
            if getattr(final, "_reads_values", True):
                raise
            # The selector looks at no values, such as texts: any sample may replace any other.
            shape = n_labelled, len(unlabelled_selected)
            cost = np.random.RandomState(final._seed).uniform(size=shape)
        else:
            cost = euclidean_distances(features[:n_labelled], features[n_labelled:], squared=True)
        return np.delete(unlabelled_selected, linear_sum_assignment(cost)[1])

    def _is_missing(self, y):
        # As objects, labels can be compared with a missing label of any other type.
        y = read_labels(y, _num_samples(y), type(self).__name__, allow_missing=True).astype(object)
        if self.missing_label != self.missing_label:  # NaN
            return np.asarray(y != y, dtype=bool)
        return np.asarray(y == self.missing_label, dtype=bool)

    @staticmethod
    def _check_positions(candidates, missing):
        rows = np.asarray(candidates)
        if rows.size and not np.issubdtype(rows.dtype, np.integer):
            raise TypeError(
                "The 'candidates' parameter of SelectorQuery.query must contain integer positions "
                f"in X, or samples. Got dtype {rows.dtype} instead."
            )
        rows = np.unique(rows.astype(int))
        if rows.size and (rows[0] < 0 or rows[-1] >= len(missing)):
            raise ValueError(
                "The 'candidates' parameter of SelectorQuery.query must contain positions between "
                f"0 and {len(missing) - 1}. Got positions from {rows[0]} to {rows[-1]} instead."
            )
        if not missing[rows].all():
            raise ValueError(
                "The 'candidates' parameter of SelectorQuery.query must contain unlabelled samples "
                f"only. Got the labelled {rows[~missing[rows]].tolist()} instead."
            )
        return rows


def _register_with_skactiveml():
    """Make `SelectorQuery` pass the instance checks of scikit-activeml's wrappers."""
    # Called for each instance, so that importing this package does not import scikit-activeml.
    try:
        from skactiveml.base import SingleAnnotatorPoolQueryStrategy
    except ImportError:
        return
    SingleAnnotatorPoolQueryStrategy.register(SelectorQuery)


def _append_rows(X, candidates):
    """Append the candidates to X."""
    if sparse.issparse(X) or sparse.issparse(candidates):
        return sparse.vstack([X, candidates], format="csr")
    return np.concatenate([np.asarray(X), np.asarray(candidates)])
