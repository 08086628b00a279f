"""Cells beside samples that are in the coreset already: a cell that holds one is taken."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sklearn_skmm.core._balanced_cells import balanced_cells
from sklearn_skmm.core._cells import Cells, nearest
from sklearn_skmm.core._matching import draw_candidates

# The number of layouts until as many cells are free as samples are to be selected.
ATTEMPTS = 4


def enough_free(
    lay_out: Callable[[int], tuple[Any, np.ndarray]], n: int, given: np.ndarray
) -> tuple[Any, np.ndarray]:
    """Lay out cells until about n of them hold no given sample, and never fewer.

    If several given samples share a cell, there are more free cells than needed. Then there are
    fewer cells in the next layout.

    Parameters
    ----------
    lay_out : callable
        Takes a number of cells, and returns a result and the label of each sample.
    n : int
        Number of free cells.
    given : ndarray of shape (n_given,), dtype int
        Positions of the given samples.

    Returns
    -------
    result : object
        What the callable returned.
    labels : ndarray of shape (N,), dtype int
        The labels.

    Examples
    --------
    >>> import numpy as np
    >>> enough_free(lambda count: (count, np.minimum(np.arange(9), count - 1)), 2, np.array([0]))
    (3, array([0, 1, 2, 2, 2, 2, 2, 2, 2]))
    """
    count = n + len(given)
    for _ in range(ATTEMPTS):
        result, labels = lay_out(count)
        spare = count - len(np.unique(labels[given])) - n
        if spare >= 0:
            enough = result, labels
        if spare <= 0:
            break
        count -= spare
    return enough


def cells_besides(
    P,
    s: np.ndarray,
    n: int,
    given: np.ndarray,
    balance: float,
    rng: np.random.RandomState,
    step: Callable[[], bool] = lambda: False,
) -> Cells:
    """Partition the weighted samples into n free cells, and cells that hold given samples.

    With g given samples, n + g balanced cells are laid out, of which up to g are taken, or fewer,
    see `enough_free`. Free cells that are left over after a few layouts are divided among the
    nearest others, the lightest first.

    Parameters
    ----------
    P, s, balance, rng, step
        As for `balanced_cells`.
    n : int
        Number of free cells.
    given : ndarray of shape (n_given,), dtype int
        Positions of the given samples; n + n_given is at most N.

    Returns
    -------
    cells : Cells
        Exemplars of the n free cells. Labels below n are free cells, those from n on are taken.

    Examples
    --------
    >>> import numpy as np
    >>> P, rng = np.array([[0.0], [0.1], [5.0], [5.2], [9.0]]), np.random.RandomState(0)
    >>> cells = cells_besides(P, np.full(5, 0.2), 2, np.array([4]), 4.0, rng)
    >>> int(cells.labels[4]), sorted(set(cells.labels[:4].tolist()))
    (2, [0, 1])
    """
    if not len(given):
        return balanced_cells(P, s, n, balance, rng, step)

    def lay_out(count):
        cells = balanced_cells(P, s, count, balance, rng, step)
        return cells, cells.labels

    cells, labels = enough_free(lay_out, n, given)
    is_free = np.ones(len(cells.exemplars), dtype=bool)
    is_free[labels[given]] = False
    return _with_free_cells(P, s, cells, is_free, n)


def _with_free_cells(P, s, cells: Cells, is_free, n) -> Cells:
    """Return the cells with the n heaviest free ones first, and the others divided among them."""
    labels, costs = cells.labels.copy(), cells.costs.copy()
    mass = np.bincount(labels, weights=s, minlength=len(is_free))
    order = np.lexsort((-mass, ~is_free))  # free cells first, and the heaviest of them first
    n_free = np.count_nonzero(is_free)
    kept = np.concatenate([np.sort(order[:n]), order[n_free:]])
    moved = np.flatnonzero(np.isin(labels, order[n:n_free]))
    if len(moved):
        near, costs[moved] = nearest(P[moved], P[cells.exemplars[kept]])
        labels[moved] = kept[near]
    position = np.empty(len(is_free), dtype=labels.dtype)
    position[kept] = np.arange(len(kept))
    return Cells(cells.exemplars[kept[:n]], position[labels], costs)


def draw_free_candidates(
    labels: np.ndarray, s: np.ndarray, n: int, count: int | None, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Draw candidates as `draw_candidates` does, from the first n cells only.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.array([0, 2, 0, 1])
    >>> draw_free_candidates(labels, np.ones(4), 2, None, np.random.RandomState(0))
    (array([0, 2, 3]), array([0, 2, 3]))
    """
    free = np.flatnonzero(labels < n)
    if len(free) == len(labels):
        return draw_candidates(labels, s, n, count, rng)
    candidates, starts = draw_candidates(labels[free], s[free], n, count, rng)
    return free[candidates], starts
