r"""Balanced cells: k-means cells whose masses are bounded from below and above.

Each of n cells holds between :math:`1/(\kappa n)` and :math:`\kappa/n` of the weight. Then for any
non-negative function the mean over one sample of each cell is within a factor :math:`\kappa` of the
mean in which each sample counts by the mass of its cell. In particular
:math:`\Sigma_w \preceq \kappa\,\Sigma_S`: no direction of the weighted coreset is lost by more than
:math:`\kappa` when its samples get equal weights.

P is an array, or any object of shape (N, k) with a dtype that returns rows for positions or slices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sklearn_skmm.core._bisection import Bounds, bisect, two_means_margin
from sklearn_skmm.core._blocks import each_block, row_blocks
from sklearn_skmm.core._cells import (
    Cells,
    Rows,
    among,
    cells_of,
    members_of,
    nearest,
    subsample,
    sums_by_cell,
)
from sklearn_skmm.core._costs import squared_distances
from sklearn_skmm.utils._threads import in_threads, in_turn, one_thread

# More than FEW cells are laid out within coarse cells, with about EACH of them in each one. There
# are at most MOST coarse cells; those with more than FEW cells are divided again.
FEW, EACH, MOST = 256, 48, 256
# Centres are computed from at most this many samples for each of them, or of all samples.
PER_CENTRE, SUBSAMPLE = 16, 8192
# Steps of Lloyd's algorithm before the masses are balanced; rounds of balancing, and the steps
# after each of them.
STEPS, ROUNDS, STEPS_OF_ROUND = 5, 8, 2
# At most this fraction of the cells may be outside the bounds after the rounds: few enough to be
# moved into them one by one.
FEW_OUTSIDE = 0.02
TINY = float(np.finfo(np.float64).tiny)
# A split counts as a gain of this fraction of the sum of squares of the cell.
SPLIT_GAIN = 0.1
# Candidates for each of the first centres, of which the best is taken.
TRIALS = 3
# Parts with at most this many samples on average are processed one after the other, not in threads.
FEW_EACH = 4096


def balanced_cells(
    P,
    s: np.ndarray,
    n: int,
    balance: float,
    rng: np.random.RandomState,
    step: Callable[[], bool] = lambda: False,
) -> Cells:
    r"""Partition the weighted samples into n cells of similar mass, with small scatter within.

    Parameters
    ----------
    P : ndarray or Components of shape (N, k)
        Samples.
    s : ndarray of shape (N,)
        Positive weights, which sum to one.
    n : int
        Number of cells, at most N.
    balance : float
        :math:`\kappa \ge 1`. A cell holds between :math:`1/(\kappa n)` and :math:`\kappa/n` of the
        weight, rounded outwards to whole samples if all weights are equal. With unequal weights it
        may be off by the weights of a few samples. No cell is empty.
    rng : RandomState
        Source of randomness for the subsamples and the first centres.
    step : callable, default=does nothing
        Called once per step of Lloyd's algorithm in the first layout.

    Returns
    -------
    cells : Cells
        The partition. Exemplars are the samples nearest to the means of the cells, and costs are
        squared distances from the means.

    Examples
    --------
    >>> import numpy as np
    >>> P = np.array([[0.0], [0.1], [0.2], [0.3], [5.0], [9.0]])
    >>> for balance in (1.0, np.inf):
    ...     cells = balanced_cells(P, np.full(6, 1 / 6), 3, balance, np.random.RandomState(0))
    ...     print(np.sort(np.bincount(cells.labels)))
    [2 2 2]
    [1 1 4]
    """
    labels = np.zeros(len(s), dtype=np.int32)
    weights, bounds = _in_whole_samples(s, n, balance)

    def lay_out(members, first, count, rng, step=lambda: False) -> list:
        """Label the cells of some samples (None is all), or return a task for each part."""
        rows = Rows(P, members)
        weight = weights if members is None else weights[members]
        least = SUBSAMPLE if members is None else 0
        if count <= FEW:
            own = _few_cells(rows, weight, count, bounds, least, rng, step)
            labels[slice(None) if members is None else members] = first + own
            return []
        parts, counts = _coarse_cells(rows, weight, count, bounds, least, rng, step)
        if len(counts) == 1:  # all rows are equal
            own = bisect(rows[:], weight, count, bounds, rng)
            labels[slice(None) if members is None else members] = first + own
            return []
        starts = first + np.cumsum(counts) - counts
        seeds = rng.randint(np.iinfo(np.int32).max, size=len(counts))
        tasks = zip(members_of(parts, len(counts)), starts, counts, seeds, strict=True)
        return [(among(members, part), int(a), int(k), int(seed)) for part, a, k, seed in tasks]

    def finish(task):
        *task, seed = task
        rng, tasks = np.random.RandomState(seed), [tuple(task)]
        while tasks:
            tasks += [found[:3] for found in lay_out(*tasks.pop(), rng)]

    parts = lay_out(None, 0, n, rng, step)
    # On arrays of some hundred rows, threads mostly wait for the interpreter lock.
    each: Any = in_threads if len(s) > FEW_EACH * len(parts) else in_turn
    list(each(finish, parts))
    return cells_of(P, s, labels, n)


def _in_whole_samples(s, n, balance) -> tuple[np.ndarray, Bounds]:
    """Return weights and bounds of the mass of a cell, in samples if all weights are equal.

    Sums of whole numbers have no rounding errors.

    Examples
    --------
    >>> import numpy as np
    >>> _in_whole_samples(np.full(100, 0.01), 60, 2.0)[1]
    Bounds(low=1.0, high=4.0)
    """
    N = len(s)
    if float(s.min()) < float(s.max()):
        return s, Bounds(1.0 / (balance * n), balance / n)
    low, high = max(1.0, np.floor(N / (balance * n) + 1e-6)), np.ceil(balance * N / n - 1e-6)
    return np.ones_like(s), Bounds(float(low), float(high))


def _few_cells(P, s, n, bounds, least, rng, step) -> np.ndarray:
    """Return the cell of each sample, for up to `FEW` cells."""
    if n == 1:
        return np.zeros(len(s), dtype=np.int32)
    with one_thread():
        centres = _balanced_means(P, s, n, bounds, least, rng, step)
    labels, squared = _nearest_of_all(P, centres)
    return _within_bounds(P, s, labels, squared, centres, n, bounds, rng)


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
        sums = sums_by_cell(self.X, self.weight, labels, count)
        return np.where(mass > 0.0, sums / np.maximum(mass, TINY), before).astype(before.dtype)


def _first_means(P, s, n, least, rng, step) -> tuple[_Subsample, np.ndarray]:
    """Return a subsample, and n means of k-means on it."""
    rows, weight = subsample(s, max(least, PER_CENTRE * n), rng)
    X = P[rows]
    weight = (weight * (float(s.sum(dtype=np.float64)) / weight.sum())).astype(X.dtype)
    some = _Subsample(X, weight, np.vecdot(X, X))
    means = _spread_rows(some, n, rng)
    labels = None
    for _ in range(STEPS):
        step()
        before, (labels, _) = labels, some.nearest(means)
        if before is not None and np.array_equal(labels, before):
            break
        means = some.means(labels, means)
    return some, means


def _spread_rows(some: _Subsample, n, rng) -> np.ndarray:
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
        drawn = mass.searchsorted(rng.uniform(size=TRIALS if k else 1) * mass[-1])
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


def _balanced_means(P, s, n, bounds, least, rng, step) -> np.ndarray:
    """Return about n means whose cells on a subsample are mostly within the bounds.

    In each round some cells are dropped, and as many are split: those that are too large, then
    those with the largest sums of squares.
    """
    some, means = _first_means(P, s, n, least, rng, step)
    for _ in range(ROUNDS):
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
        too_large = mass > bounds.high
        gain = np.where(mass >= 2.0 * bounds.low, scatter, -1.0)
        c = int(np.where(too_large, mass, -1.0).argmax() if too_large.any() else gain.argmax())
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


def _nearest_of_all(P, centres) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest centre of each of many samples, and the squared distance to it."""
    N = P.shape[0]
    labels, squared = np.empty(N, dtype=np.int32), np.empty(N, dtype=P.dtype)

    def assign(rows):
        labels[rows], squared[rows] = nearest(P[rows], centres)

    each_block(assign, row_blocks(N, max(centres.shape)))
    return labels, squared


def _within_bounds(P, s, labels, squared, centres, n, bounds, rng) -> np.ndarray:
    """Return the labels of n cells within the bounds, after as few changes as possible.

    Cells that are too small are divided among their neighbours. Cells that are too large, and those
    with the largest sums of squares, are cut in two or more.
    """
    labels = labels.copy()
    kept = np.arange(len(centres))

    def leave_out(some):
        """Give the samples of some kept cells to the nearest of the others."""
        nonlocal kept
        moved = np.flatnonzero(np.isin(labels, kept[some]))
        kept = np.delete(kept, some)
        if len(moved):
            near, squared[moved] = _nearest_of_all(Rows(P, moved), centres[kept])
            labels[moved] = kept[near]

    def masses():
        return np.bincount(labels, weights=s, minlength=len(centres))[kept]

    mass = masses()
    small = np.flatnonzero((mass < bounds.low * (1.0 - 1e-6)) | (mass == 0.0))
    if len(small) == len(kept):
        small = np.delete(small, mass[small].argmax())
    leave_out(small)
    while True:
        mass = masses()
        least = np.maximum(1, np.ceil(mass / bounds.high - 1e-6)).astype(int)
        sizes = np.bincount(labels, minlength=len(centres))[kept]
        most = sizes
        if bounds.low > 0.0:
            most = np.minimum(sizes, np.maximum(1, np.floor(mass / bounds.low + 1e-6)).astype(int))
        spare = max(least.sum() - n, n - most.sum())
        if spare <= 0 or len(kept) == 1:
            break
        loss = merging_losses(centres[kept], mass, bounds.high)
        leave_out(np.argsort(loss, kind="stable")[: min(spare, len(kept) - 1)])
    if len(kept) == 1:
        least, most = np.ones(1, dtype=int), np.array([n])
    scatter = np.bincount(labels, weights=s * squared, minlength=len(centres))[kept]
    counts = share_out(scatter if scatter.any() else mass, least, most, n)
    starts = np.cumsum(counts) - counts
    position = np.zeros(len(centres), dtype=np.int32)
    position[kept] = np.arange(len(kept))
    cell = position[labels]
    out = starts[cell].astype(np.int32)
    for c in np.flatnonzero(counts > 1):
        rows = np.flatnonzero(cell == c)
        with one_thread():
            out[rows] += bisect(P[rows], s[rows], int(counts[c]), bounds, rng)
    return out


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


def share_out(ideal: np.ndarray, least: np.ndarray, most: np.ndarray, n: int) -> np.ndarray:
    """Return counts with sum n, proportional to the ideal ones as far as the bounds allow.

    All arrays have shape (n_cells,); the sum of `least` must be at most n, and that of `most` at
    least n.

    Examples
    --------
    >>> import numpy as np
    >>> share_out(np.array([6.0, 3.0, 1.0]), np.array([1, 1, 1]), np.array([4, 9, 9]), 10)
    array([4, 4, 2])
    """
    positive = ideal[ideal > 0.0]
    factor = 0.0
    if positive.size:
        # Bisect on the logarithm of the common factor.
        low, high = np.log(0.5 / positive.max()), np.log((n + 1.0) / positive.min())
        for _ in range(60):
            middle = 0.5 * (low + high)
            too_few = np.clip(np.exp(middle) * ideal, least, most).sum() < n
            low, high = (middle, high) if too_few else (low, middle)
        factor = np.exp(low)
    exact = np.clip(factor * ideal, least, most)
    counts = np.floor(exact).astype(int)
    # Largest remainders first; more rounds only if cells without an ideal have to take the rest.
    order = np.argsort(counts - exact, kind="stable")
    while counts.sum() < n:
        room = order[counts[order] < most[order]]
        counts[room[: n - counts.sum()]] += 1
    return counts


def _coarse_cells(P, s, n, bounds, least, rng, step) -> tuple[np.ndarray, np.ndarray]:
    """Return a coarse cell for each sample, and how many of the n cells are laid out in each.

    An optimal quantiser in d dimensions has the same sum of squares in each of its cells (Gersho
    1979), so the number within a coarse cell is proportional to the d/(d + 2)-th power of its own
    sum of squares. For d the effective dimension of the scatter within coarse cells is used.
    """
    with one_thread():
        some, centres = _first_means(P, s, min(n // EACH, MOST), least, rng, step)
        scatter = some.X - centres[some.nearest(centres)[0]]
        scatter = (some.weight[:, None] * scatter).T @ scatter
    size = np.square(scatter, dtype=np.float64).sum()
    d = float(np.trace(scatter)) ** 2 / size if size > 0.0 else 1.0
    labels, squared = _nearest_of_all(P, centres)
    # Leave room for the cells within a part to differ in mass.
    low, high = np.sqrt(bounds.low / n * s.sum()), np.sqrt(bounds.high / n * s.sum())
    kept = np.arange(len(centres))
    while True:
        mass = np.bincount(labels, weights=s, minlength=len(centres))[kept]
        sizes = np.bincount(labels, minlength=len(centres))[kept]
        least = np.maximum(1, np.ceil(mass / high)).astype(int)
        most = np.minimum(sizes, np.floor(mass / low)).astype(int) if low > 0.0 else sizes
        if len(kept) == 1:
            return np.zeros(len(s), dtype=np.int32), np.array([n])
        bad = most < least
        if not bad.any():
            spare = max(least.sum() - n, n - most.sum())
            if spare <= 0:
                break
            bad[np.argsort(mass, kind="stable")[:1]] = True
        if bad.all():
            bad[mass.argmax()] = False
        moved = np.flatnonzero(np.isin(labels, kept[bad]))
        kept = kept[~bad]
        if len(moved):
            nearby, squared[moved] = _nearest_of_all(Rows(P, moved), centres[kept])
            labels[moved] = kept[nearby]
    position = np.zeros(len(centres), dtype=np.int32)
    position[kept] = np.arange(len(kept))
    sums = np.bincount(labels, weights=s * squared, minlength=len(centres))[kept]
    ideal = sums ** (d / (d + 2.0)) if sums.any() else mass
    return position[labels], share_out(ideal, least, most, n)
