"""Adaptive sampling by pivoting on residuals."""

from numbers import Integral
from typing import ClassVar

import numpy as np
from sklearn.utils.extmath import row_norms, safe_sparse_dot

from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.utils._sklearn import Interval, StrOptions


class AdaptiveSelector(BaseSelector):
    """Select samples one after the other by what those already picked do not span.

    A pivot is drawn with probability proportional to the squared norm of each row's residual,
    its component outside of the span of the rows picked so far: adaptive sampling [1]_, or randomly
    pivoted Cholesky [2]_ of the Gram matrix. When the residuals are down to rounding, that is
    after as many picks as X has rank, the basis is emptied and the remaining samples are sampled
    afresh.

    Parameters
    ----------
    n_to_select : int or float
        How many samples to select; a float in (0, 1] is a share of the samples.
    pivoting : {"random", "greedy"}, default="random"
        Draw the pivot, or take the largest residual (column-pivoted QR).
    block_size : int, default=16
        Candidates drawn at once with ``pivoting="random"``. Each is then accepted with the
        probability that makes the law that of one draw at a time [2]_; larger blocks are faster.
    stratify : bool, default=False
        Select within each class of y, in proportion to its size.
    random_state : int, RandomState instance or None, default=None
        Seeds the draws.

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_to_select,), dtype int
        Positions of the selected samples, in order of selection.
    sample_weight_ : ndarray of shape (n_to_select,)
        N / n for each.
    n_samples_seen_ : int
        Number of samples in `fit`.
    strata_ : ndarray
        Classes of y, with `stratify=True` only.
    n_features_in_ : int
        Number of features in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X has string column names.

    Notes
    -----
    O(N n m + n² m) time for N samples of m features, a pass over X in double precision for each
    block of picks, or for each pick with ``pivoting="greedy"``. Next to X, memory for the products
    with the rows of one block, at most `block_size`, and their squares, and three vectors of N
    entries.

    References
    ----------
    .. [1] A. Deshpande, L. Rademacher, S. Vempala, G. Wang. "Matrix approximation and projective
       clustering via volume sampling". Theory of Computing 2, 2006.
    .. [2] E. N. Epperly, J. A. Tropp, R. J. Webber. "Embrace rejection: kernel matrix approximation
       by accelerated randomly pivoted Cholesky". 2024. :arxiv:`2410.03969`

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import AdaptiveSelector
    >>> X = np.array([[3.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> AdaptiveSelector(2, pivoting="greedy").fit_transform(X)
    array([0, 2])
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseSelector._parameter_constraints,
        "pivoting": [StrOptions({"random", "greedy"})],
        "block_size": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self, n_to_select, *, pivoting="random", block_size=16, stratify=False, random_state=None
    ):
        self.n_to_select = n_to_select
        self.pivoting = pivoting
        self.block_size = block_size
        self.stratify = stratify
        self.random_state = random_state

    def _peak_bytes(self, n_samples, n_features, n, itemsize):
        # The products with the rows of a block that are accepted, and their squares.
        block = 1 if self.pivoting == "greedy" else min(self.block_size, n, n_features)
        return 8 * n_samples * (2 * block + 3)

    def _select(self, X, n, reference, rng, step):
        norms = row_norms(X, squared=True)
        unselected = np.ones(X.shape[0], dtype=bool)
        indices: list[int] = []
        while len(indices) < n:
            residual = np.where(unselected, norms, 0.0)
            floor = 1e-13 * residual.max()
            basis = np.empty((0, X.shape[1]))
            if floor == 0.0:  # only zero rows are left: nothing tells them apart
                rest = np.flatnonzero(unselected)
                n_missing = n - len(indices)
                if self.pivoting == "greedy":
                    rest = rest[:n_missing]
                else:
                    rest = rng.choice(rest, size=n_missing, replace=False)
                indices += rest.tolist()
                break
            while len(indices) < n and residual.max() > floor:
                if self.pivoting == "greedy":
                    tie = residual.max() * (1.0 - 1e-12)
                    candidates, uniforms = np.array([np.argmax(residual >= tie)]), np.zeros(1)
                else:
                    size = min(self.block_size, n - len(indices))
                    cumulative = np.cumsum(residual)
                    candidates = np.searchsorted(
                        cumulative, rng.uniform(size=size) * cumulative[-1], "right"
                    )
                    uniforms = rng.uniform(size=size)
                start = len(basis)
                for i, uniform in zip(candidates, uniforms, strict=True):
                    row = X[[i]].toarray().ravel() if hasattr(X, "toarray") else X[i]
                    for _ in range(2):  # twice is enough for orthogonality to rounding
                        row = row - (row @ basis.T) @ basis
                    left = float(row @ row)
                    # Drawn from the residuals at the block's start, kept by the current one.
                    if unselected[i] and left > floor and left >= uniform * residual[i]:
                        basis = np.vstack([basis, row / np.sqrt(left)])
                        indices.append(int(i))
                        unselected[i] = False
                        step()
                    elif left <= floor:
                        # Down to rounding, whatever is left of it after the subtractions below:
                        # greedy would look at it forever.
                        residual[i] = 0.0
                new = basis[start:]
                residual -= np.square(safe_sparse_dot(X, new.T, dense_output=True)).sum(axis=1)
                residual = np.where(unselected & (residual > floor), residual, 0.0)
        return Selection(np.array(indices))
