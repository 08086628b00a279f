"""Labels: one entry of y for each sample."""

from typing import Any

import numpy as np
from sklearn.utils import check_array, column_or_1d

from sklearn_skmm.utils._sklearn import _num_samples
from sklearn_skmm.utils._validation import computing_in_numpy


def read_labels(y: Any, n_samples: int, owner: str) -> np.ndarray:
    """Return y as an array with one entry for each sample.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or None
        Labels of any dtype.
    n_samples : int
        Number of samples.
    owner : str
        Who needs the labels, for the message.

    Returns
    -------
    y : ndarray of shape (n_samples,)
        The labels.

    Raises
    ------
    ValueError
        If y is None, holds missing values or has another length.

    Examples
    --------
    >>> read_labels(None, 3, "UniformSelector with stratify=True")
    Traceback (most recent call last):
    ValueError: UniformSelector with stratify=True requires y to be passed, ...
    """
    if y is None:
        raise ValueError(f"{owner} requires y to be passed, but the target y is None.")
    with computing_in_numpy():
        y = column_or_1d(check_array(y, ensure_2d=False, dtype=None), warn=True)
    if _num_samples(y) != n_samples:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: "
            f"[{n_samples}, {_num_samples(y)}]"
        )
    return y
