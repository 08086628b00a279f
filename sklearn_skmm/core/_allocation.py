"""Numbers of samples to select: in total, from each stratum, and from each cell."""

from numbers import Integral, Real

import numpy as np

# Ideal counts below this fraction of the largest are treated as zero.
NEGLIGIBLE = 1e-12


def resolve_n_to_select(n_to_select, n_samples: int, n_free: int | None = None) -> int:
    """Return the number of samples to select, from a count or a fraction.

    Parameters
    ----------
    n_to_select : int or float
        An int is returned as it is. A float is a fraction of `n_samples`: it is rounded to the
        nearest count, which is at least one.
    n_samples : int
        Number of samples.
    n_free : int or None, default=None
        Number of samples that can be selected; None is all.

    Returns
    -------
    n : int
        The count.

    Raises
    ------
    ValueError
        If there are not as many samples.

    Examples
    --------
    >>> resolve_n_to_select(0.25, 100)
    25
    """
    count = isinstance(n_to_select, Integral)
    n = int(n_to_select) if count else max(1, round(float(n_to_select) * n_samples))
    if n > n_samples:
        raise ValueError(
            f"n_to_select={n_to_select} must be at most the number of samples, "
            f"but X has n_samples={n_samples}."
        )
    if n_free is not None and n > n_free:
        raise ValueError(
            f"n_to_select={n_to_select} must be at most the number of samples that can still be "
            f"selected, but {n_free} of n_samples={n_samples} have a positive sample_weight and "
            "are not in selected."
        )
    return n


def counts_of_classes(
    wanted: dict, classes: np.ndarray, sizes: np.ndarray, free: np.ndarray
) -> np.ndarray:
    """Return the number of samples to select from each class.

    Parameters
    ----------
    wanted : dict
        Counts by class. An int is a number of samples, a float in (0, 1] a fraction of those of the
        class. No samples are selected from classes that it lacks.
    classes : ndarray of shape (n_classes,)
        The classes of y.
    sizes, free : ndarray of shape (n_classes,), dtype int
        How many samples each class has, and how many of them can be selected.

    Returns
    -------
    counts : ndarray of shape (n_classes,), dtype int
        The counts, with a sum of at least one.

    Raises
    ------
    ValueError
        If there is no such class, a count is none, there are not as many samples, or all counts are
        zero.

    Examples
    --------
    >>> import numpy as np
    >>> sizes = np.array([5, 10])
    >>> counts_of_classes({"b": 2, "a": 0.6}, np.array(["a", "b"]), sizes, sizes)
    array([3, 2])
    """
    known = {label: k for k, label in enumerate(classes.tolist())}
    counts = np.zeros(len(sizes), dtype=int)
    for label, count in wanted.items():
        if label not in known:
            raise ValueError(
                f"n_to_select has a count for the class {label!r}, but the classes of y are "
                f"{classes.tolist()}."
            )
        k = known[label]
        is_int = isinstance(count, Integral) and not isinstance(count, bool)
        is_fraction = isinstance(count, Real) and not is_int and not isinstance(count, bool)
        if not (count >= 0 if is_int else is_fraction and 0.0 < float(count) <= 1.0):
            raise ValueError(
                f"The counts in n_to_select must be ints from 0 or floats in (0, 1]. Got {count!r} "
                f"for the class {label!r} instead."
            )
        counts[k] = count if is_int else max(1, round(float(count) * int(sizes[k])))
        if counts[k] > free[k]:
            raise ValueError(
                f"n_to_select={count!r} for the class {label!r} must be at most the number of its "
                f"samples that can be selected, which is {free[k]}."
            )
    if not counts.any():
        raise ValueError("n_to_select must have a positive count for some class.")
    return counts


def allocate(
    n: int,
    sizes: np.ndarray,
    free: np.ndarray | None = None,
    taken: np.ndarray | None = None,
) -> np.ndarray:
    """Split n over strata in proportion to their sizes, by largest remainders.

    Parameters
    ----------
    n : int
        Number of samples to select.
    sizes : ndarray of shape (n_strata,)
        Number or weight of the samples of each stratum.
    free : ndarray of shape (n_strata,), dtype int, or None, default=None
        How many can be selected from each, in total at least n; None is `sizes`.
    taken : ndarray of shape (n_strata,), dtype int, or None, default=None
        How many of each are selected already. With them the counts are proportional to the sizes,
        as far as possible.

    Returns
    -------
    counts : ndarray of shape (n_strata,), dtype int
        They sum to n. If n is at least the number of strata without a selected sample, each of
        these gets at least one: `stratify` must not leave out a stratum because it is small.

    Examples
    --------
    >>> import numpy as np
    >>> allocate(4, np.array([90, 9, 1]))
    array([2, 1, 1])
    >>> allocate(4, np.array([50, 50]), taken=np.array([2, 0]))
    array([1, 3])
    """
    free = sizes if free is None else free
    taken = np.zeros(len(sizes), dtype=int) if taken is None else taken
    floor = ((taken == 0) & (free > 0)).astype(int)
    if n < floor.sum():
        floor[:] = 0
    quota = (n + taken.sum()) * sizes / sizes.sum() - taken
    counts = np.clip(np.floor(quota).astype(int), floor, free)
    while counts.sum() != n:
        step = 1 if counts.sum() < n else -1
        room = counts < free if step > 0 else counts > floor
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
