"""How many samples are selected, and from which stratum."""

from numbers import Integral

import numpy as np


def resolve_n_to_select(n_to_select, n_samples: int) -> int:
    """Turn a count or a fraction of the samples into a count.

    A fraction is rounded to the nearest count and never below one.
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

    Each stratum gets at least one while n allows it; then no stratum is left out for
    being small, which is what a user asks for with `stratify`.
    """
    floor = np.ones_like(sizes) if n >= len(sizes) else np.zeros_like(sizes)
    quota = n * sizes / sizes.sum()
    counts = np.minimum(np.maximum(np.floor(quota).astype(int), floor), sizes)
    while counts.sum() != n:
        step = 1 if counts.sum() < n else -1
        room = counts < sizes if step > 0 else counts > floor
        counts[np.argmax(np.where(room, step * (quota - counts), -np.inf))] += step
    return counts
