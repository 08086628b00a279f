"""A selector as a query strategy of scikit-activeml."""

import warnings
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_scalar

from sklearn_skmm.data._labels import read_labels
from sklearn_skmm.meta._containers import append, n_samples_of, take_samples
from sklearn_skmm.meta._steps import fit_before_last
from sklearn_skmm.utils._sklearn import HasMethods, _fit_context, _num_samples
from sklearn_skmm.utils._validation import all_or_nothing


class SelectorQuery(BaseEstimator):
    """Query the samples that a selector chooses: a pool-based strategy of scikit-activeml.

    Use it for active learning. In each round, `query` returns the samples to label next. The
    labelled samples are passed to the selector as ``selected``: they are part of the coreset
    already, and the selector adds the batch to them.

    The class has the interface of ``SingleAnnotatorPoolQueryStrategy``. If scikit-activeml is
    installed, the class is registered as one, so that ``SubSamplingWrapper`` and plots accept it.

    Parameters
    ----------
    selector : selector or Pipeline
        A selector that needs no labels, or a Pipeline that ends in one. Its `n_to_select` is
        replaced in each query. It has to support ``selected``.
    missing_label : scalar, str or None, default=nan
        Value in y that marks a missing label. None and NaN are never labels: if y contains one of
        them that is not `missing_label`, `query` raises ValueError. With the default, it does so
        for -1 too where that is unlikely to be a class: if there is no NaN, all labels are whole
        numbers, none is below -1, and they are not those of {-1, 1} or {-1, 0, 1}. None accepts
        any number as a label.

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
        X : array-like, sparse matrix, dataframe, mapping or data set
            All samples, labelled and unlabelled: whatever the selector, or the first step of the
            Pipeline, accepts.
        y : array-like of shape (n_samples,)
            Labels of the samples, `missing_label` where there is none.
        candidates : array-like of int of shape (n_candidates,), or samples, default=None
            Positions in X of the samples that may be queried, or these samples themselves, in the
            same container as X, to which they are then appended. The selector sees all samples in
            `fit`, and then selects from the labelled ones and the candidates as its `transform`
            does. None means all unlabelled samples.
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
            If there are no candidates, if some of them are labelled, if y seems to have another
            `missing_label`, or if the selector does not support ``selected``.
        """
        check_scalar(batch_size, "batch_size", Integral, min_val=1)
        missing = self._is_missing(y)
        n_samples = len(missing)
        # Positions count from here. It is not 0 if the candidates are samples appended to X.
        offset = 0
        if candidates is None:
            candidate_rows = np.flatnonzero(missing)
        elif _are_positions(candidates):
            candidate_rows = self._check_positions(candidates, missing)
        else:
            offset = n_samples
            X = append(X, candidates)
            n_samples += n_samples_of(candidates)
            candidate_rows = np.arange(offset, n_samples)
        if not candidate_rows.size:
            raise ValueError(
                "There is no candidate to query: every sample is labelled. No label in y is the "
                f"missing_label, {self.missing_label!r}."
                if candidates is None
                else "There is no candidate to query."
            )
        if batch_size > candidate_rows.size:
            warnings.warn(
                f"batch_size={batch_size} is larger than the number of candidates, "
                f"{candidate_rows.size}. All candidates are queried.",
                stacklevel=2,
            )
            batch_size = candidate_rows.size
        labelled = np.zeros(n_samples, dtype=bool)
        labelled[np.flatnonzero(~missing)] = True
        with all_or_nothing(self):
            queried = self._select(X, labelled, candidate_rows, batch_size)
        if not return_utilities:
            return queried - offset
        utilities = np.full((batch_size, n_samples), np.nan)
        utilities[:, candidate_rows] = 0.0
        for b in range(batch_size):
            utilities[b, queried[b:]] = 1.0
            utilities[b, queried[:b]] = np.nan
        return queried - offset, utilities[:, offset:]

    def _select(self, X, labelled, candidate_rows, batch_size):
        """Select candidates besides the labelled samples."""
        selector = clone(self.selector)
        features, final = fit_before_last(selector, X)
        n_samples = n_samples_of(features)
        if n_samples != len(labelled):
            raise ValueError(
                "Found input variables with inconsistent numbers of samples: "
                f"[{n_samples}, {len(labelled)}]"
            )
        given = {"selected": labelled} if labelled.any() else {}
        queried = final.set_params(n_to_select=batch_size).fit_transform(features, **given)
        labelled_or_candidate = labelled.copy()
        labelled_or_candidate[candidate_rows] = True
        if not labelled_or_candidate.all():
            pool = np.flatnonzero(labelled_or_candidate)
            given = {name: mask[pool] for name, mask in given.items()}
            # As `transform` does, which takes no given samples.
            samples = final._open(take_samples(features, pool), None, reset=False, **given)
            queried = pool[final._select_by_stratum(samples, lambda: False).indices]
        self.selector_ = selector
        return queried

    def _is_missing(self, y):
        labels = read_labels(y, _num_samples(y), type(self).__name__, allow_missing=True)
        # As objects, labels can be compared with a missing label of any other type.
        y = labels.astype(object)
        none = np.array([label is None for label in y], dtype=bool)
        nan = np.asarray(y != y, dtype=bool)
        by_default = self.missing_label != self.missing_label  # NaN
        if self.missing_label is None:
            missing = none
        else:
            missing = nan if by_default else np.asarray(y == self.missing_label, dtype=bool)
        unmeant = None
        if (none & ~missing).any():
            unmeant = "None"
        elif (nan & ~missing).any():
            unmeant = "NaN"
        elif by_default and not missing.any() and _is_minus_one_no_class(labels):
            unmeant = "-1"
        if unmeant is not None:
            raise ValueError(
                f"y contains {unmeant}, but the 'missing_label' parameter of SelectorQuery is "
                f"{self.missing_label!r}, so that these samples would count as labelled. Pass "
                "the value that marks a missing label as missing_label."
            )
        return missing

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


def _is_minus_one_no_class(labels: np.ndarray) -> bool:
    """Whether -1 is among labels that suggest that it marks a missing one.

    Examples
    --------
    >>> [_is_minus_one_no_class(np.array(labels)) for labels in ([-1, 0, 7], [-1, 1], [-2, -1, 7])]
    [True, False, False]
    """
    if labels.dtype.kind not in "if" or not np.any(labels == -1):
        return False
    signs = np.isin(labels, (-1, 0, 1)).all() and np.any(labels == 1)
    return bool(not signs and labels.min() == -1 and np.all(labels % 1 == 0))


def _are_positions(candidates: Any) -> bool:
    """Whether candidates are numbers in one dimension rather than samples."""
    if not isinstance(candidates, list | tuple | range):
        shape = getattr(candidates, "shape", None)
        if shape is None or len(shape) != 1:
            return False
    first = next(iter(candidates), 0)
    return not isinstance(first, str | bytes) and np.ndim(first) == 0
