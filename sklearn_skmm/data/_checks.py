"""Checks of samples beyond those of scikit-learn: lost meaning, range of squares, and memory."""

import math
from collections.abc import Sequence

import numpy as np

from sklearn_skmm.core._blocks import largest_entry
from sklearn_skmm.utils._memory import available_memory

# Bytes that are assumed to be available wherever the samples are.
SMALL = 2**28
# Squares of smaller numbers lose precision.
SMALLEST = 2.0**-500


def check_values(X, name: str) -> None:
    """Refuse arrays that a conversion to floating point would misread: masked entries and dates.

    Examples
    --------
    >>> import numpy as np
    >>> check_values(np.array(["2026-11-25"], dtype="datetime64[D]"), "X")
    Traceback (most recent call last):
    ValueError: X must hold numbers, got dtype datetime64[D].
    """
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise ValueError(
            f"{name} is a masked array with {np.ma.count_masked(X)} masked entries, which have no "
            f"value. Fill them or remove their rows."
        )
    if getattr(getattr(X, "dtype", None), "kind", None) in ("m", "M"):  # NaT would become a number
        raise ValueError(f"{name} must hold numbers, got dtype {X.dtype}.")


def check_range(X, name: str) -> None:
    """Refuse entries so large or small that sums of squared distances over- or underflow.

    Examples
    --------
    >>> import numpy as np
    >>> check_range(np.array([[0.0, 1e200]]), "X")
    Traceback (most recent call last):
    ValueError: The largest entry of X is 1e+200 in absolute value, ...
    """
    if X.dtype == np.float32:
        return  # squares are within the range of double precision
    largest = largest_entry(X)
    limit = math.sqrt(np.finfo(np.float64).max / (16.0 * math.prod(X.shape)))
    if largest > limit or 0.0 < largest < SMALLEST:
        raise ValueError(
            f"The largest entry of {name} is {largest:.6g} in absolute value, but must be zero or "
            f"from {SMALLEST:.3g} to {limit:.3g}, so that squares neither overflow nor underflow. "
            f"Multiply {name} by a constant."
        )


def cast_bytes(X: np.ndarray, dtypes: Sequence[type]) -> tuple[int, int]:
    """Return how many bytes a copy of X takes if one is needed, and the size of its entries.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Rows, of which no copy is made if their dtype is accepted and they are contiguous.
    dtypes : sequence of type
        Accepted dtypes. Any other is cast to the first.

    Returns
    -------
    n_bytes, itemsize : int
        Bytes of the copy, 0 without one, and bytes of one entry of the opened rows.

    Examples
    --------
    >>> import numpy as np
    >>> cast_bytes(np.ones((10, 2), dtype=np.float32), [np.float64])
    (160, 8)
    """
    accepted = X.dtype in dtypes
    itemsize = X.dtype.itemsize if accepted else np.dtype(dtypes[0]).itemsize
    return 0 if accepted and X.flags.c_contiguous else itemsize * X.size, itemsize


def check_fits(estimator, shape, needed: float) -> None:
    """Refuse samples for which a selector would need more memory than is available.

    Parameters
    ----------
    estimator : estimator
        Named in the message.
    shape : tuple of int
        Shape of X, which is in memory already or in a file.
    needed : float
        Bytes that the estimator holds at its peak next to X.

    Raises
    ------
    MemoryError
        If that is more than is available. Linux would kill the process instead.
    """
    if needed < SMALL:
        return
    available = available_memory()
    if available is not None and needed > available:
        raise MemoryError(
            f"{estimator} would need about {needed / 2**30:,.1f} GiB next to X of shape {shape}, "
            f"but {available / 2**30:,.1f} GiB are available. Use fewer features (a "
            "GradientSketcher with a smaller m), or SkMMSelector with its default rounding, which "
            "reads float32 and memory-mapped arrays in place."
        )
