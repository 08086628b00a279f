"""Exemplars: few samples that stand for all. Pure functions of arrays."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sklearn_skmm.core._costs import Columns, Costs, gaussian

# A pass over all pairs in single precision costs about as much as this share of exact columns.
REFRESH_FRACTION = 1 / 40
# Exact gains that are computed together, to begin with and at most, and exact columns.
FIRST_BATCH, MAX_BATCH, EXACT_COLUMNS = 8, 128, 512


class Exemplars(NamedTuple):
    """Result of `greedy_exemplars`."""

    indices: np.ndarray  # (n,) in order of selection
    counts: np.ndarray  # (n,) mass that each exemplar represents
    objective: float  # mean cost of representing a sample


class Greedy(NamedTuple):
    """Result of `greedy_exemplars_dense`."""

    indices: np.ndarray  # (n,) in order of selection
    gains: np.ndarray  # (n,) by how much each lowers the cost of all, largest first


class _Nearest:
    """The cost of each sample's nearest exemplar, fast at once and exact when asked for."""

    def __init__(self, costs: Costs, exact: np.ndarray):
        self.costs = costs
        self.fast = exact.astype(costs.dtype)
        self.error_bounds = np.zeros(len(exact))  # how far they may be from the exact ones
        self._exact = exact
        self._pending: list[int] = []
        self.indices: list[int] = []
        self.label = np.zeros(len(exact), dtype=int)

    def add(self, j: int, column: np.ndarray) -> None:
        """Take j as an exemplar; column is its fast column."""
        saving = self.fast - column
        # What is not nearer may be, as far as is known.
        errors = self.costs.errors_of(j, column) + np.minimum(saving, 0.0)
        self.error_bounds = np.maximum(self.error_bounds - np.maximum(saving, 0.0), errors)
        np.minimum(self.fast, column, out=self.fast)
        self._pending.append(j)
        self.indices.append(j)

    def exact(self) -> np.ndarray:
        """Return the exact costs; the columns that are due are computed together."""
        for start in range(0, len(self._pending), EXACT_COLUMNS):
            due = self._pending[start : start + EXACT_COLUMNS]
            first = len(self.indices) - len(self._pending) + start
            for k, column in enumerate(self.costs(slice(None), due).T, start=first):
                self.label[column < self._exact] = k
                np.minimum(self._exact, column, out=self._exact)
        self._pending = []
        return self._exact


class _LazyGreedy:
    """Lazy greedy: bounds of all gains from above, tightened where they are the largest."""

    def __init__(self, costs: Costs, nearest: _Nearest, weight: np.ndarray):
        self.costs, self.columns, self.nearest, self.weight = costs, Columns(costs), nearest, weight
        self.bounds = costs.gain_bounds(nearest.fast, nearest.error_bounds, weight)
        self.bounds[nearest.indices] = -np.inf
        self.known = np.zeros(len(weight), dtype=bool)  # whose bound was once the exact gain
        self.tie = 1e-12 * float(weight @ nearest.exact())

    def add_next(self) -> None:
        """Take the candidate with the largest gain as an exemplar."""
        winner = self.next()
        self.nearest.add(winner, self.columns.get(np.array([winner]))[0])
        self.bounds[winner] = -np.inf

    def next(self) -> int:
        """Return the candidate with the largest gain."""
        if self.bounds.max() > self.tie and self.known[self.top()[0]]:
            # Far from all that was picked since, it has not lost: without this each of a crowd of
            # samples that cover but themselves would be looked at for each pick.
            winner = self.first_of_largest(tries=1)
            if winner >= 0:
                return winner
        low = self.tighten()
        if self.bounds.max() <= self.tie:
            # All that is left is represented already, and the first is as good as any.
            return int(np.argmax(self.bounds > -np.inf))
        final = np.flatnonzero((low > -np.inf) & (self.bounds >= low.max() - self.tie))
        # Exact gains decide between those that single precision cannot tell apart.
        return int(final[0]) if len(final) == 1 else self.first_of_largest()

    def tighten(self) -> np.ndarray:
        """Tighten the bounds until none that may be the largest is left from before.

        Return bounds from below of the gains that were looked at, -inf for the others.
        """
        weight, bounds, nearest = self.weight, self.bounds, self.nearest
        low = np.full(len(weight), -np.inf)
        batch, looked_at = 8, 0
        while True:
            best = low.max()
            stale = np.where(low > -np.inf, -np.inf, bounds)
            top = np.argpartition(-stale, min(batch, len(stale)) - 1)[:batch]
            top = top[(stale[top] > -np.inf) & (stale[top] >= best - self.tie)]
            if not top.size or bounds.max() <= self.tie:
                return low
            if (
                looked_at > REFRESH_FRACTION * len(weight)
                and weight @ (nearest.error_bounds + self.costs.errors) < best
            ):
                # The old bounds are loose, as after the first picks: one pass renews them all,
                # unless what it adds for errors alone is more than the best gain.
                renewed = self.costs.gain_bounds(nearest.fast, nearest.error_bounds, weight)
                np.minimum(bounds, renewed, out=bounds)
                looked_at = 0
                continue
            for j, column in zip(top.tolist(), self.columns.get(top), strict=True):
                saving = (nearest.fast - column).astype(np.float64, copy=False)
                gain = float(weight @ np.maximum(saving, 0.0))
                errors = nearest.error_bounds + self.costs.errors_of(j, column)
                # An entry that saves is off by its error at most, one that might by what it might.
                saving += errors
                np.maximum(saving, 0.0, out=saving)
                error = float(weight @ np.minimum(saving, errors, out=saving))
                bounds[j], low[j] = min(bounds[j], gain + error), gain - error
            looked_at += len(top)
            batch = min(2 * batch, 256)

    def top(self) -> np.ndarray:
        """Return the positions of the largest bounds, in order."""
        return np.flatnonzero(self.bounds >= self.bounds.max() - self.tie)

    def first_of_largest(self, tries=np.inf) -> int:
        """Return the first candidate with the largest gain, from the exact gains of few.

        A gain not below any bound is the largest. Those of the largest bounds are computed, which
        become their bounds. After so many tries without such a gain the answer is -1.
        """
        fresh, size = np.zeros(len(self.bounds), dtype=bool), FIRST_BATCH
        while True:
            top = self.top()
            if fresh[top[0]]:
                return int(top[0])
            if tries == 0:
                return -1
            due = top[~fresh[top]][:size]
            saving = self.nearest.exact() - self.costs(slice(None), due).T
            self.bounds[due] = np.maximum(saving, 0.0, out=saving) @ self.weight
            fresh[due] = self.known[due] = True
            size = min(2 * size, MAX_BATCH)
            tries -= 1


def greedy_exemplars_dense(
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
    >>> from sklearn_skmm.core._costs import squared_distances
    >>> X = np.array([[0.0], [1.0], [2.0], [9.0]])
    >>> greedy_exemplars_dense(squared_distances(X), 2, 1.0, np.ones(4))
    Greedy(indices=array([1, 3]), gains=array([2.21306132, 1.        ]))
    """
    costs = gaussian(squared, bandwidth)
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
            rows = costs.take(closer, axis=0)
            before, after, mass = current[closer], costs[j, closer], weight[closer]
            # What a candidate saves shrinks from max(0, before − row) to max(0, after − row), which
            # is by before less the row clipped to [after, before].
            np.minimum(rows, before[:, None], out=rows)
            np.maximum(rows, after[:, None], out=rows)
            gains -= mass @ before - mass @ rows
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
    costs = Costs(X, metric, bandwidth)
    if metric == "gaussian":
        nearest = _Nearest(costs, np.ones(n_samples))
    else:
        total = costs.totals(weight)
        first = int(np.argmax(total <= total.min() + 1e-12 * total.max()))
        nearest = _Nearest(costs, np.full(n_samples, np.inf))
        nearest.add(first, costs(slice(None), [first], fast=True).ravel())
        step()
    search = _LazyGreedy(costs, nearest, weight)
    while len(nearest.indices) < n:
        search.add_next()
        step()
    indices, current, label = np.array(nearest.indices), nearest.exact(), nearest.label
    label[indices] = np.arange(n)  # even where an equal row was picked before it
    counts = np.bincount(label, weights=weight, minlength=n)
    return Exemplars(indices, counts, float(weight @ current / weight.sum()))
