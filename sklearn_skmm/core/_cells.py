"""Cells around exemplars of samples; `_layout` decides how many, and for which samples.

P is an array, or any object of shape (N, k) with a dtype that returns rows for positions or slices.
"""

from typing import NamedTuple

import numpy as np
from sklearn.utils.extmath import row_norms

from sklearn_skmm.core._blocks import each_block, product, row_blocks, rows_of, weighted_sum
from sklearn_skmm.core._costs import (
    gaussian,
    median_distance,
    median_of_pairs,
    median_or_mean,
    squared_distances,
)
from sklearn_skmm.core._draws import inclusion_probabilities, systematic
from sklearn_skmm.core._exemplars import Greedy, greedy_exemplars, greedy_exemplars_dense

# Distances from the mean are clipped to this multiple of their median before clustering. An outlier
# is then no farther from the other samples than they are from each other, so it does not get a cell
# of its own. On most embeddings, no sample is clipped.
CLIP_FACTOR = 2.0
# The kernel bandwidth, as a multiple of the median distance; the kernel measures coverage.
BANDWIDTH = 0.5
# Greedy selection of exemplars compares all pairs. More samples than this (or than this many per
# exemplar) are represented by a subsample of that size.
SUBSAMPLE, SUBSAMPLE_PER_EXEMPLAR = 8192, 4
# Up to this many samples, computing all pairs at once is faster than lazy greedy.
ALL_PAIRS_ROWS = 512
# The subsample is smaller when only a part of the samples, or a coarse partition, gets cells: the
# minimum that the caller passes, or this many samples per exemplar.
SMALL_SUBSAMPLE_PER_EXEMPLAR = 8
# Parts of the rows up to this many bytes are copied once; larger ones are gathered on each access.
GATHER_BYTES = 2**26


class Cells(NamedTuple):
    """A partition of the samples, one cell for each exemplar."""

    exemplars: np.ndarray  # (n,) int, positions; each is in its own cell
    labels: np.ndarray  # (N,) int, the cell of each sample
    costs: np.ndarray  # (N,) float, the cost of each sample: 0 at the exemplar, near 1 far from it


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


class ClippedRows:
    """A view of some rows of P, centred and clipped on access.

    The weighted mean is subtracted. Rows longer than `CLIP_FACTOR` median lengths are scaled down
    to that length (mean lengths, if the median is zero).

    Parameters
    ----------
    P : array-like of shape (N, k)
        Samples.
    s : ndarray of shape (N,) or (n_members,)
        Weights of the rows, with sum 1.
    members : ndarray of shape (n_members,), dtype int, or None, default=None
        Positions of the rows; None is all.
    """

    def __init__(self, P, s: np.ndarray, members: np.ndarray | None = None):
        self.P, self.dtype = Rows(P, members), P.dtype
        self.shape = self.P.shape
        blocks = row_blocks(*self.shape)
        radius = np.empty(len(s), P.dtype)

        self.mean = weighted_sum(s, self.P).astype(P.dtype)

        def measure(rows):
            radius[rows] = row_norms(self.P[rows] - self.mean)

        each_block(measure, blocks)
        max_radius = CLIP_FACTOR * float(np.median(radius) or radius.mean(dtype=np.float64))
        # The factor is 1 within the radius, where the quotient itself could overflow.
        np.maximum(radius, max(max_radius, float(np.finfo(P.dtype).tiny)), out=radius)
        self.factor = np.divide(max_radius, radius, out=radius)[:, None]

    def __getitem__(self, rows) -> np.ndarray:
        return (self.P[rows] - self.mean) * self.factor[rows]


def clip_outliers(P: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Centre the rows of P (N, k) by weights s (N,) and clip their lengths, as `ClippedRows`.

    Examples
    --------
    >>> import numpy as np
    >>> P = np.array([[-2.0], [-1.0], [1.0], [-1.0], [1.0], [2.0], [30.0], [-30.0]])
    >>> clip_outliers(P, np.full(8, 1 / 8)).ravel()
    array([-2., -1.,  1., -1.,  1.,  2.,  3., -3.])
    """
    return ClippedRows(P, s)[:]


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


def exemplars_of(P, s, n, rng, step=lambda: False) -> tuple[Greedy, float]:
    """Return n exemplars of a large subsample, and the bandwidth.

    Only the order of the gains is meaningful: they are n, n − 1, …, 1.
    """
    size = max(SUBSAMPLE, SUBSAMPLE_PER_EXEMPLAR * n)
    if P.shape[0] <= min(ALL_PAIRS_ROWS, size):
        squared = squared_distances(P[:])
        h = BANDWIDTH * median_of_pairs(squared)
        rows, weight = _subsample(s, size, rng)
        picks = greedy_exemplars_dense(squared, n, h, weight, step).indices
    else:
        h = BANDWIDTH * median_distance(P, rng)
        rows, weight = _subsample(s, size, rng)
        candidates = P[rows].astype(np.float64, copy=False)
        picks = greedy_exemplars(candidates, n, bandwidth=h, weight=weight, step=step).indices
    return Greedy(rows[picks], np.arange(n, 0.0, -1.0)), h


def exemplars_of_few(P, s, n, least, rng, h=None, step=lambda: False) -> tuple[Greedy, float]:
    """Return n exemplars of a small subsample, of at least `least` samples, and the bandwidth.

    Gains are in units of s, so they add up to at most its sum. There are fewer than n exemplars if
    the subsample is smaller.
    """
    rows, weight = _subsample(s, max(least, SMALL_SUBSAMPLE_PER_EXEMPLAR * n), rng)
    squared = squared_distances(P[rows])
    if h is None:
        # Pairs of an even and an odd position: each occurs once, and none is a sample with itself.
        h = BANDWIDTH * median_or_mean(np.sqrt(squared[::2, 1::2]))
    picks, gains = greedy_exemplars_dense(squared, min(n, len(rows)), h, weight, step)
    return Greedy(rows[picks], gains * (float(s.sum(dtype=np.float64)) / weight.sum())), h


def _subsample(s, size, rng) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `size` positions, and weights with which they represent all samples."""
    n_samples = len(s)
    if n_samples <= size:
        return np.arange(n_samples), (s * n_samples).astype(np.float64, copy=False)
    # Systematic sampling with inclusion probabilities π, weighted by s / π.
    pi = inclusion_probabilities(s, size)
    rows = systematic(pi / pi.sum(), size, rng)
    weight = s[rows].astype(np.float64, copy=False) / pi[rows]
    return rows, weight * (size / weight.sum())


def around(P, h, exemplars, before: Cells | None = None) -> Cells:
    """Assign each sample to its nearest exemplar; costs are Gaussian with bandwidth h.

    If `before` is given, it holds cells around these exemplars and further ones after them. Only
    samples of the further cells are then reassigned.
    """
    centres, n_samples = P[exemplars], P.shape[0]
    if before is None:
        labels, costs = np.empty(n_samples, np.int32), np.empty(n_samples, centres.dtype)
        moved = None
    else:
        labels, costs = before.labels.copy(), before.costs.copy()
        moved = np.flatnonzero(labels >= len(exemplars))

    def assign(rows):
        rows = rows if moved is None else moved[rows]
        labels[rows], squared = _nearest(P[rows], centres)
        costs[rows] = gaussian(squared, h)

    n_moved = n_samples if moved is None else len(moved)
    each_block(assign, row_blocks(n_moved, max(centres.shape)))
    labels[exemplars], costs[exemplars] = np.arange(len(exemplars)), 0.0
    return Cells(exemplars, labels, costs)


def _nearest(rows, centres) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest centre of each row, and the squared distance to it."""
    distances = product(rows, -2.0 * centres.T)
    distances += row_norms(centres, squared=True)
    labels = distances.argmin(axis=1)
    norms = row_norms(rows, squared=True)
    smallest = distances[np.arange(len(rows)), labels] + norms
    # Equal rows get the distance zero instead of their rounding error.
    smallest[smallest <= 8.0 * np.finfo(rows.dtype).eps * norms] = 0.0
    return labels, smallest
