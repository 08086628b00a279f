"""Cells around exemplars: a greedy choice of samples that cover all samples.

P is an array, or any object of shape (N, k) with a dtype that returns rows for positions or slices.
"""

import numpy as np
from sklearn.utils.extmath import row_norms

from sklearn_skmm.core._blocks import each_block, row_blocks, weighted_sum
from sklearn_skmm.core._cells import Cells, Rows, nearest, subsample
from sklearn_skmm.core._costs import (
    gaussian,
    median_distance,
    median_of_pairs,
    median_or_mean,
    squared_distances,
)
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


def exemplars_of(P, s, n, rng, step=lambda: False) -> tuple[Greedy, float]:
    """Return n exemplars of a large subsample, and the bandwidth.

    Only the order of the gains is meaningful: they are n, n − 1, …, 1.
    """
    size = max(SUBSAMPLE, SUBSAMPLE_PER_EXEMPLAR * n)
    if P.shape[0] <= min(ALL_PAIRS_ROWS, size):
        squared = squared_distances(P[:])
        h = BANDWIDTH * median_of_pairs(squared)
        rows, weight = subsample(s, size, rng)
        picks = greedy_exemplars_dense(squared, n, h, weight, step).indices
    else:
        h = BANDWIDTH * median_distance(P, rng)
        rows, weight = subsample(s, size, rng)
        candidates = P[rows].astype(np.float64, copy=False)
        picks = greedy_exemplars(candidates, n, bandwidth=h, weight=weight, step=step).indices
    return Greedy(rows[picks], np.arange(n, 0.0, -1.0)), h


def exemplars_of_few(P, s, n, least, rng, h=None, step=lambda: False) -> tuple[Greedy, float]:
    """Return n exemplars of a small subsample, of at least `least` samples, and the bandwidth.

    Gains are in units of s, so they add up to at most its sum. There are fewer than n exemplars if
    the subsample is smaller.
    """
    rows, weight = subsample(s, max(least, SMALL_SUBSAMPLE_PER_EXEMPLAR * n), rng)
    squared = squared_distances(P[rows])
    if h is None:
        # Pairs of an even and an odd position: each occurs once, and none is a sample with itself.
        h = BANDWIDTH * median_or_mean(np.sqrt(squared[::2, 1::2]))
    picks, gains = greedy_exemplars_dense(squared, min(n, len(rows)), h, weight, step)
    return Greedy(rows[picks], gains * (float(s.sum(dtype=np.float64)) / weight.sum())), h


def around(P, h, exemplars) -> Cells:
    """Assign each sample to its nearest exemplar; costs are Gaussian with bandwidth h."""
    centres, n_samples = P[exemplars], P.shape[0]
    labels, costs = np.empty(n_samples, np.int32), np.empty(n_samples, centres.dtype)

    def assign(rows):
        labels[rows], squared = nearest(P[rows], centres)
        costs[rows] = gaussian(squared, h)

    each_block(assign, row_blocks(n_samples, max(centres.shape)))
    labels[exemplars], costs[exemplars] = np.arange(len(exemplars)), 0.0
    return Cells(exemplars, labels, costs)
