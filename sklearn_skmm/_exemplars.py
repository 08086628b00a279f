"""Exemplars: few samples that stand for all. Pure functions of arrays."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import row_norms, safe_sparse_dot

from sklearn_skmm._threads import in_threads

BLOCK = 512
# A pass over all pairs in single precision costs about as much as this share of exact columns.
REFRESH_SHARE = 1 / 40
# What is kept of the costs in single precision for the next rounds: all if it fits, or columns.
CACHE_BYTES = 128 * 2**20
# How many tasks a pass over all pairs is for the threads.
TASKS = 8
EPS = float(np.finfo(np.float32).eps)
# Exact gains that are computed together, to begin with and at most.
TRIED, MOST_TRIED = 8, 128


class Exemplars(NamedTuple):
    """Result of `greedy_exemplars`."""

    indices: np.ndarray  # (n,) in order of selection
    counts: np.ndarray  # (n,) mass that each exemplar represents
    objective: float  # mean cost of representing a sample


class Greedy(NamedTuple):
    """Result of `greedy_of_few`."""

    indices: np.ndarray  # (n,) in order of selection
    gains: np.ndarray  # (n,) by how much each lowers the cost of all, largest first


def median_distance(X, rng: np.random.RandomState, size: int = 1000) -> float:
    """Return the median distance between pairs of distinct rows, over a random subsample.

    If more than half of the distances are zero it is their mean, and one if all are.
    """
    n_samples = X.shape[0]
    rows = X[:] if n_samples <= size else X[rng.choice(n_samples, size, replace=False)]
    return typical(np.sqrt(squared_distances(rows)[np.triu_indices(rows.shape[0], 1)]))


def typical(distances: np.ndarray) -> float:
    """Return the median, the mean if that is zero, and one if that is, too.

    Examples
    --------
    >>> import numpy as np
    >>> typical(np.array([1.0, 2.0, 9.0])), typical(np.array([0.0, 0.0, 9.0])), typical(np.zeros(3))
    (2.0, 3.0, 1.0)
    """
    if not distances.size:
        return 1.0
    return float(np.median(distances) or distances.mean() or 1.0)


def squared_distances(X) -> np.ndarray:
    """Return all squared distances between rows in double precision; those of equal rows are zero.

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
    return _from_products(safe_sparse_dot(X, X.T, dense_output=True), norms[:, None], norms)


def _from_products(products, left, right) -> np.ndarray:
    """Return |x|² − 2 x·y + |y|², in place of the products x·y."""
    products *= -2.0
    products += left
    products += right
    np.maximum(products, 0.0, out=products)
    if products.dtype == np.float64:
        # Equal rows are at distance zero, not at the root of a rounding error.
        rounding = 8.0 * np.finfo(np.float64).eps
        near = products <= rounding * (left.max(initial=0.0) + right.max(initial=0.0))
        if 16 * np.count_nonzero(near) < near.size:  # the rule; each by its own rows' lengths
            i, j = near.nonzero()
            equal = products[i, j] <= rounding * (left[i, 0] + right[j])
            products[i[equal], j[equal]] = 0.0
        else:
            products[products <= rounding * (left + right)] = 0.0
    return products


class _Costs:
    """Blocks of the cost matrix c_ij, from rows of X, in double precision or fast.

    Fast is single precision where the error of that can be bounded, else double.
    """

    def __init__(self, X, metric: str, bandwidth: float):
        # Centred against cancellation in the squared distances; sparse rows stay sparse.
        self.X = X if sparse.issparse(X) else X - X.mean(axis=0)
        self.norms = row_norms(self.X, squared=True)
        self.metric, self.bandwidth = metric, bandwidth
        largest = float(self.norms.max(initial=0.0))
        # Error of a squared distance: rounding of a product of X.shape[1] terms. That of a pair is
        # at most the sum of both, so that one outlier does not blur the costs of all others.
        self.errors = (np.sqrt(X.shape[1]) + 4.0) * EPS * self.norms
        if metric == "gaussian":
            self.errors = self.errors / (2.0 * bandwidth**2) + 0.5 * EPS
        # The root is not Lipschitz at zero, and squares must stay clear of overflow and zero.
        self.single = metric != "euclidean" and 1e-15 < largest < 1e15
        if not self.single:
            self.errors = np.zeros(X.shape[0])
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
        if fast and self.factors is not None:
            left, right = self.factors
            block = left[rows] @ right[columns].T
            np.minimum(block, 0.0, out=block)  # where the rows are long, rounding may be, too
            np.exp(block, out=block)
            return np.subtract(1.0, block, out=block)
        X, norms = self.fast_data if fast else (self.X, self.norms)
        products = safe_sparse_dot(X[rows], X[columns].T, dense_output=True)
        squared = _from_products(products, norms[rows][:, None], norms[columns])
        if self.metric == "euclidean":
            np.sqrt(squared, out=squared)
        elif self.metric == "gaussian":
            squared *= -0.5 / self.bandwidth**2
            np.negative(np.expm1(squared, out=squared), out=squared)
        return squared

    def errors_of(self, j, column) -> np.ndarray:
        """Bound the errors of the fast costs of one candidate."""
        errors = self.errors + self.errors[j]
        if self.single and self.metric == "gaussian":
            # It is the exponent that is as far off: costs near one, of samples far apart, are not.
            np.expm1(np.minimum(errors, 40.0, out=errors), out=errors)
            errors *= 1.0 + EPS - column
            errors += EPS
        return errors

    def pairs_of_blocks(self, fast, task=0, n_tasks=1):
        """Yield (I, J, block) over the upper triangle; c_ij = c_ji serves the lower one.

        Of several tasks each has some of the I, from long rows of the triangle to short ones.
        """
        n_samples = self.X.shape[0]
        blocks = [slice(start, start + BLOCK) for start in range(0, n_samples, BLOCK)]
        for k in range(task, len(blocks), n_tasks):
            I = blocks[k]
            for J in blocks[k:]:
                yield I, J, self.kept_block(I, J) if fast and self.keeps_all else self(I, J, fast)

    def kept_block(self, I, J) -> np.ndarray:
        key = I.start, J.start
        if key not in self.kept:
            self.kept[key] = self(I, J, fast=True)
        return self.kept[key]

    def kept_column(self, j) -> np.ndarray:
        """Return one column of the kept blocks, all of which must be there."""
        own = j - j % BLOCK
        parts = [
            self.kept[start, own][:, j - own] if start <= own else self.kept[own, start][j - own]
            for start in range(0, self.X.shape[0], BLOCK)
        ]
        return np.concatenate(parts)

    def totals(self, weight) -> np.ndarray:
        """Return Σ_i w_i c_ij for each j."""
        total = np.zeros(len(weight))
        for I, J, block in self.pairs_of_blocks(fast=False):
            total[J] += weight[I] @ block
            if I is not J:
                total[I] += block @ weight[J]
        return total

    def gain_bounds(self, current, blur, weight) -> np.ndarray:
        """Bound Σ_i w_i max(0, current_i − c_ij) from above for each j, closely and fast.

        The blur is the error of the current costs.
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
        return gains * (1.0 + 1e-4) + weight @ (blur + self.errors) + weight.sum() * self.errors


class _Columns:
    """Fast columns of the cost matrix, computed together and kept while the budget lasts."""

    def __init__(self, costs: _Costs):
        self.costs = costs
        self.kept: dict[int, np.ndarray] = {}
        size = costs.X.shape[0] * np.dtype(costs.dtype).itemsize
        self.capacity = max(1, CACHE_BYTES // size)

    def get(self, wanted: np.ndarray) -> list[np.ndarray]:
        if self.costs.keeps_all:
            return [self.costs.kept_column(j) for j in wanted.tolist()]
        missing = [j for j in wanted.tolist() if j not in self.kept]
        fresh = {}
        if missing:
            block = np.ascontiguousarray(self.costs(slice(None), missing, fast=True).T)
            fresh = dict(zip(missing, block, strict=True))
        columns = [fresh[j] if j in fresh else self.kept[j] for j in wanted.tolist()]
        for j, column in fresh.items():
            if len(self.kept) >= self.capacity:
                self.kept.pop(next(iter(self.kept)))
            self.kept[j] = column.copy()  # not a view that keeps the whole block
        return columns


class _Nearest:
    """The cost of each sample's nearest exemplar, fast at once and exact when asked for."""

    def __init__(self, costs: _Costs, exact: np.ndarray):
        self.costs = costs
        self.fast = exact.astype(costs.dtype)
        self.blur = np.zeros(len(exact))  # how far they may be from the exact ones
        self._exact = exact
        self._pending: list[int] = []
        self.indices: list[int] = []
        self.label = np.zeros(len(exact), dtype=int)

    def add(self, j: int, column: np.ndarray) -> None:
        """Take j as an exemplar; column is its fast column."""
        saving = self.fast - column
        # What is not nearer may be, as far as is known.
        errors = self.costs.errors_of(j, column) + np.minimum(saving, 0.0)
        self.blur = np.maximum(self.blur - np.maximum(saving, 0.0), errors)
        np.minimum(self.fast, column, out=self.fast)
        self._pending.append(j)
        self.indices.append(j)

    def exact(self) -> np.ndarray:
        """Return the exact costs; the columns that are due are computed together."""
        for start in range(0, len(self._pending), BLOCK):
            due = self._pending[start : start + BLOCK]
            first = len(self.indices) - len(self._pending) + start
            for k, column in enumerate(self.costs(slice(None), due).T, start=first):
                self.label[column < self._exact] = k
                np.minimum(self._exact, column, out=self._exact)
        self._pending = []
        return self._exact


def _next_exemplar(costs, columns, nearest, weight, bounds, known, tie) -> tuple[int, np.ndarray]:
    """Return the candidate with the largest gain and its fast column; tighten the bounds.

    `known` says whose bound was once the exact gain.
    """
    if bounds.max() > tie and known[_top(bounds, tie)[0]]:
        # Far from all that was picked since, it has not lost: without this each of a crowd of
        # samples that cover but themselves would be looked at for each pick.
        winner = _first_of_largest(costs, nearest, weight, bounds, known, tie, tries=1)
        if winner >= 0:
            return winner, columns.get(np.array([winner]))[0]
    low = np.full(len(weight), -np.inf)  # lower bounds of what was looked at in this round
    batch, looked_at = 8, 0
    while True:
        best = low.max()
        stale = np.where(low > -np.inf, -np.inf, bounds)
        top = np.argpartition(-stale, min(batch, len(stale)) - 1)[:batch]
        top = top[(stale[top] > -np.inf) & (stale[top] >= best - tie)]
        if not top.size or bounds.max() <= tie:
            break
        if (
            looked_at > REFRESH_SHARE * len(weight)
            and weight @ (nearest.blur + costs.errors) < best
        ):
            # The old bounds are loose, as after the first picks: one pass renews them all, unless
            # what it adds for errors alone is more than the best gain.
            renewed = costs.gain_bounds(nearest.fast, nearest.blur, weight)
            np.minimum(bounds, renewed, out=bounds)
            looked_at = 0
            continue
        for j, column in zip(top.tolist(), columns.get(top), strict=True):
            saving = nearest.fast - column
            # Only entries that save, or might, carry an error into the sum.
            errors = nearest.blur + costs.errors_of(j, column)
            error = float(weight @ np.where(saving > -errors, errors, 0.0))
            gain = float(weight @ np.maximum(saving, 0.0))
            bounds[j], low[j] = min(bounds[j], gain + error), gain - error
        looked_at += len(top)
        batch = min(2 * batch, 256)
    # With every gain at rounding, all that is left is represented already, and the first is as
    # good as any. Else exact gains decide between those that single precision cannot tell apart.
    if bounds.max() <= tie:
        winner = int(np.argmax(bounds > -np.inf))
    else:
        final = np.flatnonzero((low > -np.inf) & (bounds >= low.max() - tie))
        winner = int(final[0])
        if len(final) > 1:
            winner = _first_of_largest(costs, nearest, weight, bounds, known, tie)
    return winner, columns.get(np.array([winner]))[0]


def _top(bounds, tie) -> np.ndarray:
    """Return the positions of the largest bounds, in order."""
    return np.flatnonzero(bounds >= bounds.max() - tie)


def _first_of_largest(costs, nearest, weight, bounds, known, tie, tries=np.inf) -> int:
    """Return the first candidate with the largest gain, from the exact gains of few.

    A gain not below any bound is the largest. Those of the largest bounds are computed, which
    become their bounds. After so many tries without such a gain the answer is -1.
    """
    fresh, size = np.zeros(len(bounds), dtype=bool), TRIED
    while True:
        top = _top(bounds, tie)
        if fresh[top[0]]:
            return int(top[0])
        if tries == 0:
            return -1
        due = top[~fresh[top]][:size]
        saving = nearest.exact() - costs(slice(None), due).T
        bounds[due] = np.maximum(saving, 0.0, out=saving) @ weight
        fresh[due] = known[due] = True
        size = min(2 * size, MOST_TRIED)
        tries -= 1


def greedy_of_few(
    squared: np.ndarray,
    n: int,
    bandwidth: float,
    weight: np.ndarray,
    step: Callable[[], bool] = lambda: False,
) -> Greedy:
    """Return the picks of `greedy_exemplars`, with the Gaussian cost, from all costs at once.

    A pick changes the gains through the samples that it covers better, which soon are few. Where
    the costs of some hundred samples fit the processor's cache, this is faster than to be lazy.

    Parameters
    ----------
    squared : ndarray of shape (N, N)
        Squared distances of the samples. The costs take their place.
    n, bandwidth, weight, step
        As for `greedy_exemplars`.

    Returns
    -------
    greedy : Greedy
        Positions in order of selection, and by how much each lowers the cost, which is the sum of
        the weights without a pick.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [2.0], [9.0]])
    >>> greedy_of_few(squared_distances(X), 2, 1.0, np.ones(4))
    Greedy(indices=array([1, 3]), gains=array([2.21306132, 1.        ]))
    """
    squared *= -0.5 / bandwidth**2
    costs = np.negative(np.expm1(squared, out=squared), out=squared)
    current = np.ones(len(costs))
    total = float(weight.sum())
    gains = total - weight @ costs
    tie = 1e-12 * total
    picks, gained = np.empty(n, dtype=int), np.empty(n)
    for k in range(n):
        # Equal gains differ by rounding: the first of them.
        picks[k] = j = int((gains >= gains.max() - tie).argmax())
        gained[k], gains[j] = gains[j], -np.inf
        if k < n - 1:
            closer = (costs[j] < current).nonzero()[0]
            rows, before, after = costs[closer], current[closer], costs[j, closer]
            # What a candidate saves shrinks from before − row to after − row, where positive.
            np.maximum(rows, after[:, None], out=rows)
            lost = np.subtract(before[:, None], rows, out=rows)
            gains -= weight[closer] @ np.maximum(lost, 0.0, out=lost)
            current[closer] = after
        step()
    return Greedy(picks, gained)


def greedy_exemplars(
    X,
    n: int,
    *,
    metric: str = "gaussian",
    bandwidth: float = 1.0,
    weight: np.ndarray | None = None,
    step: Callable[[], bool] = lambda: False,
) -> Exemplars:
    r"""Lower :math:`\sum_i w_i \min_{j \in S} c_{ij}` greedily by n exemplars.

    Lazy greedy: a gain only shrinks as S grows, so an old gain is a bound, and only candidates
    whose bound is above the best gain are looked at again. Bounds come from single precision,
    widened by its error, and are renewed in one pass over all pairs when they have become loose.
    What single precision cannot tell apart is decided in double precision, so the picks are those
    of plain greedy. Ties go to the smaller position.

    Parameters
    ----------
    X : {ndarray, sparse matrix} of shape (N, n_features)
        Samples, each of them a candidate.
    n : int
        Number of exemplars, at most N.
    metric : {"gaussian", "euclidean", "sqeuclidean"}, default="gaussian"
        The cost :math:`c_{ij}`.
    bandwidth : float, default=1.0
        h in :math:`1 - \exp(-\|x_i - x_j\|^2 / (2h^2))`.
    weight : ndarray of shape (N,) or None, default=None
        Mass of each sample; None is one each.
    step : callable, default=does nothing
        Called once per exemplar.

    Returns
    -------
    exemplars : Exemplars
        Positions in order of selection, the mass each represents, and the mean cost.
    """
    n_samples = X.shape[0]
    weight = np.ones(n_samples) if weight is None else np.asarray(weight, dtype=float)
    costs = _Costs(X, metric, bandwidth)
    columns = _Columns(costs)
    if metric == "gaussian":
        nearest = _Nearest(costs, np.ones(n_samples))
    else:
        total = costs.totals(weight)
        first = int(np.argmax(total <= total.min() + 1e-12 * total.max()))
        nearest = _Nearest(costs, np.full(n_samples, np.inf))
        nearest.add(first, costs(slice(None), [first], fast=True).ravel())
        step()
    bounds = costs.gain_bounds(nearest.fast, nearest.blur, weight)
    bounds[nearest.indices] = -np.inf
    known = np.zeros(n_samples, dtype=bool)
    tie = 1e-12 * float(weight @ nearest.exact())
    while len(nearest.indices) < n:
        chosen, column = _next_exemplar(costs, columns, nearest, weight, bounds, known, tie)
        nearest.add(chosen, column)
        bounds[chosen] = -np.inf
        step()
    own, current, label = np.array(nearest.indices), nearest.exact(), nearest.label
    label[own] = np.arange(n)  # even where an equal row was picked before it
    counts = np.bincount(label, weights=weight, minlength=n)
    return Exemplars(own, counts, float(weight @ current / weight.sum()))
