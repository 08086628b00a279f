"""Layouts of cells: partitions of the samples; `_matching` selects one sample from each cell.

P is an array, or any object of shape (N, k) with a dtype that returns rows for positions or slices.
"""

import heapq
from collections.abc import Callable

import numpy as np

from sklearn_skmm.core import _coarse_cells
from sklearn_skmm.core._cells import (
    Cells,
    ClippedRows,
    Rows,
    around,
    exemplars_of,
    exemplars_of_few,
)
from sklearn_skmm.core._coarse_cells import among, best_of, divide, members_of, merge, silent
from sklearn_skmm.utils._threads import in_threads, in_turn

# Cells with more than SHARES / n of the total weight are split. If many samples are close together
# and a few far apart, as with gradients of confident predictions, one cell would otherwise contain
# half of the data.
SHARES = 2.0
# More than FEW cells are laid out in one step only if n·N is at most DISTANCES. Otherwise it takes
# two steps, with N·√n instead of N·n distances: coarse cells first, then the exemplars of each one
# among its own members.
FEW, DISTANCES = 256, 2**25
# Parts with at most this many samples on average are processed one after the other, not in threads.
FEW_EACH = 4096


def exemplar_cells(
    P: np.ndarray,
    s: np.ndarray,
    n: int,
    rng: np.random.RandomState,
    step: Callable[[], bool] = lambda: False,
) -> Cells:
    r"""Lay out n cells around greedy exemplars of the weighted samples.

    Greedily minimises
    :math:`\sum_i s_i \min_{j \in S} (1 - \exp(-\|p_i - p_j\|^2 / (2 h^2)))` over the rows after
    `clip_outliers`, where the bandwidth h is half the median distance.

    Parameters
    ----------
    P : ndarray or Components of shape (N, k)
        Samples.
    s : ndarray of shape (N,)
        Positive weights, which sum to one.
    n : int
        Number of cells, at most N.
    rng : RandomState
        Source of randomness for the subsamples.
    step : callable, default=does nothing
        Called once per exemplar.

    Returns
    -------
    cells : Cells
        The exemplars in order of selection, and the cell and cost of each sample. If `at_once`
        is false for n, the exemplars are grouped by coarse cell instead, and none covers samples
        of another coarse cell.

    Examples
    --------
    >>> import numpy as np
    >>> P = np.array([[0.0], [0.1], [5.0], [5.1], [5.2]])
    >>> cells = exemplar_cells(P, np.full(5, 1 / 5), 2, np.random.RandomState(0))
    >>> cells.labels.tolist()
    [1, 1, 0, 0, 0]
    """
    return _in_steps(P, s, n, rng, step, bounded=False)


def at_once(n: int, n_samples: int) -> bool:
    """Return whether n cells of n_samples samples are laid out in one step."""
    return n <= FEW or n * n_samples <= DISTANCES


def bounded_cells(
    P: np.ndarray,
    s: np.ndarray,
    n: int,
    rng: np.random.RandomState,
    step: Callable[[], bool] = lambda: False,
) -> Cells:
    """Lay out n cells around exemplars, splitting those with too much of the total weight.

    The first exemplars are kept, as many as leave one selected sample for every `SHARES` / n of the
    weight of each cell. A cell with several selected samples is laid out again on its own scale,
    recursively.

    Parameters
    ----------
    P, s, n, rng, step
        As for `exemplar_cells`.

    Returns
    -------
    cells : Cells
        The partition, as for `exemplar_cells`.

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
    """Lay out n cells, and recursively those that get several selected samples."""
    exemplars = np.empty(n, dtype=int)
    labels, costs = np.zeros(len(s), dtype=np.int32), np.zeros(len(s), dtype=P.dtype)
    # If the first layout takes one step, so do the layouts within its cells.
    once = at_once(n, len(s))

    def write(members, first, cells, counts):
        """Store the cells of some samples, and return a task for each cell with a count above 1."""
        starts = first + np.cumsum(counts) - counts
        labels[slice(None) if members is None else members] = starts[cells.labels]
        costs[slice(None) if members is None else members] = cells.costs
        exemplars[starts] = among(members, cells.exemplars)
        several = members_of(cells.labels, len(counts)) if counts.max() > 1 else ()
        return [
            (among(members, inside), int(starts[c]), int(counts[c]))
            for c, inside in enumerate(several)
            if counts[c] > 1
        ]

    def lay_out(members, first, n, rng, step=silent):
        """Store the n cells of some samples (None is all), and return the remaining tasks."""
        own = s if members is None else s[members]
        own = own / own.sum(dtype=np.float64).astype(s.dtype)
        drawn = ClippedRows(P, own, members)
        if once or n <= _coarse_cells.PART_FEW:
            if once:
                found, h = exemplars_of(drawn, own, n, rng, step)
            else:
                found, h = exemplars_of_few(
                    drawn, own, n, _coarse_cells.PART_SUBSAMPLE, rng, step=step
                )
            [(cells, counts)] = _share_out(drawn, own, h, [None], [found], n, bounded)
            return write(members, first, cells, counts)
        parts, h = divide(drawn, own, n, rng, step)
        if not parts:  # all rows are equal
            same = np.minimum(np.arange(len(own)), n - 1).astype(np.int32)
            cells = Cells(np.arange(n), same, np.zeros(1, dtype=P.dtype))
            return write(members, first, cells, np.ones(n, dtype=int))

        def finish(part, first, cells, counts):
            tasks = write(among(members, part.members), first, cells, counts)
            rng = np.random.RandomState(part.seed)
            while tasks:
                tasks += lay_out(*tasks.pop(), rng)

        found = merge(drawn, own, h, parts, n)
        shared = _share_out(drawn, own, h, [part.members for part in parts], found, n, bounded)
        of_part = np.array([counts.sum() for _, counts in shared])
        firsts = first + np.cumsum(of_part) - of_part
        work = [(*task, *own) for *task, own in zip(parts, firsts, shared, strict=True)]
        # On arrays of some hundred rows, threads mostly wait for the interpreter lock.
        each = in_threads if len(own) > FEW_EACH * len(work) else in_turn
        list(each(lambda own: finish(*own), work))
        return []

    # Only the first layout counts as progress.
    tasks: list[tuple[np.ndarray, int, int]] = lay_out(None, 0, n, rng, step)
    while tasks:
        tasks += lay_out(*tasks.pop(), rng)
    return Cells(exemplars, labels, costs)


def _share_out(P, s, h, parts, found, n, bounded) -> list[tuple[Cells, np.ndarray]]:
    """Return cells around exemplars of each part, and how many of the n samples each cell gets.

    Parts are given by their members; None is all samples. Of the exemplars in `found`, those with
    the largest gains are kept, as many as leave one of the n samples for every `SHARES` / n of the
    weight of each cell (only if `bounded`).
    """
    kept = np.array([len(one.gains) for one in found])
    cells: list = [None] * len(parts)
    mass, sizes = [np.empty(0)] * len(parts), [np.empty(0, dtype=int)] * len(parts)

    def surround(c):
        rows, weight = Rows(P, parts[c]), s if parts[c] is None else s[parts[c]]
        cells[c] = around(rows, h, found[c].indices[: kept[c]], cells[c])
        mass[c] = np.bincount(cells[c].labels, weights=weight)
        sizes[c] = np.bincount(cells[c].labels)

    todo = np.arange(len(parts))
    while True:
        # A single part already uses threads for its blocks.
        list(map(surround, todo)) if len(parts) == 1 else in_threads(surround, todo)
        masses, room = np.concatenate(mass), np.concatenate(sizes)
        # Equal rows cannot be split further.
        split = bounded and any(own.costs.any() for own in cells)
        least = np.ceil(masses * (n / SHARES) - 1e-9).astype(int) if split else 1
        counts = np.clip(least, 1, room)
        if counts.sum() <= n or len(counts) <= max(2, len(parts)):
            break
        fewer = min(len(counts) - 1, n - int((counts - 1).sum()))
        before = kept
        kept = best_of([one.gains[:k] for one, k in zip(found, kept, strict=True)], max(2, fewer))
        todo = np.flatnonzero(kept < before)
    _make_up(counts, masses, room, n)
    return list(zip(cells, np.split(counts, np.cumsum(kept)[:-1]), strict=True))


def _make_up(counts, share, room, n) -> None:
    """Change the counts in place until they sum to n, keeping them proportional to the shares.

    Adds where a count is the smallest relative to its share (and below `room`), or subtracts where
    it is the largest.

    Examples
    --------
    >>> import numpy as np
    >>> counts = np.array([1, 1, 1])
    >>> _make_up(counts, np.array([0.1, 0.3, 0.6]), np.array([9, 9, 3]), 8)
    >>> counts
    array([2, 3, 3])
    """
    short = [(-share[c] / counts[c], c) for c in np.flatnonzero(counts < room)]
    heapq.heapify(short)
    for _ in range(n - counts.sum()):
        c = short[0][1]
        counts[c] += 1
        if counts[c] < room[c]:
            heapq.heapreplace(short, (-share[c] / counts[c], c))
        else:
            heapq.heappop(short)
    while counts.sum() > n:
        counts[np.argmin(np.where(counts > 1, share / counts, np.inf))] -= 1
