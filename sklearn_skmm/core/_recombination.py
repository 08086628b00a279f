r"""Recombination: few weighted samples with exactly the moments of many (Carathéodory's theorem).

Any mean of q functions over N weighted samples is also a mean over at most q + 1 of them, with
other weights. The samples are divided into groups, and a mean over the groups is reduced to half of
them, until few samples are left (Litterer and Lyons 2012, Tchernychova 2016): O(N q) time for the
means, and the logarithm of N / n reductions of O(n³).
"""

from collections.abc import Callable

import numpy as np
from scipy import linalg

from sklearn_skmm.utils._threads import one_thread

# Weights below this fraction of the largest are zero, as are singular values.
ROUNDING = 1e-13


def moment_columns(k: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which products of components have their means matched by n weighted samples.

    Parameters
    ----------
    k : int
        Number of components, those with the largest second moments first.
    n : int
        Number of samples, at least 1.

    Returns
    -------
    first, second : ndarray of shape (q,), dtype int
        Factors of each product; the factor k is the constant 1. The means of the components come
        first, then those of their squares, then those of products, in each case the largest
        components first. q is at most n - 1.

    Examples
    --------
    >>> moment_columns(2, 6)
    (array([0, 1, 0, 1, 0]), array([2, 2, 0, 1, 1]))
    """
    i, j = np.triu_indices(k, 1)
    order = np.argsort(i + j, kind="stable")
    own = np.arange(k)
    first = np.concatenate([own, own, i[order]])
    second = np.concatenate([np.full(k, k), own, j[order]])
    return first[: n - 1], second[: n - 1]


def recombine_moments(
    P,
    eigenvalues: np.ndarray,
    s: np.ndarray,
    n: int,
    rng: np.random.RandomState,
    step=lambda: False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return n samples and weights with the same first and second moments as all weighted samples.

    Which moments these are depends on n, see `moment_columns`.

    Parameters
    ----------
    P : ndarray or Components of shape (N, k)
        Components of the samples along the eigenvectors.
    eigenvalues : ndarray of shape (k,)
        Positive, largest first.
    s, n, rng, step
        As for `recombine`.

    Returns
    -------
    positions, weights : ndarray of shape (n,)
        As from `recombine`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.RandomState(0)
    >>> P = rng.normal(size=(1000, 2))
    >>> positions, weights = recombine_moments(P, np.ones(2), np.full(1000, 1e-3), 6, rng)
    >>> S = P[positions]
    >>> bool(np.allclose(S.T @ (weights[:, None] * S), P.T @ P / 1000))
    True
    """
    first, second = moment_columns(len(eigenvalues), n)
    unit = np.sqrt(eigenvalues)

    def features(rows):
        scaled = np.ones((len(rows), len(unit) + 1))
        scaled[:, :-1] = P[rows] / unit
        return scaled[:, first] * scaled[:, second]

    # Small matrices, for which the threads of BLAS cost more than they save.
    with one_thread():
        return recombine(features, s, n, rng, step)


def recombine(
    features: Callable[[np.ndarray], np.ndarray],
    s: np.ndarray,
    n: int,
    rng: np.random.RandomState,
    step: Callable[[], bool] = lambda: False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return n samples and weights with the same means of the features as all weighted samples.

    Parameters
    ----------
    features : callable
        Takes positions of samples, of shape (n_rows,), and returns an array of shape (n_rows, q),
        with q < n. They should be of similar size.
    s : ndarray of shape (N,)
        Nonnegative weights that sum to one, of which at least n are positive.
    n : int
        Number of samples to keep.
    rng : RandomState
        Source of randomness for the groups.
    step : callable, default=does nothing
        Called once per reduction.

    Returns
    -------
    positions : ndarray of shape (n,), dtype int
        In ascending order.
    weights : ndarray of shape (n,)
        Positive, with a sum of one.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(5.0)[:, None]
    >>> positions, weights = recombine(
    ...     lambda rows: x[rows], np.full(5, 0.2), 2, np.random.RandomState(0)
    ... )
    >>> round(float(weights @ x[positions, 0]), 12)
    2.0
    """
    support = positions = rng.permutation(np.flatnonzero(s))
    weights = s[positions].astype(np.float64)
    weights /= weights.sum()
    means = _means(features, positions, weights, [len(positions)])[0]
    while len(positions) > n:
        step()
        # Cuts between groups of nearly equal size; of 2n groups about half are left.
        n_groups = min(2 * n, len(positions))
        cuts = np.linspace(0, len(positions), n_groups + 1).astype(int)
        mass = np.add.reduceat(weights, cuts[:-1])
        centres = _means(features, positions, weights, cuts[1:])
        new = reduce_mean(centres - means, mass, n)
        weights *= np.repeat(new / mass, np.diff(cuts))
        kept = weights > ROUNDING * weights.max()
        positions, weights = positions[kept], weights[kept]
    missing = n - len(positions)
    if missing:  # several weights became zero at once
        others = support[~np.isin(support, positions)][:missing]
        positions = np.concatenate([positions, others])
        weights = np.concatenate([weights, np.full(missing, ROUNDING * weights.max())])
    order = np.argsort(positions)
    return positions[order], weights[order] / weights.sum()


def _means(features, positions, weights, ends) -> np.ndarray:
    """Return the weighted means of the features of groups of positions, which end where it says."""
    starts = [0, *ends[:-1]]
    means = []
    for start, end in zip(starts, ends, strict=True):
        own, total = weights[start:end], 0.0
        for first in range(start, end, 4096):
            rows = slice(first, min(first + 4096, end))
            total = total + weights[rows] @ features(positions[rows])
        means.append(total / own.sum())
    return np.array(means)


def reduce_mean(centred: np.ndarray, mass: np.ndarray, n: int) -> np.ndarray:
    """Return weights of which at most n are positive, with the same weighted mean and sum.

    Parameters
    ----------
    centred : ndarray of shape (n_groups, q)
        Points, minus their weighted mean; q < n.
    mass : ndarray of shape (n_groups,)
        Positive weights.
    n : int
        Number of weights to keep. All are kept if there are not more.

    Returns
    -------
    weights : ndarray of shape (n_groups,)
        Nonnegative weights.

    Examples
    --------
    >>> import numpy as np
    >>> reduce_mean(np.array([[-1.0], [0.0], [1.0]]), np.ones(3), 2).tolist()
    [1.5, 0.0, 1.5]
    """
    n_groups = len(mass)
    unit = np.abs(centred).max(axis=0)
    constraints = np.column_stack([np.ones(n_groups), centred / np.where(unit > 0.0, unit, 1.0)])
    # Directions in which weights can move without a change of the sum or the mean.
    full, lengths, _ = linalg.svd(constraints, full_matrices=True, check_finite=False)
    rank = int(np.count_nonzero(lengths > ROUNDING * n_groups * lengths[0]))
    free = full[:, rank:]
    weights = mass.astype(np.float64)
    while free.shape[1] and np.count_nonzero(weights) > n:
        # Along a direction of either sign some weight falls to zero; several at a time would leave
        # fewer than n.
        moved = [_until_zero(weights, sign * free[:, 0]) for sign in (1.0, -1.0)]
        gone, weights = max(moved, key=lambda found: np.count_nonzero(found[1]))
        # The other directions must not move the weight that is gone.
        pivot = int(np.abs(free[gone]).argmax())
        chosen, free = free[:, pivot], np.delete(free, pivot, axis=1)
        free = free - np.outer(chosen / chosen[gone], free[gone])
        free[gone] = 0.0
    return weights


def _until_zero(weights, direction) -> tuple[int, np.ndarray]:
    """Lower the weights along the direction until the first is zero; return it and the weights."""
    falling = direction > ROUNDING * np.abs(direction).max()
    steps = np.full(len(weights), np.inf)
    steps[falling] = weights[falling] / direction[falling]
    gone = int(steps.argmin())
    weights = np.maximum(weights - steps[gone] * direction, 0.0)
    weights[weights <= ROUNDING * weights.max()] = 0.0
    weights[gone] = 0.0
    return gone, weights
