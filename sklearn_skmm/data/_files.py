"""Files of samples: .npy and .npz, sparse matrices too, and tables in CSV and Parquet."""

import csv
import os
import re
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_skmm.data._samples import Reader, Samples, Source
from sklearn_skmm.data._weights import read_costs, read_weights

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
        Name of the array in an ``.npz``. None means the only one, or the sparse matrix that
        `scipy.sparse.save_npz` wrote.
    columns : list of str or None, default=None
        Columns of a table that are features: numbers, or lists of equally many numbers. None means
        the column of lists if there is one, and otherwise all numeric columns.
    labels : str or None, default=None
        Column of a table with the labels.
    weight : str or None, default=None
        Column of a table with the weights of the samples.
    cost : str or None, default=None
        Column of a table with the costs of the samples.
    """

    path: str
    key: str | None = None
    columns: list[str] | None = None
    labels: str | None = None
    weight: str | None = None
    cost: str | None = None


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
                return _read_table(X)
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
            if key is None and _is_sparse(loaded):
                return Samples(_read_sparse(path))
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
    _check_numbers(path, loaded, "array")
    return Samples(loaded)


def _check_numbers(path, loaded, kind) -> None:
    if loaded.ndim != 2 or loaded.dtype.kind not in "biuf":
        got = f"shape {loaded.shape} and dtype {loaded.dtype}"
        raise _UnreadableError(
            f"{path} must contain a 2-d {kind} of real numbers. Got {got} instead."
        )


def _is_sparse(arrays) -> bool:
    """Whether these are the arrays that `scipy.sparse.save_npz` writes."""
    if not {"format", "shape", "data"} <= set(arrays.files):
        return False
    name = arrays["format"]
    return name.ndim == 0 and name.dtype.kind in "SU"


def _read_sparse(path) -> sparse.csr_array:
    with open(path, "rb") as file:
        try:
            loaded = sparse.load_npz(file)  # without pickle
        except NotImplementedError as error:  # another format
            raise _UnreadableError(f"{path} cannot be read: {one_line(error)}") from None
    _check_numbers(path, loaded, "sparse matrix")
    if hasattr(loaded, "check_format"):  # positions outside of the matrix would be read as they are
        loaded.check_format(full_check=True)
    rows = sparse.csr_array(loaded)
    rows.check_format(full_check=True)
    return rows


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


def _read_table(file: SamplesFile) -> Samples:
    path, columns, labels = file.path, file.columns, file.labels
    pd, frame = _read_frame(path)
    special = {labels, file.weight, file.cost}  # no features
    named = [*(columns or ()), *([] if labels is None else [labels])]
    if missing := [c for c in named if c not in frame.columns]:
        raise _UnreadableError(
            f"{path} has no column {quoted(missing)}; its columns are {quoted(frame)}."
        )

    def is_number(column) -> bool:
        dtype = frame[column].dtype
        return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype)

    def numbers(option, column, check):
        if column is None:
            return None
        said = f"{path} with --{option} {column!r}: "
        if column not in frame.columns:
            raise _UnreadableError(f"{said}no such column; its columns are {quoted(frame)}.")
        if not is_number(column):
            raise _UnreadableError(f"{said}the column must hold numbers.")
        values = frame[column].to_numpy(dtype=np.float64, na_value=np.nan)
        try:
            check(values, len(frame))
        except ValueError as error:
            raise _UnreadableError(said + one_line(error)) from None
        return values

    weight = numbers("weight", file.weight, read_weights)
    cost = numbers("cost", file.cost, read_costs)
    lists = [c for c in frame.columns if c not in special and _holds_lists(frame[c])]
    if columns is not None:
        if text := [c for c in columns if not is_number(c) and c not in lists]:
            raise _UnreadableError(
                f"{path} has columns that are not numeric: {quoted(text)}. Leave them out of "
                "--columns."
            )
        kept, left_out = columns, []
    else:
        if len(lists) > 1:
            raise _UnreadableError(
                f"{path} must have at most one column of lists, but it has {quoted(lists)}. Choose "
                "with --columns."
            )
        # pandas writes row labels as a column without a name, which is not a feature.
        index = "Unnamed: 0" if suffix(path) == ".csv" else None
        # Beside an embedding, numbers are identifiers or metadata more often than features.
        kept = lists or [c for c in frame.columns if c not in {index, *special} and is_number(c)]
        left_out = [str(c) for c in frame.columns if c not in special and c not in kept]
        if not kept:
            raise _UnreadableError(f"{path} has no numeric columns.")
    y = None
    if labels is not None:
        # Sorted as np.unique orders labels, because strata are selected from in that order.
        y = pd.factorize(frame[labels], sort=True)[0]
        if (y < 0).any():
            raise _UnreadableError(f"{path} has {(y < 0).sum()} missing labels in {labels!r}.")
    if not set(kept) & set(lists):
        features = frame[kept]
        dtype = np.float32 if (features.dtypes == np.float32).all() else np.float64
        X = features.to_numpy(dtype=dtype, na_value=np.nan)
    else:
        parts = [
            _entries(path, c, frame[c]) if c in lists else frame[[c]].to_numpy(na_value=np.nan)
            for c in kept
        ]
        single = all(part.dtype == np.float32 for part in parts)
        dtype = np.float32 if single else np.float64
        X = np.concatenate([part.astype(dtype, copy=False) for part in parts], axis=1)
    samples = Samples(X, y, weight=weight, cost=cost, left_out=tuple(left_out))
    if columns is None and lists:
        samples.left_out_as = f"beside the lists in {lists[0]!r}"
    return samples


def _holds_lists(column) -> bool:
    """Whether the values of a column are lists of numbers, as embeddings are."""
    if column.dtype.kind != "O":
        return False
    first = next((value for value in column if value is not None), None)
    if not isinstance(first, np.ndarray | list):
        return False
    first = np.asarray(first)
    return first.ndim == 1 and first.dtype.kind in "biuf"


def _entries(path, name, column) -> np.ndarray:
    """Return a column of lists as rows."""
    values = list(column)
    if missing := sum(not isinstance(value, np.ndarray | list) for value in values):
        raise _UnreadableError(f"{path} has {missing} missing lists in {name!r}.")
    lengths = {len(value) for value in values}
    if len(lengths) > 1:
        raise _UnreadableError(
            f"{path} must have lists of equal length in {name!r}. Got lengths from {min(lengths)} "
            f"to {max(lengths)} instead. Leave it out with --columns."
        )
    rows = np.stack(values)
    if rows.dtype.kind not in "biuf":  # a missing entry
        rows = rows.astype(np.float64)
    return rows


def read_positions(path: str) -> np.ndarray:
    """Return the positions, or the mask, in a file: an output of the command line, or a column.

    Parameters
    ----------
    path : str
        An ``.npy`` with a 1-d array or a field ``index``, or a table in Parquet or CSV with a
        column ``index`` or a single column. A single column of a CSV needs no name.

    Returns
    -------
    positions : ndarray
        Not checked, except that a CSV holds integers or Booleans.

    Raises
    ------
    ValueError
        If the file cannot be read, or it is not clear which column is meant.
    """
    kind = suffix(path)
    try:
        if kind == ".npy":
            loaded = np.load(path, allow_pickle=False)
            names = loaded.dtype.names
            return loaded if names is None else loaded[_column_of_positions(names)]
        if kind == ".parquet":
            frame = _read_frame(path)[1]
            return frame[_column_of_positions(list(frame))].to_numpy()
        with open(path, newline="", encoding="utf-8-sig") as file:
            return _positions_in_csv([row for row in csv.reader(file) if row])
    except (*READ_ERRORS, csv.Error) as error:
        reason = one_line(error)
        if "pickle" in reason:
            reason = "it is not an array, or it contains Python objects."
        raise ValueError(reason) from None


def _column_of_positions(names) -> str:
    if "index" not in names and len(names) != 1:
        raise ValueError(
            f"there must be a column 'index' or a single column. Got columns {quoted(names)} "
            "instead."
        )
    return "index" if "index" in names else names[0]


def _positions_in_csv(rows) -> np.ndarray:
    if not rows:
        raise ValueError("the file is empty.")
    values = {"true": True, "false": False}
    whole = re.compile(r"[-+]?\d{1,18}")
    head = rows[0]
    unnamed = len(head) == 1 and (head[0].lower() in values or whole.fullmatch(head[0]))
    k = 0 if unnamed else head.index(_column_of_positions(head))
    rows = rows if unnamed else rows[1:]
    if any(len(row) != len(head) for row in rows):
        raise ValueError(f"all lines must have {len(head)} values, as the first one has.")
    texts = [row[k].strip() for row in rows]
    if texts and all(text.lower() in values for text in texts):
        return np.array([values[text.lower()] for text in texts])
    if bad := [text for text in texts if not whole.fullmatch(text)]:
        raise ValueError(f"positions must be integers, or a mask True and False. Got {bad[0]!r}.")
    return np.array([int(text) for text in texts], dtype=np.int64)


def one_line(error) -> str:
    """Return the message of the error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
