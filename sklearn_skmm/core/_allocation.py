"""Numbers of samples to select: in total, from each stratum, and from each cell."""

from numbers import Integral

import numpy as np

# Ideal counts below this fraction of the largest are treated as zero.
NEGLIGIBLE = 1e-12


def resolve_n_to_select(n_to_select, n_samples: int) -> int:
    """Return the number of samples to select, from a count or a fraction.

    An int is returned as it is. A float is a fraction of `n_samples`: it is rounded to the nearest
    count, which is at least one. A count above `n_samples` raises ValueError.
    """
    if isinstance(n_to_select, Integral):
        if int(n_to_select) > n_samples:
            raise ValueError(
                f"n_to_select={n_to_select} must be at most the number of samples, "
                f"but X has n_samples={n_samples}."
            )
        return int(n_to_select)
    return max(1, round(float(n_to_select) * n_samples))


def allocate(n: int, sizes: np.ndarray) -> np.ndarray:
    """Split n over strata in proportion to their sizes, by largest remainders.

    `sizes` has shape (n_strata,), dtype int and a sum of at least n. The result has the same shape
    and dtype and sums to n. If n is at least the number of strata, each stratum gets at least one
    sample: `stratify` must not leave out a stratum because it is small.
    """
    floor = np.ones_like(sizes) if n >= len(sizes) else np.zeros_like(sizes)
    quota = n * sizes / sizes.sum()
    counts = np.minimum(np.maximum(np.floor(quota).astype(int), floor), sizes)
    while counts.sum() != n:
        step = 1 if counts.sum() < n else -1
        room = counts < sizes if step > 0 else counts > floor
        counts[np.argmax(np.where(room, step * (quota - counts), -np.inf))] += step
    return counts


def share_out(ideal: np.ndarray, least: np.ndarray, most: np.ndarray, n: int) -> np.ndarray:
    """Return counts with sum n, proportional to the ideal ones as far as the bounds allow.

    All arrays have shape (n_cells,); the sum of `least` must be at most n, and that of `most` at
    least n.

    Examples
    --------
    >>> import numpy as np
    >>> share_out(np.array([6.0, 3.0, 1.0]), np.array([1, 1, 1]), np.array([4, 9, 9]), 9)
    array([4, 4, 1])
    """
    factor = 0.0
    relative = ideal / (ideal.max() or 1.0)
    positive = np.flatnonzero(relative > NEGLIGIBLE)
    if positive.size:
        # The sum of the clipped multiples is piecewise linear in the factor: it bends up where a
        # cell leaves its least count, and down where it reaches its most.
        own = relative[positive]
        bends = np.concatenate([least[positive] / own, most[positive] / own])
        order = np.argsort(bends, kind="stable")
        bends, slopes = bends[order], np.cumsum(np.concatenate([own, -own])[order])
        sums = least.sum() + np.append(0.0, np.cumsum(slopes[:-1] * np.diff(bends)))
        last = max(0, int(np.searchsorted(sums, n, side="right")) - 1)
        factor = bends[last]
        if last + 1 < len(bends) and slopes[last] > 0.0:
            factor = min(bends[last + 1], factor + (n - sums[last]) / slopes[last])
    ideal = np.where(relative > NEGLIGIBLE, relative, 0.0)
    exact = np.clip(factor * ideal, least, most)
    counts = np.floor(exact).astype(int)
    # Largest remainders first; more rounds only if cells without an ideal have to take the rest.
    order = np.argsort(counts - exact, kind="stable")
    while counts.sum() < n:
        room = order[counts[order] < most[order]]
        counts[room[: n - counts.sum()]] += 1
    return counts
