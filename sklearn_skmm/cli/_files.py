"""Files of the command line: reading pools, and writing output atomically."""

import os
import re
import secrets
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, NamedTuple

import numpy as np

PROG = "sklearn-skmm"
TABLE_SUFFIXES = (".csv", ".parquet")
POOL_SUFFIXES = (".npy", ".npz", *TABLE_SUFFIXES)
# First bytes of an .npy file.
NPY_MAGIC = b"\x93NUMPY"
# Errors that reading a damaged file may raise.
READ_ERRORS = (
    *(ValueError, EOFError, KeyError, TypeError, RuntimeError, SyntaxError, tokenize.TokenError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


class CommandError(Exception):
    """An error to report in one line; nothing was written."""


class Pool(NamedTuple):
    """What was read: features, label codes if any, and names of the columns not used."""

    X: np.ndarray
    y: np.ndarray | None = None
    left_out: tuple[str, ...] = ()


def suffix(path) -> str:
    """Return the suffix of a file name, in lower case."""
    return os.path.splitext(path)[1].lower()


def quoted(names) -> str:
    """Return the names in quotes, separated by commas, for a message."""
    return ", ".join(map(repr, names)) or "none"


def _read_array(path, key) -> Pool:
    with open(path, "rb") as file:  # NumPy would leave a damaged file open
        if suffix(path) == ".npy" and file.read(len(NPY_MAGIC)) == NPY_MAGIC:
            return _pool_from_array(path, np.load(path, mmap_mode="r", allow_pickle=False), key)
        file.seek(0)
        return _pool_from_array(path, np.load(file, allow_pickle=False), key)


def _pool_from_array(path, loaded, key) -> Pool:
    # NumPy goes by the content, so an .npy may turn out to be an .npz and vice versa.
    if isinstance(loaded, np.lib.npyio.NpzFile):
        with loaded:
            if key is None and len(loaded.files) != 1:
                raise CommandError(
                    f"{path} must contain one array, but it contains {quoted(loaded.files)}. "
                    "Choose one with --key."
                )
            if key is not None and key not in loaded.files:
                raise CommandError(
                    f"{path} has no array {key!r}; it contains {quoted(loaded.files)}."
                )
            loaded = loaded[loaded.files[0] if key is None else key]
    if loaded.ndim != 2 or loaded.dtype.kind not in "biuf":
        got = f"shape {loaded.shape} and dtype {loaded.dtype}"
        raise CommandError(f"{path} must contain a 2-d array of real numbers. Got {got} instead.")
    return Pool(loaded)


def _read_frame(path):
    try:
        import pandas as pd
    except ImportError:
        raise CommandError(f"{path} needs pandas: pip install 'sklearn-skmm[pandas]'.") from None
    # Pass an open file, because pandas would treat some names as network addresses.
    with open(path, "rb") as file:
        if suffix(path) == ".csv":
            frame = pd.read_csv(file, low_memory=False)
            numbers = [c for c in frame if re.fullmatch(r"[-+]?\d*\.\d+(e[-+]?\d+)?", c, re.I)]
            if numbers:  # otherwise all positions would be off by one
                raise CommandError(
                    f"{path} must begin with a line of column names. Got {quoted(numbers)} instead."
                )
            return pd, frame
        try:
            return pd, pd.read_parquet(file, engine="pyarrow")
        except ImportError:
            raise CommandError(f"{path} needs pyarrow: pip install pyarrow.") from None


def _read_table(path, columns, stratify) -> Pool:
    pd, frame = _read_frame(path)
    named = [*(columns or ()), *([] if stratify is None else [stratify])]
    if missing := [c for c in named if c not in frame.columns]:
        raise CommandError(
            f"{path} has no column {quoted(missing)}; its columns are {quoted(frame)}."
        )

    def usable(column) -> bool:
        dtype = frame[column].dtype
        return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype)

    if columns is not None:
        if text := [c for c in columns if not usable(c)]:
            raise CommandError(
                f"{path} has columns that are not numeric: {quoted(text)}. Leave them out of "
                "--columns."
            )
        kept, left_out = columns, []
    else:
        # pandas writes row labels as a column without a name, which is not a feature.
        index = "Unnamed: 0" if suffix(path) == ".csv" else None
        kept = [c for c in frame.columns if c not in (stratify, index) and usable(c)]
        left_out = [str(c) for c in frame.columns if c != stratify and c not in kept]
        if not kept:
            raise CommandError(f"{path} has no numeric columns.")
    y = None
    if stratify is not None:
        # Sorted as np.unique orders labels, because strata are selected from in that order.
        y = pd.factorize(frame[stratify], sort=True)[0]
        if (y < 0).any():
            raise CommandError(f"{path} has {(y < 0).sum()} missing labels in {stratify!r}.")
    features = frame[kept]
    dtype = np.float32 if (features.dtypes == np.float32).all() else np.float64
    return Pool(features.to_numpy(dtype=dtype, na_value=np.nan), y, tuple(left_out))


def read_pool(path, *, key=None, columns=None, stratify=None) -> Pool:
    """Read the pool from a file.

    Parameters
    ----------
    path : str
        File whose name ends in one of `POOL_SUFFIXES`.
    key : str, default=None
        Name of the array in an ``.npz``. None means the only one.
    columns : list of str, default=None
        Columns of a table to use as features. None means all numeric columns.
    stratify : str, default=None
        Column of a table with the labels.

    Returns
    -------
    pool : Pool
        The pool. Features in an ``.npy`` are memory-mapped.

    Raises
    ------
    CommandError
        If the file cannot be read, or does not contain a pool or what was asked for.
    """
    try:
        if suffix(path) in TABLE_SUFFIXES:
            return _read_table(path, columns, stratify)
        return _read_array(path, key)
    except READ_ERRORS as error:
        reason = one_line(error)
        if "pickle" in reason:  # do not repeat NumPy's advice to allow pickles
            reason = "it is not an array, or it contains Python objects."
        raise CommandError(f"{path} cannot be read: {reason}") from None


def _resolve_folder(path) -> str:
    """Resolve links in the folder, but not the file itself: a link is replaced, not its target."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder or "."), name)


def check_output_path(path, pool, *, force) -> None:
    """Raise an error, before the selection starts, if the output could not be written."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise CommandError(f"{path} cannot be written: the folder {folder!r} does not exist.")
    if not os.access(folder, os.W_OK):
        raise CommandError(
            f"{path} cannot be written: no permission to write to the folder {folder!r}."
        )
    if _resolve_folder(path) in (_resolve_folder(pool), os.path.realpath(pool)):
        raise CommandError(f"{path} is the pool itself, which is never replaced.")
    if os.path.lexists(path) and not os.path.islink(path) and not os.path.isfile(path):
        raise CommandError(f"{path} exists and is not a regular file.")
    if os.path.lexists(path) and not force:
        raise CommandError(f"{path} exists. Use --force to replace it.")


class StagedFiles:
    """Output files that keep temporary names until all of them are complete."""

    def __init__(self, force: bool):
        self._force = force
        self._files: list[tuple[str, str]] = []

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for name, _ in self._files:
            with suppress(FileNotFoundError):
                os.unlink(name)

    @contextmanager
    def open(self, path) -> Iterator[BinaryIO]:
        """Open a temporary file that `publish` renames to `path`."""
        name = os.path.join(os.path.dirname(path), f".{PROG}-{secrets.token_hex(8)}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._files.append((name, path))  # before creating it: Ctrl-C may follow at once
        try:
            descriptor = os.open(name, flags, 0o666)
        except FileExistsError:
            self._files.pop()  # it belongs to another process
            raise
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            error.filename = error.filename or path  # a write or flush does not set it
            raise

    def publish(self) -> None:
        """Rename the files; without force, raise an error if a name has been taken meanwhile."""
        for name, path in self._files:
            if self._force:
                os.replace(name, path)
                continue
            try:
                try:
                    os.link(name, path)  # fails if anything exists there, even a link
                except FileExistsError:
                    raise
                except OSError:  # without hard links, reserve the name and then replace the file
                    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
                    try:
                        os.close(descriptor)
                        os.replace(name, path)
                    except BaseException:
                        os.unlink(path)  # the empty file that reserved the name
                        raise
            except FileExistsError:
                raise CommandError(f"{path} exists. Use --force to replace it.") from None


def one_line(error) -> str:
    """Return the message of the error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
