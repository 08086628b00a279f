r"""Moment matching: the objective, its feasible set, a solver and the duality gap.

The second moment XᵀX / N is the uncentred covariance. With :math:`a_{ij} = (\tilde G v_j)_i^2` and
the closed form :math:`\gamma_j = \max(1/c_S, (A^\top s)_j / \lambda_j)`, the paper's relaxation is
the convex problem

.. math:: \min_s f(s) = \sum_j \max(0, \lambda_j / c_S - (A^\top s)_j)^2
          \quad\text{over}\quad 0 \le s_i \le 1/n,\ \sum_i s_i = 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import linalg, optimize
from sklearn.utils.extmath import row_norms, safe_sparse_dot

from sklearn_skmm.core._blocks import dot, double_blocks, largest_entry, scaled_rows, second_moments
from sklearn_skmm.core._components import Energies
from sklearn_skmm.core._simplex import project_capped_simplex

# The duality gap takes another pass over A, so it is computed once in this many iterations.
GAP_EVERY = 10


class Spectrum(NamedTuple):
    """Eigenpairs of a second moment, largest first."""

    eigenvalues: np.ndarray  # (k,)
    eigenvectors: np.ndarray  # (n_features, k)

    @property
    def unit(self) -> float:
        """The largest length along an eigenvector, √λ_1, or 1 if there is none."""
        return float(np.sqrt(self.eigenvalues.max(initial=0.0))) or 1.0

    @property
    def relative(self) -> np.ndarray:
        """Eigenvalues in units of `unit` squared, so that no square over- or underflows."""
        return self.eigenvalues / self.unit**2


def spectrum(X, weight: np.ndarray | None = None) -> Spectrum:
    """Return the eigenpairs of XᵀX / N whose eigenvalues exceed rounding, largest first.

    Parameters
    ----------
    X : {ndarray, sparse matrix} of shape (n_samples, n_features)
        Rows are samples.
    weight : ndarray of shape (n_samples,) or None, default=None
        Weights of the rows, with a positive sum; None is 1 for each. The second moment is then
        Σ_i w_i x_i x_iᵀ / Σ_i w_i.

    Returns
    -------
    spectrum : Spectrum
        At most min(n_samples, n_features) pairs. Eigenvalues at or below
        ``max(X.shape) * eps * largest`` are left out, because they are rounding errors.

    Examples
    --------
    >>> import numpy as np
    >>> spectrum(np.array([[2.0, 0.0], [0.0, 0.0]])).eigenvalues
    array([2.])
    """
    n_samples, n_features = X.shape
    # Scaled by the largest entry, so that squares neither overflow nor underflow.
    scale = largest_entry(X) or 1.0
    wide = n_features > n_samples
    total = n_samples if weight is None else float(weight.sum())
    if wide:
        X = scaled_rows(X, scale, weight)
        gram = safe_sparse_dot(X, X.T, dense_output=True)
    else:
        gram = second_moments(X, scale, weight)
    values, vectors = linalg.eigh(gram / total, check_finite=False)
    rounding = max(X.shape) * np.finfo(np.float64).eps
    if X.dtype == np.float32:
        # Rounding of the rows to single precision has relative eigenvalues of about this size.
        rounding = max(rounding, (8.0 * float(np.finfo(np.float32).eps)) ** 2)
    keep = values > rounding * max(values[-1], 0.0)
    values, vectors = values[keep][::-1], vectors[:, keep][:, ::-1]
    if wide:
        # Right singular vectors from left ones: v_j = Xᵀ u_j / sqrt(N λ_j).
        vectors = np.asarray(X.T @ vectors) / np.sqrt(total * values)
    return Spectrum(values * scale**2, vectors)


def ridge_of_dimension(eigenvalues: np.ndarray, dimension: float) -> float:
    r"""Return the ridge at which the effective dimension has the given value.

    It is the root of :math:`\sum_j \lambda_j / (\lambda_j + \alpha) = d`.

    Parameters
    ----------
    eigenvalues : ndarray of shape (k,)
        Positive, largest first.
    dimension : float
        The effective dimension d, above 0 and below k.

    Returns
    -------
    alpha : float
        Positive, in units of the eigenvalues.

    Examples
    --------
    >>> import numpy as np
    >>> round(ridge_of_dimension(np.ones(10), 5.0), 6)
    1.0
    """
    relative = eigenvalues / eigenvalues[0]

    def excess(log_alpha):
        return float(np.sum(relative / (relative + np.exp(log_alpha)))) - dimension

    # At the lower end, each term is above d / k; at the upper end, their sum is below d.
    fraction = dimension / relative.size
    low = np.log(relative[-1]) + np.log((1.0 - fraction) / fraction) - 1e-3
    high = np.log(relative.sum() / dimension)
    return float(np.exp(optimize.brentq(excess, min(low, high), high)) * eigenvalues[0])


def directional_energies(X, eigenvectors: np.ndarray) -> np.ndarray:
    """Return A of shape (n_samples, k): the squared component of each row along each direction."""
    return np.square(np.asarray(X @ eigenvectors))


def explained_fraction(X, coreset, alpha: float) -> float:
    r"""Return the fraction of the second moment that ridge regression on the coreset explains.

    It is :math:`tr(\Sigma \Sigma_S (\Sigma_S + \alpha I)^{-1}) / tr(\Sigma)`.

    Parameters
    ----------
    X : {ndarray, sparse matrix} of shape (n_samples, n_features)
        Samples; :math:`\Sigma` is their second moment.
    coreset : {ndarray, sparse matrix} of shape (n, n_features)
        Rows of the coreset; :math:`\Sigma_S` is their second moment.
    alpha : float
        The ridge.

    Returns
    -------
    fraction : float
        The explained fraction of the second moment, between 0 and 1; 1 if :math:`\Sigma` is zero.

    Examples
    --------
    >>> import numpy as np
    >>> explained_fraction(np.eye(2), np.array([[1.0, 0.0]]), alpha=1.0)
    0.25
    """
    scale = max(largest_entry(X), largest_entry(coreset))
    if scale == 0.0:
        return 1.0
    coreset, alpha = coreset / np.float64(scale), alpha / scale**2
    n, n_features = coreset.shape
    # Use the smaller Gram matrix; by the push-through identity, both give the same result.
    small = n < n_features
    pair = (coreset, coreset.T) if small else (coreset.T, coreset)
    values, vectors = linalg.eigh(safe_sparse_dot(*pair, dense_output=True), check_finite=False)
    values = np.maximum(values, 0.0)
    total, energies = 0.0, np.zeros(len(values))
    for block in double_blocks(X, scale):
        features = safe_sparse_dot(block, coreset.T, dense_output=True) if small else block
        energies += directional_energies(features, vectors).sum(axis=0)
        total += float(row_norms(block, squared=True).sum())
    if total == 0.0:
        return 1.0
    gain = (1.0 if small else values) / (values + n * alpha + np.finfo(float).tiny)
    explained = float(energies @ gain)
    return float(min(1.0, explained / total))


def moment_shortfall(A, s, eigenvalues, c_S) -> np.ndarray:
    """Return max(0, λ_j / c_S − (Aᵀs)_j) for each direction j, of shape (k,)."""
    return np.maximum(0.0, eigenvalues / c_S - s @ A)


def objective(A, s, eigenvalues, c_S) -> float:
    """Return f(s), the sum of the squared shortfalls.

    A has shape (N, k), s (N,) and `eigenvalues` (k,).

    Examples
    --------
    >>> import numpy as np
    >>> A = np.array([[1.0, 0.0], [0.0, 4.0]])
    >>> objective(A, np.array([1.0, 0.0]), np.array([0.5, 2.0]), c_S=1.0)
    4.0
    """
    return float(np.square(moment_shortfall(A, s, eigenvalues, c_S)).sum())


def duality_gap(s: np.ndarray, gradient: np.ndarray, n: int) -> float:
    """Return the Frank-Wolfe duality gap, an upper bound on f(s) − min f.

    `s` and `gradient` have shape (N,). The minimiser of a linear function over the capped simplex
    puts the weight 1/n on the n smallest entries of the gradient.
    """
    smallest = np.partition(gradient, n - 1)[:n]
    return max(0.0, dot(s, gradient) - float(smallest.mean(dtype=np.float64)))


class Solution(NamedTuple):
    """A minimiser of the relaxation, with its duality gap."""

    s: np.ndarray  # (N,)
    objective: float
    dual_gap: float
    n_iter: int


def solve(
    A: Energies | np.ndarray,
    eigenvalues: np.ndarray,
    n: int,
    c_S: float,
    s: np.ndarray,
    *,
    max_iter: int = 2000,
    tol: float = 1e-7,
    rtol: float = 0.0,
    step: Callable[[], bool] = lambda: False,
) -> Solution:
    r"""Minimise f over the capped simplex by accelerated projected gradient.

    FISTA (Beck & Teboulle 2009) with backtracking and the adaptive restart of O'Donoghue & Candès
    (2015). It stops by the Frank-Wolfe duality gap (Jaggi 2013), or by f itself if that is smaller:
    both bound f(s) − min f, since min f >= 0.

    Parameters
    ----------
    A : Energies or ndarray of shape (N, k)
        Squared components.
    eigenvalues : ndarray of shape (k,)
        Second moments λ; the weighted sum of the rows of A should reach λ / c_S.
    n : int
        Coreset size; the cap is 1 / n.
    c_S : float
        The constant in :math:`\Sigma \preceq c_S \Sigma_S`.
    s : ndarray of shape (N,)
        Feasible weights to start from.
    max_iter : int, default=2000
        Maximum number of iterations.
    tol : float, default=1e-7
        Stop when the gap is at most ``tol * sum((eigenvalues / c_S) ** 2)``.
    rtol : float, default=0.0
        Stop when the gap is at most ``rtol`` times the objective.
    step : callable, default=never stops
        Called once per iteration; the solver stops if it returns True.

    Returns
    -------
    solution : Solution
        The iterate with the smallest objective, that objective, its duality gap, and the number
        of iterations.
    """
    scale = float(eigenvalues.max(initial=0.0))
    if scale == 0.0:
        return Solution(s, 0.0, 0.0, 0)
    A = A if isinstance(A, Energies) else Energies(A)
    target = eigenvalues / (scale * c_S)
    s = s.astype(A.dtype, copy=False)
    # On the hyperplane sum(s) = 1, a constant added to a column of A only shifts its moment, so the
    # curvature that matters is that of the centred columns.
    lipschitz = 2.0 * float(np.linalg.eigvalsh(A.scatter() / scale**2)[-1])
    threshold = tol * float(target @ target)

    def shortfall_at(moments):
        return np.maximum(0.0, target - moments)

    def gradient_at(moments):
        return A.matvec(shortfall_at(moments) * (-2.0 / scale))

    def value_at(moments):
        shortfall = shortfall_at(moments)
        return float(shortfall @ shortfall)

    def gap_at(point, moments):
        # f is a sum of squares, so f(s) bounds f(s) − min f as well.
        return min(duality_gap(point, gradient_at(moments), n), value_at(moments))

    moments = A.rmatvec(s) / scale
    best, best_moments, best_value = s, moments, value_at(moments)
    # Moments that miss their targets by rounding only, as those of uniform weights for c_S >= 1.
    if best_value <= (64.0 * float(np.finfo(A.dtype).eps)) ** 2 * float(target @ target):
        return Solution(s, 0.0, 0.0, 0)
    gap = gap_at(s, moments)
    if lipschitz <= float(np.finfo(A.dtype).eps) * max(1.0, float(target @ target)):
        max_iter = 0  # every feasible s has the same moments
    # The moments of the extrapolated point y follow by linearity, without a pass over A.
    y, y_moments, momentum, curvature = s, moments, 1.0, lipschitz
    n_iter = 0
    while gap > max(threshold, rtol * best_value) and n_iter < max_iter:
        gradient = gradient_at(y_moments)
        y_value = value_at(y_moments)
        # Directions whose moment is reached are flat, so the curvature is often far below its
        # bound: try a smaller one and double it until the quadratic model is above f. The limit
        # is needed because zero steps are always accepted, so the curvature would shrink to zero.
        curvature = max(0.8 * curvature, 1e-9 * lipschitz)
        while True:
            new = gradient * A.dtype.type(-1.0 / curvature)
            new += y
            new = project_capped_simplex(new, 1.0 / n)
            new_moments = A.rmatvec(new) / scale
            move = new - y
            model = y_value + dot(gradient, move) + 0.5 * curvature * dot(move, move)
            if value_at(new_moments) <= model or curvature >= lipschitz:
                break
            curvature = min(2.0 * curvature, lipschitz)
        del gradient, y
        step_taken = new - s
        if dot(move, step_taken) < 0.0:
            momentum = 1.0  # restart: the momentum points uphill
        del move
        next_momentum = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
        beta = (momentum - 1.0) / next_momentum
        step_taken *= A.dtype.type(beta)
        step_taken += new
        y, y_moments = step_taken, new_moments + beta * (new_moments - moments)
        s, moments, momentum = new, new_moments, next_momentum
        n_iter += 1
        value = value_at(moments)
        if value <= best_value:
            best, best_moments, best_value = s, moments, value
        last = step() or n_iter == max_iter
        if last or n_iter % GAP_EVERY == 0 or n_iter == 1:
            gap = gap_at(best, best_moments)
        if last:
            break
    return Solution(best, best_value * scale**2, gap * scale**2, n_iter)
