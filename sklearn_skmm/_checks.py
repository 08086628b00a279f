"""Checks of samples that scikit-learn does not make."""

import math

import numpy as np

from sklearn_skmm._blocks import largest_entry

# Squares of smaller numbers lose digits.
SMALLEST = 2.0**-500


def check_values(X, name: str) -> None:
    """Refuse arrays of which a conversion to floats would lose the meaning.

    Examples
    --------
    >>> import numpy as np
    >>> check_values(np.array(["2026-11-25"], dtype="datetime64[D]"), "X")
    Traceback (most recent call last):
    ValueError: X must hold numbers, got dtype datetime64[D].
    """
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise ValueError(
            f"{name} is a masked array with {np.ma.count_masked(X)} masked entries, which stand "
            f"for no number. Fill or leave them out."
        )
    if getattr(getattr(X, "dtype", None), "kind", None) in ("m", "M"):  # NaT would become a number
        raise ValueError(f"{name} must hold numbers, got dtype {X.dtype}.")


def check_range(X, name: str) -> None:
    """Refuse X whose squared distances, or their sum over the samples, are not in the range.

    Examples
    --------
    >>> import numpy as np
    >>> check_range(np.array([[0.0, 1e200]]), "X")
    Traceback (most recent call last):
    ValueError: The largest entry of X is 1e+200 in absolute value, ...
    """
    if X.dtype == np.float32:
        return  # its squares are in the range of double precision
    largest = largest_entry(X)
    limit = math.sqrt(np.finfo(np.float64).max / (16.0 * math.prod(X.shape)))
    if largest > limit or 0.0 < largest < SMALLEST:
        raise ValueError(
            f"The largest entry of {name} is {largest:.6g} in absolute value, but must be zero or "
            f"from {SMALLEST:.3g} to {limit:.3g}, so that squares neither over- nor underflow. "
            f"Multiply {name} by a constant."
        )
