r"""V-optimal design: the ridge, the convex relaxation and its lower bound.

For weights s that sum to one, and for a subset S of n of the N rows with weights 1/n,

.. math:: V = \mathrm{tr}\,\Sigma (\Sigma_s + \alpha I)^{-1}, \quad
          \Sigma_s = \sum_i s_i x_i x_i^\top .
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import linalg

from sklearn_skmm.core._moments import Spectrum, project_capped_simplex, ridge_of_dimension

# The working set of the relaxation and the exchanges has this many times max(n, k) rows.
WORKING_SET = 8
# Maximum number of iterations of the relaxation. If it stops early, the lower bound is looser but
# still valid.
RELAX_ITER = 500
ROUND_ITER = 50  # maximum number of them on one working set


class Problem(NamedTuple):
    """The rows in coordinates in which Σ is diagonal and Σ + αI is the identity."""

    rows: np.ndarray  # (N, k)
    signal: np.ndarray  # (k,), λ / (λ + α): Σ in these coordinates
    ridge: np.ndarray  # (k,), α / (λ + α): αI in these coordinates


class Relaxation(NamedTuple):
    """Weights that nearly minimise V, and a lower bound on V for all subsets."""

    weights: np.ndarray  # (N,)
    losses: np.ndarray  # (N,), minus the gradient of V at the weights
    lower_bound: float


def default_alpha(eigenvalues: np.ndarray, n: int, n_samples: int) -> float:
    r"""Return the default ridge for n samples, in units of the eigenvalues.

    The largest :math:`\alpha \le \mathrm{tr}(\Sigma) / N` at which the effective dimension
    :math:`\sum_j \lambda_j / (\lambda_j + \alpha)` is at least min(n, 0.9 k). A larger ridge
    hides directions whose eigenvalues are below it, and with them whole clusters. The threshold
    tr(Σ) / N is the one in the paper's intrinsic dimension.

    Parameters
    ----------
    eigenvalues : ndarray of shape (k,)
        Positive, largest first.
    n : int
        Coreset size.
    n_samples : int
        N.

    Returns
    -------
    alpha : float
        Positive; 1 if there is no eigenvalue.

    Examples
    --------
    >>> import numpy as np
    >>> default_alpha(np.ones(10), n=5, n_samples=1000)
    0.01
    >>> round(default_alpha(np.ones(10), n=5, n_samples=2), 6)
    1.0
    """
    if not eigenvalues.size:
        return 1.0
    alpha = float(eigenvalues.sum()) / n_samples
    target = min(n, 0.9 * eigenvalues.size)
    if np.sum(eigenvalues / (eigenvalues + alpha)) < target:
        alpha = ridge_of_dimension(eigenvalues, target)
    return alpha


def least_alpha(eigenvalues: np.ndarray, n: int) -> float:
    """Return the smallest ridge that is not lost in rounding.

    Without a ridge, V is infinite along the directions that n samples leave uncovered, at best
    those with the smallest eigenvalues. A ridge of a millionth of the largest of these eigenvalues
    has the same effect as none. `eigenvalues` has shape (k,), largest first.

    Examples
    --------
    >>> import numpy as np
    >>> least_alpha(np.array([4.0, 1.0, 1.0]), n=1)
    1e-06
    """
    uncovered = eigenvalues[n] if n < eigenvalues.size else 0.0
    return float(max(1e-12 * eigenvalues.max(initial=0.0), 1e-6 * uncovered))


def whiten(X, spectrum: Spectrum, alpha: float) -> Problem:
    """Return the rows and Σ in coordinates in which Σ + αI is the identity.

    In these coordinates, neither the scale of X nor the spread of the eigenvalues matters.

    Parameters
    ----------
    X : {ndarray, sparse matrix} of shape (n_samples, n_features)
        The rows, of which a subset is to be selected.
    spectrum : Spectrum
        Eigenpairs of Σ.
    alpha : float
        Positive ridge.

    Returns
    -------
    problem : Problem
        The whitened rows; a single column of zeros if Σ is zero.
    """
    values, vectors = spectrum
    if not values.size:
        return Problem(np.zeros((X.shape[0], 1)), np.zeros(1), np.ones(1))
    rows = np.ascontiguousarray(X @ (vectors / np.sqrt(values + alpha)))
    return Problem(rows, values / (values + alpha), alpha / (values + alpha))


def objective(problem: Problem, indices: np.ndarray, n: int | None = None) -> float:
    """Return V of the subset at `indices`, an integer array of shape (n,).

    With `n`, the sum over the subset is divided by that number, not by its size.

    Examples
    --------
    >>> import numpy as np
    >>> problem = Problem(np.eye(2), np.ones(2), np.full(2, 0.5))
    >>> round(objective(problem, np.array([0, 1])), 6)
    2.0
    """
    n = len(indices) if n is None else n
    root = inverse_root(problem.rows[indices], n * problem.ridge)
    return n * float(problem.signal @ np.einsum("ij,ij->i", root, root))


def relax(
    problem: Problem,
    n: int,
    *,
    tol: float = 1e-3,
    max_iter: int = RELAX_ITER,
    step: Callable[[], bool] = lambda: False,
) -> Relaxation:
    r"""Minimise V over the weights :math:`0 \le s_i \le 1/n,\ \sum_i s_i = 1`.

    Accelerated projected gradient on a working set of rows. The rows that the gradient over all
    rows prefers are added to the set, until the duality gap is small. With
    :math:`M = (\Sigma_s + \alpha I)^{-1}` and the negative gradient
    :math:`w_i = x_i^\top M \Sigma M x_i`, duality gives for every feasible s', and so for every
    subset,

    .. math:: V(s') \ge \frac{(\mathrm{tr}\,\Sigma M)^2}
                             {\alpha\,\mathrm{tr}\,M \Sigma M + \text{mean of the n largest } w_i},

    which is never less than the Frank-Wolfe bound. A second bound uses the rank: Σ_S has at most n
    positive eigenvalues and a trace of at most τ, the mean of the n largest squared norms, so that
    :math:`V \ge \sum_{j>n} \lambda_j / \alpha + (\sum_{j \le n} \sqrt{\lambda_j})^2 /
    (\tau + n \alpha)`.

    Parameters
    ----------
    problem : Problem
        From `whiten`.
    n : int
        Coreset size.
    tol : float, default=1e-3
        Stop when the duality gap is at most ``tol`` times V.
    max_iter : int, default=500
        Maximum number of iterations.
    step : callable, default=never stops
        Called once per working set; the relaxation stops if it returns True.

    Returns
    -------
    relaxation : Relaxation
        The weights, the negative gradient there, and the larger of the two bounds.
    """
    rows, signal, ridge = problem
    n_samples, k = rows.shape
    s = np.full(n_samples, 1.0 / n_samples)
    bound, curvature, n_iter = 0.0, 0.0, 0
    while True:
        value, M = _evaluate(problem, s)
        w = _losses(problem, M)
        bound = max(bound, _dual_bound(problem, value, M, w, n))
        if value - bound <= tol * value or n_iter >= max_iter or step():
            return Relaxation(s, w, max(bound, _rank_bound(problem, n)))
        work = np.sort(largest(w, WORKING_SET * max(n, k)))
        if n_iter:
            work = np.union1d(work, np.flatnonzero(s))
        else:
            curvature = 0.1 * n * float(w.max())
        start = s[work] / s[work].sum()
        s = np.zeros(n_samples)
        s[work], curvature, done = _accelerate(
            Problem(rows[work], signal, ridge), n, start, curvature, 0.5 * tol
        )
        n_iter += max(1, done)


def _accelerate(problem, n, s, curvature, tol):
    """Minimise V on a working set by FISTA, with backtracking and restarts as `_moments.solve`."""
    value, M = _evaluate(problem, s)
    w = _losses(problem, M)
    best, best_value, bound = s, value, 0.0
    y, y_value, momentum = s, value, 1.0
    for n_iter in range(ROUND_ITER):
        bound = max(bound, _dual_bound(problem, y_value, M, w, n))
        if best_value - bound <= tol * best_value:
            return best, curvature, n_iter
        curvature *= 0.7
        while True:
            new = project_capped_simplex(y + w / curvature, 1.0 / n)
            value, M = _evaluate(problem, new)
            move = new - y
            model = y_value - float(w @ move) + 0.5 * curvature * float(move @ move)
            if value <= model + 1e-12 * y_value:
                break
            curvature *= 2.0
        if value < best_value:
            best, best_value = new, value
        if (y - new) @ (new - s) > 0.0:
            momentum = 1.0  # restart: the momentum points uphill
        next_momentum = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
        beta = (momentum - 1.0) / next_momentum
        before, s, y, y_value, momentum = s, new, new, value, next_momentum
        if beta > 0.0:
            y = np.maximum(new + beta * (new - before), 0.0)  # V and its bound exist for s >= 0
            y_value, M = _evaluate(problem, y)
        w = _losses(problem, M)
    return best, curvature, ROUND_ITER


def _evaluate(problem, s):
    """Return V(s) and M."""
    rows, signal, ridge = problem
    support = np.flatnonzero(s)
    if len(support) < len(rows):
        rows, s = rows[support], s[support]
    root = inverse_root(rows * np.sqrt(s)[:, None], ridge)
    M = root @ root.T
    return float(signal @ np.diag(M)), M


def _losses(problem, M):
    """Return w, the negative gradient of V."""
    H = problem.rows @ (M * np.sqrt(problem.signal))
    return np.einsum("ij,ij->i", H, H)


def _dual_bound(problem, value, M, w, n):
    """Return the lower bound on V from duality, see `relax`."""
    largest_mean = float(np.partition(w, len(w) - n)[len(w) - n :].mean())
    total = float(problem.ridge @ np.square(M) @ problem.signal) + largest_mean
    return value * (value / total) if total > 0.0 else 0.0


def _rank_bound(problem, n):
    """Return the lower bound on V from the rank of Σ_S, see `relax`."""
    ratio = np.sort(problem.signal / problem.ridge)[::-1]  # λ / α
    norms = np.square(problem.rows) @ (1.0 / problem.ridge)  # squared norms / α
    trace = float(np.partition(norms, len(norms) - n)[len(norms) - n :].mean())
    head = float(np.sqrt(ratio[:n]).sum())
    return float(ratio[n:].sum()) + head**2 / (trace + min(n, len(ratio)))


def inverse_root(rows: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    r"""Return W with W Wᵀ = (rowsᵀ rows + diag(ridge))⁻¹.

    `rows` has shape (n, k), `ridge` (k,) and W (k, k). If x is the only row that covers a
    direction, :math:`x^\top W W^\top x` is just below 1. Computed as the squared norm of Wᵀx, it
    keeps digits that a product with the inverse would lose.

    Examples
    --------
    >>> import numpy as np
    >>> inverse_root(np.eye(2), np.full(2, 3.0))
    array([[0.5, 0. ],
           [0. , 0.5]])
    """
    moment = rows.T @ rows
    moment[np.diag_indices_from(moment)] += ridge
    try:
        factor = linalg.cholesky(moment, lower=True, check_finite=False)
    except linalg.LinAlgError:  # the ridge is lost in the rounding of the moment
        values, vectors = linalg.eigh(moment, check_finite=False)
        return vectors / np.sqrt(np.maximum(values, ridge.min()))
    return linalg.solve_triangular(factor, np.eye(len(moment)), lower=True, check_finite=False).T


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the `count` largest of nonnegative values.

    `values` has shape (N,). Ties, up to rounding, go to the smaller position.

    Examples
    --------
    >>> import numpy as np
    >>> largest(np.array([0.1, 0.3, 0.1 + 0.2]), 2)
    array([1, 2])
    """
    return np.argsort(_descending(values), kind="stable")[:count]


def round_largest(relaxation: Relaxation, n: int) -> np.ndarray:
    """Return the positions of the n largest weights.

    Ties go to the larger loss: under a ridge so large that all weights are equally good, the n
    samples with the largest losses are best. Remaining ties go to the smaller position.

    Examples
    --------
    >>> import numpy as np
    >>> weights, losses = np.array([0.1, 0.4, 0.1, 0.4]), np.array([1.0, 2.0, 3.0, 2.0])
    >>> round_largest(Relaxation(weights, losses, 0.0), 3)
    array([1, 3, 2])
    """
    return np.lexsort((_descending(relaxation.losses), _descending(relaxation.weights)))[:n]


def _descending(values):
    """Return sort keys for a descending order; values that are equal up to rounding get one key."""
    return -np.round(values / (float(values.max()) or 1.0), 12)
