r"""V-optimal subsets: greedy selection and exchanges.

Pure functions of arrays. With :math:`M = (\sum_{i \in S} x_i x_i^\top + n \alpha I)^{-1}`,
:math:`q_i = x_i^\top M x_i` and :math:`w_i = x_i^\top M \Sigma M x_i`, adding sample i lowers
:math:`V = \mathrm{tr}\,\Sigma (\Sigma_S + \alpha I)^{-1}` by :math:`n w_i / (1 + q_i)`, removing j
raises it by :math:`n w_j / (1 - q_j)`, and replacing j by i lowers it by n times

.. math:: \frac{w_i (1 - q_j) + 2\, Q_{ij} P_{ij} - w_j (1 + q_i)}
               {(1 + q_i)(1 - q_j) + Q_{ij}^2}, \quad
          Q_{ij} = x_i^\top M x_j,\ P_{ij} = x_i^\top M \Sigma M x_j.

All q and w change through the columns of Q and P that belong to the samples that come and go,
so that a step costs O(Nk) (Fedorov 1972, and the identity of Woodbury).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sklearn_skmm.core._design import WORKING_SET, Problem, inverse_root, largest, objective

# Decreases of V below this share of V are rounding.
ROUNDING = 1e-12
# Pairs of a row and a member that are compared at a time, so that they stay in cache.
PAIRS_PER_BLOCK = 2**18
# An update that divides or multiplies by more than this loses digits that matter.
MAX_UPDATE_FACTOR = 1e3


class State(NamedTuple):
    """M with q and w of the rows."""

    inverse: np.ndarray  # (k, k)
    q: np.ndarray  # (N,)
    w: np.ndarray  # (N,)


def greedy(
    problem: Problem, n: int, start=(), *, step: Callable[[], bool] = lambda: False
) -> np.ndarray:
    """Add to a subset, one after the other, the row that lowers V the most.

    Parameters
    ----------
    problem : Problem
        From `whiten`.
    n : int
        How many rows to have in the end.
    start : array-like of shape (n_start,), dtype int
        Distinct positions, at most n.
    step : callable, default=does nothing
        Called once per pick.

    Returns
    -------
    indices : ndarray of shape (n,), dtype int
        The start, then the picks in their order. Ties go to the smaller position.

    Examples
    --------
    >>> import numpy as np
    >>> greedy(Problem(np.diag([1.0, 3.0, 2.0]), np.ones(3), np.full(3, 0.1)), 2)
    array([1, 2])
    """
    rows = problem.rows
    indices = [int(i) for i in start]
    if len(indices) < n:
        columns = np.ascontiguousarray(rows.T)
        free = np.ones(len(rows), dtype=bool)
        free[indices] = False
    while len(indices) < n:
        # Afresh once in k picks, against drift: as much work as the k picks themselves.
        state = start_state(problem, indices, n)
        for _ in range(min(rows.shape[1], n - len(indices))):
            pick = _first_max(np.where(free, state.w / (1.0 + state.q), -1.0))
            indices.append(pick)
            free[pick] = False
            state = update(problem, columns, state, indices, n, added=[pick])
            step()
    return np.array(indices, dtype=int)


def exchange(
    problem: Problem,
    indices: np.ndarray,
    *,
    max_iter: int = 100,
    tol: float = 1e-4,
    step: Callable[[], bool] = lambda: False,
) -> tuple[np.ndarray, int]:
    """Replace members by better rows until no single exchange lowers V by more than tol · V.

    A sweep finds the members that some row improves on, all pairs at once by matrix products;
    each, in order of the loss of removal, is then replaced by its best row, if that is still an
    improvement. The rows looked at are a working set until it holds no improvement. Then all rows
    are, and those that improve join it.

    Parameters
    ----------
    problem : Problem
        From `whiten`.
    indices : ndarray of shape (n,), dtype int
        Distinct positions to start from.
    max_iter : int, default=100
        Bound on the sweeps.
    tol : float, default=1e-4
        Least decrease, relative to V, for an exchange to be made.
    step : callable, default=never stops
        Called once per sweep; True stops.

    Returns
    -------
    indices : ndarray of shape (n,), dtype int
        The subset; V is never above that of the start.
    n_iter : int
        Sweeps, counting the last one, which found nothing to improve.

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
        _, improvable = compare(local, members, least)
        if improvable.any():
            trial = work[_sweep(local, columns, members, improvable, least)]
            trial_value = objective(problem, trial)
            if not trial_value < value:  # what seemed an improvement was rounding
                break
            indices, value = trial, trial_value
        elif len(work) < n_samples:
            better, _ = compare(problem, indices, least)
            if not better.any():
                break
            work, local = np.union1d(work, np.flatnonzero(better)), None
        else:
            break
        if step():
            break
    return indices, n_iter


def _sweep(problem, columns, members, improvable, least):
    """Replace each improvable member by its best row, in order of the loss of removal."""
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


def compare(problem: Problem, members: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Compare all rows to all members, by matrix products.

    Parameters
    ----------
    problem : Problem
        From `whiten`.
    members : ndarray of shape (n,), dtype int
        The subset.
    least : float
        An exchange is an improvement if it lowers V / n by more.

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
        # The decrease minus `least`, times its denominator, which is positive.
        Q = rows[block] @ left
        gain = H @ right
        gain -= least * Q
        gain *= Q
        gain += np.column_stack([w - least * one_plus_q, -one_plus_q]) @ member_terms
        gain[is_member[block]] = -1.0
        positive = gain > 0.0
        better[block] = positive.any(axis=1)
        improvable |= positive.any(axis=0)
    return better, improvable


def start_state(problem: Problem, indices, n: int) -> State:
    """Return M, q and w of a subset that is to have n rows."""
    root = inverse_root(problem.rows[np.asarray(indices, dtype=int)], n * problem.ridge)
    M, q, H = _leverages(problem.rows, root)
    return State(M, q, np.square(H) @ problem.signal)


def update(
    problem: Problem, columns: np.ndarray, state: State, indices, n: int, *, added=(), removed=()
) -> State:
    """Return the state after rows are added and removed, by the identity of Woodbury.

    Where that would lose digits, the state is computed afresh: when a row is the first to cover
    a direction, which takes a large part off M, or was the last.

    Parameters
    ----------
    problem : Problem
        From `whiten`.
    columns : ndarray of shape (k, N)
        The rows of the problem, transposed and contiguous.
    state : State
        Before.
    indices : array-like of shape (n_indices,), dtype int
        The subset after.
    n : int
        How many rows it is to have in the end.
    added, removed : list of int, default=()
        The rows that are new in it, and those that were in it before.

    Returns
    -------
    state : State
        After.
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
    """Return M, xᵀ M x of the rows and M x of the rows."""
    G = rows @ root
    return root @ root.T, np.einsum("ij,ij->i", G, G), G @ root.T


def _products(state, columns, signal, positions):
    """Return M x of the positions (r, k), and their columns of Q and P (r, N)."""
    H = columns[:, positions].T @ state.inverse
    both = np.concatenate([H, (H * signal) @ state.inverse]) @ columns
    return H, both[: len(H)], both[len(H) :]


def _one_minus(q):
    """Return 1 − q of members, which is positive but for rounding."""
    return np.maximum(1.0 - q, np.finfo(float).eps)


def _first_max(values):
    """Return the first position of the maximum, up to rounding."""
    top = values.max()
    return int(np.argmax(values >= top - 1e-12 * abs(top)))
