"""Cells: partitions of the samples, with one exemplar each.

P is an array, or any object of shape (N, k) with a dtype that returns rows for positions or slices.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import row_norms

from sklearn_skmm.core._blocks import each_block, product, row_blocks, rows_of, sum_of_blocks
from sklearn_skmm.core._draws import inclusion_probabilities, systematic

# Parts of the rows up to this many bytes are copied once; larger ones are gathered on each access.
GATHER_BYTES = 2**26


class Cells(NamedTuple):
    """A partition of the samples, one cell for each exemplar."""

    exemplars: np.ndarray  # (n,) int, positions; each is in its own cell
    labels: np.ndarray  # (N,) int, the cell of each sample
    costs: np.ndarray  # (N,) float, the cost of each sample: small where it is central in its cell


class Rows:
    """A view of some rows of P: copied once if they are small, else gathered on access.

    Parameters
    ----------
    P : array-like of shape (N, k)
        Samples.
    members : ndarray of shape (n_members,), dtype int, or None
        Positions of the rows; None is all.
    """

    def __init__(self, P, members: np.ndarray | None):
        self.shape = (P.shape[0] if members is None else len(members), P.shape[1])
        self.dtype = P.dtype
        if members is not None and self.shape[0] * self.shape[1] * P.dtype.itemsize <= GATHER_BYTES:
            P, members = rows_of(P, members), None
        self.P, self.members = P, members

    def __getitem__(self, rows) -> np.ndarray:
        return rows_of(self.P, rows if self.members is None else self.members[rows])


def by_cell(labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the samples sorted by cell, and where each cell starts.

    `labels` has shape (N,) and values below n. The n + 1 starts include the end of the last cell;
    within a cell, positions ascend.

    Examples
    --------
    >>> import numpy as np
    >>> by_cell(np.array([1, 0, 2, 0]), 3)
    (array([1, 3, 0, 2]), array([0, 2, 3, 4]))
    """
    # Integers of one or two bytes are sorted by radix.
    order = np.argsort(labels.astype(np.min_scalar_type(n)), kind="stable")
    return order, np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=n))])


def among(members, rows):
    """Return the positions of the given rows of the members; None means all samples."""
    return rows if members is None else members[rows]


def members_of(labels, n) -> list[np.ndarray]:
    """Return the positions of the samples of each of n cells, in ascending order."""
    order, starts = by_cell(labels, n)
    return [order[start:stop] for start, stop in pairwise(starts)]


def sums_by_cell(X: np.ndarray, s: np.ndarray, labels: np.ndarray, n: int) -> np.ndarray:
    """Return the weighted sum of the rows of each of n cells, of shape (n, k) and the dtype of X.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1.0], [2.0], [3.0]])
    >>> sums_by_cell(X, np.ones(3), np.array([1, 0, 1]), 2)
    array([[2.],
           [4.]])
    """
    order, starts = by_cell(labels, n)
    weights = s[order].astype(X.dtype, copy=False)
    return sparse.csr_array((weights, order, starts), shape=(n, len(labels))) @ X


def cells_of(P, s: np.ndarray, labels: np.ndarray, n: int) -> Cells:
    """Return the cells with these labels; costs are squared distances from their weighted means.

    Examples
    --------
    >>> import numpy as np
    >>> P = np.array([[0.0], [1.0], [2.0], [9.0]])
    >>> cells_of(P, np.full(4, 0.25), np.array([0, 0, 0, 1]), 2)
    Cells(exemplars=array([1, 3]), labels=array([0, 0, 0, 1]), costs=array([1., 0., 1., 0.]))
    """
    N, k = P.shape
    mass = np.bincount(labels, weights=s, minlength=n)

    def of_block(rows):
        return sums_by_cell(P[rows], s[rows], labels[rows], n)

    means = sum_of_blocks(of_block, row_blocks(N, k), (n, k)) / mass[:, None]
    means = means.astype(P.dtype)
    costs = np.empty(N, dtype=P.dtype)

    def measure(rows):
        away = means.take(labels[rows], axis=0)
        away -= P[rows]
        costs[rows] = row_norms(away, squared=True)

    each_block(measure, row_blocks(N, k))
    order, starts = by_cell(labels, n)
    smallest = np.minimum.reduceat(costs[order], starts[:-1])
    central = order[costs[order] == smallest[labels[order]]]
    exemplars = np.empty(n, dtype=int)
    exemplars[labels[central][::-1]] = central[::-1]  # the first of each cell remains
    return Cells(exemplars, labels, costs)


def subsample(s, size, rng) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `size` positions, and weights with which they represent all samples."""
    n_samples = len(s)
    if n_samples <= size:
        return np.arange(n_samples), (s * n_samples).astype(np.float64, copy=False)
    # Systematic sampling with inclusion probabilities π, weighted by s / π.
    pi = inclusion_probabilities(s, size)
    rows = systematic(pi / pi.sum(), size, rng)
    weight = s[rows].astype(np.float64, copy=False) / pi[rows]
    return rows, weight * (size / weight.sum())


def nearest(rows, centres) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest centre of each row, and the squared distance to it."""
    distances = product(rows, -2.0 * centres.T)
    distances += row_norms(centres, squared=True)
    labels = distances.argmin(axis=1)
    norms = row_norms(rows, squared=True)
    smallest = distances[np.arange(len(rows)), labels] + norms
    # Equal rows get the distance zero instead of their rounding error.
    smallest[smallest <= 8.0 * np.finfo(rows.dtype).eps * norms] = 0.0
    return labels, smallest
