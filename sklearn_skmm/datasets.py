"""Synthetic data sets."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch, check_random_state

from sklearn_skmm.utils._sklearn import Interval, validate_params
from sklearn_skmm.utils._validation import MAX_SEED

__all__ = ["make_gmm_regression"]


@validate_params(
    {
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_features": [Interval(Integral, 1, None, closed="left")],
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "scale": [Interval(Real, 0, None, closed="left")],
        "noise": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_gmm_regression(
    n_samples=2000, n_features=2400, *, n_clusters=8, scale=8.0, noise=0.04, random_state=None
):
    r"""Make the regression task of the paper's Table 1.

    The samples come from a Gaussian mixture with clusters of very different sizes. A good coreset
    has samples from every cluster.

    Cluster k lies around :math:`scale \cdot u_k e_k`, with :math:`u_k` uniform on 1, …, n_clusters.
    It has isotropic noise with a standard deviation drawn from :math:`U(0, noise)`. Uniformly drawn
    breakpoints determine the sizes of the clusters. The target is constant within a cluster: it is
    the inner product of the centre with :math:`\theta \sim N(0, I)` in the span of the centres.

    Parameters
    ----------
    n_samples : int, default=2000
        Number of samples, N.
    n_features : int, default=2400
        Number of features, r, at least n_clusters. For quick examples use a small number, such
        as 50.
    n_clusters : int, default=8
        Number of clusters.
    scale : float, default=8.0
        Smallest possible distance of a centre from the origin.
    noise : float, default=0.04
        Upper bound on the standard deviation of the noise in a cluster.
    random_state : int, RandomState instance or None, default=None
        Controls the randomness of the data. With 0, the clusters of the default data set have 82,
        69, 389, 76, 406, 251, 427 and 300 samples.

    Returns
    -------
    data : Bunch
        Data `X` of shape (n_samples, n_features) and targets `y` of shape (n_samples,);
        `clusters` (n_samples,), the cluster of each sample; `centers` (n_clusters, n_features);
        `theta` (n_features,), the coefficients; and `noise_std` (n_clusters,).

    Raises
    ------
    ValueError
        If there are more clusters than features or samples.

    References
    ----------
    Y. Dong, H. Phan, X. Pan, Q. Lei. "Sketchy Moment Matching". NeurIPS 2024. :arxiv:`2407.06120`

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm.datasets import make_gmm_regression
    >>> data = make_gmm_regression(200, 50, random_state=0)
    >>> data.X.shape, len(np.unique(data.clusters))
    ((200, 50), 8)
    """
    if n_clusters > n_features or n_samples < n_clusters + 1:
        raise ValueError(
            f"n_clusters={n_clusters} must be at most n_features={n_features} and less than "
            f"n_samples={n_samples}."
        )
    if not isinstance(random_state, Integral):
        random_state = check_random_state(random_state).randint(MAX_SEED)
    rng = np.random.default_rng(int(random_state))
    breaks = np.array([0, 0])
    while len(np.unique(breaks)) < len(breaks):  # distinct breakpoints leave no cluster empty
        breaks = np.sort(rng.integers(1, n_samples - 1, size=n_clusters - 1))
    sizes = np.diff(np.concatenate([[0], breaks, [n_samples]]))
    clusters = np.repeat(np.arange(n_clusters), sizes)
    centers = np.zeros((n_clusters, n_features))
    centers[np.arange(n_clusters), np.arange(n_clusters)] = scale * rng.integers(
        1, n_clusters + 1, size=n_clusters
    )
    noise_std = noise * rng.uniform(size=n_clusters)
    theta = np.zeros(n_features)
    theta[:n_clusters] = rng.normal(size=n_clusters)
    X = centers[clusters] + noise_std[clusters, None] * rng.normal(size=(n_samples, n_features))
    return Bunch(
        X=X,
        y=(centers @ theta)[clusters],
        clusters=clusters,
        centers=centers,
        theta=theta,
        noise_std=noise_std,
    )
