"""Division of many samples into parts, and exemplars of all samples from those of each part.

P is an array, or any object of shape (N, k) with a dtype that returns rows for positions or slices.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sklearn_skmm.core._cells import Rows, around, by_cell, exemplars_of_few
from sklearn_skmm.core._exemplars import Greedy
from sklearn_skmm.utils._threads import in_threads

# For n exemplars, the samples are divided into COARSE · √n coarse cells, the parts. Parts with more
# than PART_FEW exemplars are divided again. The last two are the minimum sizes of the subsamples
# for coarse cells and for the exemplars of a part.
COARSE, PART_FEW, COARSE_SUBSAMPLE, PART_SUBSAMPLE = 1.5, 128, 2048, 128
# In each part, SPARE times the expected number of exemplars, plus A_FEW, are computed as
# candidates, but at most MOST.
SPARE, A_FEW, MOST = 1.5, 3, 512
# Gains up to this fraction of the total weight are rounding errors.
NOTHING = 1e-12


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


def silent() -> bool:
    """Report no progress and never stop: a `step` for all but the first layout."""
    return False


def among(members, rows):
    """Return the positions of the given rows of the members; None means all samples."""
    return rows if members is None else members[rows]


def members_of(labels, n) -> Iterator[np.ndarray]:
    """Yield the positions of the samples of each of n cells, in ascending order."""
    order, starts = by_cell(labels, n)
    for start, stop in pairwise(starts):
        yield order[start:stop]
