"""Bisection: cuts a group of samples into cells whose masses stay within bounds."""

from typing import NamedTuple

import numpy as np

# Directions of cuts are computed from at most this many samples.
SUBSAMPLE = 1024
POWER_STEPS, LLOYD_STEPS = 6, 8


class Bounds(NamedTuple):
    """Least and largest mass of a cell."""

    low: float
    high: float


def bisect(
    P: np.ndarray, s: np.ndarray, n: int, bounds: Bounds, rng: np.random.RandomState
) -> np.ndarray:
    """Cut the samples into n cells by recursive 2-means, each with a mass within the bounds.

    A cut is moved along the margin of 2-means until the masses of both sides allow cells within the
    bounds. The number of cells on each side is proportional to its mass times the standard
    deviation within it (Neyman allocation), as far as the bounds allow.

    Parameters
    ----------
    P : ndarray of shape (N, k)
        Samples.
    s : ndarray of shape (N,)
        Positive weights.
    n : int
        Number of cells, at most N.
    bounds : Bounds
        Bounds of the mass of a cell. If the weights do not allow them, the masses are as close to
        them as the cuts allow. No cell is empty.
    rng : RandomState
        Source of randomness for subsamples.

    Returns
    -------
    labels : ndarray of shape (N,), dtype int32
        The cell of each sample.

    Examples
    --------
    >>> import numpy as np
    >>> P = np.array([[0.0], [0.1], [0.2], [0.3], [9.0], [9.1]])
    >>> rng = np.random.RandomState(0)
    >>> bisect(P, np.ones(6), 3, Bounds(1.0, 4.0), rng)
    array([1, 1, 0, 0, 2, 2], dtype=int32)
    """
    labels = np.zeros(len(s), dtype=np.int32)
    tasks = [(np.arange(len(s)), 0, n)]
    while tasks:
        members, first, count = tasks.pop()
        if count == 1:
            labels[members] = first
            continue
        sides, counts = _cut(P[members], s[members], count, bounds, rng)
        starts = first, first + counts[0]
        tasks += [(members[side], *own) for side, *own in zip(sides, starts, counts, strict=True)]
    return labels


def _cut(X, weight, count, bounds, rng) -> tuple[tuple, tuple[int, int]]:
    """Return the positions of both sides of a cut, and the number of cells on each."""
    margin = two_means_margin(X, weight, rng)
    order = np.argsort(margin, kind="stable")
    mass = np.cumsum(weight[order], dtype=np.float64)
    whole = mass[-1]
    cut = int(np.clip(np.count_nonzero(margin <= 0.0), 1, len(order) - 1))
    left = mass[cut - 1]
    spread = [m * _deviation(X[o], weight[o]) for m, o in _sides(order, cut, left, whole)]
    fraction = spread[0] / sum(spread) if sum(spread) > 0.0 else left / whole
    # Both sides must get as many cells as their masses allow.
    (least, most), (other_least, other_most) = (
        (np.ceil(m / bounds.high - 1e-9), np.floor(m / bounds.low + 1e-9) if bounds.low else np.inf)
        for m in (left, whole - left)
    )
    least, most = max(1, least, count - other_most), min(count - 1, most, count - other_least)
    if least > most:
        fraction, least, most = left / whole, 1, count - 1
    first = int(np.clip(round(count * fraction), least, most))
    # Move the cut until the masses allow these numbers of cells.
    rest = count - first
    low = max(first * bounds.low, whole - rest * bounds.high)
    high = min(first * bounds.high, whole - rest * bounds.low)
    wanted = np.clip(left, low, high) if low <= high else whole * first / count
    if wanted != left:
        cut = int(np.searchsorted(mass, wanted))
        # The nearest cut, within the bounds if there is one.
        options = np.clip([cut, cut + 1], 1, len(order))
        off = [max(low - mass[c - 1], mass[c - 1] - high, 0.0) for c in options]
        away = np.abs(mass[options - 1] - wanted)
        cut = int(options[np.lexsort((away, off))[0]])
    cut = int(np.clip(cut, first, len(order) - rest))
    return (order[:cut], order[cut:]), (first, rest)


def _sides(order, cut, left, whole):
    return (left, order[:cut]), (whole - left, order[cut:])


def two_means_margin(X: np.ndarray, weight: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Return numbers that are positive for rows nearer to one of two means than to the other.

    They are proportional to the differences of the squared distances. Lloyd's algorithm with two
    means is started along the first principal direction. `X` has shape (N, k), `weight` and the
    result have shape (N,).

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [9.0], [10.0]])
    >>> np.sign(two_means_margin(X, np.ones(4), np.random.RandomState(0)))
    array([ 1.,  1., -1., -1.])
    """
    some, mass = X, weight
    if len(X) > SUBSAMPLE:
        rows = np.sort(rng.choice(len(X), SUBSAMPLE, replace=False))
        some, mass = X[rows], weight[rows]
    mean = mass @ some / mass.sum()
    centred = some - mean
    lengths = np.vecdot(centred, centred)
    longest = np.sqrt(lengths.max())
    if not longest > 0.0:  # all rows are equal
        return np.zeros(len(X), dtype=X.dtype)
    centred /= longest  # so that powers of the lengths stay within the range of floats
    direction = centred[lengths.argmax()]
    for _ in range(POWER_STEPS):
        length = np.sqrt(direction @ direction)
        if not length > 0.0:
            break
        direction = (mass * (centred @ (direction / length))) @ centred
    right = centred @ direction > 0.0
    middle, normal = 0.0 * direction, direction
    for _ in range(LLOYD_STEPS):
        if right.all() or not right.any():
            break
        in_right, in_left = mass * right, mass * ~right
        right_mean = in_right @ centred / in_right.sum()
        left_mean = in_left @ centred / in_left.sum()
        normal = right_mean - left_mean
        middle = 0.5 * (right_mean + left_mean)
        before, right = right, (centred - middle) @ normal > 0.0
        if np.array_equal(before, right):
            break
    if some is not X:
        starts = range(0, len(X), SUBSAMPLE)
        centred = (X[first : first + SUBSAMPLE] - mean for first in starts)
        return np.concatenate([part @ normal for part in centred]) / longest - middle @ normal
    return centred @ normal - middle @ normal


def _deviation(X, weight) -> float:
    """Return the root mean squared distance of the rows from their mean."""
    mass = weight.sum(dtype=np.float64)
    centred = X - weight @ X / mass
    return float(np.sqrt(weight @ np.vecdot(centred, centred) / mass))
