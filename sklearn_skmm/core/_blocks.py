"""Sums and passes over rows, one block at a time.

Results do not depend on the number of threads or on the container of the rows: the cuts between
blocks and runs depend on the shape only, and BLAS gets only products whose order of summation does
not depend on its number of threads.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import row_norms, safe_sparse_dot

from sklearn_skmm.utils._threads import in_threads, one_thread

# Entries of a block, such as 16,384 rows of 64 columns; they stay in the processor's cache.
BLOCK = 2**20
# The number of rows (or entries of a vector) that one call to BLAS sums, and the most entries that
# these rows have. BLAS uses one thread for so few, and single precision loses little over them.
RUN, RUN_ENTRIES = 128, 2**13
# The number of tasks into which the blocks of a pass are divided for the threads.
N_TASKS = 8


def row_blocks(n_samples: int, n_features: int) -> list[slice]:
    """Return slices that cover the rows; all but the last have a multiple of `RUN` rows.

    Examples
    --------
    >>> row_blocks(20_000, 64)
    [slice(0, 16384, None), slice(16384, 20000, None)]
    """
    rows = max(1, BLOCK // max(n_features, 1) // RUN) * RUN
    return [slice(k, min(k + rows, n_samples)) for k in range(0, n_samples, rows)]


def _map_chunks(function: Callable, blocks: list[slice], count: int) -> list:
    """Map the function over at most `count` chunks of the blocks, in threads if more than one."""
    size = max(1, -(-len(blocks) // count))
    chunks = [blocks[k : k + size] for k in range(0, len(blocks), size)]
    return in_threads(function, chunks) if len(chunks) > 1 else list(map(function, chunks))


def each_block(function: Callable, blocks: list[slice]) -> None:
    """Call the function on each block, several at a time in threads.

    Examples
    --------
    >>> import numpy as np
    >>> starts = np.zeros(20_000)
    >>> each_block(lambda rows: starts[rows].fill(rows.start), row_blocks(20_000, 64))
    >>> starts[[0, -1]]
    array([    0., 16384.])
    """

    def of_chunk(chunk):
        for rows in chunk:
            function(rows)

    _map_chunks(of_chunk, blocks, N_TASKS)


def sum_of_blocks(function: Callable, blocks: list[slice], shape: tuple[int, ...]) -> np.ndarray:
    """Return the sum of function(block) over all blocks, an array of this shape and dtype float64.

    The order of summation depends on the blocks alone. Only a few arrays are in memory at a time.

    Examples
    --------
    >>> import numpy as np
    >>> sum_of_blocks(lambda rows: np.ones(2), row_blocks(20_000, 64), (2,))
    array([2., 2.])
    """

    def of_chunk(chunk):
        total = np.zeros(shape)
        for rows in chunk:
            total += function(rows)
        return total

    count = min(N_TASKS, max(2, BLOCK // max(1, math.prod(shape))))
    return sum(_map_chunks(of_chunk, blocks, count), start=np.zeros(shape))


def rows_of(X, rows) -> np.ndarray:
    """Return rows of X, by a slice or by their positions.

    For positions, `take` is twice as fast as indexing.

    Examples
    --------
    >>> import numpy as np
    >>> rows_of(np.array([[1.0], [2.0], [3.0]]), np.array([2, 0]))
    array([[3.],
           [1.]])
    """
    by_position = isinstance(X, np.ndarray) and not isinstance(rows, slice)
    return X.take(rows, axis=0) if by_position else X[rows]


def weighted_block_sum(s: np.ndarray, A: np.ndarray) -> np.ndarray:
    """Return Σ_i s_i a_i in double precision, summed run by run.

    `s` has shape (N,), `A` is an ndarray of shape (N, k), and the result has shape (k,).

    Examples
    --------
    >>> import numpy as np
    >>> weighted_block_sum(np.full(300, 0.5), np.ones((300, 2)))
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
    """Return Σ_i s_i a_i in double precision, block by block.

    `s` has shape (N,) and the result shape (k,). `A` is an array, or any object of shape (N, k)
    that returns rows for a slice.

    Examples
    --------
    >>> import numpy as np
    >>> weighted_sum(np.full(20_000, 0.5), np.ones((20_000, 64)))[:2]
    array([10000., 10000.])
    """

    def of_block(rows):
        return weighted_block_sum(s[rows], A[rows])

    return sum_of_blocks(of_block, row_blocks(*A.shape), A.shape[1:])


def product(A, B: np.ndarray) -> np.ndarray:
    """Return the matrix product A B, with the same bits for any number of threads.

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
    """Return aᵀb of two vectors in double precision, summed run by run.

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
    """Return Σ_i a_i of a vector in double precision, summed run by run.

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
    """Return max |x_ij| without creating an array of |x_ij|.

    Examples
    --------
    >>> import numpy as np
    >>> largest_entry(np.array([[1.0, -3.0]]))
    3.0
    """
    return float(max(X.max(), -X.min()))


def scaled_rows(X, scale: float, weight: np.ndarray | None = None):
    """Return X / scale in double precision, with each row times the root of its weight.

    Examples
    --------
    >>> import numpy as np
    >>> scaled_rows(np.array([[2.0], [4.0]]), 2.0, np.array([1.0, 9.0]))
    array([[1.],
           [6.]])
    """
    X = X / np.float64(scale) if sparse.issparse(X) else np.divide(X, scale, dtype=np.float64)
    if weight is None:
        return X
    root = np.sqrt(weight)[:, None]
    return X.multiply(root).tocsr() if sparse.issparse(X) else X * root


def double_blocks(X, scale: float, weight: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield the blocks of `scaled_rows`; a sparse X is one block."""
    if sparse.issparse(X):
        yield scaled_rows(X, scale, weight)
        return
    for rows in row_blocks(*X.shape):
        yield scaled_rows(X[rows], scale, None if weight is None else weight[rows])


def second_moments(X, scale: float, weight: np.ndarray | None = None) -> np.ndarray:
    """Return Σ_i w_i x_i x_iᵀ / scale², of shape (n_features, n_features) and dtype float64.

    `weight` has shape (N,); None is 1 for each row.

    Examples
    --------
    >>> import numpy as np
    >>> second_moments(np.array([[2.0], [4.0]]), 2.0)
    array([[5.]])
    """
    if sparse.issparse(X):
        X = scaled_rows(X, scale, weight)
        return safe_sparse_dot(X.T, X, dense_output=True)

    def of_block(rows):
        block = scaled_rows(X[rows], scale, None if weight is None else weight[rows])
        return block.T @ block

    return sum_of_blocks(of_block, row_blocks(*X.shape), 2 * X.shape[1:])


def mean_squared_norm(X, weight: np.ndarray | None = None) -> float:
    """Return the trace of the second moment, Σ_i w_i |x_i|² / Σ_i w_i.

    `weight` has shape (N,); None is 1 for each row.

    Examples
    --------
    >>> import numpy as np
    >>> mean_squared_norm(np.array([[3.0], [1.0]]))
    5.0
    >>> mean_squared_norm(np.array([[3.0], [1.0]]), np.array([3.0, 1.0]))
    7.0
    """
    # In double precision, because squares in single precision overflow early.
    blocks = double_blocks(X, 1.0, weight)
    total = sum(float(row_norms(block, squared=True).sum()) for block in blocks)
    return total / (X.shape[0] if weight is None else float(weight.sum()))
