"""The samples nearest to the centres of k-means."""

import warnings
from copy import copy
from numbers import Integral
from typing import ClassVar

import numpy as np
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_argmin
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.extmath import row_norms

from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.core._given_cells import enough_free
from sklearn_skmm.utils._sklearn import Interval
from sklearn_skmm.utils._threads import threads_restored
from sklearn_skmm.utils._validation import MAX_SEED


class KMeansSelector(BaseSelector):
    """Cluster the samples into n clusters and select the sample nearest to each centre.

    The coreset has one typical sample per cluster, weighted by the size of the cluster. Use it for
    classification of embeddings with few selected samples.

    The selected sample is the medoid of its cluster for squared distances. `transform` selects the
    samples of another pool that are nearest to the centres of `fit`. If n differs for that pool, it
    is clustered instead.

    Parameters
    ----------
    {n_to_select}
    n_init : int, default=1
        Number of runs of k-means. The best run is kept.
    max_iter : int, default=300
        Maximum number of iterations of each run.
    {stratify}
    {random_state}

    Attributes
    ----------
    {sample_indices_ascending}
    sample_weight_ : ndarray of shape (n_to_select,)
        Number of samples in the cluster of each selected sample, or their weight.
    labels_ : ndarray of shape (N,), dtype int
        Position in `sample_indices_` of the selected sample of each sample's cluster. With given
        samples, of the nearest one, or -1 if that is a given one.
    inertia_ : float
        Sum of squared distances to the nearest centre. Weights count in multiples of their mean.
    n_iter_ : int
        Number of iterations of the run that was kept.
    {fitted}

    See Also
    --------
    FacilityLocationSelector : Selects exemplars without computing centres.

    Notes
    -----
    Each of scikit-learn's Lloyd iterations takes O(N n m) time for N samples of m features, in
    double precision, on a centred copy of X. They start from k-means++, which needs 6 + 2 log n
    vectors of N entries besides. For millions of samples and thousands of clusters this takes
    hours; ``SkMMSelector(n, rounding="exemplar")`` is O(N √n m).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import KMeansSelector
    >>> X = np.array([[0.0], [1.0], [2.0], [10.0], [12.0], [11.0]])
    >>> KMeansSelector(2, random_state=0).fit_transform(X)
    array([1, 5])
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseSelector._parameter_constraints,
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(self, n_to_select, *, n_init=1, max_iter=300, stratify=False, random_state=None):
        self.n_to_select = n_to_select
        self.n_init = n_init
        self.max_iter = max_iter
        self.stratify = stratify
        self.random_state = random_state

    def _peak_bytes(self, n_samples, n_features, n, itemsize):
        # A centred copy, and the distances of k-means++ to this many candidates for the next
        # centre, old and new. With a single cluster there are also the differences from its centre.
        candidates = 2 + int(np.log(n))
        return 8 * n_samples * ((2 if n == 1 else 1) * n_features + 2 + 2 * candidates)

    def _select(self, X, n, reference, rng, step, *, sample_weight=None, selected=None):
        given = np.empty(0, dtype=int) if selected is None else selected

        def fit_kmeans(X, y=None, n_clusters=n):
            # tol=0 runs until no cluster changes, so that centres are means and the selected
            # samples medoids.
            seed = rng.randint(MAX_SEED)
            params = {"n_init": self.n_init, "max_iter": self.max_iter, "tol": 0}
            kmeans = KMeans(n_clusters, **params, random_state=seed)
            with warnings.catch_warnings(), threads_restored():
                # With fewer distinct rows than clusters, empty clusters are filled below.
                warnings.filterwarnings("ignore", "Number of distinct", ConvergenceWarning)
                return kmeans.fit(X, sample_weight=sample_weight)

        mean = reference.mean  # computed in `fit`: `transform` has no data for it
        if len(given):
            kmeans, selection = self._select_besides(X, n, given, mean, sample_weight, fit_kmeans)
            reference.learn("kmeans", lambda X, y: kmeans)
            return selection
        kmeans = reference.learn("kmeans", fit_kmeans)
        if kmeans.n_clusters != n:
            kmeans = fit_kmeans(X)
        centres = kmeans.cluster_centers_
        # Not `kmeans.labels_`: with equal centres they may differ from what `transform` predicts.
        labels = _predict_centred(kmeans, X, mean)
        attributes = {"inertia_": float(kmeans.inertia_), "n_iter_": int(kmeans.n_iter_)}
        nearest, counts = np.full(n, -1), np.bincount(labels, weights=sample_weight, minlength=n)
        for k in np.flatnonzero(counts):
            nearest[k] = _nearest_member(X, np.flatnonzero(labels == k), centres[k])
        for k in np.flatnonzero(counts == 0):  # an empty cluster takes the nearest sample left
            distances = euclidean_distances(X, centres[[k]]).ravel()
            distances[nearest[nearest >= 0]] = np.inf
            nearest[k] = np.argmin(distances)
            mass = 1 if sample_weight is None else sample_weight[nearest[k]]
            counts[labels[nearest[k]]] -= mass
            counts[k] = mass
            labels[nearest[k]] = k
        order = np.argsort(nearest)
        return Selection(
            nearest[order],
            sample_weight=counts[order].astype(float),
            labels=np.argsort(order)[labels],
            attributes=attributes,
        )

    def _select_besides(self, X, n, given, mean, weight, fit_kmeans):
        """Return clusters, and the selection from the n heaviest that hold no given sample."""

        def lay_out(n_clusters):
            kmeans = fit_kmeans(X, n_clusters=n_clusters)
            return kmeans, _predict_centred(kmeans, X, mean)

        kmeans, labels = enough_free(lay_out, n, given)
        indices = _medoids_besides(X, given, n, kmeans.cluster_centers_, labels, weight)
        both = np.concatenate([indices, given])
        with threads_restored():
            near = pairwise_distances_argmin(X, X[both])
        near[both] = np.arange(len(both))
        mass = np.bincount(near, weights=weight, minlength=len(both)).astype(float)
        near[near >= n] = -1
        attributes = {"inertia_": float(kmeans.inertia_), "n_iter_": int(kmeans.n_iter_)}
        return kmeans, Selection(indices, mass[:n], mass[n:], near, attributes=attributes)


def _predict_centred(kmeans, X, mean):
    """Return the clusters of X, centred as in `KMeans.fit` so that squared distances are exact."""
    if not sparse.issparse(X):
        kmeans = copy(kmeans)
        kmeans.cluster_centers_ = kmeans.cluster_centers_ - mean
        X = X - mean
    with threads_restored():
        return kmeans.predict(X)


def _nearest_member(X, members, centre):
    """Return the member that is nearest to the centre."""
    # Explicit differences, one cluster at a time, avoid cancellation far from the origin.
    distances = row_norms(np.asarray(X[members] - centre))
    # The first of the tied members: two members are equally far from their mean.
    tied = distances <= distances.min() * (1.0 + 1e-7)
    return members[np.argmax(tied)]


def _medoids_besides(X, given, n, centres, labels, weight):
    """Return the samples nearest to the n heaviest centres whose clusters hold no given sample."""
    mass = np.bincount(labels, weights=weight, minlength=len(centres)).astype(float)
    mass[labels[given]] = 0.0
    heaviest = np.argsort(-mass, kind="stable")[:n]
    indices = [
        _nearest_member(X, np.flatnonzero(labels == k), centres[k]) for k in heaviest if mass[k] > 0
    ]
    # With many equal rows some clusters are empty: the farthest samples take their place.
    while len(indices) < n:
        chosen = np.concatenate([given, np.array(indices, dtype=int)])
        distances = euclidean_distances(X, X[chosen], squared=True).min(axis=1)
        distances[chosen] = -1.0
        indices.append(int(np.argmax(distances)))
    return np.sort(np.array(indices, dtype=int))
