"""Columns for all classes of y, of a classifier that was fitted on some of them."""

from typing import Any

import numpy as np


def classes_in(y: Any, fitted: Any) -> Any:
    """Return all classes of y, or None if the classifier's own are all or cannot be placed.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), or None
        Targets of all samples. Missing labels are no class.
    fitted : estimator
        Estimator fitted on some of them.

    Returns
    -------
    classes : ndarray of shape (n_classes,), list of them with one for each output, or None
        The classes in sorted order.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> model = LogisticRegression().fit([[0], [1]], ["a", "c"])
    >>> classes_in(["a", "b", "c"], model)
    array(['a', 'b', 'c'], dtype='<U1')
    """
    known = getattr(fitted, "classes_", None)
    if known is None or y is None:
        return None
    try:
        y = np.asarray(y)
    except TypeError:  # on another device
        return None
    if isinstance(known, list):  # several outputs
        if y.ndim != 2 or len(known) != y.shape[1]:
            return None
        parts = [_unique(column) for column in y.T]
        pairs = list(zip(parts, known, strict=True))
        if not all(_contains(part, own) for part, own in pairs):
            return None
        return parts if any(len(part) > len(own) for part, own in pairs) else None
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:  # labels that are not exclusive have a column each
        return None
    classes = _unique(y)
    return classes if _contains(classes, known) and len(classes) > len(known) else None


def _unique(y: np.ndarray) -> np.ndarray:
    """Return the classes of one output, without NaN and None."""
    if y.dtype.kind == "O":
        y = y[np.array([label is not None and label == label for label in y], dtype=bool)]
    elif y.dtype.kind == "f":
        y = y[~np.isnan(y)]
    return np.unique(y)


def _contains(classes: np.ndarray, known: Any) -> bool:
    return set(np.asarray(known).tolist()) <= set(classes.tolist())


def with_all_classes(method: str, values: Any, known: Any, classes: Any, *, pairs=False) -> Any:
    """Return what a method of a classifier returned, with a column for each class.

    Classes that the classifier does not know have the probability 0, the log-probability -inf, and
    the smallest finite number as decision function.

    Parameters
    ----------
    method : {"predict_proba", "predict_log_proba", "decision_function"}
        The method.
    values : ndarray of shape (n_samples, n_known) or (n_samples,), or list of these
        What it returned.
    known, classes : ndarray, or list of these
        Classes of the classifier, and all classes.
    pairs : bool, default=False
        Whether the columns of the decision function are for pairs of classes.

    Returns
    -------
    values : ndarray of shape (n_samples, n_classes) or (n_samples,), or list of these
        With the missing columns. A decision function for two classes has one dimension.

    Raises
    ------
    ValueError
        If the columns are not those of the classes.

    Examples
    --------
    >>> import numpy as np
    >>> known, classes = np.array(["a", "c"]), np.array(["a", "b", "c"])
    >>> with_all_classes("predict_proba", np.array([[0.3, 0.7]]), known, classes)
    array([[0.3, 0. , 0.7]])
    >>> with_all_classes("decision_function", np.array([1.5]), known, classes)[0, [0, 2]]
    array([-1.5,  1.5])
    """
    if isinstance(classes, list):
        if not isinstance(values, list):  # one column for each output
            return values
        return [
            with_all_classes(method, *each, pairs=pairs)
            for each in zip(values, known, classes, strict=True)
        ]
    values, known = np.asarray(values), np.asarray(known)
    if len(known) == len(classes):
        return values
    if method == "decision_function":
        if len(classes) == 2:  # of which one is known
            sign = 1.0 if classes[1] == known[0] else -1.0
            return np.full(len(values), sign)
        if values.ndim == 1:
            values = np.c_[-values, values] if len(known) == 2 else values[:, None]
    pairs = pairs and len(known) > 2
    if values.shape[1] == len(classes) and not pairs:
        return values  # a network has a column for each class, also for those it was not shown
    if values.shape[1] != len(known) or pairs:
        raise ValueError(
            f"{method} returned {values.shape[1]} columns that are not those of the {len(known)} "
            f"classes in the coreset, so they cannot be placed among the {len(classes)} classes of "
            "y. Use all_classes=False, or a selector with stratify=True."
        )
    missing = {"predict_proba": 0.0, "predict_log_proba": -np.inf}
    fill = missing.get(method, np.finfo(values.dtype).min)
    out = np.full((len(values), len(classes)), fill, dtype=values.dtype)
    place = {label: k for k, label in enumerate(classes.tolist())}
    out[:, [place[label] for label in known.tolist()]] = values
    return out
