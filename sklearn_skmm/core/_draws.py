"""Random subsets of size n from weights s.

If s is in the capped simplex, π = n·s are inclusion probabilities: 0 ≤ π ≤ 1, with sum n. Subsets
that also keep the totals of given columns are in `_balanced`.
"""

import numpy as np

# Probabilities this close to 0 or 1 differ from it only by rounding.
EDGE = 1e-12
# `spread` computes all distances between at most MAX_EXACT items. More are divided into cells of at
# most MAX_CELL items.
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
        min(1, c · score), with c such that the sum is n. If fewer than n scores are positive,
        those items have probability 1 and the others share the rest equally.

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
    # With the k largest at 1, c = (n - k) / (sum of the others). Take the smallest k for which the
    # next probability is at most 1.
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order] / scores[order[0]]
    tails = np.cumsum(sorted_scores[::-1])[::-1]
    k = np.arange(n)
    n_certain = int(np.argmax((n - k) * sorted_scores[:n] <= tails[:n]))
    pi = np.ones(n_items)
    if not n_certain:
        pi[order] = np.minimum(1.0, n * sorted_scores / tails[0])
        return pi
    # Repeat for the others, scaled by their maximum: scores may differ by many orders of magnitude.
    others = order[n_certain:]
    pi[others] = inclusion_probabilities(scores[others], n - n_certain)
    return pi


def choice(s: np.ndarray, n: int, rng: np.random.RandomState) -> np.ndarray:
    """Draw n items without replacement, one after the other with probabilities s.

    This is the rounding in the code published with the paper. Inclusion probabilities differ from
    n·s, the more so the more s varies. Returns positions in ascending order, of shape (n,).

    Examples
    --------
    >>> import numpy as np
    >>> choice(np.array([0.5, 0.0, 0.5]), 2, np.random.RandomState(0))
    array([0, 2])
    """
    p = s.astype(np.float64)
    return np.sort(rng.choice(len(s), size=n, replace=False, p=p / p.sum()))


def systematic(s: np.ndarray, n: int, rng: np.random.RandomState) -> np.ndarray:
    """Draw n items with inclusion probabilities exactly n·s by systematic sampling.

    Systematic sampling (Madow 1949): item i occupies an interval of length n·s_i on a line, with
    the items in random order. Each of n points at unit spacing, shifted together by one uniform
    random number, selects the item that it hits. Returns positions in ascending order, of shape
    (n,).

    Examples
    --------
    >>> import numpy as np
    >>> systematic(np.array([0.5, 0.0, 0.5]), 2, np.random.RandomState(0))
    array([0, 2])
    """
    n_items = len(s)
    # In random order, so that the spacing cannot coincide with a period in the data.
    order = rng.permutation(n_items)
    ends = np.cumsum(s[order], dtype=np.float64)
    ends *= n / ends[-1]
    picks = np.searchsorted(ends, rng.uniform() + np.arange(n), side="right")
    # As π_i ≤ 1, all picks are distinct, except for rounding in the sums where π_i = 1.
    k = np.arange(n)
    picks = np.minimum(np.maximum.accumulate(picks - k) + k, n_items - n + k)
    return np.sort(order[picks])


def draw_rest(
    scores: np.ndarray, n: int, rng: np.random.RandomState, selected: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw n items, besides those that are selected already, by their scores.

    Parameters
    ----------
    scores : ndarray of shape (N,)
        Nonnegative importance of each item.
    n : int
        Number of items to draw.
    rng : RandomState
        The only source of randomness.
    selected : ndarray of shape (n_given,), dtype int, or None, default=None
        Positions of the items that are selected already.

    Returns
    -------
    items : ndarray of shape (n,), dtype int
        Positions in ascending order.
    pi : ndarray of shape (N,)
        Their inclusion probabilities, which sum to n, and 1 for those that are selected already.

    Examples
    --------
    >>> import numpy as np
    >>> draw_rest(np.array([8.0, 1.0, 0.0]), 1, np.random.RandomState(0), np.array([0]))
    (array([1]), array([1., 1., 0.]))
    """
    if selected is None:
        pi = inclusion_probabilities(scores, n)
        return systematic(pi / n, n, rng), pi
    rest = np.delete(np.arange(len(scores)), selected)
    pi = np.ones(len(scores))
    pi[rest] = inclusion_probabilities(scores[rest], n)
    return rest[systematic(pi[rest] / n, n, rng)], pi


def spread(s: np.ndarray, n: int, X: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Draw n items with inclusion probabilities exactly n·s, spread out in X.

    Parameters
    ----------
    s : ndarray of shape (N,)
        Weights in the capped simplex: 0 ≤ s ≤ 1/n, with sum 1.
    n : int
        Sample size.
    X : ndarray of shape (N, m)
        Coordinates of the items.
    rng : RandomState
        The only source of randomness.

    Returns
    -------
    items : ndarray of shape (n,), dtype int
        Positions in ascending order.

    Notes
    -----
    The local pivotal method (Grafström, Lundström and Schelin 2012). Two items that are each
    other's nearest neighbours compete for their joint probability, so neighbours are seldom both
    selected. Equal rows compete first: of two with π ≤ 1/2, at most one is selected.

    Nearest neighbours are exact once at most 4,096 items are undecided. Until then, items compete
    within cells of at most 1,024 items until a quarter of each cell is left, and then within new
    cells.

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
    # The last item is 0 or 1 up to rounding, as the sum is an integer.
    return np.flatnonzero(pi > 0.5)


def median_cells(X: np.ndarray, items: np.ndarray, size: int, rng) -> list[np.ndarray]:
    """Return the items in cells of at most `size`; cells close in the list are close in X.

    X has shape (N, m), `items` holds positions, and each cell is an array of some of them. The
    cells come from median splits across random directions of large variance, which differ from
    call to call.

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
    """Approximate the first principal direction by a few power iterations on some of the rows."""
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
    """Return π = n·s in double precision, with values within rounding of 0 or 1 set to it."""
    pi = s.astype(np.float64)
    pi *= n / pi.sum()
    pi[pi <= EDGE] = 0.0
    pi[pi >= 1 - EDGE] = 1.0
    return pi


def is_undecided(pi: np.ndarray) -> np.ndarray:
    """Return a mask of the probabilities that are neither 0 nor 1, up to rounding."""
    return (pi > EDGE) & (pi < 1 - EDGE)


def _pivot_equal_rows(pi: np.ndarray, X: np.ndarray, rng) -> None:
    """Let equal rows compete, in place, until at most one of each group is undecided."""
    items = rng.permutation(np.flatnonzero(is_undecided(pi)))
    # Rows are compared as bytes; adding 0 turns -0 into 0.
    rows = np.ascontiguousarray(X[items] + 0.0)
    keys = rows.view(f"V{rows.itemsize * rows.shape[1]}")[:, 0]
    group = np.unique(keys, return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    items, group = items[order], group[order]
    while len(items):
        # Within a group, places 0 and 1 compete, 2 and 3, and so on.
        place = np.arange(len(group)) - np.searchsorted(group, group)
        first = np.flatnonzero((place[:-1] % 2 == 0) & (group[1:] == group[:-1]))
        if not len(first):
            break
        _pivotal_step(pi, items[first], items[first + 1], rng)
        still = is_undecided(pi[items])
        items, group = items[still], group[still]


def _pivot_neighbours(pi: np.ndarray, X: np.ndarray, stop: int, rng) -> np.ndarray:
    """Let mutual nearest neighbours compete until at most `stop` items are undecided; return π."""
    pi = pi.copy()
    distances = _squared_distances(X)
    nearest = distances.argmin(axis=1)
    items = np.arange(len(pi))
    while len(items) > max(stop, 1):
        # Distances are symmetric and ties go to the lower index, so there is always such a pair.
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
    """Return the squared distances, symmetric to the last bit and infinite on the diagonal."""
    X = X - X.mean(axis=0)
    X /= np.abs(X).max() or 1.0
    gram = X @ X.T
    norms = gram.diagonal().copy()
    gram *= -2
    gram += norms[:, None] + norms
    np.fill_diagonal(gram, np.inf)
    return gram


def _pivotal_step(pi: np.ndarray, i: np.ndarray, j: np.ndarray, rng) -> None:
    """Let the items of each of the disjoint pairs compete for their joint probability, in place.

    If it is at most 1, the winner gets all of it. If not, the winner gets 1 and the loser the rest.
    """
    joint = pi[i] + pi[j]
    over = joint > 1
    i_wins = rng.uniform(size=len(i)) * np.where(over, 2 - joint, joint) < np.where(
        over, 1 - pi[j], pi[i]
    )
    winner, loser = np.where(i_wins, i, j), np.where(i_wins, j, i)
    pi[winner] = np.where(over, 1.0, joint)
    pi[loser] = np.where(over, joint - 1, 0.0)


# The roundings that need only the weights.
ROUNDINGS = {"choice": choice, "systematic": systematic}
