"""The contract that every selector keeps, and what is needed to write a new one.

A selector's own file holds its parameters, their constraints and one method, `_select`. Everything
else that a user of scikit-learn expects is inherited from `BaseSelector`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from numbers import Integral, Real
from typing import Any, ClassVar

import joblib
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklearn_skmm.core._allocation import (
    allocate,
    counts_of_classes,
    resolve_n_to_select,
)
from sklearn_skmm.core._blocks import BLOCK, mean_squared_norm
from sklearn_skmm.core._criteria import CRITERIA, bandwidth_of, sampled_rows
from sklearn_skmm.core._exemplars import greedy_exemplars
from sklearn_skmm.core._prices import affordable
from sklearn_skmm.data import Reader, Samples, cast_bytes, length_and_rows, open_samples, take
from sklearn_skmm.data._reference import Reference
from sklearn_skmm.data._selection import Selection, in_positions_of, put_together
from sklearn_skmm.utils._docstrings import with_shared
from sklearn_skmm.utils._sklearn import Interval, StrOptions, _fit_context, _safe_indexing
from sklearn_skmm.utils._validation import MAX_SEED, all_or_nothing

__all__ = ["BaseSelector", "Reference", "Selection"]

# Largest accepted ratio of the mean squared row length of a pool in `transform` to that in `fit`:
# the fourth power of the ratio of the lengths stays within the range of the dtype.
MAX_LENGTH_RATIO = {np.dtype(np.float64): 2.0**400, np.dtype(np.float32): 2.0**40}


class BaseSelector(TransformerMixin, CallbackSupportMixin, BaseEstimator, ABC):
    """Base class of all selectors.

    A subclass stores `n_to_select`, `stratify` and, if it is random, `random_state` in its
    ``__init__``, adds its own parameters to `_parameter_constraints`, and implements `_select`.
    It may override `_needs_y` to get labels. If its `_select` has the keyword `sample_weight` or
    `selected`, `fit` accepts it; otherwise `fit` refuses it. In its docstring a line such as
    ``{stratify}``, a name in braces, is replaced by the description that all selectors share.

    Notes
    -----
    Class attributes of a subclass say what it accepts and how much memory it needs:

    ``_dtypes``
        Dtypes of X that the method works in, by default float64 only. Any other is cast to the
        first.
    ``_copies``, ``_vectors``
        Peak memory next to X: the number of arrays like X and of float64 vectors of N entries.
        Where that is not enough to describe it, override `_peak_bytes`.
    ``_kept``
        Number of float64 vectors of N entries among the fitted attributes.
    ``_reads_values``
        Whether the method looks at the values of X. With False `_select` gets X as the user passed
        it: text, data frames, images, values that are missing. Then `score` needs what the other
        methods do not, rows of numbers.
    ``_ordered``
        Whether `_select` returns samples in the order of their importance.

    See Also
    --------
    Selection : What `_select` returns.
    Reference : What `_select` matches.
    sklearn_skmm.utils.estimator_checks.check_selector : Tests of the contract.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm.base import BaseSelector, Selection
    >>> class FirstSelector(BaseSelector):
    ...     def __init__(self, n_to_select, *, stratify=False):
    ...         self.n_to_select = n_to_select
    ...         self.stratify = stratify
    ...
    ...     def _select(self, X, n, reference, rng, step):
    ...         return Selection(np.arange(n))
    >>> FirstSelector(2).fit_transform(np.eye(5))
    array([0, 1])
    """

    _dtypes: ClassVar[list[type]] = [np.float64]
    _copies: ClassVar[float] = 0.0
    _vectors: ClassVar[float] = 4.0
    _kept: ClassVar[float] = 0.0
    _reads_values: ClassVar[bool] = True
    _ordered: ClassVar[bool] = False

    # Raise this in every release in which a selector selects other samples for the same
    # parameters, data and seed. A fitted selector keeps the number under which it was fitted.
    selection_version_: int = 2

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "n_to_select": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 1, closed="right"),
            dict,
        ],
        "stratify": ["boolean", StrOptions({"balanced"})],
    }

    # Declared for the type checker; each subclass's __init__ stores them.
    n_to_select: Any
    stratify: Any

    def __init_subclass__(cls, **kwargs):
        """Complete the docstring of a selector, and the signatures of its methods that fit."""
        cls.__doc__ = with_shared(cls.__doc__)
        supported = _supported(cls)
        for name in ("fit", "fit_transform", "fit_resample"):
            own, base = getattr(cls, name), getattr(BaseSelector, name)
            if own is base or getattr(own, "__wrapped__", None) is base:  # not overridden
                setattr(cls, name, _accepting(base, supported))
        # After that, because it makes the methods that request metadata of these signatures.
        super().__init_subclass__(**kwargs)

    @abstractmethod
    def _select(
        self,
        X,
        n: int,
        reference: Reference,
        rng: np.random.RandomState,
        step: Callable[[], bool],
        **optional: np.ndarray,
    ) -> Selection:
        """Select n rows of X.

        Parameters
        ----------
        X : {ndarray, CSR} of shape (n_samples, n_features)
            The pool, in one of `_dtypes`. It must not be written to.
        n : int
            Number of rows to select, 1 <= n <= n_samples.
        reference : Reference
            What to match. Its data is X in `fit`, and the data of `fit` in `transform`.
        rng : RandomState
            The only source of randomness.
        step : callable
            To be called once per iteration. Returns True if a callback asks to stop.
        **optional : dict
            Of these, what the method's signature names and the user has given.

            - sample_weight : ndarray of shape (n_samples,), dtype float64. Weights relative to
              their mean. Zero only for rows that are in `selected`.
            - selected : ndarray of shape (n_given,), dtype int. Ascending positions of rows that
              are in the coreset already, and must not be selected again.
            - cost : ndarray of shape (n_samples,), dtype float64. Positive costs, whose sum over
              the new rows must be at most `budget`. Then n is the most that can be paid for.

        Returns
        -------
        selection : Selection
            The selected rows.
        """

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, sample_weight=None, selected=None, groups=None, cost=None):
        """Learn the reference from X and select a coreset of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The pool, one row per sample: sketched gradients, or any features.
        y : array-like of shape (n_samples,), default=None
            Class labels that define the strata. Used only to select by class.
        sample_weight : array-like of shape (n_samples,), default=None
            Nonnegative weights: how much each sample counts. A weight of 2 is the sample twice,
            and a sample of weight 0 counts for nothing and is not selected. Only ratios matter.
        selected : array-like of bool of shape (n_samples,) or of int, default=None
            Mask or positions of samples that are in the coreset already, such as labelled ones.
            `n_to_select` others are selected, so that both together are the coreset. In a search
            or any other split of the samples use a mask, which is split with them.
        groups : array-like of shape (n_samples,), default=None
            Group of each sample, such as a patient or a document. At most one sample of each group
            is selected, and none of a group with a sample in `selected`. A group is represented by
            a random one of its samples, with the weight of the group. A float `n_to_select` is
            then a fraction of the groups, so 1.0 selects exactly one of each.
        cost : array-like of shape (n_samples,), default=None
            Positive cost of each sample, in the unit of `budget`. Needed with a `budget` only.

        Returns
        -------
        self : object
            The fitted selector. If `fit` raises, the selector is left as it was.

        Raises
        ------
        ValueError
            If X, y, the weights or the selected samples cannot be used, if fewer samples can be
            selected than `n_to_select`, or if this selector does not support weights or given
            samples.
        """
        context = self._init_callback_context(max_subtasks=None)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)

        def step() -> bool:
            task = context.subcontext(task_name="iteration")
            task.call_on_fit_task_begin(estimator=self)
            return task.call_on_fit_task_end(estimator=self)

        with all_or_nothing(self):
            for name in [name for name in vars(self) if name.endswith("_")]:
                delattr(self, name)
            given = {
                "sample_weight": sample_weight,
                "selected": selected,
                "groups": groups,
                "cost": cost,
            }
            for name, value in given.items():
                if value is not None:
                    self._check_supports(name)
            self._check_budget(cost)
            samples = self._open(X, y, reset=True, **given)
            n_seen = samples.n_samples
            if samples.pairwise:
                self._matrix = joblib.hash(np.asarray(samples.X))
            samples, positions = samples.that_count()
            self._check_enough(samples, n_seen)
            # Selectors without randomness have no random_state and never use the seed.
            rng = check_random_state(getattr(self, "random_state", 0))
            self._seed = int(rng.randint(MAX_SEED))
            owners = None
            if samples.groups is not None:
                samples, kept, owners = samples.one_of_each_group(
                    np.random.RandomState([self._seed, 1])
                )
            whole = Reference(samples.X, samples.y, samples.weight)
            self._references = [whole]
            if samples.strata is not None:
                self.strata_ = samples.strata.classes
                self._references = [
                    Reference(part.X, part.y, part.weight, whole) for part in samples.by_stratum()
                ]
            selection = self._select_by_stratum(samples, step)
            both = selection.indices
            if samples.given is not None:
                both = np.concatenate([np.flatnonzero(samples.given), both])
            self._measure(samples, both)
            whole.release()
            # A stratum that got no sample here may get one in another pool: it keeps its data.
            for reference, count in zip(self._references, self._counts(samples), strict=True):
                if count or not self._reads_values:
                    reference.release()
            if samples.gathered is not None:
                self.gathered_ = samples.gathered
            if owners is not None:
                labels = selection.labels
                selection = in_positions_of(selection, kept, len(owners))
                selection.labels = None if labels is None else labels[owners]
            if positions is not None:
                selection = in_positions_of(selection, positions, n_seen)
            self.n_samples_seen_ = n_seen
            self.selection_version_ = type(self).selection_version_
            self.sample_indices_ = selection.indices.copy()  # not a view of all positions
            self.sample_weight_ = samples.unit * selection.sample_weight
            if samples.given is not None:
                self.given_weight_ = samples.unit * selection.given_weight
            if selection.labels is not None:
                self.labels_ = selection.labels
            for name, value in {**selection.per_sample, **selection.attributes}.items():
                setattr(self, name, value)
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def transform(self, X, y=None):
        """Select from X, matched to the data seen in `fit`.

        On the data of `fit` the result is the fitted selection, unless that had weights or given
        samples. On another pool the selected samples match the population seen in `fit`, as
        `KMeans.predict` labels new points.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The pool to select from.
        y : array-like of shape (n_samples,), default=None
            Class labels that define the strata. Needed only to select by class.

        Returns
        -------
        indices : ndarray of shape (n_to_select,), dtype int
            Positions of the selected rows of X.
        """
        check_is_fitted(self)
        if self.n_to_select is None:
            raise ValueError(
                f"{type(self).__name__}.transform cannot be used with a budget, because it has no "
                "costs. Use fit_transform."
            )
        if self._is_pairwise() and np.shape(X) != 2 * (self.n_samples_seen_,):
            self._refuse_other_pool()
        samples = self._open(X, y, reset=False)
        if self._is_pairwise():
            if joblib.hash(np.asarray(samples.X)) != self._matrix:
                self._refuse_other_pool()
        elif self._reads_values:
            self._check_units(samples)
        if samples.strata is not None:
            samples.strata = samples.strata.in_order_of(self.strata_)
        return self._select_by_stratum(samples, lambda: False).indices

    def fit_transform(
        self, X, y=None, *, sample_weight=None, selected=None, groups=None, cost=None
    ):
        """Fit to X and return the positions of the selected rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The pool.
        y : array-like of shape (n_samples,), default=None
            Class labels that define the strata. Used only to select by class.
        sample_weight, selected, groups, cost
            As in `fit`.

        Returns
        -------
        indices : ndarray of shape (n_to_select,), dtype int
            `sample_indices_`.
        """
        self.fit(X, y, sample_weight=sample_weight, selected=selected, groups=groups, cost=cost)
        return self.sample_indices_

    def fit_resample(self, X, y=None, *, sample_weight=None, selected=None, groups=None, cost=None):
        """Fit to X and return the selected rows, as the samplers of imbalanced-learn do.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            The pool.
        y : array-like of shape (n_samples,), default=None
            Targets, which are also the classes to select by.
        sample_weight, selected, groups, cost
            As in `fit`. The samples in `selected` are not returned.

        Returns
        -------
        X_resampled : same kind as X, of shape (n_to_select, n_features)
            The selected rows. A dataframe keeps its row labels. A sparse matrix in a format without
            rows, such as COO, becomes CSR.
        y_resampled : same kind as y, of shape (n_to_select,), or None
            Their targets.
        """
        self.fit(X, y, sample_weight=sample_weight, selected=selected, groups=groups, cost=cost)
        indices = self.sample_indices_
        return take(X, indices), None if y is None else _safe_indexing(y, indices)

    def get_support(self, indices=False):
        """Return which samples of `fit` are selected.

        Parameters
        ----------
        indices : bool, default=False
            Whether to return positions, in ascending order, instead of a mask.

        Returns
        -------
        support : ndarray of shape (n_samples,), dtype bool, or (n_to_select,), dtype int
            The mask, or the positions.
        """
        check_is_fitted(self)
        if indices:
            return np.sort(self.sample_indices_)
        mask = np.zeros(self.n_samples_seen_, dtype=bool)
        mask[self.sample_indices_] = True
        return mask

    @property
    def ranking_(self) -> np.ndarray:
        """The selected samples in an order of which any first part is a coreset itself.

        Where samples are selected one after the other this is `sample_indices_`. Otherwise each
        next one lowers the mean squared distance to the nearest one before it the most, if each
        sample counts by `sample_weight_`. Given samples count as the first.

        Returns
        -------
        ranking : ndarray of shape (n_to_select,), dtype int
            Positions of the selected samples.

        Raises
        ------
        AttributeError
            If X of `fit` was not rows of finite numbers, or the selector is not fitted.
        """
        check_is_fitted(self)
        if self._ordered and not hasattr(self, "strata_"):
            return self.sample_indices_.copy()
        if self._coreset is None or self._is_pairwise():
            raise AttributeError(
                f"{type(self).__name__}.ranking_ needs rows of finite numbers, which X of fit did "
                "not have."
            )
        n_given = self._coreset.shape[0] - len(self.sample_indices_)
        weight = np.concatenate([getattr(self, "given_weight_", []), self.sample_weight_])
        order = greedy_exemplars(
            self._coreset,
            len(self.sample_indices_),
            metric="sqeuclidean",
            weight=weight,
            start=np.arange(n_given),
        ).indices[n_given:]
        return self.sample_indices_[order - n_given]

    def score(self, X, y=None):
        r"""Return how similar the fitted coreset is to X, as a distribution.

        It is :math:`1 - \mathrm{MMD}^2(X, S)`, with the maximum mean discrepancy of a Gaussian
        kernel whose bandwidth is half the median distance of the data seen in `fit`. It needs no
        labels. Of the criteria in *Comparison of selectors* it chooses the settings with the
        smallest test errors, but it can mislead: use `CoresetEstimator` where there are labels, and
        always to compare features, such as sketch dimensions m. Of more than 16,384 samples a
        random subsample is used.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples to represent.
        y : object, default=None
            Ignored.

        Returns
        -------
        score : float
            Between -1 and 1; 1 is best.

        Raises
        ------
        ValueError
            If X is not rows of finite numbers, here or in `fit`.

        See Also
        --------
        SelectionScorer : Other criteria, for the ``scoring`` parameter of searches.
        """
        return self._criterion("mmd", X)

    def _criterion(self, name: str, X) -> float:
        """Return one of `CRITERIA` for X and the fitted coreset."""
        check_is_fitted(self)
        if self._is_pairwise():
            raise ValueError(
                f"{type(self).__name__}.score needs rows of features. With metric='precomputed' "
                "there are none."
            )
        X = self._open_rows(X, reset=False).X
        if self._coreset is None:
            raise ValueError(
                f"{type(self).__name__}.score needs rows of finite numbers, which X of fit did not "
                f"have: {self._unmeasured}"
            )
        return CRITERIA[name](X, self._coreset, self._bandwidth, self._alpha)

    def _check_supports(self, name: str) -> None:
        """Refuse weights, given samples and the like if `_select` does not take them."""
        if name not in _supported(type(self)):
            raise ValueError(f"{type(self).__name__} does not support {name}.")

    def _check_enough(self, samples: Samples, n_seen: int) -> None:
        """Refuse to select more samples than count and are not in the coreset already."""
        n_given = 0 if samples.given is None else int(np.count_nonzero(samples.given))
        n_free = samples.n_samples - n_given
        is_count = isinstance(self.n_to_select, Integral)
        if is_count and samples.n_samples < n_seen and self.n_to_select > n_free:
            raise ValueError(
                f"n_to_select={self.n_to_select} must be at most the number of samples that can be "
                f"selected, but {n_free} of n_samples={n_seen} have a positive sample_weight and "
                "are not in selected."
            )

    def _check_budget(self, cost) -> None:
        """Check that there is either a budget with costs, or a number of samples."""
        budget = getattr(self, "budget", None)  # a parameter of the selectors that take costs
        if budget is None:
            if self.n_to_select is None:
                raise ValueError(
                    f"{type(self).__name__} needs n_to_select, or a budget and the cost of each "
                    "sample."
                )
            if cost is not None:
                raise ValueError(
                    f"{type(self).__name__} got the cost of the samples, but no budget."
                )
            return
        if self.n_to_select is not None:
            raise ValueError(
                f"n_to_select must be None with a budget. Got n_to_select={self.n_to_select!r} and "
                f"budget={budget!r}."
            )
        if cost is None:
            raise ValueError(f"{type(self).__name__} with a budget requires cost to be passed.")
        if self.stratify:
            raise ValueError("stratify must be False with a budget.")

    def _open(self, X, y, *, reset, **given) -> Samples:
        """Open the pool, with the strata and the labels that this selector needs."""
        needs_y = reset and self._needs_y()
        open_as = self._open_rows if self._reads_values else self._open_unread
        by_class = bool(self.stratify) or isinstance(self.n_to_select, dict)
        return open_as(X, y, reset=reset, stratify=by_class, needs_y=needs_y, **given)

    def _open_unread(self, X, y, **options) -> Samples:
        """Open X for `_select` without a look at its values; a Dask array stays lazy."""
        return open_samples(
            X,
            y,
            **{"estimator": self, "values": False, "lazy": True, **options},
            peak_bytes=self._bytes_next_to,
        )

    def _open_rows(self, X, y=None, **options) -> Samples:
        pairwise = self._is_pairwise()
        return open_samples(
            X,
            y,
            estimator=self,
            dtypes=self._dtypes,
            sparse=not pairwise,
            pairwise=pairwise,
            peak_bytes=self._bytes_next_to,
            **options,
        )

    def _is_pairwise(self) -> bool:
        """Whether X is a square matrix of similarities or distances."""
        return getattr(self, "metric", None) == "precomputed"

    def _refuse_other_pool(self):
        raise ValueError(
            f"{type(self).__name__} with metric='precomputed' transforms only the matrix seen in "
            "fit. Fit it to the matrix of the other pool instead."
        )

    def _measure(self, samples: Samples, indices) -> None:
        """Keep what `score` needs: the coreset, its bandwidth and the ridge tr(Σ) / N."""
        self._unmeasured, self._n_counted = "", samples.n_samples
        if samples.pairwise:
            self._alpha, self._bandwidth, self._coreset = np.nan, np.nan, None
            return
        some = sampled_rows(samples.n_samples)
        if self._reads_values:
            self._alpha = mean_squared_norm(samples.X, samples.weight) / samples.n_samples
            self._coreset, rows = (samples.take(where).X for where in (indices, some))
            self._bandwidth = bandwidth_of(rows)
            return
        reader = Reader(self, reset=False, dtypes=self._dtypes, peak_bytes=self._measuring_bytes)
        try:
            both = np.concatenate([indices, some])
            length, rows = length_and_rows(samples, both, reader)
            self._coreset, self._alpha = rows[: len(indices)], length / samples.n_samples
            self._bandwidth = bandwidth_of(rows[len(indices) :])
        except (ValueError, MemoryError) as error:  # nothing but `score` needs them
            self._alpha, self._bandwidth, self._coreset = np.nan, np.nan, None
            self._unmeasured = (str(error).splitlines() or [type(error).__name__])[0]

    def _measuring_bytes(self, X) -> float:
        """Return about how many bytes `_measure` holds next to an array X."""
        return cast_bytes(X, self._dtypes)[0] + 8 * min(X.size, 2 * BLOCK)

    def _check_units(self, samples: Samples) -> None:
        """Refuse a pool of much longer rows than those of `fit`."""
        fitted = self._alpha * self._n_counted
        ratio = mean_squared_norm(samples.X) / fitted if fitted else 1.0
        if ratio > MAX_LENGTH_RATIO[samples.dtype]:
            raise ValueError(
                f"The mean squared norm of the rows of X is {ratio:.3g} times that in fit. They "
                "must be in the same units."
            )

    def _bytes_next_to(self, X) -> float:
        """Return about how many bytes `fit` holds at its peak next to an array X."""
        # What only `score` needs is left out where memory for it is short.
        copied, itemsize = cast_bytes(X, self._dtypes if self._reads_values else [X.dtype])
        n_samples, n_features = X.shape
        n = self.n_to_select
        if n is None:  # as many as a budget pays for, which is not known here
            n = n_samples
        elif isinstance(n, dict):  # by class, of which the sizes are not known here
            n = sum(n_samples * c if isinstance(c, float) else int(c) for c in n.values())
        else:
            n = n if isinstance(n, Integral) else n * n_samples
        n = max(1, min(round(n), n_samples))
        return copied + max(
            self._peak_bytes(n_samples, n_features, n, itemsize),
            # Every fit ends with the sum of the squares of X, in blocks of double precision.
            8 * (min(X.size, 2 * BLOCK) + self._kept * n_samples),
        )

    def _peak_bytes(self, n_samples, n_features, n, itemsize) -> float:
        """Return about how many bytes `_select` holds at its peak next to X."""
        return n_samples * (self._copies * itemsize * n_features + 8 * self._vectors)

    def _needs_y(self) -> bool:
        """Whether the method itself uses y, stratified or not."""
        return False

    def _counts(self, samples: Samples) -> np.ndarray:
        """Return the number of samples to select from each stratum."""
        N, given, strata = samples.n_samples, samples.given, samples.strata
        n_free = N if given is None else N - int(np.count_nonzero(given))
        if samples.groups is not None and isinstance(self.n_to_select, Integral):
            n = int(self.n_to_select)
            if n > n_free:
                raise ValueError(
                    f"n_to_select={n} must be at most the number of groups without a selected "
                    f"sample, which is {n_free}."
                )
        if samples.cost is not None:
            cost = samples.cost if given is None else samples.cost[~given]
            return np.array([affordable(cost, self.budget)])
        if strata is None:
            return np.array([resolve_n_to_select(self.n_to_select, N, n_free)])
        free = sizes = np.array([len(part) for part in strata.members])
        taken = None
        if given is not None:
            taken = np.array([np.count_nonzero(given[part]) for part in strata.members])
            free = free - taken
        if isinstance(self.n_to_select, dict):
            return counts_of_classes(self.n_to_select, strata.classes, sizes, free)
        n = resolve_n_to_select(self.n_to_select, N, n_free)
        if self.stratify == "balanced":
            sizes = (sizes > 0).astype(float)
        elif samples.weight is not None:
            sizes = np.array([samples.weight[part].sum() for part in strata.members])
        return allocate(n, sizes, free, taken)

    def _select_by_stratum(self, samples: Samples, step) -> Selection:
        """Select within each stratum and put the parts together."""
        rng = np.random.RandomState(self._seed)
        counts = self._counts(samples)
        if samples.strata is None:
            return self._selected(samples, counts[0], self._references[0], rng, step)
        members = samples.strata.members
        chosen = np.flatnonzero(counts).tolist()
        parts = [
            self._selected(samples.take(members[k]), counts[k], self._references[k], rng, step)
            for k in chosen
        ]
        merged = put_together([members[k] for k in chosen], parts, samples.n_samples)
        if samples.given is not None:
            # Those of a stratum from which nothing is selected represent all of it.
            weight = np.empty(samples.n_samples)
            for k, of_stratum in enumerate(members):
                own = of_stratum[samples.given[of_stratum]]
                if k in chosen:
                    weight[own] = parts[chosen.index(k)].given_weight
                elif len(own):
                    total = float(len(of_stratum))
                    if samples.weight is not None:
                        total = float(samples.weight[of_stratum].sum())
                    weight[own] = total / len(own)
            merged.given_weight = weight[samples.given]
        return merged

    def _selected(self, samples: Samples, n, reference, rng, step) -> Selection:
        """Select n of the samples, with weights."""
        optional: dict[str, np.ndarray] = {}
        unit = 1.0
        if samples.weight is not None:
            unit = float(samples.weight.mean())
            optional["sample_weight"] = samples.weight / unit
        selected = np.flatnonzero(samples.given) if samples.given is not None else np.empty(0, int)
        if len(selected):
            optional["selected"] = selected
        if samples.cost is not None:
            optional["cost"] = samples.cost
        selection = self._select(samples.X, int(n), reference, rng, step, **optional)
        each = samples.total / (len(selection.indices) + len(selected))
        counts = {"sample_weight": len(selection.indices), "given_weight": len(selected)}
        for name, count in counts.items():
            mass = getattr(selection, name)
            setattr(selection, name, np.full(count, each) if mass is None else unit * mass)
        return selection

    def __sklearn_tags__(self):
        """Return the tags by which scikit-learn knows what this estimator accepts and returns."""
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self._is_pairwise()
        tags.input_tags.sparse = not self._is_pairwise()
        # `transform` returns positions, so there is no floating-point dtype to preserve.
        tags.transformer_tags.preserves_dtype = []
        tags.target_tags.required = self._needs_y()
        return tags


def _supported(cls) -> set[str]:
    """Return the optional keywords of `fit` that a selector supports."""
    supported = set(signature(cls._select).parameters)
    # A group is represented by a sample with the weight of the group.
    return supported | {"groups"} if "sample_weight" in supported else supported


def _accepting(method: Callable, supported) -> Callable:
    """Return a method whose signature has only the keywords that a selector supports."""
    whole = signature(method)
    parameters = [
        parameter
        for name, parameter in whole.parameters.items()
        if parameter.kind is not Parameter.KEYWORD_ONLY or name in supported
    ]

    @wraps(method)
    def accepting(self, X, y=None, **given):
        return method(self, X, y, **given)

    accepting.__signature__ = whole.replace(parameters=parameters)  # type: ignore[attr-defined]
    return accepting
