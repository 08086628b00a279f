r"""Moment matching: the objective, its feasible set, a solver and a certificate.

Pure functions of arrays. With :math:`a_{ij} = (\tilde G v_j)_i^2` and the closed form
:math:`\gamma_j = \max(1/c_S, (A^\top s)_j / \lambda_j)`, the paper's relaxation is
the convex problem

.. math:: \min_s f(s) = \sum_j \max(0, \lambda_j / c_S - (A^\top s)_j)^2
          \quad\text{over}\quad 0 \le s_i \le 1/n,\ \sum_i s_i = 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import linalg, optimize
from sklearn.utils.extmath import row_norms, safe_sparse_dot

# The gap costs another pass over A, so it is measured once in so many iterations.
GAP_EVERY = 10


class Spectrum(NamedTuple):
    """Eigenpairs of a second moment, largest first."""

    eigenvalues: np.ndarray  # (k,)
    eigenvectors: np.ndarray  # (n_features, k)


def spectrum(X) -> Spectrum:
    """Return the eigenpairs of XᵀX / N above rounding, largest first.

    Parameters
    ----------
    X : {ndarray, sparse matrix} of shape (n_samples, n_features)
        Rows are samples.

    Returns
    -------
    spectrum : Spectrum
        At most min(n_samples, n_features) pairs. Eigenvalues at or below
        ``max(X.shape) * eps * largest`` are left out: they say nothing about the data.

    Examples
    --------
    >>> import numpy as np
    >>> spectrum(np.array([[2.0, 0.0], [0.0, 0.0]])).eigenvalues
    array([2.])
    """
    n_samples, n_features = X.shape
    # Scaled by the largest entry, so that no square over- or underflows.
    scale = float(abs(X).max()) or 1.0
    X = X / scale
    wide = n_features > n_samples
    gram = safe_sparse_dot(*((X, X.T) if wide else (X.T, X)), dense_output=True) / n_samples
    values, vectors = linalg.eigh(gram, check_finite=False)
    keep = values > max(X.shape) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    values, vectors = values[keep][::-1], vectors[:, keep][:, ::-1]
    if wide:
        # From left singular vectors to right ones: v_j = Xᵀ u_j / sqrt(N λ_j).
        vectors = np.asarray(X.T @ vectors) / np.sqrt(n_samples * values)
    return Spectrum(values * scale**2, vectors)


def ridge_of_dimension(eigenvalues: np.ndarray, dimension: float) -> float:
    r"""Return the ridge at which the effective dimension has the given value.

    The root of :math:`\sum_j \lambda_j / (\lambda_j + \alpha) = d`.

    Parameters
    ----------
    eigenvalues : ndarray of shape (k,)
        Positive, largest first.
    dimension : float
        d, above 0 and below k.

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

    # At the lower end each term is above d / k, at the upper one their sum is below d.
    share = dimension / relative.size
    low = np.log(relative[-1]) + np.log((1.0 - share) / share) - 1e-3
    high = np.log(relative.sum() / dimension)
    return float(np.exp(optimize.brentq(excess, min(low, high), high)) * eigenvalues[0])


def directional_energies(X, eigenvectors: np.ndarray) -> np.ndarray:
    """Return A of shape (n_samples, k), the squared components of each row along each direction."""
    return np.square(np.asarray(X @ eigenvectors))


def explained_fraction(X, coreset, alpha: float) -> float:
    r"""Return :math:`tr(\Sigma \Sigma_S (\Sigma_S + \alpha I)^{-1}) / tr(\Sigma)`.

    Parameters
    ----------
    X : {ndarray, sparse matrix} of shape (n_samples, n_features)
        Samples whose second moment :math:`\Sigma` is to be explained.
    coreset : {ndarray, sparse matrix} of shape (n, n_features)
        Rows of the coreset; :math:`\Sigma_S` is their second moment.
    alpha : float
        The ridge.

    Returns
    -------
    fraction : float
        Between 0 and 1. A second moment of zero is explained wholly.

    Examples
    --------
    >>> import numpy as np
    >>> explained_fraction(np.eye(2), np.array([[1.0, 0.0]]), alpha=1.0)
    0.25
    """
    scale = float(max(abs(X).max(), abs(coreset).max()))
    if scale == 0.0:
        return 1.0
    X, coreset, alpha = X / scale, coreset / scale, alpha / scale**2
    total = float(row_norms(X, squared=True).sum())
    if total == 0.0:
        return 1.0
    n, n_features = coreset.shape
    # The smaller of the two Gram matrices; the push-through identity makes them equal.
    small = n < n_features
    pair = (coreset, coreset.T) if small else (coreset.T, coreset)
    values, vectors = linalg.eigh(safe_sparse_dot(*pair, dense_output=True), check_finite=False)
    values = np.maximum(values, 0.0)
    features = safe_sparse_dot(X, coreset.T, dense_output=True) if small else X
    energies = directional_energies(features, vectors).sum(axis=0)
    gain = (1.0 if small else values) / (values + n * alpha + np.finfo(float).tiny)
    explained = float(energies @ gain)
    return float(min(1.0, explained / total))


def moment_shortfall(A, s, eigenvalues, c_S) -> np.ndarray:
    """Return max(0, λ_j / c_S − (Aᵀs)_j) for each direction j."""
    return np.maximum(0.0, eigenvalues / c_S - s @ A)


def objective(A, s, eigenvalues, c_S) -> float:
    """Return f(s), the sum of the squared shortfalls.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.array([[1.0, 0.0], [0.0, 4.0]])
    >>> objective(A, np.array([1.0, 0.0]), np.array([0.5, 2.0]), c_S=1.0)
    4.0
    """
    return float(np.square(moment_shortfall(A, s, eigenvalues, c_S)).sum())


def duality_gap(s: np.ndarray, gradient: np.ndarray, n: int) -> float:
    """Return the Frank–Wolfe gap, an upper bound on f(s) − min f.

    The minimiser of a linear function over the capped simplex puts 1/n on the n smallest
    entries of the gradient.
    """
    smallest = np.partition(gradient, n - 1)[:n]
    return max(0.0, float(s @ gradient - smallest.mean()))


def project_capped_simplex(v: np.ndarray, cap: float) -> np.ndarray:
    r"""Project onto :math:`\{0 \le s_i \le cap, \sum_i s_i = 1\}`, exactly.

    The projection is :math:`s_i = clip(v_i - \tau, 0, cap)` for the root :math:`\tau` of a
    piecewise linear function with breakpoints v and v − cap. The median breakpoint that is
    still in doubt halves the doubt each time, so the cost is O(N) and the root is exact.

    Parameters
    ----------
    v : ndarray of shape (N,)
        The point to project.
    cap : float
        Upper bound of each entry, at least 1 / N.

    Returns
    -------
    s : ndarray of shape (N,)
        The nearest feasible point.

    Examples
    --------
    >>> import numpy as np
    >>> project_capped_simplex(np.array([3.0, 0.0, 0.0]), cap=0.5)
    array([0.5 , 0.25, 0.25])
    """
    low, high = float(v.min()) - cap, float(v.max())
    doubtful = v
    n_top, n_free, sum_free = 0, 0, 0.0
    newton = True
    while doubtful.size:
        tau = None
        if newton:
            # A secant step along the current piece: exact once that piece holds the root.
            tau = _piece_root(doubtful, 0.5 * (low + high), cap, n_top, n_free, sum_free)
        if tau is None or not low < tau < high:
            inner = np.concatenate([doubtful, doubtful - cap])
            inner = inner[(inner > low) & (inner < high)]
            if not inner.size:
                break
            tau = float(np.partition(inner, inner.size // 2)[inner.size // 2])
        newton = not newton
        mass = n_top * cap + sum_free - n_free * tau
        mass += np.clip(doubtful - tau, 0.0, cap).sum()
        if mass >= 1.0:
            low = tau
        if mass <= 1.0:
            high = tau
        top = doubtful - cap >= high
        free = (doubtful >= high) & (doubtful - cap <= low) & ~top
        zero = doubtful <= low
        n_top += int(np.count_nonzero(top))
        n_free += int(np.count_nonzero(free))
        sum_free += float(doubtful[free].sum())
        doubtful = doubtful[~(top | free | zero)]
        if low == high:
            break
    tau = (sum_free + n_top * cap - 1.0) / n_free if n_free and low < high else low
    return _settle(v, tau, cap)


def _piece_root(v, tau, cap, n_top, n_free, sum_free):
    """Return the root of the linear piece that holds at tau, or None if it is flat."""
    shifted = v - tau
    top = shifted >= cap
    free = (shifted > 0.0) & ~top
    count = n_free + np.count_nonzero(free)
    if not count:
        return None
    total = sum_free + float(v[free].sum()) + (n_top + np.count_nonzero(top)) * cap
    return (total - 1.0) / count


def _settle(v, tau, cap):
    """Clip at tau, then spread the rounding of the sum over the free entries."""
    s = np.clip(v - tau, 0.0, cap)
    for _ in range(3):
        residual = 1.0 - s.sum()
        free = (s > 0.0) & (s < cap)
        count = np.count_nonzero(free)
        if not count or residual == 0.0:
            break
        s[free] = np.clip(s[free] + residual / count, 0.0, cap)
    return s


class Solution(NamedTuple):
    """A minimiser of the relaxation with its certificate."""

    s: np.ndarray
    objective: float
    dual_gap: float
    n_iter: int


def solve(
    A: np.ndarray,
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
    (2015), stopped by the Frank–Wolfe gap (Jaggi 2013), or by f itself where that is smaller,
    since min f >= 0.

    Parameters
    ----------
    A : ndarray of shape (N, k)
        Squared components, from `directional_energies`.
    eigenvalues : ndarray of shape (k,)
        What the weighted sum of the rows of A is to reach, times 1 / c_S.
    n : int
        Coreset size; the cap is 1 / n.
    c_S : float
        The constant in :math:`\Sigma \preceq c_S \Sigma_S`.
    s : ndarray of shape (N,)
        Feasible start.
    max_iter : int, default=2000
        Bound on the iterations.
    tol : float, default=1e-7
        Stop when the gap is at most ``tol * sum((eigenvalues / c_S) ** 2)``.
    rtol : float, default=0.0
        Stop when the gap is at most ``rtol`` times the objective.
    step : callable, default=never stops
        Called once per iteration; True stops.

    Returns
    -------
    solution : Solution
        The iterate with the least objective, that objective, its gap, and the number of
        iterations.
    """
    scale = float(eigenvalues.max(initial=0.0))
    if scale == 0.0:
        return Solution(s, 0.0, 0.0, 0)
    A, target = A / scale, eigenvalues / (scale * c_S)
    # On the hyperplane sum(s) = 1 a constant added to a column of A changes f by nothing, so
    # the curvature that counts is that of the centred columns.
    centred = A - A.mean(axis=0)
    lipschitz = 2.0 * float(np.linalg.eigvalsh(centred.T @ centred)[-1])
    threshold = tol * float(target @ target)

    def gap_at(point, moments):
        shortfall = np.maximum(0.0, target - moments)
        # f is a sum of squares, so f(s) itself bounds f(s) − min f too.
        return min(duality_gap(point, -2.0 * (A @ shortfall), n), float(shortfall @ shortfall))

    def value_at(moments):
        shortfall = np.maximum(0.0, target - moments)
        return float(shortfall @ shortfall)

    moments = s @ A
    best, best_moments, best_value = s, moments, value_at(moments)
    gap = gap_at(s, moments)
    if lipschitz <= np.finfo(float).eps * max(1.0, float(target @ target)):
        max_iter = 0  # every feasible s has the same moments
    # The moments of the extrapolated point y follow from linearity, without a pass over A.
    y, y_moments, momentum, curvature = s, moments, 1.0, lipschitz
    n_iter = 0
    while gap > max(threshold, rtol * best_value) and n_iter < max_iter:
        gradient = -2.0 * (A @ np.maximum(0.0, target - y_moments))
        y_value = value_at(y_moments)
        # Directions whose moment is reached are flat, so the curvature is often far below the
        # bound: try a smaller one, and double it until the quadratic model lies above f.
        curvature *= 0.8
        while True:
            new = project_capped_simplex(y - gradient / curvature, 1.0 / n)
            new_moments = new @ A
            move = new - y
            model = y_value + float(gradient @ move) + 0.5 * curvature * float(move @ move)
            if value_at(new_moments) <= model or curvature >= lipschitz:
                break
            curvature = min(2.0 * curvature, lipschitz)
        if (y - new) @ (new - s) > 0.0:
            momentum = 1.0  # the momentum points uphill: forget it
        next_momentum = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
        beta = (momentum - 1.0) / next_momentum
        y = new + beta * (new - s)
        y_moments = new_moments + beta * (new_moments - moments)
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
