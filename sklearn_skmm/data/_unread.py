"""Samples whose values a reader leaves alone: text, gaps, images, columns of any kind."""

from collections.abc import Mapping
from contextlib import suppress
from numbers import Number
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from sklearn_skmm.core._blocks import mean_squared_norm
from sklearn_skmm.data._arrays import ArraySource
from sklearn_skmm.data._checks import check_fits, check_values
from sklearn_skmm.data._dask import check_known, compute_by_rows, gather, is_dask
from sklearn_skmm.data._samples import FLOATS, Reader, Samples, Source
from sklearn_skmm.utils._sklearn import _num_samples

# Kinds of NumPy's dtypes of samples that are a value each: objects, text and bytes.
VALUES = "OUST"


class UnreadSource(Source):
    """Everything that has samples in an order, for readers that do not look at the values."""

    @staticmethod
    def recognises(X: Any, reader: Reader) -> bool:
        """Whether the reader leaves the values alone."""
        return not reader.values

    @staticmethod
    def open(X: Any, reader: Reader) -> Samples:
        """Return X as it is. Its number of samples is known, and its features if it has any."""
        gathered = None
        if is_dask(X):
            check_known(X, reader.name)
            if not reader.lazy:
                X, gathered = gather(X, (X.dtype.type,))
        elif not hasattr(X, "__len__") and hasattr(X, "__array__"):
            X = np.asarray(X)
        if not _is_collection(X):
            _refuse(X, reader)
        shape = shape_of(X)
        if shape[0] == 0:
            _refuse_empty("sample", shape, reader)
        if isinstance(X, np.ndarray) and X.ndim == 2 and reader.peak_bytes is not None:
            check_fits(reader.estimator, X.shape, reader.peak_bytes(X))
        samples = Samples(X, gathered=gathered, lazy=is_dask(X))
        if reader.features:
            _check_features(X, shape, reader)
            return samples
        if isinstance(X, np.ma.MaskedArray):  # whose mask few models look at
            check_values(X, reader.name)
        if reader.reset and len(shape) <= 2:
            # Names that are not all text are refused by the model that reads them, or by nobody.
            with suppress(TypeError):
                _learn_features(X, shape, reader)
        return samples


def shape_of(X: Any) -> tuple[int, ...]:
    """Return the shape of an array, or of a list whose samples may be lists of equal length.

    Examples
    --------
    >>> shape_of(["a text", "another"]), shape_of([[1, 2], [3, 4]]), shape_of([[1], [2, 3]])
    ((2,), (2, 2), (2,))
    """
    shape = getattr(X, "shape", None)
    if shape is not None:
        return tuple(shape)
    n_samples = _num_samples(X)
    if not n_samples or not isinstance(X, list | tuple):
        return (n_samples,)
    if not all(isinstance(x, list | tuple) or getattr(x, "ndim", 0) for x in X):
        return (n_samples,)
    lengths = {len(x) for x in X}
    return (n_samples, *lengths) if len(lengths) == 1 else (n_samples,)


def length_and_rows(samples: Samples, positions: np.ndarray, reader: Reader) -> tuple[float, Any]:
    """Return the mean squared length of unread samples and some of them, if they are numbers.

    Parameters
    ----------
    samples : Samples
        Samples that were opened with ``Reader(values=False)``.
    positions : ndarray of int
        Positions of the rows to return.
    reader : Reader
        Who needs rows of numbers, and of which dtypes.

    Returns
    -------
    length : float
        Mean squared norm of all rows.
    rows : ndarray or CSR
        The rows at the positions.

    Raises
    ------
    ValueError
        If the samples are not rows of finite numbers.

    Examples
    --------
    >>> length_and_rows(Samples([[3, 0], [0, 1]]), np.array([1]), Reader())
    (5.0, array([[0., 1.]]))
    """
    X = samples.X
    try:
        if samples.lazy:

            def sum_of_squares(block):
                return mean_squared_norm(ArraySource.open(block, reader).X) * len(block)

            sums, rows = compute_by_rows(X, sum_of_squares, positions)
            return sum(sums) / samples.n_samples, ArraySource.open(rows, reader).X
        if not _may_be_numbers(X):
            raise ValueError(f"got {type(X).__name__} of shape {shape_of(X)}")
        opened = ArraySource.open(X, reader)
        return mean_squared_norm(opened.X), opened.take(positions).X
    except (TypeError, RuntimeError) as error:  # of tensors that NumPy cannot read, and of objects
        raise ValueError(str(error)) from error


def _is_collection(X: Any) -> bool:
    """Whether X has samples in an order: neither a text, a set, a dict nor a generator."""
    if isinstance(X, str | bytes | Mapping) or not hasattr(X, "__getitem__"):
        return sparse.issparse(X)  # not all of its formats have items
    shape = getattr(X, "shape", None)
    return hasattr(X, "__len__") if shape is None else len(shape) > 0


def _may_be_numbers(X: Any) -> bool:
    """Whether it is worth a trial to convert X: not if it holds texts, which NumPy would copy."""
    shape = shape_of(X)
    if len(shape) != 2:
        return False
    return hasattr(X, "shape") or not any(isinstance(x, str | bytes) for x in X[0])


def _is_number_each(X: Any) -> bool:
    """Whether each sample is a number, so that they are a row or a column rather than samples."""
    kind = getattr(getattr(X, "dtype", None), "kind", None)
    if kind is not None:
        return kind not in VALUES
    first = X[0]
    return isinstance(first, Number) or getattr(first, "shape", None) == ()


def _check_features(X: Any, shape: tuple[int, ...], reader: Reader) -> None:
    """Refuse what has no features to tell samples by, and check those that X has."""
    if len(shape) == 1 and _is_number_each(X):
        _refuse(X, reader)
    if 0 in shape[1:]:
        _refuse_empty("feature", shape, reader)
    if getattr(getattr(X, "dtype", None), "kind", None) == "c":
        raise ValueError(f"Complex data not supported\n{X}\n")
    if len(shape) <= 2:
        _learn_features(X, shape, reader)


def _learn_features(X: Any, shape: tuple[int, ...], reader: Reader) -> None:
    """Set or check the number and the names of features, as scikit-learn does."""
    if not hasattr(X, "shape"):
        # One sample of a list tells what its features are; a text says that there are none.
        X = X[:1] if len(shape) == 2 else [""]
    validate_data(reader.estimator, X, reset=reader.reset, skip_check_array=True)


def _refuse(X: Any, reader: Reader) -> None:
    """Raise scikit-learn's error for X."""
    check_array(X, dtype=FLOATS, accept_sparse="csr", input_name=reader.name)
    raise TypeError(f"Expected sequence or array-like, got {type(X)}")


def _refuse_empty(what: str, shape: tuple[int, ...], reader: Reader) -> None:
    """Raise scikit-learn's error for X without samples or without features."""
    raise ValueError(
        f"Found array with 0 {what}(s) (shape={shape}) while a minimum of 1 is required by "
        f"{type(reader.estimator).__name__}."
    )
