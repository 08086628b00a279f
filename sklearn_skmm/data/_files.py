"""Files of samples: .npy and .npz, and tables in CSV and Parquet."""

import os
import re
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from sklearn_skmm.data._samples import Reader, Samples, Source

TABLE_SUFFIXES = (".csv", ".parquet")
FILE_SUFFIXES = (".npy", ".npz", *TABLE_SUFFIXES)
# First bytes of an .npy file.
NPY_MAGIC = b"\x93NUMPY"
# Errors that reading a damaged file may raise.
READ_ERRORS = (
    *(ValueError, EOFError, KeyError, TypeError, RuntimeError, SyntaxError, tokenize.TokenError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class SamplesFile:
    """Samples in a file.

    Parameters
    ----------
    path : str
        File whose name ends in one of `FILE_SUFFIXES`.
    key : str or None, default=None
        Name of the array in an ``.npz``. None means the only one.
    columns : list of str or None, default=None
        Columns of a table that are features. None means all numeric columns.
    labels : str or None, default=None
        Column of a table with the labels.
    """

    path: str
    key: str | None = None
    columns: list[str] | None = None
    labels: str | None = None


class _UnreadableError(ValueError):
    """Says which file cannot be used, and why."""


class FileSource(Source):
    """Files. Features in an ``.npy`` are memory-mapped."""

    @staticmethod
    def recognises(X: Any, reader: Reader) -> bool:
        """Whether X names a file of samples."""
        return isinstance(X, SamplesFile)

    @staticmethod
    def open(X: SamplesFile, reader: Reader) -> Samples:
        """Return rows of numbers. Their values are checked by the estimator that opens them."""
        path = X.path
        try:
            if suffix(path) in TABLE_SUFFIXES:
                return _read_table(path, X.columns, X.labels)
            return _read_array(path, X.key)
        except _UnreadableError:
            raise
        except READ_ERRORS as error:
            reason = one_line(error)
            if "pickle" in reason:  # do not repeat NumPy's advice to allow pickles
                reason = "it is not an array, or it contains Python objects."
            raise ValueError(f"{path} cannot be read: {reason}") from None


def suffix(path) -> str:
    """Return the suffix of a file name, in lower case."""
    return os.path.splitext(path)[1].lower()


def quoted(names) -> str:
    """Return the names in quotes, separated by commas, for a message."""
    return ", ".join(map(repr, names)) or "none"


def _read_array(path, key) -> Samples:
    with open(path, "rb") as file:  # NumPy would leave a damaged file open
        if suffix(path) == ".npy" and file.read(len(NPY_MAGIC)) == NPY_MAGIC:
            return _samples_in_array(path, np.load(path, mmap_mode="r", allow_pickle=False), key)
        file.seek(0)
        return _samples_in_array(path, np.load(file, allow_pickle=False), key)


def _samples_in_array(path, loaded, key) -> Samples:
    # NumPy goes by the content, so an .npy may turn out to be an .npz and vice versa.
    if isinstance(loaded, np.lib.npyio.NpzFile):
        with loaded:
            if key is None and len(loaded.files) != 1:
                raise _UnreadableError(
                    f"{path} must contain one array, but it contains {quoted(loaded.files)}. "
                    "Choose one with --key."
                )
            if key is not None and key not in loaded.files:
                raise _UnreadableError(
                    f"{path} has no array {key!r}; it contains {quoted(loaded.files)}."
                )
            loaded = loaded[loaded.files[0] if key is None else key]
    if loaded.ndim != 2 or loaded.dtype.kind not in "biuf":
        got = f"shape {loaded.shape} and dtype {loaded.dtype}"
        raise _UnreadableError(
            f"{path} must contain a 2-d array of real numbers. Got {got} instead."
        )
    return Samples(loaded)


def _read_frame(path):
    try:
        import pandas as pd
    except ImportError:
        raise ImportError(f"{path} needs pandas: pip install 'sklearn-skmm[pandas]'.") from None
    # Pass an open file, because pandas would treat some names as network addresses.
    with open(path, "rb") as file:
        if suffix(path) == ".csv":
            frame = pd.read_csv(file, low_memory=False)
            numbers = [c for c in frame if re.fullmatch(r"[-+]?\d*\.\d+(e[-+]?\d+)?", c, re.I)]
            if numbers:  # otherwise all positions would be off by one
                raise _UnreadableError(
                    f"{path} must begin with a line of column names. Got {quoted(numbers)} instead."
                )
            return pd, frame
        try:
            return pd, pd.read_parquet(file, engine="pyarrow")
        except ImportError:
            raise ImportError(f"{path} needs pyarrow: pip install pyarrow.") from None


def _read_table(path, columns, labels) -> Samples:
    pd, frame = _read_frame(path)
    named = [*(columns or ()), *([] if labels is None else [labels])]
    if missing := [c for c in named if c not in frame.columns]:
        raise _UnreadableError(
            f"{path} has no column {quoted(missing)}; its columns are {quoted(frame)}."
        )

    def usable(column) -> bool:
        dtype = frame[column].dtype
        return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype)

    if columns is not None:
        if text := [c for c in columns if not usable(c)]:
            raise _UnreadableError(
                f"{path} has columns that are not numeric: {quoted(text)}. Leave them out of "
                "--columns."
            )
        kept, left_out = columns, []
    else:
        # pandas writes row labels as a column without a name, which is not a feature.
        index = "Unnamed: 0" if suffix(path) == ".csv" else None
        kept = [c for c in frame.columns if c not in (labels, index) and usable(c)]
        left_out = [str(c) for c in frame.columns if c != labels and c not in kept]
        if not kept:
            raise _UnreadableError(f"{path} has no numeric columns.")
    y = None
    if labels is not None:
        # Sorted as np.unique orders labels, because strata are selected from in that order.
        y = pd.factorize(frame[labels], sort=True)[0]
        if (y < 0).any():
            raise _UnreadableError(f"{path} has {(y < 0).sum()} missing labels in {labels!r}.")
    features = frame[kept]
    dtype = np.float32 if (features.dtypes == np.float32).all() else np.float64
    return Samples(features.to_numpy(dtype=dtype, na_value=np.nan), y, left_out=tuple(left_out))


def one_line(error) -> str:
    """Return the message of the error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
