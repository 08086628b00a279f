"""Opened samples, what a reader asks for, and what each kind of container provides."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from sklearn_skmm.utils._sklearn import _num_samples, _safe_indexing

FLOATS = (np.float64, np.float32)
# Sparse formats whose rows can be taken.
WITH_ROWS = ("csr", "csc", "lil", "dok")


def take(X: Any, positions: np.ndarray) -> Any:
    """Return the samples at these positions, in the container that they came in.

    Sparse formats whose rows cannot be taken, such as COO, become CSR.

    Examples
    --------
    >>> take(["a", "b", "c"], np.array([2, 0]))
    ['c', 'a']
    """
    if sparse.issparse(X) and X.format not in WITH_ROWS:
        X = X.tocsr()
    return _safe_indexing(X, positions)


class Strata(NamedTuple):
    """The classes of y and the samples of each."""

    classes: np.ndarray  # (n_strata,) in sorted order
    members: list[np.ndarray]  # positions of the samples of each class

    @classmethod
    def of(cls, y: np.ndarray) -> "Strata":
        """Split the positions of y by its classes.

        Examples
        --------
        >>> import numpy as np
        >>> Strata.of(np.array(["b", "a", "b"])).members
        [array([1]), array([0, 2])]
        """
        classes, codes = np.unique(y, return_inverse=True)
        return cls(classes, [np.flatnonzero(codes == k) for k in range(len(classes))])

    def in_order_of(self, classes: np.ndarray) -> "Strata":
        """Return the strata of these classes, empty where there are no samples.

        Raises
        ------
        ValueError
            If there are samples of any other class.
        """
        unseen = np.setdiff1d(self.classes, classes)
        if unseen.size:
            raise ValueError(f"y contains strata that were not seen in fit: {unseen.tolist()}.")
        known = dict(zip(self.classes.tolist(), self.members, strict=True))
        none = np.empty(0, dtype=int)
        return Strata(classes, [known.get(one, none) for one in classes.tolist()])


@dataclass
class Samples:
    """Samples that have been opened and checked.

    Attributes
    ----------
    X : ndarray or CSR of shape (n_samples, n_features)
        The rows, in memory or memory-mapped. With ``Reader(rows=False)`` the inputs of a model:
        an array of any number of dimensions, or what torch reads. With ``Reader(values=False)``
        what the user passed. With `lazy` a Dask array.
    y : ndarray of shape (n_samples,) or None
        Labels, if the reader asked for them.
    strata : Strata or None
        The samples by the classes of y, if the reader asked for them.
    weight : ndarray of shape (n_samples,), dtype float64, or None
        Weights in multiples of `unit`; None if all are equal. Those of a file are as it has them.
    unit : float
        The mean of the positive weights.
    given : ndarray of shape (n_samples,), dtype bool, or None
        The samples that are in the coreset already; None if there are none.
    groups : ndarray of shape (n_samples,) or None
        The group of each sample, of which at most one may be selected; None if that is not asked
        for.
    cost : ndarray of shape (n_samples,), dtype float64, or None
        What each sample costs, in the unit of a budget; None if that was not asked for.
    left_out : tuple of str
        Columns of a table that are neither features nor labels.
    left_out_as : str
        What these columns are, for a message.
    gathered : {"memory", "file"} or None
        Where the rows of a Dask array were gathered; None for any other container.
    lazy : bool
        Whether X is a Dask array of which nothing but the first rows was computed.
    head : Samples or None
        The first rows of lazy samples, opened; None if they were not asked for.
    pairwise : bool
        Whether X also has a column for each sample; a part of the samples is then a part of both.
    """

    X: Any
    y: np.ndarray | None = None
    strata: Strata | None = None
    weight: np.ndarray | None = None
    unit: float = 1.0
    given: np.ndarray | None = None
    groups: np.ndarray | None = None
    cost: np.ndarray | None = None
    left_out: tuple[str, ...] = ()
    left_out_as: str = "text or row labels"
    gathered: str | None = None
    lazy: bool = False
    head: "Samples | None" = None
    pairwise: bool = False

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return _num_samples(self.X)

    @property
    def total(self) -> float:
        """The sum of the weights, in multiples of `unit`."""
        return float(self.n_samples if self.weight is None else self.weight.sum())

    @property
    def n_features(self) -> int:
        """Number of columns of the rows."""
        return self.X.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Floating-point precision of the rows."""
        return self.X.dtype

    @property
    def first(self) -> "Samples":
        """The samples, or of lazy ones the first rows: enough to plan what will be done to them."""
        return self if self.head is None else self.head

    def take(self, positions: np.ndarray) -> "Samples":
        """Return the samples at these positions, without strata."""
        per_sample = (
            None if values is None else values[positions]
            for values in (self.y, self.weight, self.given, self.groups, self.cost)
        )
        y, weight, given, groups, cost = per_sample
        X = self.X[np.ix_(positions, positions)] if self.pairwise else take(self.X, positions)
        return replace(
            self, X=X, y=y, strata=None, weight=weight, given=given, groups=groups, cost=cost
        )

    def that_count(self) -> "tuple[Samples, np.ndarray | None]":
        """Return the samples with a weight or in the coreset, and their positions (None is all)."""
        if self.weight is None or self.weight.min() > 0.0:
            return self, None
        counts = self.weight > 0.0
        if self.given is not None:
            counts |= self.given
        positions = np.flatnonzero(counts)
        if len(positions) == self.n_samples:
            return self, None
        samples = self._restricted(positions)
        weight = self.weight[positions]
        samples.weight = None if weight.min() == weight.max() else weight
        return samples, positions

    def _restricted(self, positions: np.ndarray) -> "Samples":
        """Return the samples at these ascending positions, with their strata."""
        samples = self.take(positions)
        if self.strata is not None:
            kept = np.zeros(self.n_samples, dtype=bool)
            kept[positions] = True
            # A class none of whose samples are left is as one that is not there.
            parts = [np.searchsorted(positions, own[kept[own]]) for own in self.strata.members]
            filled = [k for k, own in enumerate(parts) if len(own)]
            samples.strata = Strata(self.strata.classes[filled], [parts[k] for k in filled])
        return samples

    def one_of_each_group(
        self, rng: np.random.RandomState
    ) -> "tuple[Samples, np.ndarray, np.ndarray]":
        """Return a random sample of each group, with the weight of the group.

        The probability of each sample is proportional to its weight. If some samples of a group are
        in the coreset already, they are returned instead of a random one.

        Parameters
        ----------
        rng : RandomState
            Source of randomness.

        Returns
        -------
        samples : Samples
            Those that are kept.
        positions : ndarray of shape (n_kept,), dtype int
            Their positions.
        owners : ndarray of shape (n_samples,), dtype int
            Position in `positions` of the first sample that is kept of each sample's group.
        """
        weight = np.ones(self.n_samples) if self.weight is None else self.weight
        given = np.zeros(self.n_samples, dtype=bool) if self.given is None else self.given
        # The smallest of exponential times with these rates is each with its probability.
        with np.errstate(divide="ignore"):
            times = np.where(given, -1.0, rng.exponential(size=self.n_samples) / weight)
        groups, codes = np.unique(np.asarray(self.groups), return_inverse=True)
        order = np.lexsort((times, codes))
        first = order[np.searchsorted(codes[order], np.arange(len(groups)))]
        kept = given.copy()
        kept[first] = True
        positions = np.flatnonzero(kept)
        own = codes[positions]
        mass = np.bincount(codes, weights=weight)[own] / np.bincount(own)[own]
        samples = self._restricted(positions)
        samples.unit = self.unit * float(mass.mean())
        samples.weight = None if mass.min() == mass.max() else mass / mass.mean()
        return samples, positions, np.searchsorted(positions, first)[codes]

    def by_stratum(self) -> "list[Samples]":
        """Return the samples of each stratum; these samples alone if there are no strata."""
        if self.strata is None:
            return [self]
        return [self.take(members) for members in self.strata.members]


@dataclass(frozen=True)
class Reader:
    """What a reader of samples can work with.

    Parameters
    ----------
    estimator : estimator or None, default=None
        Named in messages. Its number and names of features are set or checked.
    reset : bool, default=True
        Whether the estimator learns its features from these samples; False checks them.
    name : str, default="X"
        The argument, as messages call it.
    rows : bool, default=True
        Whether samples have to be rows of numbers; False takes the inputs of a model.
    dtypes : sequence of type, default=FLOATS
        Accepted dtypes of rows. Rows of any other dtype are cast to the first.
    sparse : bool, default=True
        Whether rows may be sparse; they are opened as CSR.
    contiguous : bool, default=True
        Whether rows have to lie one after the other, or are copied.
    squares : bool, default=True
        Whether squared lengths have to be within the range of the dtype.
    values : bool, default=True
        Whether the values are read. False takes samples of any kind, and passes them on as they
        are: only their number and their features are known.
    features : bool, default=True
        Whether ``values=False`` still checks the features of the estimator, and refuses numbers in
        one dimension. False leaves that to the model which reads the values.
    peak_bytes : callable or None, default=None
        Takes an ndarray of rows, and returns how many bytes the reader holds at its peak next to
        it. Samples for which that is more than is available are refused.
    lazy : bool, default=False
        Whether a Dask array is left as it is; False gathers it.
    pairwise : bool, default=False
        Whether X has to be a square matrix, with a row and a column for each sample.
    """

    estimator: Any = None
    reset: bool = True
    name: str = "X"
    rows: bool = True
    dtypes: Sequence[type] = FLOATS
    sparse: bool = True
    contiguous: bool = True
    squares: bool = True
    values: bool = True
    features: bool = True
    peak_bytes: Callable[[np.ndarray], float] | None = None
    lazy: bool = False
    pairwise: bool = False


class Source(ABC):
    """One kind of container."""

    @staticmethod
    @abstractmethod
    def recognises(X: Any, reader: Reader) -> bool:
        """Whether X is a container of this kind."""

    @staticmethod
    @abstractmethod
    def open(X: Any, reader: Reader) -> Samples:
        """Return the samples in X, checked and cast as the reader needs them."""
