"""Greedy k-center."""

from typing import ClassVar

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import row_norms, safe_sparse_dot

from sklearn_skmm.base import BaseSelector, Selection
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
    init : {"random", "center"}, default="random"
        The first sample: one drawn uniformly at random, or the one nearest to the mean of the data
        of `fit`.
    {stratify}
    random_state : int, RandomState instance or None, default=None
        Controls which sample is first with ``init="random"``. Pass an int for the same selection
        in every call.

    Attributes
    ----------
    {sample_indices_in_order}
    {sample_weight_equal}
    radius_ : float
        The covering radius.
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

    def _select(self, X, n, reference, rng, step, *, sample_weight=None, selected=None):
        mean = reference.mean  # computed in `fit`: `transform` has no data for it
        if not sparse.issparse(X):
            X = X - mean  # avoids cancellation in the squared distances
        norms = row_norms(X, squared=True)
        tie = 1e-12 * float(norms.max(initial=0.0))

        def distances_to(i):
            products = safe_sparse_dot(X, X[[i]].T, dense_output=True).ravel()
            return np.maximum(norms - 2.0 * products + norms[i], 0.0)

        if selected is not None:
            covered = list(selected)
        elif self.init == "random":
            covered = [_draw_one(X.shape[0], sample_weight, rng)]
        else:
            offset = mean if sparse.issparse(X) else np.zeros(X.shape[1])
            to_mean = norms - 2.0 * safe_sparse_dot(X, offset)
            covered = [int(np.argmax(to_mean <= to_mean.min() + tie))]
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
        indices = np.array(covered[n_given:])
        return Selection(indices, attributes={"radius_": float(np.sqrt(nearest.max()))})


def _draw_one(n_samples, weight, rng):
    """Draw a position, uniformly or in proportion to the weights."""
    if weight is None:
        return rng.randint(n_samples)
    cumulative = np.cumsum(weight)
    drawn = np.searchsorted(cumulative, rng.uniform() * cumulative[-1], side="right")
    return min(int(drawn), n_samples - 1)
