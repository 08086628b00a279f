r"""V-optimal subsets: greedy selection and exchanges.

With :math:`M = (\sum_{i \in S} x_i x_i^\top + n \alpha I)^{-1}`,
:math:`q_i = x_i^\top M x_i` and :math:`w_i = x_i^\top M \Sigma M x_i`, adding sample i lowers
:math:`V = \mathrm{tr}\,\Sigma (\Sigma_S + \alpha I)^{-1}` by :math:`n w_i / (1 + q_i)`, removing j
raises it by :math:`n w_j / (1 - q_j)`, and replacing j by i lowers it by n times

.. math:: \frac{w_i (1 - q_j) + 2\, Q_{ij} P_{ij} - w_j (1 + q_i)}
               {(1 + q_i)(1 - q_j) + Q_{ij}^2}, \quad
          Q_{ij} = x_i^\top M x_j,\ P_{ij} = x_i^\top M \Sigma M x_j.

A step updates all q and w from the columns of Q and P of the samples that are added or removed, so
it costs O(Nk) (exchange algorithm of Fedorov 1972, with the Woodbury identity).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sklearn_skmm.core._design import WORKING_SET, Problem, inverse_root, largest, objective
from sklearn_skmm.core._prices import Prices

# Decreases of V below this fraction of V are rounding errors.
ROUNDING = 1e-12
# The number of pairs of a row and a member that are compared at a time; they stay in cache.
PAIRS_PER_BLOCK = 2**18
# An update that multiplies or divides by more than this loses too many digits.
MAX_UPDATE_FACTOR = 1e3


class State(NamedTuple):
    """The matrix M of a subset, with q and w of all rows."""

    inverse: np.ndarray  # (k, k)
    q: np.ndarray  # (N,)
    w: np.ndarray  # (N,)


def greedy(
    problem: Problem,
    n: int,
    start=(),
    *,
    prices: Prices | None = None,
    step: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Add rows to a subset one by one, each time the row that lowers V the most.

    Parameters
    ----------
    problem : Problem
        From `whiten`.
    n : int
        Final number of rows.
    start : array-like of shape (n_start,), dtype int
        Distinct positions to start from, at most n.
    prices : Prices or None, default=None
        With them, rows are added until no other is affordable, and n is the number that
        multiplies the ridge.
    step : callable, default=does nothing
        Called once per added row.

    Returns
    -------
    indices : ndarray of shape (n,), dtype int
        The start, then the added rows in order. Ties go to the smaller position.

    Examples
    --------
    >>> import numpy as np
    >>> greedy(Problem(np.diag([1.0, 3.0, 2.0]), np.ones(3), np.full(3, 0.1)), 2)
    array([1, 2])
    """
    rows = problem.rows
    indices = [int(i) for i in start]
    if len(indices) < n or prices is not None:
        columns = np.ascontiguousarray(rows.T)
        free = np.ones(len(rows), dtype=bool)
        free[indices] = False
    unit = prices.price if prices is not None and prices.relative else 1.0
    most = n if prices is None else len(rows)
    while len(indices) < most:
        # Recomputed once per k rows against drift; this costs as much as adding the k rows.
        state = start_state(problem, indices, n)
        for _ in range(min(rows.shape[1], most - len(indices))):
            allowed = free
            if prices is not None:
                allowed = free & ~prices.unaffordable(indices[len(start) :])
                if not allowed.any():
                    return np.array(indices, dtype=int)
            pick = _first_max(np.where(allowed, state.w / (1.0 + state.q) / unit, -1.0))
            indices.append(pick)
            free[pick] = False
            state = update(problem, columns, state, indices, n, added=[pick])
            step()
    return np.array(indices, dtype=int)


def exchange(
    problem: Problem,
    indices: np.ndarray,
    *,
    n_fixed: int = 0,
    max_iter: int = 100,
    tol: float = 1e-4,
    step: Callable[[], bool] = lambda: False,
) -> tuple[np.ndarray, int]:
    """Replace members by better rows until no single exchange lowers V by more than tol · V.

    A sweep compares all pairs of a row and a member by matrix products. Each member that some row
    improves on is then replaced with its best row, if that is still an improvement, in order of
    the loss from removal. Sweeps use a working set of rows until no exchange within it improves V.
    Then all rows are compared, and those that improve on a member are added to the working set.

    Parameters
    ----------
    problem : Problem
        From `whiten`.
    indices : ndarray of shape (n,), dtype int
        Distinct positions to start from.
    n_fixed : int, default=0
        The first of them that stay in the subset.
    max_iter : int, default=100
        Maximum number of sweeps.
    tol : float, default=1e-4
        Smallest decrease of V, relative to V, for which an exchange is made.
    step : callable, default=never stops
        Called once per sweep; the algorithm stops if it returns True.

    Returns
    -------
    indices : ndarray of shape (n,), dtype int
        The subset; its V is at most that of the start.
    n_iter : int
        Number of sweeps, including the last one, which finds no improvement.

    Examples
    --------
    >>> import numpy as np
    >>> problem = Problem(np.diag([1.0, 3.0, 2.0]), np.ones(3), np.full(3, 0.1))
    >>> exchange(problem, np.array([0, 2]))
    (array([1, 2]), 2)
    """
    rows, signal, ridge = problem
    n_samples, n = len(rows), len(indices)
    size = WORKING_SET * max(n, rows.shape[1])
    work = np.arange(n_samples)
    if size < n_samples:
        state = start_state(problem, indices, n)
        work = np.union1d(largest(state.w / (1.0 + state.q), size), indices)
    value, n_iter, local = objective(problem, indices), 0, None
    while n_iter < max_iter:
        n_iter += 1
        if local is None:
            local = Problem(rows[work], signal, ridge) if len(work) < n_samples else problem
            columns = np.ascontiguousarray(local.rows.T)
        least = max(tol, ROUNDING) * value / n
        members = np.searchsorted(work, indices)
        _, improvable = compare(local, members, least, n_fixed)
        if improvable.any():
            trial = work[_sweep(local, columns, members, improvable, least)]
            trial_value = objective(problem, trial)
            if not trial_value < value:  # the improvement was a rounding error
                break
            indices, value = trial, trial_value
        elif len(work) < n_samples:
            better, _ = compare(problem, indices, least, n_fixed)
            if not better.any():
                break
            work, local = np.union1d(work, np.flatnonzero(better)), None
        else:
            break
        if step():
            break
    return indices, n_iter


def _sweep(problem, columns, members, improvable, least):
    """Replace each improvable member with its best row, in order of the loss from removal."""
    signal = problem.signal
    members, n = members.copy(), len(members)
    state = start_state(problem, members, n)
    free = np.ones(len(problem.rows), dtype=bool)
    free[members] = False
    loss = state.w[members] / _one_minus(state.q[members])
    candidates = np.flatnonzero(improvable)
    for r in candidates[np.argsort(loss[candidates], kind="stable")]:
        j = members[r]
        _, Q, P = _products(state, columns, signal, [j])
        q, w, one_minus_q = state.q, state.w, _one_minus(state.q[j])
        gain = w * one_minus_q + 2.0 * Q[0] * P[0] - w[j] * (1.0 + q)
        gain /= (1.0 + q) * one_minus_q + np.square(Q[0])
        i = _first_max(np.where(free, gain, -np.inf))
        if free[i] and gain[i] > least:
            members[r] = i
            free[i], free[j] = False, True
            state = update(problem, columns, state, members, n, added=[i], removed=[j])
    return members


def compare(
    problem: Problem, members: np.ndarray, least: float, n_fixed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Compare all rows with all members, by matrix products.

    Parameters
    ----------
    problem : Problem
        From `whiten`.
    members : ndarray of shape (n,), dtype int
        Positions of the subset.
    least : float
        An exchange is an improvement if it lowers V / n by more than this.
    n_fixed : int, default=0
        The first members, which are not compared.

    Returns
    -------
    better : ndarray of shape (N,), dtype bool
        The rows that improve on some member.
    improvable : ndarray of shape (n,), dtype bool
        The members that some row improves on.
    """
    rows, signal, ridge = problem
    M, q, H = _leverages(rows[members], inverse_root(rows[members], len(members) * ridge))
    one_minus_q = _one_minus(q)
    member_terms = np.vstack([one_minus_q, np.square(H) @ signal])
    left, right = np.ascontiguousarray(H.T), np.ascontiguousarray(2.0 * signal[:, None] * H.T)
    is_member = np.zeros(len(rows), dtype=bool)
    is_member[members] = True
    better, improvable = np.zeros(len(rows), dtype=bool), np.zeros(len(members), dtype=bool)
    size = max(1, PAIRS_PER_BLOCK // len(members))
    for start in range(0, len(rows), size):
        block = slice(start, start + size)
        H = rows[block] @ M
        one_plus_q = 1.0 + np.einsum("ij,ij->i", H, rows[block])
        w = np.square(H) @ signal
        # (decrease − `least`) times the denominator of the decrease, which is positive.
        Q = rows[block] @ left
        gain = H @ right
        gain -= least * Q
        gain *= Q
        gain += np.column_stack([w - least * one_plus_q, -one_plus_q]) @ member_terms
        gain[is_member[block]] = gain[:, :n_fixed] = -1.0
        positive = gain > 0.0
        better[block] = positive.any(axis=1)
        improvable |= positive.any(axis=0)
    return better, improvable


def start_state(problem: Problem, indices, n: int) -> State:
    """Compute M, q and w of a subset whose final number of rows is n."""
    root = inverse_root(problem.rows[np.asarray(indices, dtype=int)], n * problem.ridge)
    M, q, H = _leverages(problem.rows, root)
    return State(M, q, np.square(H) @ problem.signal)


def update(
    problem: Problem, columns: np.ndarray, state: State, indices, n: int, *, added=(), removed=()
) -> State:
    """Return the state after rows are added and removed, by the Woodbury identity.

    If that would lose digits, the state is recomputed from scratch. This happens if an added row
    is the first to cover a direction, which removes a large part of M, or if a removed row was the
    last one to cover it.

    Parameters
    ----------
    problem : Problem
        From `whiten`.
    columns : ndarray of shape (k, N)
        The rows of the problem, transposed and C-contiguous.
    state : State
        The state before the update.
    indices : array-like of shape (n_indices,), dtype int
        The subset after the update.
    n : int
        Final number of rows of the subset.
    added, removed : list of int, default=()
        Positions of the rows that were added to the subset, and of those that were removed.

    Returns
    -------
    state : State
        The state after the update.
    """
    positions = [*removed, *added]
    H, Q, P = _products(state, columns, problem.signal, positions)
    inner = Q[:, positions] + np.diag([-1.0] * len(removed) + [1.0] * len(added))
    inverted = np.linalg.inv(inner)
    if not max(abs(inner).max(), abs(inverted).max()) < MAX_UPDATE_FACTOR:
        return start_state(problem, indices, n)
    T = inverted @ Q
    return State(
        state.inverse - H.T @ (inverted @ H),
        state.q - np.einsum("ij,ij->j", T, Q),
        state.w + np.einsum("ij,ij->j", T, (H * problem.signal) @ H.T @ T - 2.0 * P),
    )


def _leverages(rows, root):
    """Return M = root rootᵀ, and xᵀ M x and M x of the rows x."""
    G = rows @ root
    return root @ root.T, np.einsum("ij,ij->i", G, G), G @ root.T


def _products(state, columns, signal, positions):
    """Return M x of the rows at r positions (r, k), and their columns of Q and P, each (r, N)."""
    H = columns[:, positions].T @ state.inverse
    both = np.concatenate([H, (H * signal) @ state.inverse]) @ columns
    return H, both[: len(H)], both[len(H) :]


def _one_minus(q):
    """Return 1 − q of members, kept positive where rounding would make it zero or less."""
    return np.maximum(1.0 - q, np.finfo(float).eps)


def _first_max(values):
    """Return the first position of the maximum; values equal up to rounding count as ties."""
    top = values.max()
    return int(np.argmax(values >= top - 1e-12 * abs(top)))
