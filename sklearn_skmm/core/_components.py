r"""Rows of P = X V and of A = P∘P, computed one block at a time or kept in memory.

Ten million samples with 64 float32 columns take 2.6 GB, so no second array of the size of X should
be in memory.
"""

import math

import numpy as np
from scipy import sparse

from sklearn_skmm.core._blocks import (
    each_block,
    product,
    row_blocks,
    rows_of,
    sum_of_blocks,
    weighted_sum,
)

# Up to this many bytes of A, or of P, are kept instead of being recomputed in each pass. Of A, half
# is kept in addition: with the solver's vectors, this is 0.6 times the bytes of X.
KEEP_BYTES = 2**29


class Components:
    """Rows of P = X V / unit, computed on access, or kept in memory if they are small.

    Parameters
    ----------
    X : {ndarray, sparse matrix} of shape (N, n_features)
        Samples.
    directions : ndarray of shape (n_features, k)
        V; converted to the dtype of X.
    unit : float, default=1.0
        Unit of length; P is divided by it.
    members : ndarray of shape (n_members,), dtype int, or None, default=None
        Positions of the rows of P; None is all.
    keep : int or None, default=None
        P is kept if it takes at most this many bytes; None is `KEEP_BYTES`. For a sparse X, P is
        always kept.

    Examples
    --------
    >>> import numpy as np
    >>> Components(np.eye(3), np.array([[1.0], [2.0], [3.0]]))[[0, 2]]
    array([[1.],
           [3.]])
    """

    def __init__(self, X, directions, unit=1.0, members=None, keep=None):
        self.X, self.directions, self.unit = X, directions.astype(X.dtype, copy=False), unit
        self.members, self.dtype = members, X.dtype
        self.shape = (X.shape[0] if members is None else len(members), directions.shape[1])
        self.held = None
        keep = KEEP_BYTES if keep is None else keep
        # Gathering rows of a sparse matrix is slow.
        if sparse.issparse(X) or self.shape[0] * self.shape[1] * self.dtype.itemsize <= keep:
            held = np.empty(self.shape, dtype=self.dtype)

            def fill(rows):
                held[rows] = self[rows]

            each_block(fill, row_blocks(*self.shape))
            self.held = held

    def __getitem__(self, rows) -> np.ndarray:
        if self.held is not None:
            return rows_of(self.held, rows)
        rows = rows if self.members is None else self.members[rows]
        P = product(rows_of(self.X, rows), self.directions)
        P /= self.unit
        return P


class Energies:
    """A = P∘P with P = X V / unit, or a given A, as a linear operator and its transpose.

    The first blocks, up to `keep` bytes, are kept in memory. Each pass recomputes the others.

    Parameters
    ----------
    X : {ndarray, sparse matrix} of shape (N, n_features)
        Samples, or A itself, of shape (N, k).
    directions : ndarray of shape (n_features, k) or None, default=None
        V; converted to the dtype of X. With None, X is A.
    unit : float, default=1.0
        Unit of length; P is divided by it.
    keep : int or None, default=None
        Bytes of A that may be kept; None is `KEEP_BYTES` plus half the bytes of A.

    Examples
    --------
    >>> import numpy as np
    >>> A = Energies(np.array([[1.0, 2.0], [3.0, 4.0]]), np.eye(2))
    >>> A.rmatvec(np.ones(2))
    array([10., 20.])
    >>> A.matvec(np.array([1.0, 0.0]))
    array([1., 9.])
    """

    def __init__(self, X, directions=None, unit=1.0, keep=None):
        self.X, self.dtype, self.directions = X, X.dtype, None
        if directions is not None:
            self.directions = (directions / unit).astype(X.dtype, copy=False)
        self.shape = (X.shape[0], (X if directions is None else directions).shape[1])
        blocks = row_blocks(*self.shape)
        if keep is None:
            keep = KEEP_BYTES + math.prod(self.shape) * self.dtype.itemsize // 2
        # One array, because the system backs it with larger pages than many small ones.
        size = self.shape[1] * self.dtype.itemsize
        ends = [rows.stop for rows in blocks if directions is not None and rows.stop * size <= keep]
        self.held = np.empty((max(ends, default=0), self.shape[1]), dtype=self.dtype)

        def fill(rows):
            self.held[rows] = self._block(rows)

        each_block(fill, blocks[: len(ends)])

    def _block(self, rows: slice) -> np.ndarray:
        if self.directions is None:
            return self.X[rows]
        block = product(self.X[rows], self.directions)
        return np.square(block, out=block)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.held[rows] if rows.stop <= len(self.held) else self._block(rows)

    def rmatvec(self, s: np.ndarray) -> np.ndarray:
        """Return Aᵀs, of shape (k,) and dtype float64, for s of shape (N,)."""
        return weighted_sum(s, self)

    def matvec(self, g: np.ndarray) -> np.ndarray:
        """Return A g, of shape (N,) and the dtype of A, for g of shape (k,)."""
        g = g.astype(self.dtype, copy=False)
        out = np.empty(self.shape[0], dtype=self.dtype)
        # A product in single precision with few columns may compute on unused lanes of a register
        # and raise the floating-point flag for invalid operations because of their stale contents.
        # All numbers are finite here, so a real invalid operation would be preceded by an overflow.
        with np.errstate(invalid="ignore"):
            each_block(lambda rows: np.dot(self[rows], g, out=out[rows]), row_blocks(*self.shape))
        return out

    def scatter(self) -> np.ndarray:
        """Return Σ_i (a_i − ā)(a_i − ā)ᵀ, of shape (k, k) and dtype float64."""
        mean = self.rmatvec(np.full(self.shape[0], 1.0 / self.shape[0], dtype=self.dtype))
        mean = mean.astype(self.dtype)

        def about_mean(rows):
            block = self[rows] - mean
            with np.errstate(over="ignore"):
                scatter = product(block.T, block)
            if not np.isfinite(scatter).all():  # rows far longer than those of the reference
                block = block.astype(np.float64)
                scatter = product(block.T, block)
            return scatter

        return sum_of_blocks(about_mean, row_blocks(*self.shape), 2 * self.shape[1:])
