r"""Quantities of the paper's theory, for any coreset.

Use them to compare a coreset with a random sample without labels. G is (N, r), with one gradient,
sketched or not, per row. :math:`\Sigma = G^\top G / N` is its second moment (the uncentred
covariance), and :math:`\Sigma_S = G_S^\top G_S / n` that of a coreset S of n rows. For a
rank-deficient S each function is finite, or infinite by its definition.
"""

from numbers import Real

import numpy as np
from scipy import linalg

from sklearn_skmm.core import _criteria
from sklearn_skmm.core._moments import directional_energies, spectrum
from sklearn_skmm.data import open_samples

__all__ = [
    "bias_term",
    "coverage",
    "effective_c_S",
    "excess_risk_bound",
    "intrinsic_dimension",
    "mmd",
    "v_optimality",
    "variance_term",
]


def _check_number(value, name, *, positive=False):
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {value!r}.")
    if not 0 <= value < np.inf or (positive and value == 0):
        what = "positive" if positive else "at least 0"
        raise ValueError(f"{name} must be {what if value <= 0 else 'finite'}, got {value}.")


def _check_G(G):
    return open_samples(G, name="G", dtypes=[np.float64], sparse=False).X


def _check(G, indices):
    G = _check_G(G)
    indices = np.asarray(indices)
    if indices.dtype == bool and indices.shape == (G.shape[0],):
        indices = np.flatnonzero(indices)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer) or not indices.size:
        raise ValueError(
            f"indices must be a non-empty 1-d array of integers or a mask of {G.shape[0]} entries, "
            f"got shape {indices.shape} and dtype {indices.dtype}."
        )
    if indices.min() < -G.shape[0] or indices.max() >= G.shape[0]:
        raise ValueError(f"indices must be positions among the {G.shape[0]} rows of G.")
    return G, G[indices]


def intrinsic_dimension(G) -> int:
    r"""Return the intrinsic dimension, the number of directions that matter.

    It is an effective rank,
    :math:`\bar r = \min\{t : tr(\Sigma - \langle\Sigma\rangle_t) \le tr(\Sigma)/N\}`: the smallest
    number of eigenvectors of :math:`\Sigma` that hold all but 1/N of its trace. The paper asks for
    a sketch dimension of at least :math:`11 \bar r`.

    Parameters
    ----------
    G : array-like of shape (n_samples, n_features)
        Gradients.

    Returns
    -------
    r : int
        The intrinsic dimension. It is 0 if all gradients are zero.

    Examples
    --------
    >>> import numpy as np
    >>> intrinsic_dimension(np.diag([10.0, 10.0, 0.1, 0.1]))
    2
    """
    G = _check_G(G)
    values = spectrum(G).eigenvalues
    if not values.size:
        return 0
    tails = values.sum() - np.cumsum(np.concatenate([[0.0], values]))
    return int(np.argmax(tails <= values.sum() / G.shape[0]))


def effective_c_S(G, indices) -> float:
    r"""Return the smallest c with :math:`\Sigma \preceq c \Sigma_S`.

    It shows how weakly the coreset represents its worst direction; smaller is better. It is the
    largest generalised eigenvalue of :math:`(\Sigma, \Sigma_S)`, and infinite if S does not span
    the range of :math:`\Sigma`.

    Parameters
    ----------
    G : array-like of shape (n_samples, n_features)
        Gradients.
    indices : array-like of shape (n,)
        Positions of the coreset, or a mask.

    Returns
    -------
    c : float
        At least n / N.

    Examples
    --------
    >>> import numpy as np
    >>> round(effective_c_S(np.eye(2), [0, 1]), 6), effective_c_S(np.eye(2), [0])
    (1.0, inf)
    """
    G, coreset = _check(G, indices)
    values, vectors = spectrum(G)
    if not values.size:
        return 1.0
    # In coordinates where Σ is the identity, c is one over the smallest eigenvalue of Σ_S.
    white = coreset @ (vectors / np.sqrt(values))
    least = float(linalg.eigvalsh(white.T @ white / len(coreset))[0])
    return float("inf") if least <= len(values) * np.finfo(float).eps else 1.0 / least


def _subspace_basis(basis, n_features):
    """Return an orthonormal basis (n_features, k) of the subspace; None is the whole space."""
    if basis is None:
        return np.eye(n_features)
    basis = open_samples(basis, name="basis", dtypes=[np.float64], sparse=False).X
    if basis.shape[1] != n_features:
        raise ValueError(
            f"basis must have {n_features} columns, as G has, got {basis.shape[1]}. Its rows span "
            "the subspace."
        )
    return linalg.orth(basis.T)


def variance_term(G, indices, *, sigma=1.0, basis=None) -> float:
    r"""Return the variance term of the excess risk.

    It is :math:`\frac{\sigma^2}{n} tr(\Sigma (P \Sigma_S P)^\dagger)`, where P projects onto a
    subspace. It is small if S represents every direction of the subspace well.

    Parameters
    ----------
    G : array-like of shape (n_samples, n_features)
        Gradients.
    indices : array-like of shape (n,)
        Positions of the coreset, or a mask.
    sigma : float, default=1.0
        Standard deviation of the label noise.
    basis : array-like of shape (k, n_features), default=None
        Rows that span the range of P. None means the whole space.

    Returns
    -------
    variance : float
        The variance term. Smaller is better.

    Examples
    --------
    >>> import numpy as np
    >>> variance_term(np.eye(2), [0, 1])
    1.0
    """
    G, coreset = _check(G, indices)
    _check_number(sigma, "sigma")
    P = _subspace_basis(basis, G.shape[1])
    if not P.shape[1]:
        return 0.0  # a basis of zeros
    # Σ_S restricted to range(P): P's columns are orthonormal, so the pseudo-inverse is inside.
    values, vectors = spectrum(coreset @ P)
    energies = directional_energies(G @ P, vectors).mean(axis=0)
    return float(sigma**2 / len(coreset) * np.sum(energies / values))


def bias_term(G, indices, *, theta_norm=1.0, basis=None) -> float:
    r"""Return the bias term of the excess risk.

    It is :math:`2\,tr(\Sigma P^\perp) \|\theta_*\|^2`, where P projects onto a subspace. It is
    small if little of the second moment lies outside that subspace.

    Parameters
    ----------
    G : array-like of shape (n_samples, n_features)
        Gradients.
    indices : array-like of shape (n,)
        Positions of the coreset, or a mask.
    theta_norm : float, default=1.0
        Norm of the best parameters.
    basis : array-like of shape (k, n_features), default=None
        Rows that span the range of P. None means the span of the coreset.

    Returns
    -------
    bias : float
        The bias term. Smaller is better.

    Examples
    --------
    >>> import numpy as np
    >>> bias_term(np.eye(2), [0])
    1.0
    """
    G, coreset = _check(G, indices)
    _check_number(theta_norm, "theta_norm")
    P = spectrum(coreset).eigenvectors if basis is None else _subspace_basis(basis, G.shape[1])
    outside = G - (G @ P) @ P.T
    return float(2.0 * theta_norm**2 * np.square(outside).sum() / len(G))


def v_optimality(G, indices, *, alpha) -> float:
    r"""Return the V-optimality criterion of a coreset.

    It is :math:`tr(\Sigma (\Sigma_S + \alpha I)^{-1})`, which `VOptimalSelector` minimises.

    Parameters
    ----------
    G : array-like of shape (n_samples, n_features)
        Gradients.
    indices : array-like of shape (n,)
        Positions of the coreset, or a mask.
    alpha : float
        Positive ridge, in units of the eigenvalues of the second moment.

    Returns
    -------
    v : float
        The criterion. Smaller is better.

    Examples
    --------
    >>> import numpy as np
    >>> v_optimality(np.eye(2), [0, 1], alpha=0.5)
    1.0
    """
    G, coreset = _check(G, indices)
    _check_number(alpha, "alpha", positive=True)
    return _criteria.v_optimality(G, coreset, alpha)


def coverage(G, indices, *, bandwidth=None) -> float:
    r"""Return the mean similarity of the samples to their nearest selected samples.

    It is :math:`\frac{1}{N} \sum_i \max_{j \in S} \exp(-\|g_i - g_j\|^2 / (2 h^2))`, which
    `FacilityLocationSelector` maximises with its Gaussian metric.

    Parameters
    ----------
    G : array-like of shape (n_samples, n_features)
        Gradients.
    indices : array-like of shape (n,)
        Positions of the coreset, or a mask.
    bandwidth : float or None, default=None
        h > 0, in the unit of G. None is half the median distance, from a subsample.

    Returns
    -------
    coverage : float
        Between 0 and 1. Larger is better.

    Raises
    ------
    ValueError
        If the bandwidth is not positive and finite.

    Examples
    --------
    >>> import numpy as np
    >>> coverage(np.array([[0.0], [2.0]]), [0, 1])
    1.0
    """
    G, coreset = _check(G, indices)
    return _criteria.coverage(G, coreset, _bandwidth(G, bandwidth))


def mmd(G, indices, *, bandwidth=None) -> float:
    r"""Return the maximum mean discrepancy of all samples and a coreset.

    It is the distance between the mean embeddings of both in the space of a Gaussian kernel
    :math:`\exp(-\|g - g'\|^2 / (2 h^2))` (Gretton et al. 2012), the largest difference of the means
    of a function with norm 1 there. The `score` of a selector is one minus its square. Of more than
    16,384 samples a random subsample is used.

    Parameters
    ----------
    G : array-like of shape (n_samples, n_features)
        Gradients.
    indices : array-like of shape (n,)
        Positions of the coreset, or a mask.
    bandwidth : float or None, default=None
        h > 0, in the unit of G. None is half the median distance, from a subsample.

    Returns
    -------
    mmd : float
        The discrepancy. Smaller is better.

    Raises
    ------
    ValueError
        If the bandwidth is not positive and finite.

    Examples
    --------
    >>> import numpy as np
    >>> mmd(np.array([[0.0], [2.0]]), [0, 1])
    0.0
    """
    G, coreset = _check(G, indices)
    return float(np.sqrt(_criteria.squared_mmd(G, coreset, _bandwidth(G, bandwidth))))


def _bandwidth(G, bandwidth):
    if bandwidth is None:
        return _criteria.bandwidth_of(G[_criteria.sampled_rows(len(G))])
    _check_number(bandwidth, "bandwidth", positive=True)
    return bandwidth


def excess_risk_bound(G, indices, *, sigma=1.0, theta_norm=1.0) -> float:
    r"""Return a bound on the expected excess risk of ridge regression on the coreset.

    Let P project onto the span of any eigenvectors of :math:`\Sigma_S`. The expected excess risk of
    ``Ridge(alpha=sigma**2 / theta_norm**2)`` without intercept, fitted on the coreset, is then at
    most `variance_term` plus `bias_term`. The bound is the smallest such sum over the spans of the
    t leading eigenvectors, t = 0, …, rank. For other subspaces of the span of S the sum need not be
    a bound.

    Parameters
    ----------
    G : array-like of shape (n_samples, n_features)
        Gradients.
    indices : array-like of shape (n,)
        Positions of the coreset, or a mask.
    sigma : float, default=1.0
        Standard deviation of the label noise.
    theta_norm : float, default=1.0
        Norm of the best parameters.

    Returns
    -------
    bound : float
        Bound on the expected excess risk.

    Examples
    --------
    >>> import numpy as np
    >>> round(excess_risk_bound(np.eye(2), [0, 1], sigma=0.1), 6)
    0.01
    """
    G, coreset = _check(G, indices)
    _check_number(sigma, "sigma")
    _check_number(theta_norm, "theta_norm")
    values, vectors = spectrum(coreset)
    energies = directional_energies(G, vectors).mean(axis=0)
    variance = sigma**2 / len(coreset) * np.concatenate([[0.0], np.cumsum(energies / values)])
    total = np.square(G).sum() / len(G)
    inside = np.concatenate([[0.0], np.cumsum(energies)])
    bias = 2.0 * theta_norm**2 * np.maximum(total - inside, 0.0)
    return float(np.min(variance + bias))
