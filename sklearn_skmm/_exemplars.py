"""Exemplars: few samples that stand for all. Pure functions of arrays."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.extmath import row_norms, safe_sparse_dot

BLOCK = 512
# Exact columns of the cost matrix that are kept for the next rounds, in bytes.
COLUMN_CACHE_BYTES = 128 * 2**20


class Exemplars(NamedTuple):
    """Result of `greedy_exemplars`."""

    indices: np.ndarray  # (n,) in order of selection
    counts: np.ndarray  # (n,) mass that each exemplar represents
    objective: float  # mean cost of representing a sample


def median_distance(X, rng: np.random.RandomState, size: int = 1000) -> float:
    """Return the median distance between pairs of distinct rows, over a random subsample.

    If more than half of the distances are zero it is their mean, and one if all are.
    """
    rows = X if X.shape[0] <= size else X[rng.choice(X.shape[0], size, replace=False)]
    distances = euclidean_distances(rows)[np.triu_indices(rows.shape[0], 1)]
    if not distances.size:
        return 1.0
    return float(np.median(distances) or distances.mean() or 1.0)


class _Costs:
    """Blocks of the cost matrix c_ij, from rows of X."""

    def __init__(self, X, metric: str, bandwidth: float):
        # Centred against cancellation in the squared distances; sparse rows stay sparse.
        self.X = X if sparse.issparse(X) else X - X.mean(axis=0)
        self.norms = row_norms(self.X, squared=True)
        self.metric, self.bandwidth = metric, bandwidth
        self.single = (self.X.astype(np.float32), self.norms.astype(np.float32))

    def __call__(self, rows, columns, single=False) -> np.ndarray:
        X, norms = self.single if single else (self.X, self.norms)
        squared = safe_sparse_dot(X[rows], X[columns].T, dense_output=True)
        squared *= -2.0
        squared += norms[rows][:, None]
        squared += norms[columns]
        np.maximum(squared, 0.0, out=squared)
        if self.metric == "euclidean":
            np.sqrt(squared, out=squared)
        elif self.metric == "gaussian":
            squared *= -0.5 / self.bandwidth**2
            np.exp(squared, out=squared)
            np.subtract(1.0, squared, out=squared)
        return squared

    def single_error(self) -> float | None:
        """Bound on the error of an entry in single precision, or None where it is useless."""
        error = 64.0 * float(np.finfo(np.float32).eps) * float(self.norms.max(initial=0.0))
        if self.metric == "gaussian":
            return error / (2.0 * self.bandwidth**2) + 1e-6
        return error if self.metric == "sqeuclidean" else None


def _all_gains(costs: _Costs, current, weight):
    """Return an upper bound on each candidate's gain, close to it, in one pass over all pairs."""
    n_samples = len(weight)
    error = costs.single_error()
    single = error is not None
    dtype = np.float32 if single else np.float64
    current, mass = current.astype(dtype), weight.astype(dtype)
    gains = np.zeros(n_samples)
    blocks = [slice(start, start + BLOCK) for start in range(0, n_samples, BLOCK)]
    for k, I in enumerate(blocks):
        for J in blocks[k:]:
            block = costs(I, J, single)
            gains[J] += mass[I] @ np.maximum(current[I, None] - block, 0.0)
            if I is not J:  # c_ij = c_ji: the block serves both ways
                gains[I] += np.maximum(current[J] - block, 0.0) @ mass[J]
    if error is not None:
        gains = gains * (1.0 + 1e-4) + weight.sum() * error
    return gains


def _total_costs(costs: _Costs, weight):
    """Return Σ_i w_i c_ij for each j."""
    total = np.zeros(len(weight))
    blocks = [slice(start, start + BLOCK) for start in range(0, len(weight), BLOCK)]
    for k, I in enumerate(blocks):
        for J in blocks[k:]:
            block = costs(I, J)
            total[J] += weight[I] @ block
            if I is not J:
                total[I] += block @ weight[J]
    return total


class _Columns:
    """Columns of the cost matrix, computed together and kept while the budget lasts."""

    def __init__(self, costs: _Costs, n_samples: int):
        self.costs = costs
        self.kept: dict[int, np.ndarray] = {}
        self.capacity = max(1, COLUMN_CACHE_BYTES // (8 * n_samples))

    def get(self, wanted: np.ndarray) -> list[np.ndarray]:
        missing = [j for j in wanted.tolist() if j not in self.kept]
        fresh = {}
        if missing:
            block = np.ascontiguousarray(self.costs(slice(None), missing).T)
            fresh = dict(zip(missing, block, strict=True))
        columns = [fresh[j] if j in fresh else self.kept[j] for j in wanted.tolist()]
        for j, column in fresh.items():
            if len(self.kept) >= self.capacity:
                self.kept.pop(next(iter(self.kept)))
            self.kept[j] = column.copy()  # not a view that keeps the whole block
        return columns


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
    whose bound is above the best exact gain are looked at again. The first bounds come from one
    pass in single precision, widened by its error; every decision is made on gains in double
    precision, so the picks are those of plain greedy. Ties go to the smaller position.

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
    columns = _Columns(costs, n_samples)
    label = np.zeros(n_samples, dtype=int)
    indices: list[int] = []
    if metric == "gaussian":
        current = np.ones(n_samples)
    else:
        total = _total_costs(costs, weight)
        indices.append(int(np.argmax(total <= total.min() + 1e-12 * total.max())))
        current = columns.get(np.array(indices))[0].copy()
        step()
    bounds = _all_gains(costs, current, weight)
    bounds[indices] = -np.inf
    tie = 1e-12 * float(weight @ current)
    while len(indices) < n:
        best, exact = -np.inf, np.zeros(n_samples, dtype=bool)
        batch = 16
        while True:
            stale = np.where(exact, -np.inf, bounds)
            top = np.argpartition(-stale, min(batch, n_samples) - 1)[:batch]
            top = top[stale[top] >= max(best - tie, -1e300)]
            if not top.size or bounds.max() <= tie:
                break
            for j, column in zip(top.tolist(), columns.get(top), strict=True):
                bounds[j] = weight @ np.maximum(current - column, 0.0)
            exact[top] = True
            best = max(best, float(bounds[top].max()))
            batch = min(2 * batch, 256)
        # With every gain at rounding, all that is left is represented already.
        chosen = int(np.argmax(bounds >= max(best, bounds.max()) - tie))
        column = columns.get(np.array([chosen]))[0]
        closer = column < current
        label[closer] = len(indices)
        np.minimum(current, column, out=current)
        indices.append(chosen)
        bounds[chosen] = -np.inf
        step()
    counts = np.bincount(label, weights=weight, minlength=n)
    own = np.array(indices)
    # An exemplar stands at least for itself, even where an equal row was picked before it.
    counts = np.maximum(counts, weight[own])
    return Exemplars(own, counts, float(weight @ current / weight.sum()))
