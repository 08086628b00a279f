"""Centres of balanced cells: k-means on a subsample, then rounds of dropping and splitting."""

from typing import NamedTuple

import numpy as np

from sklearn_skmm.core._bisection import two_means_margin
from sklearn_skmm.core._cells import members_of, subsample, sums_by_cell
from sklearn_skmm.core._costs import squared_distances

# Centres are computed from at most this many samples for each of them.
PER_CENTRE = 16
# Steps of Lloyd's algorithm before the masses are balanced, and after each round of balancing.
STEPS, STEPS_OF_ROUND = 5, 2
# At most this fraction of the cells may be outside the bounds after the rounds: few enough to be
# moved into them one by one.
FEW_OUTSIDE = 0.02
# A split counts as a gain of this fraction of the sum of squares of the cell.
SPLIT_GAIN = 0.1
# Sums over the cells are a dense product for up to this many pairs of a sample and a cell.
SMALL = 2**17
TINY = float(np.finfo(np.float64).tiny)


class Effort(NamedTuple):
    """How much is spent on the centres of cells."""

    size: int  # samples from which the centres are computed, unless `PER_CENTRE` asks for more
    trials: int  # candidates for each of the first centres, of which the best is taken
    rounds: int  # rounds of balancing


# There are many parts, and the centres of each take many small steps under the interpreter lock.
WHOLE, PART = Effort(8192, trials=3, rounds=8), Effort(0, trials=1, rounds=1)


class _Subsample(NamedTuple):
    """Samples from which centres are computed."""

    X: np.ndarray  # (size, k)
    weight: np.ndarray  # (size,), with the sum of all weights
    norms: np.ndarray  # (size,), squared

    def nearest(self, means) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest mean of each row, and the squared distance to it."""
        distances = self.X @ (-2.0 * means.T)
        distances += np.vecdot(means, means)
        labels = distances.argmin(axis=1)
        return labels, distances[np.arange(len(labels)), labels] + self.norms

    def means(self, labels, before) -> np.ndarray:
        """Return the weighted mean of each cell; that of an empty cell stays as it was."""
        count = len(before)
        mass = np.bincount(labels, weights=self.weight, minlength=count)[:, None]
        if count * len(labels) <= SMALL:  # less work than the set-up of a sparse matrix
            sums = np.where(labels == np.arange(count)[:, None], self.weight, 0) @ self.X
        else:
            sums = sums_by_cell(self.X, self.weight, labels, count)
        return np.where(mass > 0.0, sums / np.maximum(mass, TINY), before).astype(before.dtype)


def first_means(P, s, n, effort, rng, step) -> tuple[_Subsample, np.ndarray]:
    """Return a subsample, and n means of k-means on it."""
    rows, weight = subsample(s, max(effort.size, PER_CENTRE * n), rng)
    X = P[rows]
    weight = (weight * (float(s.sum(dtype=np.float64)) / weight.sum())).astype(X.dtype)
    some = _Subsample(X, weight, np.vecdot(X, X))
    means = _spread_rows(some, n, effort.trials, rng)
    labels = None
    for _ in range(STEPS):
        step()
        before, (labels, _) = labels, some.nearest(means)
        if before is not None and np.array_equal(labels, before):
            break
        means = some.means(labels, means)
    return some, means


def _spread_rows(some: _Subsample, n, trials, rng) -> np.ndarray:
    """Return n rows by greedy k-means++ (Arthur and Vassilvitskii 2007).

    `sklearn.cluster.kmeans_plusplus` does the same, but checks its input for each row.
    """
    X, weight, norms = some
    chosen = np.empty(n, dtype=int)
    squared = np.ones(len(X), dtype=X.dtype)
    for k in range(n):
        mass = np.cumsum(weight * squared, dtype=np.float64)
        if not mass[-1] > 0.0:  # all rows are chosen
            mass = np.cumsum(weight, dtype=np.float64)
        drawn = mass.searchsorted(rng.uniform(size=trials if k else 1) * mass[-1])
        drawn = np.minimum(drawn, len(X) - 1)
        distances = X[drawn] @ X.T
        distances *= -2.0
        distances += norms
        distances += norms[drawn, None]
        np.maximum(distances, 0.0, out=distances)
        distances[np.arange(len(drawn)), drawn] = 0.0
        if k:
            np.minimum(distances, squared, out=distances)
        best = int((distances @ weight).argmin())
        chosen[k], squared = drawn[best], distances[best]
    return X[chosen]


def balanced_means(P, s, n, bounds, effort, rng, step) -> np.ndarray:
    """Return about n means whose cells on a subsample are mostly within the bounds.

    In each round some cells are dropped, and as many are split: those that are too large, then
    those with the largest sums of squares.
    """
    some, means = first_means(P, s, n, effort, rng, step)
    for _ in range(effort.rounds):
        dropped = _to_drop(some, means, bounds)
        if not len(dropped):
            break
        means = np.delete(means, dropped[: len(means) - 1], axis=0)
        means = _split_largest(some, means, n, bounds, rng)
        for _ in range(STEPS_OF_ROUND):
            means = some.means(some.nearest(means)[0], means)
            step()
    return means


def _to_drop(some: _Subsample, means, bounds) -> np.ndarray:
    """Return the means to drop in a round of balancing, so that other cells can be split.

    These are the lighter half of the cells that are too small. There are more of them if cells are
    too large, or if to merge two cells costs far less than a split of another one may gain, as when
    a cell has two clusters. They are those whose samples have another mean nearby.
    """
    labels, squared = some.nearest(means)
    mass = np.bincount(labels, weights=some.weight, minlength=len(means))
    scatter = np.bincount(labels, weights=some.weight * squared, minlength=len(means))
    small, large = mass < bounds.low, mass > bounds.high
    loss = np.where(small | large, np.inf, merging_losses(means, mass, bounds.high))
    gain = SPLIT_GAIN * np.where(large | (mass < 2.0 * bounds.low), 0.0, scatter)
    n_swapped = int(np.count_nonzero(np.sort(loss) < -np.sort(-gain)))
    if not n_swapped and np.mean(small | large) <= FEW_OUTSIDE:
        return np.empty(0, dtype=int)
    # Cells of twice the largest mass become two cells, and so on.
    more = int(np.ceil(mass[large] / bounds.high - 1e-9).sum()) - int(np.count_nonzero(large))
    n_small = -(-int(np.count_nonzero(small)) // 2)
    lightest = np.argsort(np.where(small, mass, np.inf), kind="stable")[:n_small]
    cheapest = np.argsort(loss, kind="stable")[: max(0, int(more - n_small)) + n_swapped]
    return np.append(lightest, cheapest)


def _split_largest(some: _Subsample, means, n, bounds, rng) -> np.ndarray:
    """Return n means, after splitting cells that are too large or have large sums of squares."""
    X, weight, _ = some
    count = len(means)
    labels, squared = some.nearest(means)
    members = members_of(labels, count)
    means = np.concatenate([means, np.empty((n - count, X.shape[1]), dtype=means.dtype)])
    mass = np.bincount(labels, weights=weight, minlength=n)
    scatter = np.bincount(labels, weights=weight * squared, minlength=n)
    for last in range(count, n):
        too_large = mass[:last] > bounds.high
        gain = np.where(mass[:last] >= 2.0 * bounds.low, scatter[:last], -1.0)
        heaviest = np.where(too_large, mass[:last], -1.0).argmax()
        c = int(heaviest if too_large.any() else gain.argmax())
        rows = members[c]
        if len(rows) < 2 or not (too_large[c] or gain[c] > 0.0):
            return means[:last]
        part, own = X[rows], weight[rows]
        right = two_means_margin(part, own, rng) > 0.0
        if right.all() or not right.any():  # equal rows
            right = np.arange(len(rows)) % 2 == 1
        members.append(rows[right])
        members[c] = rows[~right]
        for side, where in ((~right, c), (right, last)):
            mass[where] = own[side].sum()
            means[where] = own[side] @ part[side] / mass[where]
            centred = part[side] - means[where]
            scatter[where] = own[side] @ np.vecdot(centred, centred)
    return means


def merging_losses(means: np.ndarray, mass: np.ndarray, high: float) -> np.ndarray:
    """Return by how much the sum of squares grows if each cell is merged with its nearest one.

    This is the criterion of Ward (1963). It is infinite if the two are too large for one cell less.

    Parameters
    ----------
    means : ndarray of shape (n_cells, k)
        Means of the cells.
    mass : ndarray of shape (n_cells,)
        Their masses.
    high : float
        The largest mass of a cell.

    Returns
    -------
    losses : ndarray of shape (n_cells,)
        One for each cell.

    Examples
    --------
    >>> import numpy as np
    >>> merging_losses(np.array([[0.0], [1.0], [9.0]]), np.array([1.0, 1.0, 2.0]), 2.0)
    array([0.5, 0.5, inf])
    """
    if len(means) < 2:
        return np.full(len(means), np.inf)
    squared = squared_distances(means)
    np.fill_diagonal(squared, np.inf)
    near = squared.argmin(axis=1)
    both = mass + mass[near]
    counts = np.ceil(mass / high - 1e-9)
    saves = np.ceil(both / high - 1e-9) < np.maximum(counts, 1) + np.maximum(counts[near], 1)
    loss = squared.min(axis=1) * mass * mass[near] / np.maximum(both, TINY)
    return np.where(saves, loss, np.inf)
