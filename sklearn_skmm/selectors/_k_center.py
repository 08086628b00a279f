"""Greedy k-center."""

from typing import ClassVar

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import row_norms, safe_sparse_dot

from sklearn_skmm.base import BaseSelector, Reference, Selection
from sklearn_skmm.core._costs import unit_rows
from sklearn_skmm.utils._sklearn import StrOptions


class KCenterSelector(BaseSelector):
    """Select n samples so that every sample is close to a selected one.

    The selected samples cover all of the data. Use it when no sample may be far from the coreset,
    but note that outliers are selected early, because they are far from everything else.

    The algorithm is greedy farthest-point selection [1]_: each step adds the sample that is
    farthest from those already selected. The covering radius is the largest distance from a sample
    to the nearest selected one. It is at most twice the smallest radius that n samples can achieve.

    Parameters
    ----------
    {n_to_select}
    metric : {"euclidean", "cosine", "precomputed"}, default="euclidean"
        The distance. With "cosine" it is the Euclidean distance of the rows divided by their
        lengths, which orders pairs as their angle does; a row of zeros is orthogonal to all rows
        but other rows of zeros. With "precomputed" X is a square matrix of finite distances: entry
        (i, j) is the distance of sample i from sample j as its nearest selected sample. `score` is
        then not available, nor is `transform` on another pool.
    init : {"random", "center"}, default="random"
        The first sample: one drawn uniformly at random, or the one nearest to the mean of the data
        of `fit`. With ``metric="precomputed"`` that is the one with the smallest sum of squared
        distances.
    {stratify}
    random_state : int, RandomState instance or None, default=None
        Controls which sample is first with ``init="random"``. Pass an int for the same selection
        in every call.

    Attributes
    ----------
    {sample_indices_in_order}
    {sample_weight_equal}
    radius_ : float
        The covering radius. With ``metric="cosine"`` it is the distance of unit vectors,
        √(2 − 2 cos θ) for the angle θ.
    {fitted}

    See Also
    --------
    FacilityLocationSelector : Makes the mean distance small instead of the largest.

    Notes
    -----
    O(N n m) time for N samples of m features: n passes over X in double precision. Memory is needed
    for a centred copy of X and five vectors of N entries.

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

    _ordered: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseSelector._parameter_constraints,
        "metric": [StrOptions({"euclidean", "cosine", "precomputed"})],
        "init": [StrOptions({"random", "center"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self, n_to_select, *, metric="euclidean", init="random", stratify=False, random_state=None
    ):
        self.n_to_select = n_to_select
        self.metric = metric
        self.init = init
        self.stratify = stratify
        self.random_state = random_state

    def _peak_bytes(self, n_samples, n_features, n, itemsize):
        # One more column with `metric="cosine"`, and no copy with "precomputed".
        columns = {"euclidean": n_features, "cosine": n_features + 1, "precomputed": 0}
        return 8 * n_samples * (columns[self.metric] + 5)

    def _select(self, X, n, reference, rng, step, *, sample_weight=None, selected=None):
        if self.metric == "precomputed":
            _check_distances(X)
            unit = float(X.max())

            def distances_to(i):
                return X[:, i].copy()

            def to_mean():
                # The mean squared distance from a sample grows with its distance to the mean.
                weight = np.ones(len(X)) if sample_weight is None else sample_weight
                return np.einsum("i,ij,ij->j", weight / weight.sum(), X, X) / (unit or 1.0)
        else:
            X, mean = self._rows(X, reference, sample_weight)
            norms = row_norms(X, squared=True)
            unit = float(norms.max(initial=0.0))

            def distances_to(i):
                products = safe_sparse_dot(X, X[[i]].T, dense_output=True).ravel()
                return np.maximum(norms - 2.0 * products + norms[i], 0.0)

            def to_mean():
                offset = mean if sparse.issparse(X) else np.zeros(X.shape[1])
                return norms - 2.0 * safe_sparse_dot(X, offset)

        tie = 1e-12 * unit
        if selected is not None:
            covered = list(selected)
        elif self.init == "random":
            covered = [_draw_one(X.shape[0], sample_weight, rng)]
        else:
            far = to_mean()
            covered = [int(np.argmax(far <= far.min() + tie))]
        nearest = distances_to(covered[0])
        for i in covered[1:]:
            np.minimum(nearest, distances_to(i), out=nearest)
        n_given = 0 if selected is None else len(selected)
        while len(covered) < n_given + n:
            step()
            nearest[covered] = -np.inf
            # Distances that differ only by rounding are ties; the first position wins.
            covered.append(int(np.argmax(nearest >= nearest.max() - tie)))
            np.minimum(nearest, distances_to(covered[-1]), out=nearest)
        nearest[covered] = 0.0
        radius = float(nearest.max())
        if self.metric != "precomputed":  # squared distances
            radius = float(np.sqrt(radius))
        return Selection(np.array(covered[n_given:]), attributes={"radius_": radius})

    def _rows(self, X, reference, weight):
        """Return the rows whose Euclidean distances count, and their mean in `fit`."""
        if self.metric == "cosine":
            own, X = X, unit_rows(X)
            mean = reference.learn(
                "mean",
                lambda of, y: Reference(X if of is own else unit_rows(of), None, weight).mean,
            )
        else:
            mean = reference.mean  # computed in `fit`: `transform` has no data for it
        if sparse.issparse(X):
            return X, mean
        # Centring avoids cancellation in the squared distances.
        return np.subtract(X, mean, out=X if self.metric == "cosine" else None), mean


def _draw_one(n_samples, weight, rng):
    """Draw a position, uniformly or in proportion to the weights."""
    if weight is None:
        return rng.randint(n_samples)
    cumulative = np.cumsum(weight)
    drawn = np.searchsorted(cumulative, rng.uniform() * cumulative[-1], side="right")
    return min(int(drawn), n_samples - 1)


def _check_distances(D):
    """Refuse a matrix that is not one of distances, such as one of similarities."""
    if (least := float(D.min())) < 0.0:
        raise ValueError(
            "X must contain distances with metric='precomputed', none below 0. Got "
            f"{least:.6g} instead."
        )
    if (worst := float(D.diagonal().max())) > 1e-6 * D.max():
        raise ValueError(
            "X must contain distances with metric='precomputed', 0 on the diagonal. Got "
            f"{worst:.6g} instead."
        )
