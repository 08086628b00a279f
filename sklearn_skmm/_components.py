r"""Rows of P = X V and of A = P∘P, a block at a time.

Ten million samples of 64 float32 columns fill 2.6 GB, so that nothing of the size of X is to be
held next to it. Blocks and runs of rows are cut the same way wherever they come from, and no
product is left to BLAS that it would add up in another order on another number of threads.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import row_norms, safe_sparse_dot

from sklearn_skmm._threads import in_threads, one_thread

# Entries of one block: 16,384 rows of 64 columns, which stay in the processor's cache.
BLOCK = 2**20
# Rows, or entries of a vector, that one call to BLAS adds up, and entries of these rows. It hands
# as few to one thread only, and single precision loses little over as many.
RUN, RUN_ENTRIES = 128, 2**13
# Bytes of A, or of P, that may be held so that they need not be computed for each pass. Of A half
# of it besides: with the solver's vectors, that is 0.6 of the bytes of X.
KEEP = 2**29
# What the blocks of a pass are handed to threads in.
STRETCHES = 8
# Squares of smaller numbers lose digits.
SMALLEST = 2.0**-500


def row_blocks(n_samples: int, n_features: int) -> list[slice]:
    """Return slices of whole runs that cover the rows.

    Examples
    --------
    >>> row_blocks(20_000, 64)
    [slice(0, 16384, None), slice(16384, 20000, None)]
    """
    rows = max(1, BLOCK // max(n_features, 1) // RUN) * RUN
    return [slice(k, min(k + rows, n_samples)) for k in range(0, n_samples, rows)]


def _each_stretch(function: Callable, blocks: list[slice], count: int) -> list:
    """Return what the function gives for each of so many runs of blocks, in threads if several."""
    size = max(1, -(-len(blocks) // count))
    stretches = [blocks[k : k + size] for k in range(0, len(blocks), size)]
    return in_threads(function, stretches) if len(stretches) > 1 else list(map(function, stretches))


def each_block(function: Callable, blocks: list[slice]) -> None:
    """Call the function for each block, several at a time in threads.

    Examples
    --------
    >>> import numpy as np
    >>> starts = np.zeros(20_000)
    >>> each_block(lambda rows: starts[rows].fill(rows.start), row_blocks(20_000, 64))
    >>> starts[[0, -1]]
    array([    0., 16384.])
    """

    def of_stretch(stretch):
        for rows in stretch:
            function(rows)

    _each_stretch(of_stretch, blocks, STRETCHES)


def sum_of_blocks(function: Callable, blocks: list[slice], shape: tuple[int, ...]) -> np.ndarray:
    """Return the sum of the function's arrays for all blocks, in double precision.

    The order in which they are added up depends on the blocks alone. No more than a few are held.

    Examples
    --------
    >>> import numpy as np
    >>> sum_of_blocks(lambda rows: np.ones(2), row_blocks(20_000, 64), (2,))
    array([2., 2.])
    """

    def of_stretch(stretch):
        total = np.zeros(shape)
        for rows in stretch:
            total += function(rows)
        return total

    count = min(STRETCHES, max(2, BLOCK // max(1, math.prod(shape))))
    return sum(_each_stretch(of_stretch, blocks, count), start=np.zeros(shape))


def rows_of(X, rows) -> np.ndarray:
    """Return rows of X, by a slice or by their positions, for which `take` is twice as fast.

    Examples
    --------
    >>> import numpy as np
    >>> rows_of(np.array([[1.0], [2.0], [3.0]]), np.array([2, 0]))
    array([[3.],
           [1.]])
    """
    by_position = isinstance(X, np.ndarray) and not isinstance(rows, slice)
    return X.take(rows, axis=0) if by_position else X[rows]


def weighted_rows(s: np.ndarray, A: np.ndarray) -> np.ndarray:
    """Return Σ_i s_i a_i in double precision, added up run by run.

    Examples
    --------
    >>> import numpy as np
    >>> weighted_rows(np.full(300, 0.5), np.ones((300, 2)))
    array([150., 150.])
    """
    k, run = A.shape[1], RUN
    while run * k > RUN_ENTRIES and run > 8:
        run //= 2
    whole = len(s) // run * run
    total = (s[whole:] @ A[whole:]).astype(np.float64)
    if whole:
        runs = s[:whole].reshape(-1, 1, run) @ A[:whole].reshape(-1, run, k)
        total += runs.sum(axis=(0, 1), dtype=np.float64)
    return total


def weighted_sum(s: np.ndarray, A) -> np.ndarray:
    """Return Σ_i s_i a_i in double precision, of whatever has rows and a shape, block by block.

    Examples
    --------
    >>> import numpy as np
    >>> weighted_sum(np.full(20_000, 0.5), np.ones((20_000, 64)))[:2]
    array([10000., 10000.])
    """

    def of_block(rows):
        return weighted_rows(s[rows], A[rows])

    return sum_of_blocks(of_block, row_blocks(*A.shape), A.shape[1:])


def product(A, B: np.ndarray) -> np.ndarray:
    """Return A B, with the same bits on any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> product(np.eye(2), np.array([[1.0], [2.0]]))
    array([[1.],
           [2.]])
    """
    with one_thread():
        return A @ B


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """Return aᵀb in double precision, added up run by run.

    Examples
    --------
    >>> import numpy as np
    >>> dot(np.ones(1000, dtype=np.float32), np.ones(1000, dtype=np.float32))
    1000.0
    """
    whole = len(a) // RUN * RUN
    runs = np.vecdot(a[:whole].reshape(-1, RUN), b[:whole].reshape(-1, RUN))
    return float(runs.sum(dtype=np.float64)) + float(a[whole:] @ b[whole:])


def total(a: np.ndarray) -> float:
    """Return Σ_i a_i in double precision, added up run by run.

    Examples
    --------
    >>> import numpy as np
    >>> total(np.full(1000, 0.5, dtype=np.float32))
    500.0
    """
    whole = len(a) // RUN * RUN
    runs = np.vecdot(a[:whole].reshape(-1, RUN), np.ones(RUN, dtype=a.dtype))
    return float(runs.sum(dtype=np.float64)) + float(a[whole:].sum(dtype=np.float64))


def largest_entry(X) -> float:
    """Return max |x_ij|, without an array of |x_ij|.

    Examples
    --------
    >>> import numpy as np
    >>> largest_entry(np.array([[1.0, -3.0]]))
    3.0
    """
    return float(max(X.max(), -X.min()))


def check_values(X, name: str) -> None:
    """Refuse arrays of which a conversion to floats would lose the meaning.

    Examples
    --------
    >>> import numpy as np
    >>> check_values(np.array(["2026-11-25"], dtype="datetime64[D]"), "X")
    Traceback (most recent call last):
    ValueError: X must hold numbers, got dtype datetime64[D].
    """
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise ValueError(
            f"{name} is a masked array with {np.ma.count_masked(X)} masked entries, which stand "
            f"for no number. Fill or leave them out."
        )
    if getattr(getattr(X, "dtype", None), "kind", None) in ("m", "M"):  # NaT would become a number
        raise ValueError(f"{name} must hold numbers, got dtype {X.dtype}.")


def check_range(X, name: str) -> None:
    """Refuse X whose squared distances, or their sum over the samples, are not in the range.

    Examples
    --------
    >>> import numpy as np
    >>> check_range(np.array([[0.0, 1e200]]), "X")
    Traceback (most recent call last):
    ValueError: The largest entry of X is 1e+200 in absolute value, ...
    """
    if X.dtype == np.float32:
        return  # its squares are in the range of double precision
    largest = largest_entry(X)
    limit = math.sqrt(np.finfo(np.float64).max / (16.0 * math.prod(X.shape)))
    if largest > limit or 0.0 < largest < SMALLEST:
        raise ValueError(
            f"The largest entry of {name} is {largest:.6g} in absolute value, but must be zero or "
            f"from {SMALLEST:.3g} to {limit:.3g}, so that squares neither over- nor underflow. "
            f"Multiply {name} by a constant."
        )


def double_blocks(X, scale: float) -> Iterator[np.ndarray]:
    """Yield the rows of X / scale in double precision, block by block; sparse rows at once."""
    if sparse.issparse(X):
        yield X / np.float64(scale)
        return
    for rows in row_blocks(*X.shape):
        yield np.divide(X[rows], scale, dtype=np.float64)


def second_moments(X, scale: float) -> np.ndarray:
    """Return XᵀX / scale² in double precision.

    Examples
    --------
    >>> import numpy as np
    >>> second_moments(np.array([[2.0], [4.0]]), 2.0)
    array([[5.]])
    """
    if sparse.issparse(X):
        X = X / np.float64(scale)
        return safe_sparse_dot(X.T, X, dense_output=True)

    def of_block(rows):
        block = np.divide(X[rows], scale, dtype=np.float64)
        return block.T @ block

    return sum_of_blocks(of_block, row_blocks(*X.shape), 2 * X.shape[1:])


def mean_squared_norm(X) -> float:
    """Return the trace of the second moment, Σ_i |x_i|² / N.

    Examples
    --------
    >>> import numpy as np
    >>> mean_squared_norm(np.array([[3.0], [1.0]]))
    5.0
    """
    # Block by block: the squares of single precision overflow early.
    total = sum(float(row_norms(block, squared=True).sum()) for block in double_blocks(X, 1.0))
    return total / X.shape[0]


class Components:
    """Rows of P = X V / unit, computed when asked for. All are held if that takes few bytes.

    Parameters
    ----------
    X : {ndarray, sparse matrix} of shape (N, n_features)
        Samples.
    directions : ndarray of shape (n_features, k)
        V.
    unit : float, default=1.0
        What lengths are measured in.
    members : ndarray or None, default=None
        Positions of the rows that P is to have; None is all.
    keep : int or None, default=None
        How many bytes P may take to be held; None is `KEEP`.

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
        keep = KEEP if keep is None else keep
        # Rows of a sparse matrix are slow to gather.
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
    """A = P∘P with P = X V / unit, or a given A, as an operator in both directions.

    As many blocks are held as `keep` bytes take; the others are computed for each pass.

    Parameters
    ----------
    X : {ndarray, sparse matrix} of shape (N, n_features)
        Samples, or A itself.
    directions : ndarray of shape (n_features, k) or None, default=None
        V; with None, X is A.
    unit : float, default=1.0
        What lengths are measured in.
    keep : int or None, default=None
        Bytes of A that may be held; None is `KEEP` and half of those of A.

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
            keep = KEEP + math.prod(self.shape) * self.dtype.itemsize // 2
        # One array, for which the system gives larger pages than for many.
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
        """Return Aᵀs, of shape (k,), in double precision."""
        return weighted_sum(s, self)

    def matvec(self, g: np.ndarray) -> np.ndarray:
        """Return A g, of shape (N,), in the precision of A."""
        g = g.astype(self.dtype, copy=False)
        out = np.empty(self.shape[0], dtype=self.dtype)
        # A product in single precision with few columns may compute on lanes of a register that
        # belong to no row, and raise the flag of an invalid operation for what was left in them.
        # All numbers are finite here: invalid operations on them would show as overflow before.
        with np.errstate(invalid="ignore"):
            each_block(lambda rows: np.dot(self[rows], g, out=out[rows]), row_blocks(*self.shape))
        return out

    def scatter(self) -> np.ndarray:
        """Return Σ_i (a_i − ā)(a_i − ā)ᵀ, of shape (k, k)."""
        mean = self.rmatvec(np.full(self.shape[0], 1.0 / self.shape[0], dtype=self.dtype))
        mean = mean.astype(self.dtype)

        def about_mean(rows):
            block = self[rows] - mean
            with np.errstate(over="ignore"):
                scatter = product(block.T, block)
            if not np.isfinite(scatter).all():  # a pool far longer than what it is matched to
                block = block.astype(np.float64)
                scatter = product(block.T, block)
            return scatter

        return sum_of_blocks(about_mean, row_blocks(*self.shape), 2 * self.shape[1:])
