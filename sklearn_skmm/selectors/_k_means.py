"""The samples nearest to the centres of k-means."""

import warnings
from copy import copy
from numbers import Integral
from typing import ClassVar

import numpy as np
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.extmath import row_norms

from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.utils._sklearn import Interval
from sklearn_skmm.utils._validation import MAX_SEED


class KMeansSelector(BaseSelector):
    """Cluster into n cells and select the sample nearest to each centre.

    That sample is the medoid of its cell for squared distances. `transform` takes the samples of
    another pool nearest to the centres of `fit`; it clusters that pool if n differs there.

    Parameters
    ----------
    n_to_select : int or float
        How many samples to select; a float in (0, 1] is a share of the samples.
    n_init : int, default=1
        Runs of k-means, of which the best is kept.
    max_iter : int, default=300
        Bound on the iterations of each run.
    stratify : bool, default=False
        Select within each class of y, in proportion to its size.
    random_state : int, RandomState instance or None, default=None
        Seeds the clustering.

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_to_select,), dtype int
        Positions of the selected samples, ascending.
    sample_weight_ : ndarray of shape (n_to_select,)
        Number of samples in each selected sample's cell.
    inertia_ : float
        Sum of squared distances to the nearest centre.
    n_iter_ : int
        Iterations of the kept run.
    n_samples_seen_ : int
        Number of samples in `fit`.
    strata_ : ndarray
        Classes of y, with `stratify=True` only.
    n_features_in_ : int
        Number of features in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X has string column names.

    See Also
    --------
    FacilityLocationSelector : Exemplars without centres.

    Notes
    -----
    scikit-learn's Lloyd iterations are O(N n m) time each for N samples of m features, in double
    precision, on a centred copy of X, after k-means++, which holds 6 + 2 log n vectors of N entries
    besides. For millions of samples and thousands of picks they take
    hours: ``SkMMSelector(n, rounding="exemplar")`` is O(N √n m).

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
        # A centred copy. k-means++ keeps the distances to so many candidates for the next centre,
        # old and new. Next to the centred copy of a single cell there are its differences.
        candidates = 2 + int(np.log(n))
        return 8 * n_samples * ((2 if n == 1 else 1) * n_features + 2 + 2 * candidates)

    def _select(self, X, n, reference, rng, step):
        def fit_kmeans(X, y=None):
            # tol=0: run until the cells stand still, so that centres are means and picks medoids.
            seed = rng.randint(MAX_SEED)
            kmeans = KMeans(n, n_init=self.n_init, max_iter=self.max_iter, tol=0, random_state=seed)
            with warnings.catch_warnings():
                # Fewer distinct rows than cells: the empty cells are filled below.
                warnings.filterwarnings("ignore", "Number of distinct", ConvergenceWarning)
                return kmeans.fit(X)

        mean = reference.mean  # here, for `transform` has no data to take it from
        kmeans = reference.learn("kmeans", fit_kmeans)
        if kmeans.n_clusters != n:
            kmeans = fit_kmeans(X)
        centres = kmeans.cluster_centers_
        # Not the labels of the fit: equal centres may share their samples in another way there, and
        # `transform` has to repeat it.
        labels = _predict_centred(kmeans, X, mean)
        nearest, counts = np.full(n, -1), np.bincount(labels, minlength=n)
        for k in np.flatnonzero(counts):
            members = np.flatnonzero(labels == k)
            # The difference itself, dense for one cell at a time: no cancellation off the origin.
            distances = row_norms(np.asarray(X[members] - centres[k]))
            # Two members are equally far from their mean: the first, whatever rounding says.
            tied = distances <= distances.min() * (1.0 + 1e-7)
            nearest[k] = members[np.argmax(tied)]
        for k in np.flatnonzero(counts == 0):  # an empty cell takes the nearest that is left
            distances = euclidean_distances(X, centres[[k]]).ravel()
            distances[nearest[nearest >= 0]] = np.inf
            nearest[k] = np.argmin(distances)
            counts[labels[nearest[k]]] -= 1
            counts[k] = 1
        order = np.argsort(nearest)
        return Selection(
            nearest[order],
            sample_weight=counts[order].astype(float),
            attributes={"inertia_": float(kmeans.inertia_), "n_iter_": int(kmeans.n_iter_)},
        )


def _predict_centred(kmeans, X, mean):
    """Return the cells of X as the fit finds them: off the origin, squared distances cancel."""
    if sparse.issparse(X):
        return kmeans.predict(X)
    kmeans = copy(kmeans)
    kmeans.cluster_centers_ = kmeans.cluster_centers_ - mean
    return kmeans.predict(X - mean)
