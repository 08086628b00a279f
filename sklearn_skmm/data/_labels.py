"""Labels: one entry of y for each sample."""

from typing import Any

import numpy as np
from sklearn.utils import check_array, column_or_1d

from sklearn_skmm.data._tensors import in_numpy_dtype
from sklearn_skmm.utils._sklearn import _num_samples
from sklearn_skmm.utils._validation import computing_in_numpy


def read_labels(
    y: Any, n_samples: int, owner: str, *, allow_missing: bool = False, name: str = "y"
) -> np.ndarray:
    """Return y as an array with one entry for each sample.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or None
        Labels of any dtype.
    n_samples : int
        Number of samples.
    owner : str
        Who needs the labels, for the message.
    allow_missing : bool, default=False
        Whether some labels may be NaN or None.
    name : str, default="y"
        The argument, as messages call it.

    Returns
    -------
    y : ndarray of shape (n_samples,)
        The labels.

    Raises
    ------
    ValueError
        If y is None, has missing values that are not allowed, or has another length.

    Examples
    --------
    >>> read_labels(None, 3, "UniformSelector with stratify=True")
    Traceback (most recent call last):
    ValueError: UniformSelector with stratify=True requires y to be passed, ...
    """
    if y is None:
        raise ValueError(f"{owner} requires y to be passed, but the target y is None.")
    with computing_in_numpy():
        y = check_array(
            in_numpy_dtype(y, name),
            ensure_2d=False,
            dtype=None,
            ensure_all_finite=not allow_missing,
            input_name=name if allow_missing or name != "y" else "",
        )
        y = column_or_1d(y, warn=True)
    if _num_samples(y) != n_samples:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: "
            f"[{n_samples}, {_num_samples(y)}]"
        )
    return y


def check_classes(y: np.ndarray) -> None:
    """Refuse targets that are not classes.

    Examples
    --------
    >>> import numpy as np
    >>> check_classes(np.array([0.5, 1.2]))
    Traceback (most recent call last):
    ValueError: y must have classes to select by class, but it has continuous values such as 0.5.
    """
    if y.dtype.kind == "f":
        broken = y[y != np.floor(y)]
        if broken.size:
            raise ValueError(
                "y must have classes to select by class, but it has continuous values such as "
                f"{broken[0]:g}."
            )
