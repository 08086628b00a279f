"""Cells around exemplars: a partition of the samples, of which `_matching` picks one each.

Pure functions of arrays. P is an array, or anything with rows to index by, a shape and a dtype.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.utils.extmath import row_norms

from sklearn_skmm._components import row_blocks, weighted_rows
from sklearn_skmm._exemplars import (
    greedy_exemplars,
    greedy_of_few,
    median_distance,
    squared_distances,
    typical,
)
from sklearn_skmm._rounding import inclusion_probabilities, systematic
from sklearn_skmm._threads import in_threads

# Samples farther from the mean than this multiple of the median are drawn in to it before cells
# are made: an outlier is then no farther from the others than they are from each other, and gets
# no cell of its own. On most embeddings no sample is as far.
REACH = 2.0
# Half of the median distance, as bandwidth of the kernel that says whether a sample is covered.
BANDWIDTH = 0.5
# A cell that holds more than this multiple of its share of the mass is split. Where many samples
# lie close together next to a few that lie far apart, as gradients of confident predictions do,
# cells would otherwise leave half of the data to one pick.
SHARES = 2.0
# Greedy exemplars look at all pairs. Of more samples, so many, or so many for each pick, stand for
# all of them when the cells are laid out.
SUBSAMPLE, SUBSAMPLE_PER_PICK = 8192, 4
# More picks than FEW are laid out at once only if the distances to them are no more than these.
# Others are in two steps, so that it takes N·√n distances and not N·n: COARSE · √n coarse cells
# first, then the picks of each among its own members.
FEW, DISTANCES, COARSE = 256, 2**25, 1.5
# Of the members of a coarse cell more than PART_FEW are again in two steps. Both steps look at
# fewer samples than one does: at least so many for the coarse cells and for a part, or so many
# for each pick.
PART_FEW, COARSE_SUBSAMPLE, PART_SUBSAMPLE, STEP_PER_PICK = 128, 2048, 128, 8
# Bytes of a part of the rows that are gathered once; of larger ones it is each time anew.
HOLD = 2**26


class Cells(NamedTuple):
    """A partition of the samples, one cell for each exemplar."""

    exemplars: np.ndarray  # (n,) positions, each in its own cell
    labels: np.ndarray  # (N,) the cell of each sample
    costs: np.ndarray  # (N,) 0 at the exemplar, up to 1 far from it


class _DrawnIn:
    """Some rows of P about their weighted mean, drawn in, computed when asked for.

    Those beyond `REACH` median distances from the mean are scaled to there.
    """

    def __init__(self, P, s: np.ndarray, members: np.ndarray | None = None):
        self.shape = (len(s), P.shape[1])
        if members is not None and len(s) * P.shape[1] * P.dtype.itemsize <= HOLD:
            P, members = P[members], None
        self.P, self.members = P, members
        self.mean, self.factor = np.zeros((), P.dtype), np.ones((len(s), 1), P.dtype)
        mean = np.zeros(P.shape[1])
        for rows in row_blocks(*self.shape):
            mean += weighted_rows(s[rows], self[rows])
        self.mean = mean.astype(P.dtype)
        radius = np.empty(len(s), P.dtype)
        for rows in row_blocks(*self.shape):
            radius[rows] = row_norms(self[rows])
        reach = REACH * float(np.median(radius) or radius.mean(dtype=np.float64))
        # One within reach, where the quotient itself may overflow.
        np.maximum(radius, max(reach, float(np.finfo(P.dtype).tiny)), out=radius)
        self.factor = np.divide(reach, radius, out=radius)[:, None]

    def __getitem__(self, rows) -> np.ndarray:
        P = self.P[rows if self.members is None else self.members[rows]]
        return (P - self.mean) * self.factor[rows]


def draw_in(P: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Return the rows about their mean, those beyond `REACH` median distances scaled to there.

    Examples
    --------
    >>> import numpy as np
    >>> P = np.array([[-2.0], [-1.0], [1.0], [-1.0], [1.0], [2.0], [30.0], [-30.0]])
    >>> draw_in(P, np.full(8, 1 / 8)).ravel()
    array([-2., -1.,  1., -1.,  1.,  2.,  3., -3.])
    """
    return _DrawnIn(P, s)[:]


def exemplar_cells(
    P: np.ndarray,
    s: np.ndarray,
    n: int,
    rng: np.random.RandomState,
    step: Callable[[], bool] = lambda: False,
) -> Cells:
    r"""Lay out n cells around greedy exemplars of the weighted samples.

    Lowers :math:`\sum_i s_i \min_{j \in S} (1 - \exp(-\|p_i - p_j\|^2 / (2 h^2)))`, with h half
    the median distance, over the rows after `draw_in`.

    Parameters
    ----------
    P : ndarray or Components of shape (N, k)
        Samples.
    s : ndarray of shape (N,)
        Positive weights, which sum to one.
    n : int
        Number of cells, at most N.
    rng : RandomState
        Draws the subsamples.
    step : callable, default=does nothing
        Called once per exemplar.

    Returns
    -------
    cells : Cells
        The exemplars in order of selection, and the cell and cost of each sample. Those of
        more than `at_once` allows come in the order of the coarse cells.

    Examples
    --------
    >>> import numpy as np
    >>> P = np.array([[0.0], [0.1], [5.0], [5.1], [5.2]])
    >>> cells = exemplar_cells(P, np.full(5, 1 / 5), 2, np.random.RandomState(0))
    >>> cells.labels.tolist()
    [1, 1, 0, 0, 0]
    """
    if at_once(n, len(s)):
        return _greedy_cells(P, s, None, n, rng, step)[0]
    return _in_steps(P, s, n, rng, step, bounded=False)


def at_once(n: int, n_samples: int) -> bool:
    """Say whether n cells of as many samples are laid out in one step."""
    return n <= FEW or n * n_samples <= DISTANCES


def _greedy_cells(P, s, members, n, rng, step, least=None) -> tuple[Cells, _DrawnIn, float]:
    """Return n cells, with the rows after `draw_in` and the bandwidth they were laid out by."""
    drawn = _DrawnIn(P, s, members)
    if least:
        rows, weight = _subsample(s, max(least, STEP_PER_PICK * n), rng)
        squared = squared_distances(drawn[rows])
        # Of every other sample from those between: each pair is of two samples, and found once.
        h = BANDWIDTH * typical(np.sqrt(squared[::2, 1::2]))
        picks = greedy_of_few(squared, n, h, weight, step)
    else:
        h = BANDWIDTH * median_distance(drawn, rng)
        rows, weight = _subsample(s, max(SUBSAMPLE, SUBSAMPLE_PER_PICK * n), rng)
        candidates = drawn[rows].astype(np.float64, copy=False)
        picks = greedy_exemplars(candidates, n, bandwidth=h, weight=weight, step=step).indices
    return _around(drawn, h, rows[picks]), drawn, h


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


def _around(P, h, exemplars) -> Cells:
    """Give each sample to its nearest exemplar."""
    centres, n_samples = P[exemplars], P.shape[0]
    labels, costs = np.empty(n_samples, np.int32), np.empty(n_samples, centres.dtype)
    for rows in row_blocks(n_samples, max(centres.shape)):
        labels[rows], costs[rows] = _nearest(P[rows], centres)
    labels[exemplars], costs[exemplars] = np.arange(len(exemplars)), 0.0
    costs *= -0.5 / h**2
    np.negative(np.expm1(costs, out=costs), out=costs)
    return Cells(exemplars, labels, costs)


def _nearest(rows, centres) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest centre of each row, and the squared distance."""
    if rows.dtype == np.float64:
        return pairwise_distances_argmin_min(rows, centres, metric="sqeuclidean")
    # The same in single precision, which scikit-learn would leave.
    distances = rows @ (-2.0 * centres.T)
    distances += row_norms(centres, squared=True)
    labels = distances.argmin(axis=1)
    norms = row_norms(rows, squared=True)
    smallest = distances[np.arange(len(rows)), labels] + norms
    # Equal rows are at distance zero, not at that of their rounding.
    smallest[smallest <= 8.0 * np.finfo(rows.dtype).eps * norms] = 0.0
    return labels, smallest


def bounded_cells(
    P: np.ndarray,
    s: np.ndarray,
    n: int,
    rng: np.random.RandomState,
    step: Callable[[], bool] = lambda: False,
) -> Cells:
    """Lay out n cells around exemplars, splitting those that hold too much of the mass.

    The first exemplars are kept, as many as leave a pick for every `SHARES` / n of the mass of each
    cell. A cell with several picks is laid out again on its own scale, and so on.

    Parameters
    ----------
    P, s, n, rng, step
        As for `exemplar_cells`.

    Returns
    -------
    cells : Cells
        n cells.

    Examples
    --------
    >>> import numpy as np
    >>> P = np.array([[0.0]] * 3 + [[1.0]] * 3 + [[90.0], [170.0], [250.0], [330.0]])
    >>> rng = np.random.RandomState(0)
    >>> cells = exemplar_cells(P, np.full(10, 1 / 10), 5, rng)
    >>> np.bincount(cells.labels)
    array([6, 1, 1, 1, 1])
    >>> cells = bounded_cells(P, np.full(10, 1 / 10), 5, rng)
    >>> np.bincount(cells.labels)
    array([3, 3, 2, 1, 1])
    """
    return _in_steps(P, s, n, rng, step, bounded=True)


def _in_steps(P, s, n, rng, step, bounded) -> Cells:
    """Lay out cells, and within those with several picks again."""
    exemplars = np.empty(n, dtype=int)
    labels, costs = np.zeros(len(s), dtype=np.int32), np.zeros(len(s), dtype=P.dtype)
    # Within cells of one step everything is as in that step.
    in_two_steps = not at_once(n, len(s))

    def lay_out(members, first, count, rng, step, part):
        """Write down the cells of one task, and return a task for each with several picks."""
        own = slice(None) if members is None else members
        weight = s[own] / s[own].sum(dtype=np.float64).astype(s.dtype)
        cells, counts = _layout(P, weight, members, count, rng, step, part, bounded)
        starts = first + np.concatenate([[0], np.cumsum(counts)[:-1]])
        labels[own], costs[own] = starts[cells.labels], cells.costs
        exemplars[starts] = cells.exemplars if members is None else members[cells.exemplars]
        several = np.flatnonzero(counts > 1)
        if not several.size:
            return []
        order = np.argsort(cells.labels, kind="stable")
        inside = order if members is None else members[order]
        ends = np.cumsum(np.bincount(cells.labels, minlength=len(counts)))
        return [
            (inside[ends[c - 1] if c else 0 : ends[c]], int(starts[c]), int(counts[c]))
            for c in several
        ]

    def finish(tasks, rng):
        while tasks:
            tasks += lay_out(*tasks.pop(), rng, lambda: False, in_two_steps)

    # Members (None is all), the first of their cells, and the number of these. Only the first
    # layout counts as progress.
    tasks = lay_out(None, 0, n, rng, step, False)
    if in_two_steps:
        # The second step is one for each coarse cell, with numbers of its own: whichever thread
        # comes first, the cells are the same.
        seeds = rng.randint(np.iinfo(np.int32).max, size=len(tasks))
        states = [np.random.RandomState(seed) for seed in seeds]
        in_threads(lambda own: finish([own[0]], own[1]), zip(tasks, states, strict=True))
    else:
        finish(tasks, rng)
    return Cells(exemplars, labels, costs)


def _layout(P, s, members, n, rng, step, part, bounded) -> tuple[Cells, np.ndarray]:
    """Return at most n cells, and how many picks each is to have, n in all."""
    coarse = n > PART_FEW if part else not at_once(n, len(s))
    n_cells = int(COARSE * np.sqrt(n)) if coarse else n
    least = PART_SUBSAMPLE if part else COARSE_SUBSAMPLE if coarse else None
    cells, P, h = _greedy_cells(P, s, members, n_cells, rng, step, least)
    apart = bool(cells.costs.any())
    if not coarse and not (apart and bounded):
        return cells, np.ones(n, dtype=int)  # equal rows cannot be split further
    if not apart and np.bincount(cells.labels).max() > len(s) - n_cells:
        # The same, if there is one row only.
        labels = np.minimum(np.arange(len(s)), n - 1).astype(np.int32)
        return Cells(np.arange(n), labels, cells.costs), np.ones(n, dtype=int)
    while True:
        mass = np.bincount(cells.labels, weights=s)
        sizes = np.bincount(cells.labels)
        floor = np.ceil(mass * (n / SHARES) - 1e-9) if bounded else 1
        counts = np.clip(floor, 1, sizes).astype(int)
        if counts.sum() <= n or len(counts) <= 2:
            break
        kept = min(len(counts) - 1, n - int((counts - 1).sum()))
        cells = _around(P, h, cells.exemplars[: max(2, kept)])
    share = mass
    if coarse and apart:
        # By their cost alone the exemplars cover best. By its mass alone a cell would have as many
        # picks as is its share of the moments.
        share = np.bincount(cells.labels, weights=s * cells.costs)
        share = np.sqrt(share * mass) if bounded else share
    while counts.sum() != n:
        if counts.sum() < n:
            counts[np.argmax(np.where(counts < sizes, share / counts, -np.inf))] += 1
        else:
            counts[np.argmin(np.where(counts > 1, share / counts, np.inf))] -= 1
    return cells, counts
