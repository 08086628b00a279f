"""The cost c_ij of representing sample i by sample j.

Blocks or columns of the cost matrix are computed exactly (in double precision) or fast (in single).
"""

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import row_norms, safe_sparse_dot

from sklearn_skmm.utils._threads import in_threads

BLOCK = 512
# The size of the cache of fast costs: for all of them if they fit, as for the subsample on which
# cells are laid out, else for columns.
CACHE_BYTES = 144 * 2**20
# The number of tasks into which a pass over all pairs is divided for the threads.
TASKS = 8
EPS = float(np.finfo(np.float32).eps)


def median_distance(
    X, rng: np.random.RandomState, size: int = 1000, weight: np.ndarray | None = None
) -> float:
    """Return the median distance over pairs of two rows of a random subsample.

    Returns the mean distance if more than half of the distances are zero, and 1 if all are. The
    subsample has at most `size` of the rows of X, an array of shape (N, n_features). With weights,
    of shape (N,), `size` rows are drawn, each with a probability proportional to its weight.
    """
    n_samples = X.shape[0]
    if weight is not None:
        points = (np.arange(size) + rng.uniform()) / size * weight.sum()
        drawn = np.searchsorted(np.cumsum(weight), points)
        rows = X[np.minimum(drawn, n_samples - 1)]
        return median_of_pairs(squared_distances(rows))
    rows = X[:] if n_samples <= size else X[rng.choice(n_samples, size, replace=False)]
    return median_of_pairs(squared_distances(rows))


def median_of_pairs(squared: np.ndarray) -> float:
    """Return the median distance over pairs of two rows, from the (N, N) squared distances."""
    return median_or_mean(np.sqrt(squared[np.triu_indices(len(squared), 1)]))


def median_or_mean(distances: np.ndarray) -> float:
    """Return the median; if it is zero, the mean; if that is zero too, or nothing is given, 1.

    Examples
    --------
    >>> import numpy as np
    >>> median_or_mean(np.array([1.0, 2.0, 9.0])), median_or_mean(np.array([0.0, 0.0, 9.0]))
    (2.0, 3.0)
    >>> median_or_mean(np.zeros(3))
    1.0
    """
    if not distances.size:
        return 1.0
    return float(np.median(distances) or distances.mean() or 1.0)


def squared_distances(X) -> np.ndarray:
    """Return all squared distances between rows; those of equal rows are exactly zero.

    X has shape (N, n_features) and may be sparse. The result has shape (N, N) and dtype float64.

    Examples
    --------
    >>> import numpy as np
    >>> squared_distances(np.array([[0.0], [3.0], [3.0]]))
    array([[0., 9., 9.],
           [9., 0., 0.],
           [9., 0., 0.]])
    """
    X = X.astype(np.float64) if sparse.issparse(X) else X - X.mean(axis=0, dtype=np.float64)
    norms = row_norms(X, squared=True)
    return squared_from_products(safe_sparse_dot(X, X.T, dense_output=True), norms[:, None], norms)


def squared_from_products(products, left, right) -> np.ndarray:
    """Overwrite the products x·y with |x|² − 2 x·y + |y|² and return them."""
    products *= -2.0
    products += left
    products += right
    np.maximum(products, 0.0, out=products)
    if products.dtype == np.float64:
        # Equal rows get the distance zero instead of a rounding error.
        rounding = 8.0 * np.finfo(np.float64).eps
        near = products <= rounding * (left.max(initial=0.0) + right.max(initial=0.0))
        if 16 * np.count_nonzero(near) < near.size:  # usual: by each pair's own lengths
            i, j = near.nonzero()
            equal = products[i, j] <= rounding * (left[i, 0] + right[j])
            products[i[equal], j[equal]] = 0.0
        else:
            products[products <= rounding * (left + right)] = 0.0
    return products


def unit_rows(X):
    """Return the rows divided by their lengths, with one more column.

    A row of zeros has no direction. It becomes the unit vector of the additional column, which is
    orthogonal to all other rows.

    Examples
    --------
    >>> import numpy as np
    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8, 0. ],
           [0. , 0. , 1. ]])
    """
    # First by the largest entry, because squares of small entries would be zero.
    if sparse.issparse(X):
        largest = abs(X).max(axis=1).toarray().ravel()
        rows = sparse.hstack([X, (largest == 0.0).astype(X.dtype)[:, None]], format="csr")
        largest[largest == 0.0] = 1.0
        entries = np.diff(rows.indptr)
        rows.data /= np.repeat(largest, entries)
        rows.data /= np.repeat(row_norms(rows), entries)
        return rows
    largest = np.maximum(X.max(axis=1), -X.min(axis=1))
    rows = np.empty((X.shape[0], X.shape[1] + 1))
    rows[:, -1] = largest == 0.0
    largest[largest == 0.0] = 1.0
    np.divide(X, largest[:, None], out=rows[:, :-1])
    rows /= row_norms(rows)[:, None]
    return rows


def gaussian(squared, bandwidth) -> np.ndarray:
    """Overwrite the squared distances d² with 1 − exp(−d² / 2h²) and return them.

    Examples
    --------
    >>> import numpy as np
    >>> gaussian(np.array([0.0, 2.0]), 1.0)
    array([0.        , 0.63212056])
    """
    squared *= -0.5 / bandwidth**2
    return np.negative(np.expm1(squared, out=squared), out=squared)


class Costs:
    """Blocks of the cost matrix c_ij, computed from rows of X, exact or fast.

    Exact costs are in double precision. Fast costs are in single precision if their error can be
    bounded, else in double.

    Parameters
    ----------
    X : {ndarray, sparse matrix} of shape (N, n_features)
        Samples.
    metric : {"gaussian", "euclidean", "sqeuclidean"}
        The cost: a Gaussian kernel subtracted from 1, a distance or a squared distance.
    bandwidth : float
        Kernel bandwidth of the Gaussian.
    """

    def __init__(self, X, metric: str, bandwidth: float):
        # Centring reduces cancellation in squared distances; sparse rows have to stay sparse.
        self.X = X if sparse.issparse(X) else X - X.mean(axis=0)
        self.norms = row_norms(self.X, squared=True)
        self.metric, self.bandwidth = metric, bandwidth
        largest = float(self.norms.max(initial=0.0))
        # Error of a squared distance, by rounding in a product of X.shape[1] terms. That of a pair
        # is at most the sum of two entries, so an outlier does not widen the bounds of others.
        self.errors = (np.sqrt(X.shape[1]) + 4.0) * EPS * self.norms
        if metric == "gaussian":
            self.errors = self.errors / (2.0 * bandwidth**2) + 0.5 * EPS
        # The root is not Lipschitz at zero, and squares must neither overflow nor underflow.
        self.single = metric != "euclidean" and 1e-15 < largest < 1e15
        if not self.single:
            self.errors = np.zeros(X.shape[0])
        self.growth = np.exp(np.minimum(self.errors, 40.0))
        self.dtype = np.float32 if self.single else np.float64
        self.factors: tuple | None = None
        self.fast_data: tuple = ()
        if metric == "gaussian" and self.single and not sparse.issparse(X):
            # The whole exponent as one product: -g |x - y|² = 2g x·y - g |x|² - g |y|².
            g = 0.5 / bandwidth**2
            left = np.ones((X.shape[0], X.shape[1] + 2), dtype=np.float32)
            np.multiply(self.X, np.sqrt(2.0 * g), out=left[:, :-2], casting="same_kind")
            right = left.copy()
            left[:, -2] = right[:, -1] = -g * self.norms
            self.factors = left, right
        else:
            self.fast_data = self.X.astype(self.dtype, copy=False), self.norms.astype(self.dtype)
        n_pairs = X.shape[0] * (X.shape[0] + BLOCK) // 2
        self.keeps_all = n_pairs * np.dtype(self.dtype).itemsize <= CACHE_BYTES
        self.kept: dict[tuple[int, int], np.ndarray] = {}  # fast blocks of the upper triangle

    def __call__(self, rows, columns, fast=False) -> np.ndarray:
        """Return the costs of these rows (positions or slice) and columns."""
        if fast and self.factors is not None:
            left, right = self.factors
            block = left[rows] @ right[columns].T
            np.minimum(block, 0.0, out=block)  # for long rows, rounding can make it positive
            np.exp(block, out=block)
            return np.subtract(1.0, block, out=block)
        X, norms = self.fast_data if fast else (self.X, self.norms)
        products = safe_sparse_dot(X[rows], X[columns].T, dense_output=True)
        squared = squared_from_products(products, norms[rows][:, None], norms[columns])
        if self.metric == "euclidean":
            np.sqrt(squared, out=squared)
        elif self.metric == "gaussian":
            gaussian(squared, self.bandwidth)
        return squared

    def errors_of(self, j, column) -> np.ndarray:
        """Return bounds on the errors of the fast costs `column` of candidate j, of shape (N,)."""
        if not self.single or self.metric != "gaussian":
            return self.errors + self.errors[j]
        # The error is one of the exponent, so costs near 1, of distant samples, have small errors.
        errors = self.growth * self.growth[j]
        errors -= 1.0
        errors *= 1.0 + EPS - column
        errors += EPS
        return errors

    def pairs_of_blocks(self, fast, task=0, n_tasks=1):
        """Yield (I, J, block) over the upper triangle; the lower one follows from c_ij = c_ji.

        If there are several tasks, each one gets every n_tasks-th block row I, from long rows of
        the triangle to short ones.
        """
        n_samples = self.X.shape[0]
        blocks = [slice(start, start + BLOCK) for start in range(0, n_samples, BLOCK)]
        for k in range(task, len(blocks), n_tasks):
            I = blocks[k]
            for J in blocks[k:]:
                yield I, J, self.kept_block(I, J) if fast and self.keeps_all else self(I, J, fast)

    def kept_block(self, I, J) -> np.ndarray:
        """Return one fast block of the upper triangle from the cache, computing it if needed."""
        key = I.start, J.start
        if key not in self.kept:
            self.kept[key] = self(I, J, fast=True)
        return self.kept[key]

    def kept_column(self, j) -> np.ndarray:
        """Return one column from the cached blocks, all of which must have been computed."""
        own = j - j % BLOCK
        parts = [
            self.kept[start, own][:, j - own] if start <= own else self.kept[own, start][j - own]
            for start in range(0, self.X.shape[0], BLOCK)
        ]
        return np.concatenate(parts)

    def totals(self, weight) -> np.ndarray:
        """Return Σ_i w_i c_ij for each j, from exact costs."""
        total = np.zeros(len(weight))
        for I, J, block in self.pairs_of_blocks(fast=False):
            total[J] += weight[I] @ block
            if I is not J:
                total[I] += block @ weight[J]
        return total

    def gain_bounds(self, current, error_bounds, weight) -> np.ndarray:
        """Bound Σ_i w_i max(0, current_i − c_ij) from above for each j, by fast costs.

        `error_bounds`, of shape (N,), bounds the errors of the current costs.
        """
        current, mass = current.astype(self.dtype), weight.astype(self.dtype)
        n_tasks = min(TASKS, -(-len(weight) // BLOCK))

        def savings(task):
            gains = np.zeros(len(weight))
            for I, J, block in self.pairs_of_blocks(True, task, n_tasks):
                saving = current[I, None] - block
                gains[J] += mass[I] @ np.maximum(saving, 0.0, out=saving)
                if I is not J:
                    np.subtract(current[J], block, out=saving)
                    gains[I] += np.maximum(saving, 0.0, out=saving) @ mass[J]
            return gains

        parts = in_threads(savings, range(n_tasks)) if n_tasks > 1 else [savings(0)]
        gains = sum(parts, start=np.zeros(len(weight)))
        slack = weight @ (error_bounds + self.errors) + weight.sum() * self.errors
        return gains * (1.0 + 1e-4) + slack


class Columns:
    """Fast columns of the cost matrix, computed together and cached up to `CACHE_BYTES`.

    They are computed as rows, since c_ij = c_ji.
    """

    def __init__(self, costs: Costs):
        self.costs = costs
        self.kept: dict[int, np.ndarray] = {}
        size = costs.X.shape[0] * np.dtype(costs.dtype).itemsize
        self.capacity = max(1, CACHE_BYTES // size)

    def get(self, wanted: np.ndarray) -> list[np.ndarray]:
        """Return the columns of these positions, each of shape (N,)."""
        if self.costs.keeps_all:
            return [self.costs.kept_column(j) for j in wanted.tolist()]
        missing = [j for j in wanted.tolist() if j not in self.kept]
        fresh = {}
        if missing:
            block = self.costs(missing, slice(None), fast=True)
            fresh = dict(zip(missing, block, strict=True))
        columns = [fresh[j] if j in fresh else self.kept[j] for j in wanted.tolist()]
        for j, column in fresh.items():
            if len(self.kept) >= self.capacity:
                self.kept.pop(next(iter(self.kept)))
            self.kept[j] = column.copy()  # a view would keep the whole block alive
        return columns
