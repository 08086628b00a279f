"""Exemplars: a few samples that represent all samples (facility location)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sklearn_skmm.core._costs import BLOCK, Columns, Costs, gaussian
from sklearn_skmm.core._prices import Prices

# A pass over all pairs in single precision costs about as much as this fraction of exact columns.
REFRESH_FRACTION = 1 / 40
# The number of exact gains computed together, first and at most, and the same for exact columns.
FIRST_BATCH, MAX_BATCH, EXACT_COLUMNS = 8, 128, 512


class Exemplars(NamedTuple):
    """Result of `greedy_exemplars`."""

    indices: np.ndarray  # (n,) int, in order of selection
    counts: np.ndarray  # (n,) total weight of the samples that each exemplar represents
    objective: float  # weighted mean of the cost of representing a sample
    labels: np.ndarray  # (N,) int, the position in `indices` of the exemplar of each sample


class Greedy(NamedTuple):
    """Result of `greedy_exemplars_dense`."""

    indices: np.ndarray  # (n,) int, in order of selection
    gains: np.ndarray  # (n,) decrease of the total cost by each, largest first


class _Nearest:
    """The cost of each sample's nearest exemplar: fast at all times, exact on demand."""

    def __init__(self, costs: Costs, exact: np.ndarray):
        self.costs = costs
        self.fast = exact.astype(costs.dtype)
        self.error_bounds = np.zeros(len(exact))  # of `fast`, against the exact costs
        self._exact = exact
        self._pending: list[int] = []
        self.indices: list[int] = []
        self.label = np.zeros(len(exact), dtype=int)

    def add(self, j: int, column: np.ndarray) -> None:
        """Add exemplar j; `column` has its fast costs."""
        saving = self.fast - column
        # Where j seems farther, it may be nearer within the error bounds.
        errors = self.costs.errors_of(j, column) + np.minimum(saving, 0.0)
        self.error_bounds = np.maximum(self.error_bounds - np.maximum(saving, 0.0), errors)
        np.minimum(self.fast, column, out=self.fast)
        self._pending.append(j)
        self.indices.append(j)

    def exact(self) -> np.ndarray:
        """Return the exact costs, computing the columns of new exemplars together."""
        for start in range(0, len(self._pending), EXACT_COLUMNS):
            due = self._pending[start : start + EXACT_COLUMNS]
            first = len(self.indices) - len(self._pending) + start
            for k, column in enumerate(self.costs(slice(None), due).T, start=first):
                self.label[column < self._exact] = k
                np.minimum(self._exact, column, out=self._exact)
        self._pending = []
        return self._exact


class _LazyGreedy:
    """Lazy greedy: upper bounds on all gains, tightened where they are the largest.

    All gains are in multiples of `unit`, of shape (N,).
    """

    def __init__(self, costs: Costs, nearest: _Nearest, weight: np.ndarray, unit=None):
        self.costs, self.columns, self.nearest, self.weight = costs, Columns(costs), nearest, weight
        self.unit = np.ones(len(weight)) if unit is None else unit
        self.bounds = costs.gain_bounds(nearest.fast, nearest.error_bounds, weight) / self.unit
        self.bounds[nearest.indices] = -np.inf
        self.known = np.zeros(len(weight), dtype=bool)  # whether its bound was ever an exact gain
        self.least_unit = float(self.unit.min())
        self.tie = 1e-12 * float(weight @ nearest.exact()) / self.least_unit

    def add_next(self) -> None:
        """Add the candidate with the largest gain as an exemplar."""
        winner = self.next()
        self.nearest.add(winner, self.columns.get(np.array([winner]))[0])
        self.bounds[winner] = -np.inf

    def next(self) -> int:
        """Return the candidate with the largest gain."""
        if self.bounds.max() > self.tie and self.known[self.top()[0]]:
            # If it is far from all exemplars added since, its gain is unchanged. Without this
            # check, each of many samples that cover only themselves would be examined every time.
            winner = self.first_of_largest(tries=1)
            if winner >= 0:
                return winner
        low = self.tighten()
        if self.bounds.max() <= self.tie:
            # All samples are represented already, so take the first candidate.
            return int(np.argmax(self.bounds > -np.inf))
        final = np.flatnonzero((low > -np.inf) & (self.bounds >= low.max() - self.tie))
        # Exact gains decide between candidates that single precision cannot distinguish.
        return int(final[0]) if len(final) == 1 else self.first_of_largest()

    def tighten(self) -> np.ndarray:
        """Tighten the bounds until every candidate that may have the largest gain is up to date.

        Return lower bounds on the gains that were updated, and -inf for the others.
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
                and weight @ (nearest.error_bounds + self.costs.errors) < best * self.least_unit
            ):
                # The old bounds are loose, as after the first exemplars. One pass renews all, but
                # it only helps if its allowance for errors is below the best gain.
                renewed = self.costs.gain_bounds(nearest.fast, nearest.error_bounds, weight)
                np.minimum(bounds, renewed / self.unit, out=bounds)
                looked_at = 0
                continue
            for j, column in zip(top.tolist(), self.columns.get(top), strict=True):
                saving = (nearest.fast - column).astype(np.float64, copy=False)
                gain = float(weight @ np.maximum(saving, 0.0))
                errors = nearest.error_bounds + self.costs.errors_of(j, column)
                # An entry that saves is off by at most its error, others by what they might save.
                saving += errors
                np.maximum(saving, 0.0, out=saving)
                error = float(weight @ np.minimum(saving, errors, out=saving))
                unit = self.unit[j]
                bounds[j], low[j] = min(bounds[j], (gain + error) / unit), (gain - error) / unit
            looked_at += len(top)
            batch = min(2 * batch, 256)

    def top(self) -> np.ndarray:
        """Return the positions of the largest bounds, in ascending order."""
        return np.flatnonzero(self.bounds >= self.bounds.max() - self.tie)

    def first_of_largest(self, tries=np.inf) -> int:
        """Return the first candidate with the largest gain, from exact gains of a few candidates.

        The exact gains of the candidates with the largest bounds replace these bounds. A gain that
        is not below any bound is the largest. Return -1 if `tries` batches do not contain one.
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
            self.bounds[due] = np.maximum(saving, 0.0, out=saving) @ self.weight / self.unit[due]
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
    """Select like `greedy_exemplars` with the Gaussian cost, from a dense matrix of all costs.

    A new exemplar changes the gains only through the samples that it covers better, and these soon
    become few. If the costs fit the processor's cache, as for some hundred samples, this is faster
    than lazy greedy.

    Parameters
    ----------
    squared : ndarray of shape (N, N)
        Squared distances of the samples; overwritten with the costs.
    n, bandwidth, weight, step
        As for `greedy_exemplars`.

    Returns
    -------
    greedy : Greedy
        Positions in order of selection, and by how much each lowers the total cost. Without
        exemplars, the total cost is the sum of the weights.

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
        # Gains that are equal up to rounding are ties: take the first.
        picks[k] = j = int((gains >= gains.max() - tie).argmax())
        gained[k], gains[j] = gains[j], -np.inf
        if k < n - 1:
            closer = (costs[j] < current).nonzero()[0]
            rows = costs.take(closer, axis=0)
            before, after, mass = current[closer], costs[j, closer], weight[closer]
            # What a candidate saves shrinks from max(0, before − row) to max(0, after − row). The
            # difference is before minus the row clipped to [after, before].
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
    start: np.ndarray | None = None,
    prices: Prices | None = None,
    step: Callable[[], bool] = lambda: False,
) -> Exemplars:
    r"""Select n exemplars that greedily minimise :math:`\sum_i w_i \min_{j \in S} c_{ij}`.

    Lazy greedy: gains only shrink as S grows, so an old gain is an upper bound. Only candidates
    whose bound is above the best gain are examined again. Bounds are computed in single precision
    and widened by its error. When they have become loose, one pass over all pairs renews them.
    Double precision decides between candidates that single precision cannot distinguish, so the
    selection is that of plain greedy. Ties go to the smaller position.

    Parameters
    ----------
    X : {ndarray, sparse matrix} of shape (N, n_features)
        Samples; each one is a candidate.
    n : int
        Number of exemplars, at most N.
    metric : {"gaussian", "euclidean", "sqeuclidean"}, default="gaussian"
        The cost :math:`c_{ij}`.
    bandwidth : float, default=1.0
        Kernel bandwidth h in :math:`1 - \exp(-\|x_i - x_j\|^2 / (2h^2))`.
    weight : ndarray of shape (N,) or None, default=None
        Weight of each sample; None is 1 for each.
    start : ndarray of shape (n_start,), dtype int, or None, default=None
        Positions of samples that are exemplars already, besides the n others.
    prices : Prices or None, default=None
        With them, fewer than n exemplars are selected if no other is affordable.
    step : callable, default=does nothing
        Called once per exemplar.

    Returns
    -------
    exemplars : Exemplars
        Positions in order of selection, after those of the start, the weight that each
        represents, and the mean cost.
    """
    n_samples = X.shape[0]
    weight = np.ones(n_samples) if weight is None else np.asarray(weight, dtype=float)
    costs = Costs(X, metric, bandwidth)
    given = [] if start is None else [int(j) for j in start]
    unrepresented = 1.0 if metric == "gaussian" else np.inf
    nearest = _Nearest(costs, np.full(n_samples, unrepresented))
    for j in given:
        nearest.add(j, costs(slice(None), [j], fast=True).ravel())
    if metric != "gaussian" and not given:
        total = costs.totals(weight)
        tie = 1e-12 * total.max()
        if prices is not None:
            total[prices.unaffordable([])] = np.inf
        first = int(np.argmax(total <= total.min() + tie))
        nearest.add(first, costs(slice(None), [first], fast=True).ravel())
        step()
    unit = prices.price if prices is not None and prices.relative else None
    search = _LazyGreedy(costs, nearest, weight, unit)
    n += len(given)
    while len(nearest.indices) < n:
        if prices is not None:
            search.bounds[prices.unaffordable(nearest.indices[len(given) :])] = -np.inf
            if search.bounds.max() == -np.inf:
                break
        search.add_next()
        step()
    indices, current = np.array(nearest.indices), nearest.exact()
    return _of_labels(indices, nearest.label, current, weight)


def _of_labels(indices, label, current, weight) -> Exemplars:
    """Return exemplars with the labels and the costs of all samples."""
    n = len(indices)
    label[indices] = np.arange(n)  # even if an equal row was selected before
    counts = np.bincount(label, weights=weight, minlength=n)
    return Exemplars(indices, counts, float(weight @ current / weight.sum()), label)


def greedy_exemplars_precomputed(
    similarity: np.ndarray,
    n: int,
    *,
    weight: np.ndarray | None = None,
    start: np.ndarray | None = None,
    step: Callable[[], bool] = lambda: False,
) -> Exemplars:
    r"""Select like `greedy_exemplars`, with the costs 1 − similarity.

    Parameters
    ----------
    similarity : ndarray of shape (N, N)
        Similarity of sample i to sample j as its exemplar; it need not be symmetric.
    n, weight, start, step
        As for `greedy_exemplars`.

    Returns
    -------
    exemplars : Exemplars
        As from `greedy_exemplars`.

    Examples
    --------
    >>> import numpy as np
    >>> S = np.array([[1.0, 0.25, 0.0], [0.25, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> greedy_exemplars_precomputed(S, 2)
    Exemplars(indices=array([0, 2]), counts=array([2., 1.]), objective=0.25,
              labels=array([0, 0, 1]))
    """
    n_samples = len(similarity)
    weight = np.ones(n_samples) if weight is None else np.asarray(weight, dtype=float)
    tie = 1e-12 * float(weight.sum()) * max(float(similarity.max()), -float(similarity.min()))
    indices = [] if start is None else [int(j) for j in start]
    n += len(indices)
    if not indices:
        total = weight @ similarity
        indices.append(int(np.argmax(total >= total.max() - tie)))
        step()
    best, label = similarity[:, indices[0]].copy(), np.zeros(n_samples, dtype=int)

    def improve(k: int) -> tuple[np.ndarray, np.ndarray]:
        """Take exemplar k into account; return whose similarity it improves, and from what."""
        column = similarity[:, indices[k]]
        closer = np.flatnonzero(column > best)
        before = best[closer]
        best[closer], label[closer] = column[closer], k
        return closer, before

    for k in range(1, len(indices)):
        improve(k)
    gains = np.zeros(n_samples)
    for first in range(0, n_samples, BLOCK):
        block = slice(first, first + BLOCK)
        gains += weight[block] @ np.maximum(similarity[block] - best[block, None], 0.0)
    while len(indices) < n:
        gains[indices] = -np.inf
        indices.append(int(np.argmax(gains >= gains.max() - tie)))
        closer, before = improve(len(indices) - 1)
        for first in range(0, len(closer), BLOCK):
            own = closer[first : first + BLOCK]
            # What a candidate saves shrinks from max(0, s − before) to max(0, s − after).
            lost = np.clip(similarity[own], before[first : first + BLOCK, None], best[own, None])
            lost -= before[first : first + BLOCK, None]
            gains -= weight[own] @ lost
        step()
    return _of_labels(np.array(indices), label, 1.0 - best, weight)
