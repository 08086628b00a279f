"""From weights s to a subset of size n. Pure functions of arrays.

With π = n·s and s in the capped simplex, 0 ≤ π ≤ 1 and π sums to n: inclusion probabilities.
"""

import numpy as np


def inclusion_probabilities(scores: np.ndarray, n: int) -> np.ndarray:
    """Return probabilities proportional to the scores, capped at 1, that sum to n.

    Parameters
    ----------
    scores : ndarray of shape (N,)
        Nonnegative importance of each item.
    n : int
        Sample size, at most N.

    Returns
    -------
    pi : ndarray of shape (N,)
        min(1, c · score) with the c that makes the sum n. If fewer than n scores are positive,
        those items are certain and the others share the rest evenly.

    Examples
    --------
    >>> import numpy as np
    >>> inclusion_probabilities(np.array([8.0, 1.0, 1.0]), 2)
    array([1. , 0.5, 0.5])
    """
    n_items = len(scores)
    positive = scores > 0
    count = int(np.count_nonzero(positive))
    if count <= n:
        rest = (n - count) / (n_items - count) if n_items > count else 0.0
        return np.where(positive, 1.0, rest)
    # With the k largest at 1, c = (n - k) / (sum of the others); take the least k for which
    # the next one stays at most 1.
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order] / scores[order[0]]
    tails = np.cumsum(sorted_scores[::-1])[::-1]
    k = np.arange(n)
    n_certain = int(np.argmax((n - k) * sorted_scores[:n] <= tails[:n]))
    pi = np.ones(n_items)
    if not n_certain:
        pi[order] = np.minimum(1.0, n * sorted_scores / tails[0])
        return pi
    # Again for the others, scaled by their own largest: scores may be many decades apart.
    others = order[n_certain:]
    pi[others] = inclusion_probabilities(scores[others], n - n_certain)
    return pi


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
