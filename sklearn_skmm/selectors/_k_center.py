"""Greedy k-center."""

from typing import ClassVar

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import row_norms, safe_sparse_dot

from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.utils._sklearn import StrOptions


class KCenterSelector(BaseSelector):
    """Select n samples so that no sample is far from all of them.

    Greedy farthest-point selection [1]_: each pick is the sample farthest from those
    already picked.
    Its covering radius is at most twice the smallest possible from the same number of samples.

    Parameters
    ----------
    n_to_select : int or float
        How many samples to select; a float in (0, 1] is a share of the samples.
    init : {"random", "center"}, default="random"
        The first pick: a uniform draw, or the sample nearest to the mean of the data of `fit`.
    stratify : bool, default=False
        Select within each class of y, in proportion to its size.
    random_state : int, RandomState instance or None, default=None
        Seeds the first pick.

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_to_select,), dtype int
        Positions of the selected samples, in order of selection.
    sample_weight_ : ndarray of shape (n_to_select,)
        N / n for each.
    radius_ : float
        Largest distance of a sample to the nearest selected one.
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
    FacilityLocationSelector : The mean distance instead of the largest.

    Notes
    -----
    O(N n m) time for N samples of m features, n passes over X in double precision, of which there
    is a centred copy, with five vectors of N entries.

    References
    ----------
    .. [1] T. F. Gonzalez. "Clustering to minimize the maximum intercluster distance".
       Theoretical Computer Science 38, 1985. For deep models: O. Sener, S. Savarese. "Active
       learning for convolutional neural networks: a core-set approach". ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import KCenterSelector
    >>> X = np.array([[0.0], [1.0], [9.0], [10.0]])
    >>> KCenterSelector(2, random_state=0).fit(X).radius_
    1.0
    """

    _copies: ClassVar[float] = 1.0
    _vectors: ClassVar[float] = 5.0
    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseSelector._parameter_constraints,
        "init": [StrOptions({"random", "center"})],
        "random_state": ["random_state"],
    }

    def __init__(self, n_to_select, *, init="random", stratify=False, random_state=None):
        self.n_to_select = n_to_select
        self.init = init
        self.stratify = stratify
        self.random_state = random_state

    def _select(self, X, n, reference, rng, step):
        if not sparse.issparse(X):
            X = X - reference.mean  # against cancellation in the squared distances
        norms = row_norms(X, squared=True)
        tie = 1e-12 * float(norms.max(initial=0.0))

        def distances_to(i):
            products = safe_sparse_dot(X, X[[i]].T, dense_output=True).ravel()
            return np.maximum(norms - 2.0 * products + norms[i], 0.0)

        if self.init == "random":
            first = rng.randint(X.shape[0])
        else:
            offset = reference.mean if sparse.issparse(X) else np.zeros(X.shape[1])
            to_mean = norms - 2.0 * safe_sparse_dot(X, offset)
            first = int(np.argmax(to_mean <= to_mean.min() + tie))
        indices = np.empty(n, dtype=int)
        indices[0] = first
        nearest = distances_to(first)
        for t in range(1, n):
            step()
            nearest[indices[:t]] = -np.inf
            # Distances within rounding of the largest are ties, broken by position.
            indices[t] = np.argmax(nearest >= nearest.max() - tie)
            np.minimum(nearest, distances_to(indices[t]), out=nearest)
        nearest[indices] = 0.0
        return Selection(indices, attributes={"radius_": float(np.sqrt(nearest.max()))})
