"""Criteria of how well a coreset represents samples, without labels."""

import numpy as np
from scipy import sparse
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.random import sample_without_replacement

from sklearn_skmm.core._blocks import row_blocks, second_moments
from sklearn_skmm.core._costs import median_of_pairs, squared_distances
from sklearn_skmm.core._moments import explained_fraction

# The bandwidth of `coverage` as a multiple of the median distance, which is estimated from at most
# this many samples.
BANDWIDTH, SAMPLED = 0.5, 256


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
    centre = 0.0 if sparse.issparse(X) or sparse.issparse(coreset) else coreset.mean(axis=0)
    unit = np.float64(bandwidth)
    centres, total = (coreset - centre if np.ndim(centre) else coreset) / unit, 0.0
    for rows in row_blocks(X.shape[0], max(coreset.shape)):
        block = (X[rows] - centre if np.ndim(centre) else X[rows]) / unit
        with np.errstate(over="ignore", invalid="ignore"):
            squared = euclidean_distances(block, centres, squared=True).min(axis=1)
        # Samples that are too far for floats are not covered.
        total += float(np.exp(-0.5 * np.nan_to_num(squared, nan=np.inf)).sum())
    return total / X.shape[0]


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
    "coverage": lambda X, coreset, bandwidth, alpha: coverage(X, coreset, bandwidth),
    "explained_moment": lambda X, coreset, bandwidth, alpha: explained_fraction(X, coreset, alpha),
    "v_optimality": lambda X, coreset, bandwidth, alpha: -v_optimality(X, coreset, alpha or 1.0),
}
