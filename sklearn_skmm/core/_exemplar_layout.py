"""The layout of cells around exemplars: at once, or within coarse cells if there are many.

P is an array, or any object of shape (N, k) with a dtype that returns rows for positions or slices.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sklearn_skmm.core._cells import Cells, Rows, among, members_of
from sklearn_skmm.core._exemplar_cells import ClippedRows, around, exemplars_of, exemplars_of_few
from sklearn_skmm.core._exemplars import Greedy
from sklearn_skmm.utils._threads import in_threads

# More than FEW cells are laid out in one step only if n·N is at most DISTANCES. Otherwise it takes
# two steps, with N·√n instead of N·n distances: coarse cells first, then the exemplars of each one
# among its own members.
FEW, DISTANCES = 256, 2**25
# For n exemplars, the samples are divided into COARSE · √n coarse cells, the parts. Parts with more
# than PART_FEW exemplars are divided again. The last two are the minimum sizes of the subsamples
# for coarse cells and for the exemplars of a part.
COARSE, PART_FEW, COARSE_SUBSAMPLE, PART_SUBSAMPLE = 1.5, 128, 2048, 128
# In each part, SPARE times the expected number of exemplars, plus A_FEW, are computed as
# candidates, but at most MOST.
SPARE, A_FEW, MOST = 1.5, 3, 512
# Gains up to this fraction of the total weight are rounding errors.
NOTHING = 1e-12


def exemplar_cells(
    P,
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
    clipped = ClippedRows(P, s)
    if at_once(n, len(s)):
        found, h = exemplars_of(clipped, s, n, rng, step)
        return around(clipped, h, found.indices)
    parts, h = divide(clipped, s, n, rng, step)
    if not parts:  # all rows are equal
        labels = np.minimum(np.arange(len(s)), n - 1).astype(np.int32)
        return Cells(np.arange(n), labels, np.zeros(len(s), dtype=P.dtype))
    of_part = [found.indices for found in merge(clipped, s, h, parts, n)]
    ends = np.cumsum([len(found) for found in of_part])
    exemplars = np.empty(n, dtype=int)
    labels, costs = np.empty(len(s), dtype=np.int32), np.empty(len(s), dtype=P.dtype)

    def surround(task):
        part, found, end = task
        cells = around(Rows(clipped, part.members), h, found)
        first = end - len(found)
        exemplars[first:end] = part.members[cells.exemplars]
        labels[part.members], costs[part.members] = first + cells.labels, cells.costs

    in_threads(surround, zip(parts, of_part, ends, strict=True))
    if ends[-1] < n:  # all samples are covered: take the first
        unused = np.ones(len(s), dtype=bool)
        unused[exemplars[: ends[-1]]] = False
        exemplars[ends[-1] :] = np.flatnonzero(unused)[: n - ends[-1]]
        labels[exemplars], costs[exemplars] = np.arange(n), 0.0
    return Cells(exemplars, labels, costs)


def at_once(n: int, n_samples: int) -> bool:
    """Return whether n cells of n_samples samples are laid out in one step."""
    return n <= FEW or n * n_samples <= DISTANCES


class Part(NamedTuple):
    """A subset of the samples whose exemplars are computed independently of the others."""

    members: np.ndarray  # (size,) int, positions
    expected: int  # the number of exemplars it is likely to have
    seed: int  # seed of its random numbers


def divide(P, s, n, rng, step) -> tuple[list[Part], float]:
    """Return coarse cells (none if all rows are equal) and the common bandwidth."""
    parts: list[Part] = []
    todo: list[tuple[np.ndarray | None, float]] = [(None, n)]
    h: float | None = None
    while todo:
        members, expected = todo.pop()
        rows, weight = Rows(P, members), s if members is None else s[members]
        n_cells = min(len(weight), max(2, int(COARSE * np.sqrt(expected))))
        least = COARSE_SUBSAMPLE if members is None else PART_SUBSAMPLE
        found, h = exemplars_of_few(rows, weight, n_cells, least, rng, h, step)
        cells = around(rows, h, found.indices)
        apart = bool(cells.costs.any())
        if members is None and not apart and not np.ptp(rows[cells.exemplars], axis=0).any():
            return [], h
        share = np.bincount(cells.labels, weights=weight * cells.costs if apart else weight)
        share *= expected / share.sum()
        for inside, picks in zip(members_of(cells.labels, n_cells), share, strict=True):
            inside = among(members, inside)
            # The number of parts is bounded, as equidistant rows cannot be divided well.
            if picks > PART_FEW and apart and len(parts) + len(todo) + n_cells <= n // 2:
                todo.append((inside, float(picks)))
            else:
                seed = rng.randint(np.iinfo(np.int32).max)
                parts.append(Part(inside, int(np.ceil(picks)), seed))
        step = silent
    assert h is not None
    return parts, h


def merge(P, s, h, parts, n) -> list[Greedy]:
    """Return the exemplars of each part, n in total unless too few improve coverage.

    These are the exemplars with the largest gains over all parts. Greedy selection on all samples
    at once would choose the same, except that it accounts for coverage across parts.
    """
    sizes = np.array([len(part.members) for part in parts])
    wanted = np.array([int(SPARE * part.expected) + A_FEW for part in parts])
    found = [Greedy(np.empty(0, dtype=int), np.empty(0))] * len(parts)

    def look(c):
        part = parts[c]
        rows, weight = Rows(P, part.members), s[part.members]
        rng = np.random.RandomState(part.seed)
        own, _ = exemplars_of_few(rows, weight, wanted[c], PART_SUBSAMPLE, rng, h)
        some = int(np.count_nonzero(own.gains > NOTHING * weight.sum()))
        return Greedy(own.indices[:some], own.gains[:some])

    todo = np.arange(len(parts))
    while todo.size:
        np.clip(wanted, 1, np.minimum(sizes, MOST), out=wanted)
        for c, own in zip(todo, in_threads(look, todo), strict=True):
            found[c] = own
        best = best_of([one.gains for one in found], n)
        # If all candidates of a part are among the best, it may have more.
        all_in = [b == wanted[c] for c, b in enumerate(best)]
        todo = np.flatnonzero(np.array(all_in) & (wanted < np.minimum(sizes, MOST)))
        wanted[todo] *= 2
    return [Greedy(own.indices[:k], own.gains[:k]) for own, k in zip(found, best, strict=True)]


def silent() -> bool:
    """Report no progress and never stop: a `step` for all but the first layout."""
    return False


def best_of(gains, n) -> np.ndarray:
    """Return how many gains of each part are among the n largest of all parts, at least one each.

    Examples
    --------
    >>> import numpy as np
    >>> best_of([np.array([5.0, 4.0, 3.0]), np.array([1.0])], 3)
    array([2, 1])
    """
    own = np.repeat(np.arange(len(gains)), [len(gain) - 1 for gain in gains])
    order = np.argsort(-np.concatenate([gain[1:] for gain in gains]), kind="stable")
    best = own[order[: max(0, n - len(gains))]]
    return 1 + np.bincount(best, minlength=len(gains))
