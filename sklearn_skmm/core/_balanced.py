"""Balanced sampling: subsets with inclusion probabilities π that keep the total of each column.

The cube method (Deville and Tillé 2004) walks from π to a vertex of the unit cube, within the
subspace on which Σ π_i and Σ π_i a_i are constant. Each step has mean zero, so the inclusion
probabilities are exactly π, whatever the order of the steps.
"""

import numpy as np

from sklearn_skmm.core._draws import is_undecided, median_cells, snapped_probabilities

# Coefficients below this fraction of the largest count as zero. This bounds the condition number of
# a basis. The price is an imbalance of the same order; π and the sample size remain exact.
PIVOT = 1e-8
# Number of steps between two corrections of the inverses.
REFRESH = 32
# Number of floats in the inverses that are updated together; they should fit the processor's cache.
BATCH = 150_000
# Represents "no limit"; finite, so that the sum of two is.
NO_LIMIT = 1e300


def cube(s: np.ndarray, n: int, A: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Draw n items with inclusion probabilities exactly n·s, keeping the column totals of A.

    Parameters
    ----------
    s : ndarray of shape (N,)
        Weights in the capped simplex: 0 ≤ s ≤ 1/n, with sum 1.
    n : int
        Sample size.
    A : ndarray of shape (N, q)
        Columns to balance, most important first.
    rng : RandomState
        The only source of randomness.

    Returns
    -------
    items : ndarray of shape (n,), dtype int
        Positions S in ascending order. For each column j, Σ_{i∈S} a_ij differs from Σ_i π_i a_ij
        by less than (q + 1)·max_i |a_ij|; the first columns have the smallest differences.

    Notes
    -----
    The flight phase of Chauvet and Tillé (2006) runs on many groups of items at once, until q + 1
    items are undecided. The landing phase then drops the columns one by one, starting with the
    last one.

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
    """Draw like `cube`, but among neighbours in X: the sample is balanced and spread out.

    Parameters
    ----------
    s, n, A, rng
        As for `cube`.
    X : ndarray of shape (N, m)
        Coordinates of the items.

    Returns
    -------
    items : ndarray of shape (n,), dtype int
        Positions in ascending order.

    Notes
    -----
    A variant of Grafström and Tillé (2013), who form each block from the neighbours of one item.
    Here, the groups are the cells of a tree of median splits. When no more items of a cell can be
    decided, the cell is merged with its neighbours. The first groups have at least 2(q + 1)
    items, so the sample is spread better if there are fewer columns.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.arange(8.0)[:, None]
    >>> local_cube(np.full(8, 1 / 8), 2, np.ones((8, 1)), X, np.random.RandomState(0)) // 4
    array([0, 1])
    """
    return _draw(s, n, A, X, rng)


def _draw(s, n, A, X, rng) -> np.ndarray:
    """Draw among neighbours in X, or in random order if X is None."""
    pi = snapped_probabilities(s, n)
    items = rng.permutation(np.flatnonzero(is_undecided(pi)))
    if len(items):
        rows = _constraints(A[items])
        orthogonal = _orthogonalised(rows)
        order, size = np.arange(len(items)), 2 * orthogonal.shape[1]
        if X is not None:
            order = np.concatenate(median_cells(X[items], order, size, rng))
        else:
            # In larger groups, fewer items are handled twice.
            size = max(2 * size, len(items) // _batch(orthogonal))
        # The extra entry is a dummy for the empty slots of a basis, which have index -1.
        p = np.append(pi[items], 0.0)
        order = _reduce(p, orthogonal, order, size, rng)
        _landing(p, rows, order, rng)
        pi[items] = p[:-1]
    return np.flatnonzero(pi > 0.5)


def _constraints(A: np.ndarray) -> np.ndarray:
    """Return the balancing columns, all of the same scale: a column of ones, then those of A.

    The column of ones fixes the sample size. Given that, centring the other columns changes only
    the conditioning. Constant columns are left out: the fixed size already keeps their totals.
    """
    rows = np.ones((len(A), A.shape[1] + 1))
    largest = np.abs(A).max(axis=0)
    np.divide(A, np.where(largest > 0, largest, 1.0), out=rows[:, 1:])
    rows[:, 1:] -= rows[:, 1:].mean(axis=0)
    scale = np.sqrt(np.einsum("ij,ij->j", rows, rows) / len(rows))
    varies = scale > 1e-12
    return rows[:, varies] / scale[varies]


def _orthogonalised(rows: np.ndarray) -> np.ndarray:
    """Return independent, mutually orthogonal columns with the same span.

    A basis of items is then seldom ill-conditioned, even if the columns are collinear. Directions
    whose width is at most a millionth of the largest are not balanced.
    """
    values, directions = np.linalg.eigh(rows.T @ rows / len(rows))
    keep = values > 1e-12 * values[-1]
    return rows @ (directions[:, keep] / np.sqrt(values[keep]))


def _batch(rows: np.ndarray) -> int:
    """Return the number of groups that are processed together."""
    return max(1, BATCH // rows.shape[1] ** 2)


def _reduce(pi, rows, order, size, rng) -> np.ndarray:
    """Decide items in place until at most one per constraint is left, and return those left.

    Starts within groups of `size` to 2·size neighbours in the order and continues with the items
    that these leave undecided.
    """
    n_groups = 0
    while n_groups != 1:
        n_open = len(order)
        n_groups = 1 << max(0, (n_open // size).bit_length() - 1)
        # Items beyond the groups of equal size wait for the next round.
        starts = np.arange(n_groups) * n_open // n_groups
        groups = order[starts[:, None] + np.arange(n_open // n_groups)]
        for first in range(0, n_groups, _batch(rows)):
            _flight(pi, rows, groups[first : first + _batch(rows)], rng)
        order = order[is_undecided(pi[order])]
        size = min(size, 4 * rows.shape[1])
    return order


def _flight(pi, rows, groups, rng) -> None:
    """Decide items of each group in place, until at most one per constraint is left.

    As in the simplex method, each group has a basis B of items with independent constraints, and
    its inverse. An entering item a equals B·w, so (w, −1) is the only direction that keeps the
    constraints. After the step along it, the item whose probability has reached 0 or 1 leaves the
    basis, and the entering item takes its slot. A vacant slot represents a unit vector: an item
    that depends on it enters without a step.
    """
    n_groups, length = groups.shape
    width = rows.shape[1]
    # The last row belongs to the entering item. It is zero, so that the exchange changes nothing
    # if that item leaves at once.
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
    """Return the direction to move in; its entries sum to zero."""
    size = np.abs(w)
    u = np.where(vacant | (size <= PIVOT * size.max(axis=1, keepdims=True)), 0.0, w)
    # −1 up to rounding, so that rounding affects the balance and not the sample size.
    u[:, -1] = 0.0
    u[:, -1] = -u.sum(axis=1)
    return u


def _fair_step(p, u, draw) -> tuple[np.ndarray, np.ndarray]:
    """Return the step of each row of p along u, and the entry that it takes to 0 or 1.

    The step is upwards with a probability proportional to the possible downward step, and vice
    versa, so its mean is zero.
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
    """Update each inverse in place after column `slot` of its B was replaced with B·w."""
    each = np.arange(len(w))
    pivot = w[each, slot]
    factor = w / pivot[:, None]
    factor[each, slot] -= 1 / pivot
    factor[:, -1] = 0.0
    inverse -= factor[:, :, None] * inverse[each, slot][:, None, :]


def _refresh(inverse, rows, members) -> None:
    """Remove rounding errors from the inverses in place, by one step of Newton's iteration."""
    inverse, members = inverse[:, :-1], members[:, :-1]
    unit = np.eye(members.shape[1])
    basis = np.where(members[:, :, None] < 0, unit, rows[members]).transpose(0, 2, 1)
    error = basis @ inverse - unit
    # With larger errors, Newton's iteration need not converge.
    lost = ~(np.abs(error).max(axis=(1, 2)) < 1e-3)
    if lost.any():
        inverse[lost] = np.linalg.pinv(basis[lost])
        error[lost] = 0.0
    inverse -= inverse @ error


def _landing(pi, rows, order, rng) -> None:
    """Decide the last items in place, dropping as few constraints as possible."""
    while len(order) > 1:
        u = _null_vector(rows[order])
        step, slot = _fair_step(pi[None, order], u[None], rng.uniform())
        pi[order] += step * u
        pi[order[slot]] = np.round(pi[order[slot]])
        order = order[is_undecided(pi[order])]
    # A single item left is 0 or 1 up to rounding, as the sum is an integer.
    pi[order] = np.round(pi[order])


def _null_vector(rows: np.ndarray) -> np.ndarray:
    """Return a vector orthogonal to the first columns, as many as leave one dimension.

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
            # A Householder reflection maps v to the first axis, which is then dropped.
            v[0] += np.copysign(length, v[0])
            basis = (basis - np.outer(basis @ v, v * (2 / (v @ v))))[:, 1:]
    return basis[:, 0]
