"""Numbers of samples to select: in total, from each stratum, and from each cell."""

from numbers import Integral

import numpy as np


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
