"""From weights s to a subset of size n. Pure functions of arrays.

With π = n·s and s in the capped simplex, 0 ≤ π ≤ 1 and π sums to n: inclusion probabilities.
Subsets that keep the totals of given columns are in `_balanced`.
"""

import numpy as np

# Probabilities this close to 0 or 1 are there, but for rounding.
EDGE = 1e-12
# The most items whose distances are all computed, and the most in one cell of a larger pool.
MAX_EXACT = 4096
MAX_CELL = 1024


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
    largest, total = float(scores.max()), float(scores.sum(dtype=np.float64))
    if np.isfinite(total) and total / largest >= n:
        return np.minimum(scores / largest * (n / (total / largest)), 1.0)
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
    p = s.astype(np.float64)
    return np.sort(rng.choice(len(s), size=n, replace=False, p=p / p.sum()))


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
    ends = np.cumsum(s[order], dtype=np.float64)
    ends *= n / ends[-1]
    picks = np.searchsorted(ends, rng.uniform() + np.arange(n), side="right")
    # π_i ≤ 1 keeps the picks apart; rounding in the sums may not, at π_i = 1.
    k = np.arange(n)
    picks = np.minimum(np.maximum.accumulate(picks - k) + k, n_items - n + k)
    return np.sort(order[picks])


def spread(s: np.ndarray, n: int, X: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Draw n with inclusion probabilities exactly n·s, spread out in X.

    Parameters
    ----------
    s : ndarray of shape (N,)
        Weights in the capped simplex: 0 ≤ s ≤ 1/n, with sum 1.
    n : int
        Sample size.
    X : ndarray of shape (N, m)
        Where the items are.
    rng : RandomState
        The only randomness.

    Returns
    -------
    items : ndarray of shape (n,)
        Ascending.

    Notes
    -----
    The local pivotal method (Grafström, Lundström and Schelin 2012): two items that are each
    other's nearest neighbours play for their joint probability, and neighbours are seldom both
    taken. Equal rows play first: of two with π ≤ 1/2 at most one is taken.

    Neighbours are exact as long as at most 4,096 items are neither taken nor ruled out. More
    of them play within cells of at most 1,024 until a quarter of each is left, and then within
    new cells.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [0.1], [5.0], [5.1]])
    >>> spread(np.full(4, 1 / 4), 2, X, np.random.RandomState(0)) // 2  # one of each two
    array([0, 1])
    """
    pi = snapped_probabilities(s, n)
    _pivot_equal_rows(pi, X, rng)
    items = rng.permutation(np.flatnonzero(is_undecided(pi)))
    while len(items) > 1:
        parts = median_cells(X, items, MAX_CELL, rng) if len(items) > MAX_EXACT else [items]
        for part in parts:
            pi[part] = _pivot_neighbours(
                pi[part], X[part], 1 if len(parts) == 1 else len(part) // 4, rng
            )
        items = items[is_undecided(pi[items])]
    # The last one is whole but for rounding.
    return np.flatnonzero(pi > 0.5)


def median_cells(X: np.ndarray, items: np.ndarray, size: int, rng) -> list[np.ndarray]:
    """Return the items in cells of at most `size`; cells near in the list are near in X.

    Median splits across directions of large variance. Other directions come out each time.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [9.0], [0.1], [9.1]])
    >>> parts = median_cells(X, np.arange(4), 2, np.random.RandomState(0))
    >>> sorted(part.tolist() for part in parts)
    [[0, 2], [1, 3]]
    """
    if len(items) <= size:
        return [items]
    rows = X[items]
    half = len(items) // 2
    order = np.argpartition(rows @ _wide_direction(rows, rng), half)
    return [
        *median_cells(X, items[order[:half]], size, rng),
        *median_cells(X, items[order[half:]], size, rng),
    ]


def _wide_direction(rows: np.ndarray, rng) -> np.ndarray:
    """Return about the first principal direction, from a few power steps on some rows."""
    rows = rows[rng.randint(len(rows), size=256)] if len(rows) > 256 else rows
    rows = rows - rows.mean(axis=0)
    rows /= np.abs(rows).max() or 1.0
    direction = rng.normal(size=rows.shape[1])
    for _ in range(4):
        step = rows.T @ (rows @ direction)
        length = np.sqrt(step @ step)
        if length == 0:
            break
        direction = step / length
    return direction


def snapped_probabilities(s: np.ndarray, n: int) -> np.ndarray:
    """Return π, with what rounding has left next to 0 and 1 put there."""
    pi = s.astype(np.float64)
    pi *= n / pi.sum()
    pi[pi <= EDGE] = 0.0
    pi[pi >= 1 - EDGE] = 1.0
    return pi


def is_undecided(pi: np.ndarray) -> np.ndarray:
    return (pi > EDGE) & (pi < 1 - EDGE)


def _pivot_equal_rows(pi: np.ndarray, X: np.ndarray, rng) -> None:
    """Let equal rows play until at most one of each is open, in place."""
    items = rng.permutation(np.flatnonzero(is_undecided(pi)))
    # Compared as bytes; adding 0 makes -0 a 0.
    rows = np.ascontiguousarray(X[items] + 0.0)
    keys = rows.view(f"V{rows.itemsize * rows.shape[1]}")[:, 0]
    group = np.unique(keys, return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    items, group = items[order], group[order]
    while len(items):
        # Places 0 and 1 of a group play, 2 and 3, and so on.
        place = np.arange(len(group)) - np.searchsorted(group, group)
        first = np.flatnonzero((place[:-1] % 2 == 0) & (group[1:] == group[:-1]))
        if not len(first):
            break
        _pivotal_step(pi, items[first], items[first + 1], rng)
        still = is_undecided(pi[items])
        items, group = items[still], group[still]


def _pivot_neighbours(pi: np.ndarray, X: np.ndarray, stop: int, rng) -> np.ndarray:
    """Let mutual nearest neighbours play until at most `stop` items are open."""
    pi = pi.copy()
    distances = _squared_distances(X)
    nearest = distances.argmin(axis=1)
    items = np.arange(len(pi))
    while len(items) > max(stop, 1):
        # Among symmetric distances with ties to the lower index, there is always such a pair.
        other = nearest[items]
        first = items[(nearest[other] == items) & (items < other)]
        _pivotal_step(pi, first, nearest[first], rng)
        still = is_undecided(pi)
        items = items[still[items]]
        stale = items[~still[nearest[items]]]
        if len(stale):
            nearest[stale] = items[distances[np.ix_(stale, items)].argmin(axis=1)]
    return pi


def _squared_distances(X: np.ndarray) -> np.ndarray:
    """Return them to the last bit symmetric, and infinite on the diagonal."""
    X = X - X.mean(axis=0)
    X /= np.abs(X).max() or 1.0
    gram = X @ X.T
    norms = gram.diagonal().copy()
    gram *= -2
    gram += norms[:, None] + norms
    np.fill_diagonal(gram, np.inf)
    return gram


def _pivotal_step(pi: np.ndarray, i: np.ndarray, j: np.ndarray, rng) -> None:
    """Play each of the disjoint pairs for their joint probability, in place.

    Up to 1 in all, one takes everything; beyond, one takes 1 and leaves the other the rest.
    """
    joint = pi[i] + pi[j]
    over = joint > 1
    i_wins = rng.uniform(size=len(i)) * np.where(over, 2 - joint, joint) < np.where(
        over, 1 - pi[j], pi[i]
    )
    winner, loser = np.where(i_wins, i, j), np.where(i_wins, j, i)
    pi[winner] = np.where(over, 1.0, joint)
    pi[loser] = np.where(over, joint - 1, 0.0)


# Those that need the weights alone.
ROUNDINGS = {"choice": choice, "systematic": systematic}
