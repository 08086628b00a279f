"""Parts of many samples, and exemplars of all from those of each part.

Pure functions of arrays. P is an array, or anything with rows to index by, a shape and a dtype.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sklearn_skmm.core._cells import Rows, around, by_cell, exemplars_of_few
from sklearn_skmm.core._exemplars import Greedy
from sklearn_skmm.utils._threads import in_threads

# COARSE · √n coarse cells are the parts for n picks. Those of more than PART_FEW picks are divided
# again. Coarse cells, and the picks of a part, are laid out for fewer samples than all cells at
# once are: at least for so many.
COARSE, PART_FEW, COARSE_SUBSAMPLE, PART_SUBSAMPLE = 1.5, 128, 2048, 128
# In each part so many times the picks that are expected of it are looked at, and a few more; but
# no more than MOST.
SPARE, A_FEW, MOST = 1.5, 3, 512
# A gain of this share of the mass is rounding.
NOTHING = 1e-12


class Part(NamedTuple):
    """Samples whose exemplars are found without a look at the others."""

    members: np.ndarray  # (size,) positions
    expected: int  # how many picks it is likely to have
    seed: int  # of the numbers it draws


def divide(P, s, n, rng, step) -> tuple[list[Part], float]:
    """Return coarse cells, none if all rows are the same, and the bandwidth of all of them."""
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
            # Not without end: rows that are all equally far apart cannot be divided well.
            if picks > PART_FEW and apart and len(parts) + len(todo) + n_cells <= n // 2:
                todo.append((inside, float(picks)))
            else:
                seed = rng.randint(np.iinfo(np.int32).max)
                parts.append(Part(inside, int(np.ceil(picks)), seed))
        step = silent
    assert h is not None
    return parts, h


def merge(P, s, h, parts, n) -> list[Greedy]:
    """Return exemplars of each part, n in all, but for those that cover nothing.

    Those with the largest gains over all parts. Greedy on all samples at once takes them, but for
    what it knows of coverage across parts.
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
        # A part of which every pick is among the best may have more that are.
        all_in = [b == wanted[c] for c, b in enumerate(best)]
        todo = np.flatnonzero(np.array(all_in) & (wanted < np.minimum(sizes, MOST)))
        wanted[todo] *= 2
    return [Greedy(own.indices[:k], own.gains[:k]) for own, k in zip(found, best, strict=True)]


def best_of(gains, n) -> np.ndarray:
    """Return how many of the gains of each part are among the n largest of all, at least one.

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
    return False


def among(members, rows):
    """Return the positions of rows of the members, where None is all."""
    return rows if members is None else members[rows]


def members_of(labels, n) -> Iterator[np.ndarray]:
    """Yield the positions of the samples of each cell, in order."""
    order, starts = by_cell(labels, n)
    for start, stop in pairwise(starts):
        yield order[start:stop]
