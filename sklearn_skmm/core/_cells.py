"""Cells around exemplars of samples. `_layout` says how many, and of which samples.

Pure functions of arrays. P is an array, or anything with rows to index by, a shape and a dtype.
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

# Samples farther from the mean than this multiple of the median are drawn in to it before cells
# are made: an outlier is then no farther from the others than they are from each other, and gets
# no cell of its own. On most embeddings no sample is as far.
CLIP_FACTOR = 2.0
# Half of the median distance, as bandwidth of the kernel that says whether a sample is covered.
BANDWIDTH = 0.5
# Greedy exemplars look at all pairs. Of more samples, so many, or so many for each pick, stand for
# all of them when the cells are laid out.
SUBSAMPLE, SUBSAMPLE_PER_EXEMPLAR = 8192, 4
# Up to so many samples all pairs at once are faster than the most promising first.
ALL_PAIRS_ROWS = 512
# Where cells are laid out for a part of the samples, or for parts to be made of them, it is fewer:
# what the caller says, or so many for each pick.
SMALL_SUBSAMPLE_PER_EXEMPLAR = 8
# Bytes of a part of the rows that are gathered once; of larger ones it is each time anew.
GATHER_BYTES = 2**26


class Cells(NamedTuple):
    """A partition of the samples, one cell for each exemplar."""

    exemplars: np.ndarray  # (n,) positions, each in its own cell
    labels: np.ndarray  # (N,) the cell of each sample
    costs: np.ndarray  # (N,) 0 at the exemplar, up to 1 far from it


class Rows:
    """Some rows of P, gathered once if they are few, and else when asked for."""

    def __init__(self, P, members: np.ndarray | None):
        self.shape = (P.shape[0] if members is None else len(members), P.shape[1])
        self.dtype = P.dtype
        if members is not None and self.shape[0] * self.shape[1] * P.dtype.itemsize <= GATHER_BYTES:
            P, members = rows_of(P, members), None
        self.P, self.members = P, members

    def __getitem__(self, rows) -> np.ndarray:
        return rows_of(self.P, rows if self.members is None else self.members[rows])


class ClippedRows:
    """Some rows of P about their weighted mean, drawn in, computed when asked for.

    Those beyond `CLIP_FACTOR` median distances from the mean are scaled to there.
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
        # One within reach, where the quotient itself may overflow.
        np.maximum(radius, max(max_radius, float(np.finfo(P.dtype).tiny)), out=radius)
        self.factor = np.divide(max_radius, radius, out=radius)[:, None]

    def __getitem__(self, rows) -> np.ndarray:
        return (self.P[rows] - self.mean) * self.factor[rows]


def clip_outliers(P: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Return the centred rows, those beyond `CLIP_FACTOR` median distances scaled to there.

    Examples
    --------
    >>> import numpy as np
    >>> P = np.array([[-2.0], [-1.0], [1.0], [-1.0], [1.0], [2.0], [30.0], [-30.0]])
    >>> clip_outliers(P, np.full(8, 1 / 8)).ravel()
    array([-2., -1.,  1., -1.,  1.,  2.,  3., -3.])
    """
    return ClippedRows(P, s)[:]


def by_cell(labels: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the samples, those of each of n cells in order, and the n + 1 cuts.

    Examples
    --------
    >>> import numpy as np
    >>> by_cell(np.array([1, 0, 2, 0]), 3)
    (array([1, 3, 0, 2]), array([0, 2, 3, 4]))
    """
    # In one byte or two, which are sorted by their bits.
    order = np.argsort(labels.astype(np.min_scalar_type(n)), kind="stable")
    return order, np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=n))])


def exemplars_of(P, s, n, rng, step=lambda: False) -> tuple[Greedy, float]:
    """Return exemplars of a large subsample, and the bandwidth. Of the gains the order counts."""
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
    """Return exemplars of a small subsample, at least of so many, and the bandwidth.

    Gains are parts of the mass of s. There are fewer exemplars if the subsample has no more.
    """
    rows, weight = _subsample(s, max(least, SMALL_SUBSAMPLE_PER_EXEMPLAR * n), rng)
    squared = squared_distances(P[rows])
    if h is None:
        # Of every other sample from those between: each pair is of two samples, and found once.
        h = BANDWIDTH * median_or_mean(np.sqrt(squared[::2, 1::2]))
    picks, gains = greedy_exemplars_dense(squared, min(n, len(rows)), h, weight, step)
    return Greedy(rows[picks], gains * (float(s.sum(dtype=np.float64)) / weight.sum())), h


def _subsample(s, size, rng) -> tuple[np.ndarray, np.ndarray]:
    """Return at most so many positions, and weights with the expectations of all samples."""
    n_samples = len(s)
    if n_samples <= size:
        return np.arange(n_samples), (s * n_samples).astype(np.float64, copy=False)
    # A draw with probabilities π and weights s / π.
    pi = inclusion_probabilities(s, size)
    rows = systematic(pi / pi.sum(), size, rng)
    weight = s[rows].astype(np.float64, copy=False) / pi[rows]
    return rows, weight * (size / weight.sum())


def around(P, h, exemplars, before: Cells | None = None) -> Cells:
    """Give each sample to its nearest exemplar.

    `before` are cells around these exemplars and some after them: the samples of those move.
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
    """Return the nearest centre of each row, and the squared distance."""
    distances = product(rows, -2.0 * centres.T)
    distances += row_norms(centres, squared=True)
    labels = distances.argmin(axis=1)
    norms = row_norms(rows, squared=True)
    smallest = distances[np.arange(len(rows)), labels] + norms
    # Equal rows are at distance zero, not at that of their rounding.
    smallest[smallest <= 8.0 * np.finfo(rows.dtype).eps * norms] = 0.0
    return labels, smallest
