"""From weights s to a subset of size n. Pure functions of arrays.

With π = n·s and s in the capped simplex, 0 ≤ π ≤ 1 and π sums to n: inclusion probabilities.
"""

import numpy as np


def choice(s: np.ndarray, n: int, rng: np.random.RandomState) -> np.ndarray:
    """Draw n without replacement, one after the other with probabilities s.

    The published code's rounding. It does not honour π = n·s: the more s varies, the less
    the inclusion frequencies follow it.

    Examples
    --------
    >>> import numpy as np
    >>> choice(np.array([0.5, 0.0, 0.5]), 2, np.random.RandomState(0))
    array([0, 2])
    """
    return np.sort(rng.choice(len(s), size=n, replace=False, p=s / s.sum()))


def systematic(s: np.ndarray, n: int, rng: np.random.RandomState) -> np.ndarray:
    """Draw n with inclusion probabilities exactly n·s, along a random order of the items.

    Systematic sampling (Madow 1949): n points one apart, shifted together by one uniform
    draw, on a line where item i takes a stretch of length n·s_i.

    Examples
    --------
    >>> import numpy as np
    >>> systematic(np.array([0.5, 0.0, 0.5]), 2, np.random.RandomState(0))
    array([0, 2])
    """
    n_items = len(s)
    # A random order, so that no period in the data can resonate with the spacing.
    order = rng.permutation(n_items)
    ends = np.cumsum(s[order])
    ends *= n / ends[-1]
    picks = np.searchsorted(ends, rng.uniform() + np.arange(n), side="right")
    # π_i ≤ 1 keeps the picks apart; rounding in the sums may not, at π_i = 1.
    k = np.arange(n)
    picks = np.minimum(np.maximum.accumulate(picks - k) + k, n_items - n + k)
    return np.sort(order[picks])


ROUNDINGS = {"choice": choice, "systematic": systematic}
