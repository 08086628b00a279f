"""Weights of samples, and the samples that are in the coreset already."""

from typing import Any

import numpy as np
from sklearn.utils import check_array

from sklearn_skmm.utils._sklearn import _check_sample_weight
from sklearn_skmm.utils._validation import computing_in_numpy


def read_weights(sample_weight: Any, n_samples: int) -> tuple[np.ndarray | None, float]:
    """Return the weights of the samples in multiples of their mean, and the mean.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,) or None
        Nonnegative weights, in any unit.
    n_samples : int
        Number of samples.

    Returns
    -------
    weight : ndarray of shape (n_samples,), dtype float64, or None
        The weights in multiples of the unit. None if all are equal.
    unit : float
        The mean of the positive weights.

    Raises
    ------
    ValueError
        If there are negative, missing or infinite weights, no positive one, or another number.

    Examples
    --------
    >>> read_weights([0, 1, 3], 3)
    (array([0. , 0.5, 1.5]), 2.0)
    """
    if sample_weight is None:
        return None, 1.0
    with computing_in_numpy():
        weight = _check_sample_weight(
            sample_weight, np.empty((n_samples, 1)), dtype=np.float64, ensure_non_negative=True
        )
    largest = weight.max()
    if weight.min() == largest:
        return None, float(largest)
    relative = weight / largest
    mean = float(relative[relative > 0.0].mean())
    return relative / mean, float(largest) * mean


def read_selected(selected: Any, n_samples: int) -> np.ndarray | None:
    """Return a mask of the samples that are in the coreset already.

    Parameters
    ----------
    selected : array-like of shape (n_samples,) of bool, or (n_given,) of int, or None
        A mask, or distinct positions.
    n_samples : int
        Number of samples.

    Returns
    -------
    mask : ndarray of shape (n_samples,), dtype bool, or None
        The mask. None if it has no True.

    Raises
    ------
    ValueError
        If it is neither, or has positions that are out of range or repeated.

    Examples
    --------
    >>> read_selected([2, 0], 3)
    array([ True, False,  True])
    """
    if selected is None:
        return None
    given = np.asarray(selected)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "biu"):
        raise ValueError(
            "selected must be a boolean mask or a 1-d array of integer positions. Got an array of "
            f"shape {given.shape} and dtype {given.dtype} instead."
        )
    if given.dtype.kind == "b":
        if len(given) != n_samples:
            raise ValueError(
                f"The mask selected has {len(given)} entries, but X has n_samples={n_samples}."
            )
        return given.copy() if given.any() else None
    if not given.size:
        return None
    if given.min() < 0 or given.max() >= n_samples:
        raise ValueError(
            f"selected must contain positions from 0 to {n_samples - 1}, because X has "
            f"n_samples={n_samples}. Got positions from {given.min()} to {given.max()} instead."
        )
    mask = np.zeros(n_samples, dtype=bool)
    mask[given] = True
    if np.count_nonzero(mask) < len(given):
        raise ValueError("selected must contain distinct positions. Got repeated positions.")
    return mask


def read_costs(cost: Any, n_samples: int) -> np.ndarray:
    """Return the costs of the samples, of shape (n_samples,) and dtype float64.

    Raises
    ------
    ValueError
        If it is not one positive and finite number for each sample.

    Examples
    --------
    >>> read_costs([2, 1], 2)
    array([2., 1.])
    """
    with computing_in_numpy():
        costs = check_array(cost, ensure_2d=False, dtype=np.float64, input_name="cost")
    if costs.shape != (n_samples,):
        raise ValueError(f"cost must have shape ({n_samples},), got {costs.shape}.")
    if costs.min() <= 0.0:
        raise ValueError(f"cost must be positive, got {costs.min():g}.")
    return costs
