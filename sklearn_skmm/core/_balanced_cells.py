r"""Balanced cells: k-means cells whose masses are bounded from below and above.

Each of n cells holds between :math:`1/(\kappa n)` and :math:`\kappa/n` of the weight. Then for any
non-negative function the mean over one sample of each cell is within a factor :math:`\kappa` of the
mean in which each sample counts by the mass of its cell. In particular
:math:`\Sigma_w \preceq \kappa\,\Sigma_S`: no direction of the weighted coreset is lost by more than
:math:`\kappa` when its samples get equal weights.

P is an array, or any object of shape (N, k) with a dtype that returns rows for positions or slices.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from sklearn_skmm.core._allocation import share_out
from sklearn_skmm.core._balanced_means import (
    PART,
    WHOLE,
    balanced_means,
    first_means,
    merging_losses,
)
from sklearn_skmm.core._bisection import Bounds, bisect
from sklearn_skmm.core._blocks import each_block, row_blocks
from sklearn_skmm.core._cells import (
    Cells,
    Rows,
    among,
    cells_of,
    members_of,
    nearest,
)
from sklearn_skmm.utils._threads import in_threads, in_turn, one_thread

# More than FEW cells are laid out within coarse cells, with about EACH of them in each one. There
# are at most MOST coarse cells; those with more than FEW cells are divided again.
FEW, EACH, MOST = 256, 48, 256
# Parts with at most this many samples on average are processed one after the other, not in threads.
FEW_EACH = 16384


def balanced_cells(
    P,
    s: np.ndarray,
    n: int,
    balance: float,
    rng: np.random.RandomState,
    step: Callable[[], bool] = lambda: False,
) -> Cells:
    r"""Partition the weighted samples into n cells of similar mass, with small scatter within.

    Parameters
    ----------
    P : ndarray or Components of shape (N, k)
        Samples.
    s : ndarray of shape (N,)
        Positive weights, which sum to one.
    n : int
        Number of cells, at most N.
    balance : float
        :math:`\kappa \ge 1`. A cell holds between :math:`1/(\kappa n)` and :math:`\kappa/n` of the
        weight, rounded outwards to whole samples if all weights are equal. With unequal weights it
        may be off by the weights of a few samples. No cell is empty.
    rng : RandomState
        Source of randomness for the subsamples and the first centres.
    step : callable, default=does nothing
        Called once per step of Lloyd's algorithm in the first layout.

    Returns
    -------
    cells : Cells
        The partition. Exemplars are the samples nearest to the means of the cells, and costs are
        squared distances from the means.

    Examples
    --------
    >>> import numpy as np
    >>> P = np.array([[0.0], [0.1], [0.2], [0.3], [5.0], [9.0]])
    >>> for balance in (1.0, np.inf):
    ...     cells = balanced_cells(P, np.full(6, 1 / 6), 3, balance, np.random.RandomState(0))
    ...     print(np.sort(np.bincount(cells.labels)))
    [2 2 2]
    [1 1 4]
    """
    labels = np.zeros(len(s), dtype=np.int32)
    weights, bounds = _in_whole_samples(s, n, balance)

    def lay_out(members, first, count, rng, step=lambda: False) -> list:
        """Label the cells of some samples (None is all), or return a task for each part."""
        rows = Rows(P, members)
        weight = weights if members is None else weights[members]
        effort = WHOLE if members is None else PART
        if count <= FEW:
            own = _few_cells(rows, weight, count, bounds, effort, rng, step)
            labels[slice(None) if members is None else members] = first + own
            return []
        parts, counts = _coarse_cells(rows, weight, count, bounds, effort, rng, step)
        if len(counts) == 1:  # all rows are equal
            own = bisect(rows[:], weight, count, bounds, rng)
            labels[slice(None) if members is None else members] = first + own
            return []
        starts = first + np.cumsum(counts) - counts
        seeds = rng.randint(np.iinfo(np.int32).max, size=len(counts))
        tasks = zip(members_of(parts, len(counts)), starts, counts, seeds, strict=True)
        return [(among(members, part), int(a), int(k), int(seed)) for part, a, k, seed in tasks]

    def finish(task):
        *task, seed = task
        rng, tasks = np.random.RandomState(seed), [tuple(task)]
        while tasks:
            tasks += [found[:3] for found in lay_out(*tasks.pop(), rng)]

    parts = lay_out(None, 0, n, rng, step)
    # The centres of a part take many small steps, in which threads wait for the interpreter lock.
    each: Any = in_threads if len(s) > FEW_EACH * len(parts) else in_turn
    list(each(finish, parts))
    return cells_of(P, s, labels, n)


def _in_whole_samples(s, n, balance) -> tuple[np.ndarray, Bounds]:
    """Return weights and bounds of the mass of a cell, in samples if all weights are equal.

    Sums of whole numbers have no rounding errors.

    Examples
    --------
    >>> import numpy as np
    >>> _in_whole_samples(np.full(100, 0.01), 60, 2.0)[1]
    Bounds(low=1.0, high=4.0)
    """
    N = len(s)
    if float(s.min()) < float(s.max()):
        return s, Bounds(1.0 / (balance * n), balance / n)
    low, high = max(1.0, np.floor(N / (balance * n) + 1e-6)), np.ceil(balance * N / n - 1e-6)
    return np.ones_like(s), Bounds(float(low), float(high))


def _few_cells(P, s, n, bounds, effort, rng, step) -> np.ndarray:
    """Return the cell of each sample, for up to `FEW` cells."""
    if n == 1:
        return np.zeros(len(s), dtype=np.int32)
    with one_thread():
        centres = balanced_means(P, s, n, bounds, effort, rng, step)
    labels, squared = _nearest_of_all(P, centres)
    return _within_bounds(P, s, labels, squared, centres, n, bounds, rng)


def _nearest_of_all(P, centres) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest centre of each of many samples, and the squared distance to it."""
    N = P.shape[0]
    labels, squared = np.empty(N, dtype=np.int32), np.empty(N, dtype=P.dtype)

    def assign(rows):
        labels[rows], squared[rows] = nearest(P[rows], centres)

    each_block(assign, row_blocks(N, max(centres.shape)))
    return labels, squared


def _within_bounds(P, s, labels, squared, centres, n, bounds, rng) -> np.ndarray:
    """Return the labels of n cells within the bounds, after as few changes as possible.

    Cells that are too small are divided among their neighbours. Cells that are too large, and those
    with the largest sums of squares, are cut in two or more.
    """
    labels = labels.copy()
    kept = np.arange(len(centres))

    def leave_out(some):
        """Give the samples of some kept cells to the nearest of the others."""
        nonlocal kept
        moved = np.flatnonzero(np.isin(labels, kept[some]))
        kept = np.delete(kept, some)
        if len(moved):
            near, squared[moved] = _nearest_of_all(Rows(P, moved), centres[kept])
            labels[moved] = kept[near]

    def masses():
        return np.bincount(labels, weights=s, minlength=len(centres))[kept]

    mass = masses()
    small = np.flatnonzero((mass < bounds.low * (1.0 - 1e-6)) | (mass == 0.0))
    if len(small) == len(kept):
        small = np.delete(small, mass[small].argmax())
    leave_out(small)
    while True:
        mass = masses()
        least = np.maximum(1, np.ceil(mass / bounds.high - 1e-6)).astype(int)
        sizes = np.bincount(labels, minlength=len(centres))[kept]
        most = sizes
        if bounds.low > 0.0:
            most = np.minimum(sizes, np.maximum(1, np.floor(mass / bounds.low + 1e-6)).astype(int))
        spare = max(least.sum() - n, n - most.sum())
        if spare <= 0 or len(kept) == 1:
            break
        loss = merging_losses(centres[kept], mass, bounds.high)
        leave_out(np.argsort(loss, kind="stable")[: min(spare, len(kept) - 1)])
    if len(kept) == 1:
        least, most = np.ones(1, dtype=int), np.array([n])
    scatter = np.bincount(labels, weights=s * squared, minlength=len(centres))[kept]
    counts = share_out(scatter if scatter.any() else mass, least, most, n)
    starts = np.cumsum(counts) - counts
    position = np.zeros(len(centres), dtype=np.int32)
    position[kept] = np.arange(len(kept))
    cell = position[labels]
    out = starts[cell].astype(np.int32)
    for c in np.flatnonzero(counts > 1):
        rows = np.flatnonzero(cell == c)
        with one_thread():
            out[rows] += bisect(P[rows], s[rows], int(counts[c]), bounds, rng)
    return out


def _coarse_cells(P, s, n, bounds, effort, rng, step) -> tuple[np.ndarray, np.ndarray]:
    """Return a coarse cell for each sample, and how many of the n cells are laid out in each.

    An optimal quantiser in d dimensions has the same sum of squares in each of its cells (Gersho
    1979), so the number within a coarse cell is proportional to the d/(d + 2)-th power of its own
    sum of squares. For d the effective dimension of the scatter within coarse cells is used.
    """
    with one_thread():
        some, centres = first_means(P, s, min(n // EACH, MOST), effort, rng, step)
        scatter = some.X - centres[some.nearest(centres)[0]]
        scatter = (some.weight[:, None] * scatter).T @ scatter
    size = np.square(scatter, dtype=np.float64).sum()
    d = float(np.trace(scatter)) ** 2 / size if size > 0.0 else 1.0
    labels, squared = _nearest_of_all(P, centres)
    # Leave room for the cells within a part to differ in mass.
    low, high = np.sqrt(bounds.low / n * s.sum()), np.sqrt(bounds.high / n * s.sum())
    kept = np.arange(len(centres))
    while True:
        mass = np.bincount(labels, weights=s, minlength=len(centres))[kept]
        sizes = np.bincount(labels, minlength=len(centres))[kept]
        least = np.maximum(1, np.ceil(mass / high)).astype(int)
        most = np.minimum(sizes, np.floor(mass / low)).astype(int) if low > 0.0 else sizes
        if len(kept) == 1:
            return np.zeros(len(s), dtype=np.int32), np.array([n])
        bad = most < least
        if not bad.any():
            spare = max(least.sum() - n, n - most.sum())
            if spare <= 0:
                break
            bad[np.argsort(mass, kind="stable")[:1]] = True
        if bad.all():
            bad[mass.argmax()] = False
        moved = np.flatnonzero(np.isin(labels, kept[bad]))
        kept = kept[~bad]
        if len(moved):
            nearby, squared[moved] = _nearest_of_all(Rows(P, moved), centres[kept])
            labels[moved] = kept[nearby]
    position = np.zeros(len(centres), dtype=np.int32)
    position[kept] = np.arange(len(kept))
    sums = np.bincount(labels, weights=s * squared, minlength=len(centres))[kept]
    ideal = sums ** (d / (d + 2.0)) if sums.any() else mass
    return position[labels], share_out(ideal, least, most, n)
