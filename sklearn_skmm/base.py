"""The contract that every selector keeps.

A selector's own file holds its parameters, their constraints and one method, `_select`.
Everything a user of scikit-learn expects around that is here.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_skmm.core._allocation import allocate, resolve_n_to_select
from sklearn_skmm.core._blocks import BLOCK, mean_squared_norm
from sklearn_skmm.core._moments import Spectrum, explained_fraction, spectrum
from sklearn_skmm.data._checks import check_fits, check_range, check_values
from sklearn_skmm.data._dask import gather, is_dask
from sklearn_skmm.utils._docstrings import with_shared
from sklearn_skmm.utils._sklearn import Interval, _fit_context, _num_samples, _safe_indexing
from sklearn_skmm.utils._validation import MAX_SEED, all_or_nothing, computing_in_numpy

# How much longer than those of `fit` the rows of another pool may be, in the mean square: fourth
# powers of lengths relative to those of `fit` are then in the range of the floats.
LONGER = {np.dtype(np.float64): 2.0**400, np.dtype(np.float32): 2.0**40}


@dataclass
class Selection:
    """What a selector's `_select` returns.

    Parameters
    ----------
    indices : ndarray of shape (n,), dtype int
        Distinct positions in X.
    sample_weight : ndarray of shape (n,) or None
        How many samples of X each selected one stands for; None means N / n each.
    per_sample : dict
        Fitted attributes with one entry per sample of X.
    attributes : dict
        Any other fitted attributes.
    """

    indices: np.ndarray
    sample_weight: np.ndarray | None = None
    per_sample: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)


class Reference:
    """What the selection is matched against: the data seen in `fit`, kept as its moments.

    Each piece is computed at its first use, which is during `fit`; then the data is let go.
    """

    def __init__(self, X, y=None, whole=None):
        self._X, self._y = X, y
        # With strata, the reference of all of them together.
        self.whole: Reference = self if whole is None else whole
        self._learned: dict[str, Any] = {}

    @cached_property
    def spectrum(self) -> Spectrum:
        """Eigenpairs of the second moment XᵀX / N that are above rounding."""
        return spectrum(self._X)

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean of the rows, shape (n_features,)."""
        return np.asarray(self._X.mean(axis=0)).ravel()

    def learn(self, name: str, function: Callable) -> Any:
        """Return ``function(X, y)`` of the data of `fit`, computed once and kept."""
        if name not in self._learned:
            self._learned[name] = function(self._X, self._y)
        return self._learned[name]

    def release(self) -> None:
        """Forget the data, keep what was computed from it."""
        self._X = self._y = None


class BaseSelector(TransformerMixin, CallbackSupportMixin, BaseEstimator, ABC):
    """Base class of the selectors.

    Subclasses store `n_to_select`, `stratify` and, where they draw, `random_state`, extend
    `_parameter_constraints` and write `_select`. `_needs_y` says that the method itself uses y.
    `_dtypes` are those of X that the method works in; X of another is taken to the first. `_copies`
    and `_vectors` are how many arrays like that one, and how many doubles for each sample, the
    method holds at its peak next to it; where that is not all, it says so in `_peak_bytes`. `_kept`
    is how many doubles for each sample it holds in the end.
    """

    _dtypes: ClassVar[list[type]] = [np.float64]
    _copies: ClassVar[float] = 0.0
    _vectors: ClassVar[float] = 4.0
    _kept: ClassVar[float] = 0.0

    # To be raised with each release in which some selector takes other samples for the same
    # parameters, data and seed. A fitted selector keeps the number under which it was fitted.
    selection_version_: int = 1

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "n_to_select": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 1, closed="right"),
        ],
        "stratify": ["boolean"],
    }

    # Declared for the type checker; each subclass's __init__ stores them.
    n_to_select: Any
    stratify: Any

    def __init_subclass__(cls, **kwargs):
        """Complete the docstring of a selector with what all of them share."""
        super().__init_subclass__(**kwargs)
        cls.__doc__ = with_shared(cls.__doc__)

    @abstractmethod
    def _select(
        self,
        X,
        n: int,
        reference: Reference,
        rng: np.random.RandomState,
        step: Callable[[], bool],
    ) -> Selection:
        """Select n rows of X.

        Parameters
        ----------
        X : {ndarray, CSR} of shape (n_samples, n_features)
            The pool, in one of `_dtypes`.
        n : int
            How many rows to select, 1 <= n <= n_samples.
        reference : Reference
            What to match. Its data is X in `fit`, the fitted data in `transform`.
        rng : RandomState
            The only source of randomness.
        step : callable
            To be called once per iteration; returns True if a callback asks to stop.
        """

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the reference from X and select a coreset of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The pool, one row per sample: sketched gradients, or any features.
        y : array-like of shape (n_samples,), default=None
            Labels of the strata; used with `stratify=True` only.

        Returns
        -------
        self : object
            The fitted selector. A `fit` that fails leaves it as it was.
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
            X = self._validate(X, reset=True)
            n_samples = X.shape[0]
            # Deterministic selectors have no random_state, and never use the seed.
            rng = check_random_state(getattr(self, "random_state", 0))
            self._seed = int(rng.randint(MAX_SEED))
            if self.stratify:
                strata, members = self._strata(y, n_samples)
                self.strata_ = strata
            else:
                members = []
            y = self._labels(y, n_samples) if self._needs_y() else None
            whole = Reference(X, y)
            self._references = [whole]
            if self.stratify:
                self._references = [
                    Reference(X[m], None if y is None else y[m], whole) for m in members
                ]
            selection = self._select_strata(X, members, step)
            # The ridge of `score`: tr(Σ) / N, with tr(Σ) the mean squared norm.
            self._alpha = mean_squared_norm(X) / n_samples
            whole.release()
            # A stratum too small for a pick may get one of another pool, and is learned then.
            sizes = [len(m) for m in members] or [n_samples]
            counts = allocate(len(selection.indices), np.array(sizes))
            for reference, count in zip(self._references, counts, strict=True):
                if count:
                    reference.release()
            self.n_samples_seen_ = n_samples
            self.selection_version_ = type(self).selection_version_
            self.sample_indices_ = selection.indices.copy()  # no view of all positions
            self.sample_weight_ = selection.sample_weight
            self._coreset = X[selection.indices]
            for name, value in {**selection.per_sample, **selection.attributes}.items():
                setattr(self, name, value)
        context.call_on_fit_task_end(estimator=self, X=X, y=y)
        return self

    def transform(self, X, y=None):
        """Select from X, matched to the data seen in `fit`.

        On the data of `fit` this is the fitted selection again. On other samples it selects
        those that match the fitted population, as `KMeans.predict` labels new points.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The pool to select from.
        y : array-like of shape (n_samples,), default=None
            Labels of the strata; needed with `stratify=True` only.

        Returns
        -------
        indices : ndarray of shape (n_to_select,), dtype int
            Positions of the selected rows of X.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        fitted = self._alpha * self.n_samples_seen_
        longer = mean_squared_norm(X) / fitted if fitted else 1.0
        if longer > LONGER[X.dtype]:
            raise ValueError(
                f"The mean squared norm of the rows of X is {longer:.3g} times that in fit. They "
                "must be in the same units."
            )
        if self.stratify:
            strata, members = self._strata(y, X.shape[0])
            unseen = np.setdiff1d(strata, self.strata_)
            if unseen.size:
                raise ValueError(f"y contains strata that were not seen in fit: {unseen.tolist()}.")
            members = dict(zip(strata.tolist(), members, strict=True))
            none = np.empty(0, dtype=int)
            members = [members.get(stratum, none) for stratum in self.strata_.tolist()]
        else:
            members = []
        return self._select_strata(X, members, lambda: False).indices

    def fit_transform(self, X, y=None):
        """Fit to X and return the positions of the selected rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The pool.
        y : array-like of shape (n_samples,), default=None
            Labels of the strata; used with `stratify=True` only.

        Returns
        -------
        indices : ndarray of shape (n_to_select,), dtype int
            `sample_indices_`.
        """
        return self.fit(X, y).sample_indices_

    def fit_resample(self, X, y=None):
        """Fit to X and return the selected rows, as imbalanced-learn's samplers do.

        Parameters
        ----------
        X : {array-like, sparse matrix, dataframe} of shape (n_samples, n_features)
            The pool.
        y : array-like of shape (n_samples,), default=None
            Targets, and labels of the strata with `stratify=True`.

        Returns
        -------
        X_resampled : same kind as X, of shape (n_to_select, n_features)
            The selected rows; a dataframe keeps its row labels.
        y_resampled : same kind as y, of shape (n_to_select,), or None
            Their targets.
        """
        indices = self.fit(X, y).sample_indices_
        return _safe_indexing(X, indices), None if y is None else _safe_indexing(y, indices)

    def get_support(self, indices=False):
        """Tell which samples of `fit` are selected.

        Parameters
        ----------
        indices : bool, default=False
            Return positions, in ascending order, instead of a mask.

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

    def score(self, X, y=None):
        r"""Say how well the fitted coreset explains the second moment of X.

        The ridge-explained fraction
        :math:`\mathrm{tr}(\Sigma\,\Sigma_S(\Sigma_S + \alpha I)^{-1}) / \mathrm{tr}(\Sigma)`,
        with :math:`\Sigma` the second moment of X, :math:`\Sigma_S` that of the coreset and
        :math:`\alpha = \mathrm{tr}(\Sigma_{fit}) / N` the threshold in the paper's intrinsic
        dimension. It needs no labels. It is comparable between selectors on the same features
        only; in a search over the sketch dimension m use `CoresetEstimator` with labels.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Samples to explain.
        y : object, default=None
            Ignored.

        Returns
        -------
        score : float
            Between 0 and 1; 1 is best.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        return explained_fraction(X, self._coreset, self._alpha)

    def _validate(self, X, *, reset):
        if is_dask(X):
            X, place = gather(X, self._dtypes)
            if reset:
                self.gathered_ = place
        if isinstance(X, np.ndarray) and X.dtype.kind in "biuf" and X.ndim == 2 and X.size:
            check_fits(self, X.shape, self._bytes_next_to(X))
        # No copy of X if its dtype is one of these and its rows lie one after the other.
        check_values(X, "X")
        # scikit-learn looks for infinities in a sum, which may come to inf - inf, and after a cast.
        with computing_in_numpy(), np.errstate(invalid="ignore", over="ignore"):
            X = validate_data(
                self, X, reset=reset, accept_sparse="csr", dtype=self._dtypes, order="C"
            )
        check_range(X, "X")
        return X

    def _bytes_next_to(self, X) -> float:
        """Return about how many bytes `fit` holds at its peak next to an array X."""
        as_it_is = X.dtype in self._dtypes and X.flags.c_contiguous
        itemsize = X.dtype.itemsize if X.dtype in self._dtypes else 8
        n_samples, n_features = X.shape
        n = self.n_to_select
        n = max(1, min(n, n_samples) if isinstance(n, Integral) else round(n * n_samples))
        return (not as_it_is) * itemsize * X.size + max(
            self._peak_bytes(n_samples, n_features, n, itemsize),
            # Every fit ends with the sum of the squares of X, block by block in double precision.
            8 * (min(X.size, 2 * BLOCK) + self._kept * n_samples),
        )

    def _peak_bytes(self, n_samples, n_features, n, itemsize) -> float:
        return n_samples * (self._copies * itemsize * n_features + 8 * self._vectors)

    def _needs_y(self) -> bool:
        return False

    def _labels(self, y, n_samples, reason=""):
        if y is None:
            raise ValueError(
                f"{type(self).__name__}{reason} requires y to be passed, but the target y is None."
            )
        with computing_in_numpy():
            y = column_or_1d(check_array(y, ensure_2d=False, dtype=None), warn=True)
        if _num_samples(y) != n_samples:
            raise ValueError(
                f"Found input variables with inconsistent numbers of samples: "
                f"[{n_samples}, {_num_samples(y)}]"
            )
        return y

    def _strata(self, y, n_samples):
        y = self._labels(y, n_samples, " with stratify=True")
        strata, codes = np.unique(y, return_inverse=True)
        return strata, [np.flatnonzero(codes == k) for k in range(len(strata))]

    def _select_strata(self, X, members, step) -> Selection:
        """Select within each stratum and put the parts together."""
        rng = np.random.RandomState(self._seed)
        n = resolve_n_to_select(self.n_to_select, X.shape[0])
        if not self.stratify:
            return self._checked(self._select(X, n, self._references[0], rng, step), X.shape[0])
        counts = allocate(n, np.array([len(m) for m in members]))
        chosen = [k for k in range(len(members)) if counts[k]]
        parts = [
            self._checked(
                self._select(X[members[k]], counts[k], self._references[k], rng, step),
                len(members[k]),
            )
            for k in chosen
        ]
        indices = np.concatenate(
            [members[k][p.indices] for k, p in zip(chosen, parts, strict=True)]
        )
        weight = np.concatenate([p.sample_weight for p in parts])
        order = np.argsort(indices, kind="stable")
        merged = Selection(indices[order], weight[order])
        for name, example in parts[0].per_sample.items():
            merged.per_sample[name] = np.zeros(X.shape[0], dtype=example.dtype)
            for k, p in zip(chosen, parts, strict=True):
                merged.per_sample[name][members[k]] = p.per_sample[name]
        for name in parts[0].attributes:
            merged.attributes[name] = [p.attributes[name] for p in parts]
        return merged

    @staticmethod
    def _checked(selection: Selection, n_samples: int) -> Selection:
        if selection.sample_weight is None:
            n = len(selection.indices)
            selection.sample_weight = np.full(n, n_samples / n)
        return selection

    def __sklearn_tags__(self):
        """Tell scikit-learn what this estimator takes and gives."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        # `transform` returns positions, so no floating dtype can be preserved.
        tags.transformer_tags.preserves_dtype = []
        tags.target_tags.required = self._needs_y()
        return tags
