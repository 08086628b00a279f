"""Adaptive sampling: each sample is selected by what the previous ones do not span."""

from numbers import Integral
from typing import ClassVar

import numpy as np
from scipy import linalg, sparse
from sklearn.utils.extmath import row_norms, safe_sparse_dot

from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.utils._sklearn import Interval, StrOptions


class AdaptiveSelector(BaseSelector):
    """Select samples one at a time, favouring those that the selected ones do not span.

    Each step prefers samples that are far from the span of those selected so far, so that the
    coreset soon reaches all directions. Use it when the selected rows should span the rows of X.

    The residual of a row is its component outside the span of the selected rows. The next sample
    is drawn with probability proportional to the squared norm of its residual. This is adaptive
    sampling [1]_, or randomly pivoted Cholesky [2]_ of the Gram matrix. After as many samples as X
    has rank, only rounding errors are left of the residuals. The basis is then emptied, and
    sampling starts again among the remaining samples.

    Parameters
    ----------
    {n_to_select}
    pivoting : {"random", "greedy"}, default="random"
        Whether the next sample is drawn at random or is the one with the largest residual
        (column-pivoted QR).
    block_size : int, default=16
        Number of candidates drawn at a time with ``pivoting="random"``. Each is then accepted with
        the probability that gives the same distribution as drawing one at a time [2]_. Larger
        blocks are faster.
    {stratify}
    {random_state}

    Attributes
    ----------
    {sample_indices_in_order}
    {sample_weight_equal}
    {fitted}

    Notes
    -----
    O(N n m + n² m) time for N samples of m features. There is one pass over X in double precision
    for each block of selected samples, or for each sample with ``pivoting="greedy"``. Next to X,
    memory is needed for the products with the rows of one block, at most `block_size`, for their
    squares, and for three vectors of N entries.

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

    _ordered: ClassVar[bool] = True
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
        # The products with the accepted rows of a block, and their squares.
        block = 1 if self.pivoting == "greedy" else min(self.block_size, n, n_features)
        return 8 * n_samples * (2 * block + 3)

    def _select(self, X, n, reference, rng, step, *, sample_weight=None, selected=None):
        norms = row_norms(X, squared=True)
        unselected = np.ones(X.shape[0], dtype=bool)
        indices: list[int] = []
        given = [] if selected is None else selected.tolist()
        unselected[given] = False
        while len(indices) < n:
            residual = np.where(unselected, norms, 0.0)
            floor = 1e-13 * residual.max()
            basis = _orthonormal_rows(X, given)
            given = []
            if len(basis):
                explained = np.square(safe_sparse_dot(X, basis.T, dense_output=True)).sum(axis=1)
                residual -= explained
                residual = np.where(unselected & (residual > floor), residual, 0.0)
            if floor == 0.0:  # only rows of zeros are left
                rest = np.flatnonzero(unselected)
                n_missing = n - len(indices)
                if self.pivoting == "greedy":
                    rest = rest[:n_missing]
                else:
                    p = None
                    if sample_weight is not None:
                        p = sample_weight[rest] / sample_weight[rest].sum()
                    rest = rng.choice(rest, size=n_missing, replace=False, p=p)
                indices += rest.tolist()
                break
            while len(indices) < n and residual.max() > floor:
                if self.pivoting == "greedy":
                    tie = residual.max() * (1.0 - 1e-12)
                    candidates, uniforms = np.array([np.argmax(residual >= tie)]), np.zeros(1)
                else:
                    size = min(self.block_size, n - len(indices))
                    weighted = residual if sample_weight is None else sample_weight * residual
                    cumulative = np.cumsum(weighted)
                    candidates = np.searchsorted(
                        cumulative, rng.uniform(size=size) * cumulative[-1], "right"
                    )
                    uniforms = rng.uniform(size=size)
                start = len(basis)
                for i, uniform in zip(candidates, uniforms, strict=True):
                    row = X[[i]].toarray().ravel() if hasattr(X, "toarray") else X[i]
                    for _ in range(2):  # orthogonalising twice is accurate to rounding
                        row = row - (row @ basis.T) @ basis
                    left = float(row @ row)
                    # Candidates were drawn by the residuals at the start of the block; accepting
                    # by the current residual gives the distribution of one draw at a time.
                    if unselected[i] and left > floor and left >= uniform * residual[i]:
                        basis = np.vstack([basis, row / np.sqrt(left)])
                        indices.append(int(i))
                        unselected[i] = False
                        step()
                    elif left <= floor:
                        # Otherwise the subtractions below could leave a residual that greedy
                        # pivoting chooses again, forever.
                        residual[i] = 0.0
                new = basis[start:]
                residual -= np.square(safe_sparse_dot(X, new.T, dense_output=True)).sum(axis=1)
                residual = np.where(unselected & (residual > floor), residual, 0.0)
        return Selection(np.array(indices))


def _orthonormal_rows(X, rows):
    """Return an orthonormal basis of the span of these rows, of shape (rank, n_features)."""
    if not len(rows):
        return np.empty((0, X.shape[1]))
    given = X[rows].toarray() if sparse.issparse(X) else X[rows]
    _, lengths, directions = linalg.svd(given, full_matrices=False, check_finite=False)
    return directions[lengths > 1e-6 * lengths[0]] if lengths[0] > 0.0 else directions[:0]
