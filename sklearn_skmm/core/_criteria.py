"""Criteria of how well a coreset represents samples, without labels."""

from collections.abc import Iterator

import numpy as np
from scipy import sparse
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.random import sample_without_replacement

from sklearn_skmm.core._blocks import row_blocks, second_moments
from sklearn_skmm.core._costs import median_of_pairs, squared_distances
from sklearn_skmm.core._moments import explained_fraction

# The bandwidth of kernels as a multiple of the median distance, which is estimated from at most
# this many samples.
BANDWIDTH, SAMPLED = 0.5, 256
# The squared discrepancy, which compares all pairs, is computed for at most this many samples.
COMPARED = 2**14


def sampled_rows(n_samples: int) -> np.ndarray:
    """Return the positions of the samples from which `bandwidth_of` is computed.

    Examples
    --------
    >>> sampled_rows(3)
    array([0, 1, 2])
    """
    size = min(n_samples, SAMPLED)
    return np.sort(sample_without_replacement(n_samples, size, random_state=0))


def bandwidth_of(rows) -> float:
    """Return half the median distance between rows, of shape (size, n_features).

    Examples
    --------
    >>> import numpy as np
    >>> round(bandwidth_of(np.array([[0.0], [2.0], [8.0]])), 6)
    3.0
    """
    # Squares of very long or very short rows are outside the range of floats.
    scale = float(abs(rows).max()) or 1.0
    return BANDWIDTH * scale * median_of_pairs(squared_distances(rows / np.float64(scale)))


def coverage(X, coreset, bandwidth: float) -> float:
    r"""Return the mean similarity of the samples to their nearest selected samples.

    It is :math:`\frac{1}{N} \sum_i \max_{j \in S} \exp(-\|x_i - x_j\|^2 / (2 h^2))`.

    Parameters
    ----------
    X : {ndarray, sparse matrix} of shape (N, n_features)
        Samples.
    coreset : {ndarray, sparse matrix} of shape (n, n_features)
        The selected samples.
    bandwidth : float
        h, in the unit of X.

    Returns
    -------
    coverage : float
        Between 0 and 1; 1 is best.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [2.0]])
    >>> round(coverage(X, X[[1]], 1.0), 3)
    0.738
    """
    blocks = _kernel_blocks(X, coreset, bandwidth)
    return sum(float(K.max(axis=1).sum()) for K in blocks) / X.shape[0]


def squared_mmd(X, coreset, bandwidth: float) -> float:
    r"""Return the squared maximum mean discrepancy of the samples and the coreset.

    It is :math:`\frac{1}{N^2} \sum_{ij} k(x_i, x_j) - \frac{2}{N n} \sum_{i, j \in S} k(x_i, x_j) +
    \frac{1}{n^2} \sum_{i, j \in S} k(x_i, x_j)` with the Gaussian kernel
    :math:`k(x, x') = \exp(-\|x - x'\|^2 / (2 h^2))` (Gretton et al. 2012). For more than 16,384
    samples it is computed on a random subsample of them.

    Parameters
    ----------
    X : {ndarray, sparse matrix} of shape (N, n_features)
        Samples.
    coreset : {ndarray, sparse matrix} of shape (n, n_features)
        The selected samples.
    bandwidth : float
        h, in the unit of X.

    Returns
    -------
    discrepancy : float
        Between 0, for equal distributions, and 2.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [10.0]])
    >>> round(squared_mmd(X, X[[0]], 1.0), 3), squared_mmd(X, X, 1.0)
    (0.5, 0.0)
    """
    if X.shape[0] > COMPARED:
        X = X[np.sort(sample_without_replacement(X.shape[0], COMPARED, random_state=0))]
    both = _mean_kernel(X, X, bandwidth) + _mean_kernel(coreset, coreset, bandwidth)
    return max(0.0, both - 2.0 * _mean_kernel(X, coreset, bandwidth))


def _mean_kernel(A, B, bandwidth) -> float:
    return sum(float(K.sum()) for K in _kernel_blocks(A, B, bandwidth)) / (A.shape[0] * B.shape[0])


def _kernel_blocks(A, B, bandwidth) -> Iterator[np.ndarray]:
    """Yield the Gaussian kernel of blocks of rows of A with all rows of B."""
    unit = np.float64(bandwidth)
    dense = not (sparse.issparse(A) or sparse.issparse(B))
    centre = B.mean(axis=0) if dense else 0.0
    B = (B - centre if dense else B) / unit
    for rows in row_blocks(A.shape[0], max(B.shape)):
        with np.errstate(over="ignore", invalid="ignore"):
            squared = euclidean_distances(
                (A[rows] - centre if dense else A[rows]) / unit, B, squared=True
            )
        # Pairs that are too far apart for floats.
        yield np.exp(-0.5 * np.nan_to_num(squared, copy=False, nan=np.inf, posinf=np.inf))


def v_optimality(X, coreset, alpha: float) -> float:
    r"""Return :math:`tr(\Sigma (\Sigma_S + \alpha I)^{-1})` of the samples and the coreset.

    Examples
    --------
    >>> import numpy as np
    >>> v_optimality(np.eye(2), np.array([[1.0, 0.0]]), 1.0)
    0.75
    """
    moment = second_moments(coreset, 1.0) / coreset.shape[0]
    moment[np.diag_indices_from(moment)] += alpha
    return float(np.trace(np.linalg.solve(moment, second_moments(X, 1.0)))) / X.shape[0]


# Criteria by name, as functions of the samples, the coreset, the bandwidth and the ridge. More is
# better.
CRITERIA = {
    "mmd": lambda X, coreset, bandwidth, alpha: 1.0 - squared_mmd(X, coreset, bandwidth),
    "coverage": lambda X, coreset, bandwidth, alpha: coverage(X, coreset, bandwidth),
    "explained_moment": lambda X, coreset, bandwidth, alpha: explained_fraction(X, coreset, alpha),
    "v_optimality": lambda X, coreset, bandwidth, alpha: -v_optimality(X, coreset, alpha or 1.0),
}
