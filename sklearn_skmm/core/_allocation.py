"""The number of samples to select, in total and from each stratum."""

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
