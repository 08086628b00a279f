"""Balanced sampling: subsets that honour π and keep the total of each column. Pure functions.

The cube method (Deville and Tillé 2004) walks from π to a vertex of the unit cube, within the
subspace on which Σ π_i and Σ π_i a_i stay as they are. Every step is fair (its mean is zero),
so the inclusion probabilities are exactly π, whatever the order of the steps.
"""

import numpy as np

from sklearn_skmm.core._draws import is_undecided, median_cells, snapped_probabilities

# Coefficients this much smaller than the largest count as zero. This bounds how ill-conditioned
# a basis can get. It costs as much balance, and neither π nor the size.
PIVOT = 1e-8
# Steps between two corrections of the inverses.
REFRESH = 32
# Floats in the inverses that are updated together: they should stay in the processor's cache.
BATCH = 150_000
# Stands for "no limit", finite so that it can be added to itself.
NO_LIMIT = 1e300


def cube(s: np.ndarray, n: int, A: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Draw n with inclusion probabilities exactly n·s and the column totals of A kept.

    Parameters
    ----------
    s : ndarray of shape (N,)
        Weights in the capped simplex: 0 ≤ s ≤ 1/n, with sum 1.
    n : int
        Sample size.
    A : ndarray of shape (N, q)
        Columns to balance, most important first.
    rng : RandomState
        The only randomness.

    Returns
    -------
    items : ndarray of shape (n,)
        Ascending. For each column j, Σ_{i∈S} a_ij differs from Σ_i π_i a_ij by less than
        (q + 1)·max_i |a_ij|, and for the first columns by the least.

    Notes
    -----
    The flight of Chauvet and Tillé (2006), for many groups of items at once, until q + 1 items
    are open; then the landing drops one column after the other, the last one first.

    Examples
    --------
    >>> import numpy as np
    >>> s = np.full(6, 1 / 6)
    >>> A = np.array([[1.0], [1.0], [1.0], [0.0], [0.0], [0.0]])
    >>> cube(s, 2, A, np.random.RandomState(0)) // 3  # one of each three
    array([0, 1])
    """
    return _draw(s, n, A, None, rng)


def local_cube(
    s: np.ndarray, n: int, A: np.ndarray, X: np.ndarray, rng: np.random.RandomState
) -> np.ndarray:
    """Draw as `cube` does, among neighbours in X: the sample is balanced and spread out.

    Parameters
    ----------
    s, n, A, rng
        As for `cube`.
    X : ndarray of shape (N, m)
        Where the items are.

    Returns
    -------
    items : ndarray of shape (n,)
        Ascending.

    Notes
    -----
    After Grafström and Tillé (2013), who take each block from the neighbours of one item. Here
    the groups are cells of a tree of median splits, and cells that have decided what they can
    are merged with the cells next to them. The first groups have 2(q + 1) items or more, so
    the fewer columns, the better the spread.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.arange(8.0)[:, None]
    >>> local_cube(np.full(8, 1 / 8), 2, np.ones((8, 1)), X, np.random.RandomState(0)) // 4
    array([0, 1])
    """
    return _draw(s, n, A, X, rng)


def _draw(s, n, A, X, rng) -> np.ndarray:
    """Draw among neighbours in X, or where it is None in any order."""
    pi = snapped_probabilities(s, n)
    items = rng.permutation(np.flatnonzero(is_undecided(pi)))
    if len(items):
        rows = _constraints(A[items])
        orthogonal = _orthogonalised(rows)
        order, size = np.arange(len(items)), 2 * orthogonal.shape[1]
        if X is not None:
            order = np.concatenate(median_cells(X[items], order, size, rng))
        else:
            # The larger the groups, the fewer items are handled twice.
            size = max(2 * size, len(items) // _batch(orthogonal))
        # One more entry, to which the empty slots of a basis point.
        p = np.append(pi[items], 0.0)
        order = _reduce(p, orthogonal, order, size, rng)
        _landing(p, rows, order, rng)
        pi[items] = p[:-1]
    return np.flatnonzero(pi > 0.5)


def _constraints(A: np.ndarray) -> np.ndarray:
    """Return a column of ones, for the size, and the columns of A, to one scale.

    Given the ones, subtracting a mean changes nothing but the conditioning. Constant columns
    are kept by the size, and left out.
    """
    rows = np.ones((len(A), A.shape[1] + 1))
    largest = np.abs(A).max(axis=0)
    np.divide(A, np.where(largest > 0, largest, 1.0), out=rows[:, 1:])
    rows[:, 1:] -= rows[:, 1:].mean(axis=0)
    scale = np.sqrt(np.einsum("ij,ij->j", rows, rows) / len(rows))
    varies = scale > 1e-12
    return rows[:, varies] / scale[varies]


def _orthogonalised(rows: np.ndarray) -> np.ndarray:
    """Return independent columns with the same span, orthogonal to each other.

    However collinear the columns are, a basis of items is then seldom ill-conditioned.
    Directions a millionth as wide as the widest are left to chance.
    """
    values, directions = np.linalg.eigh(rows.T @ rows / len(rows))
    keep = values > 1e-12 * values[-1]
    return rows @ (directions[:, keep] / np.sqrt(values[keep]))


def _batch(rows: np.ndarray) -> int:
    """Return the number of groups to handle together."""
    return max(1, BATCH // rows.shape[1] ** 2)


def _reduce(pi, rows, order, size, rng) -> np.ndarray:
    """Decide, in place, all but as many items as there are constraints; return those left.

    First within groups of `size` to 2·size neighbours in the order, then among what they leave.
    """
    n_groups = 0
    while n_groups != 1:
        n_open = len(order)
        n_groups = 1 << max(0, (n_open // size).bit_length() - 1)
        # What does not go into equal groups waits for the next round.
        starts = np.arange(n_groups) * n_open // n_groups
        groups = order[starts[:, None] + np.arange(n_open // n_groups)]
        for first in range(0, n_groups, _batch(rows)):
            _flight(pi, rows, groups[first : first + _batch(rows)], rng)
        order = order[is_undecided(pi[order])]
        size = min(size, 4 * rows.shape[1])
    return order


def _flight(pi, rows, groups, rng) -> None:
    """Decide, in place, all but as many items of each group as there are constraints.

    Each group holds a basis B of items with independent constraints, and its inverse, as the
    simplex method does. An item a that comes in is B·w, so (w, −1) is the one direction that
    keeps the constraints. After the step along it, the item that has come to 0 or 1 leaves, and
    the new one takes its slot. A slot that no item has taken yet stands for a unit vector: an
    item that needs it moves in.
    """
    n_groups, length = groups.shape
    width = rows.shape[1]
    # The last row stands for the item that comes in. It is zero: if that item leaves at once,
    # the exchange changes nothing.
    inverse = np.tile(np.eye(width + 1, width), (n_groups, 1, 1))
    members = np.full((n_groups, width + 1), -1)
    p = np.zeros(members.shape)
    draws = rng.uniform(size=(length, n_groups))
    each = np.arange(n_groups)
    for k in range(length):
        items = groups[:, k]
        members[:, -1] = items
        p[:, -1] = pi[items]
        w = (inverse @ rows[items][:, :, None])[:, :, 0]
        w[:, -1] = -1.0
        vacant = members < 0
        u = _direction(w, vacant)
        step, slot = _fair_step(p, u, draws[k])
        needs = np.abs(w * vacant)
        moves_in = needs.max(axis=1) > PIVOT
        if moves_in.any():
            step[moves_in] = 0.0
            slot = np.where(moves_in, needs.argmax(axis=1), slot)
        p += step[:, None] * u
        pi[members[each, slot]] = p[each, slot] > 0.5
        members[each, slot] = items
        p[each, slot] = p[:, -1]
        _exchange(inverse, w, slot)
        if k % REFRESH == REFRESH - 1:
            _refresh(inverse, rows, members)
    pi[members[:, :-1]] = p[:, :-1]


def _direction(w, vacant) -> np.ndarray:
    """Return the direction to move in, which adds up to zero."""
    size = np.abs(w)
    u = np.where(vacant | (size <= PIVOT * size.max(axis=1, keepdims=True)), 0.0, w)
    # −1 but for rounding, which here goes against the balance and not against the size.
    u[:, -1] = 0.0
    u[:, -1] = -u.sum(axis=1)
    return u


def _fair_step(p, u, draw) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each row of p is to move along u, and which entry then is 0 or 1.

    Up with a probability proportional to the room downwards: the mean move is zero.
    """
    room = np.empty((2, *p.shape))  # up and down
    room[0] = np.where(u > 0, 1 - p, p)
    np.subtract(1, room[0], out=room[1])
    size = np.abs(u)
    limit = np.full(room.shape, NO_LIMIT)
    np.divide(room, size, out=limit, where=size > 1 / NO_LIMIT)
    slot = limit.argmin(axis=2)
    up, down = limit.min(axis=2)
    rises = draw * (up + down) < down
    return np.where(rises, up, -down), np.where(rises, *slot)


def _exchange(inverse, w, slot) -> None:
    """Put the column B·w in the place of column `slot` of each B, given their inverses."""
    each = np.arange(len(w))
    pivot = w[each, slot]
    factor = w / pivot[:, None]
    factor[each, slot] -= 1 / pivot
    factor[:, -1] = 0.0
    inverse -= factor[:, :, None] * inverse[each, slot][:, None, :]


def _refresh(inverse, rows, members) -> None:
    """Take the rounding out of the inverses, in place, by one step of Newton's iteration."""
    inverse, members = inverse[:, :-1], members[:, :-1]
    unit = np.eye(members.shape[1])
    basis = np.where(members[:, :, None] < 0, unit, rows[members]).transpose(0, 2, 1)
    error = basis @ inverse - unit
    # Beyond that, Newton's iteration need not converge.
    lost = ~(np.abs(error).max(axis=(1, 2)) < 1e-3)
    if lost.any():
        inverse[lost] = np.linalg.pinv(basis[lost])
        error[lost] = 0.0
    inverse -= inverse @ error


def _landing(pi, rows, order, rng) -> None:
    """Decide the last items, in place, with as few constraints dropped as can be."""
    while len(order) > 1:
        u = _null_vector(rows[order])
        step, slot = _fair_step(pi[None, order], u[None], rng.uniform())
        pi[order] += step * u
        pi[order[slot]] = np.round(pi[order[slot]])
        order = order[is_undecided(pi[order])]
    # What is left is whole but for rounding.
    pi[order] = np.round(pi[order])


def _null_vector(rows: np.ndarray) -> np.ndarray:
    """Return a vector orthogonal to as many columns, from the first on, as leave one.

    Examples
    --------
    >>> import numpy as np
    >>> bool(np.isclose(_null_vector(np.ones((2, 5))).sum(), 0))
    True
    """
    basis = np.eye(len(rows))
    for column in rows.T:
        if basis.shape[1] == 1:
            break
        v = column @ basis
        length = np.sqrt(v @ v)
        if length > PIVOT:
            # A Householder reflection takes v to the first coordinate, which then goes.
            v[0] += np.copysign(length, v[0])
            basis = (basis - np.outer(basis @ v, v * (2 / (v @ v))))[:, 1:]
    return basis[:, 0]
