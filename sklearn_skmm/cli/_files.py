"""What the command line reads and writes: pools from files, and files that come whole or not."""

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
# What an .npy begins with.
NPY_MAGIC = b"\x93NUMPY"
# What comes of files that are broken, in their headers or in what is compressed.
READ_ERRORS = (
    *(ValueError, EOFError, KeyError, TypeError, RuntimeError, SyntaxError, tokenize.TokenError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


class CommandError(Exception):
    """The reason why nothing was written."""


class Pool(NamedTuple):
    """What was read: the features, the codes of the labels if any, and what was left out."""

    X: np.ndarray
    y: np.ndarray | None = None
    left_out: tuple[str, ...] = ()


def suffix(path) -> str:
    """Return the ending of the name, in lower case."""
    return os.path.splitext(path)[1].lower()


def quoted(names) -> str:
    """Return the names for a message."""
    return ", ".join(map(repr, names)) or "none"


def _read_array(path, key) -> Pool:
    with open(path, "rb") as file:  # NumPy leaves it open where it is broken
        if suffix(path) == ".npy" and file.read(len(NPY_MAGIC)) == NPY_MAGIC:
            return _pool_from_array(path, np.load(path, mmap_mode="r", allow_pickle=False), key)
        file.seek(0)
        return _pool_from_array(path, np.load(file, allow_pickle=False), key)


def _pool_from_array(path, loaded, key) -> Pool:
    # NumPy goes by the content, so each kind of file may hold the other.
    if isinstance(loaded, np.lib.npyio.NpzFile):
        with loaded:
            if key is None and len(loaded.files) != 1:
                raise CommandError(f"{path} holds {quoted(loaded.files)}: choose one with --key.")
            if key is not None and key not in loaded.files:
                raise CommandError(f"{path} has no {key!r}, it holds {quoted(loaded.files)}.")
            loaded = loaded[loaded.files[0] if key is None else key]
    if loaded.ndim != 2 or loaded.dtype.kind not in "biuf":
        got = f"shape {loaded.shape} and dtype {loaded.dtype}"
        raise CommandError(f"{path} must be a 2-d array of real numbers, got {got}.")
    return Pool(loaded)


def _read_frame(path):
    try:
        import pandas as pd
    except ImportError:
        raise CommandError(f"{path} needs pandas: pip install 'sklearn-skmm[pandas]'.") from None
    # An open file, since pandas would take some names for addresses on the network.
    with open(path, "rb") as file:
        if suffix(path) == ".csv":
            frame = pd.read_csv(file, low_memory=False)
            numbers = [c for c in frame if re.fullmatch(r"[-+]?\d*\.\d+(e[-+]?\d+)?", c, re.I)]
            if numbers:  # or all positions would be off by one
                raise CommandError(
                    f"{path} must begin with the columns' names, got {quoted(numbers)}."
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
        raise CommandError(f"{path} has no {quoted(missing)}; its columns are {quoted(frame)}.")

    def usable(column) -> bool:
        dtype = frame[column].dtype
        return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype)

    if columns is not None:
        if text := [c for c in columns if not usable(c)]:
            raise CommandError(f"{path} has no numbers in {quoted(text)}.")
        kept, left_out = columns, []
    else:
        # A column without a name is the row labels that pandas wrote, no feature.
        index = "Unnamed: 0" if suffix(path) == ".csv" else None
        kept = [c for c in frame.columns if c not in (stratify, index) and usable(c)]
        left_out = [str(c) for c in frame.columns if c != stratify and c not in kept]
        if not kept:
            raise CommandError(f"{path} has no numeric columns.")
    y = None
    if stratify is not None:
        # Sorted, as np.unique would order them: the strata are drawn in that order.
        y = pd.factorize(frame[stratify], sort=True)[0]
        if (y < 0).any():
            raise CommandError(f"{path} lacks {(y < 0).sum()} of the labels in {stratify!r}.")
    features = frame[kept]
    dtype = np.float32 if (features.dtypes == np.float32).all() else np.float64
    return Pool(features.to_numpy(dtype=dtype, na_value=np.nan), y, tuple(left_out))


def read_pool(path, *, key=None, columns=None, stratify=None) -> Pool:
    """Read the pool.

    Parameters
    ----------
    path : str
        File whose name ends in one of `POOL_SUFFIXES`.
    key : str, default=None
        Name of the array in an ``.npz``; None takes the only one.
    columns : list of str, default=None
        Columns of a table that are the features; None is all that hold numbers.
    stratify : str, default=None
        Column of a table that holds the labels.

    Returns
    -------
    pool : Pool
        The features, which of an ``.npy`` stay in the file until used.

    Raises
    ------
    CommandError
        If there is no such thing in the file, or not what a pool is made of.
    """
    try:
        if suffix(path) in TABLE_SUFFIXES:
            return _read_table(path, columns, stratify)
        return _read_array(path, key)
    except READ_ERRORS as error:
        reason = one_line(error)
        if "pickle" in reason:  # NumPy's advice, to allow it, is not to be passed on
            reason = "it is no array, or one of Python objects."
        raise CommandError(f"{path} cannot be read: {reason}") from None


def _resolve_folder(path) -> str:
    """Resolve the folder, but not a link in the last place: that is what gets replaced."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder or "."), name)


def check_output_path(path, pool, *, force) -> None:
    """Refuse before the work what could not be written after it."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise CommandError(f"{path}: there is no folder {folder!r}.")
    if not os.access(folder, os.W_OK):
        raise CommandError(f"{path}: the folder {folder!r} cannot be written to.")
    if _resolve_folder(path) in (_resolve_folder(pool), os.path.realpath(pool)):
        raise CommandError(f"{path} is the pool itself.")
    if os.path.lexists(path) and not os.path.islink(path) and not os.path.isfile(path):
        raise CommandError(f"{path} exists and is no regular file.")
    if os.path.lexists(path) and not force:
        raise CommandError(f"{path} exists: --force replaces it.")


class StagedFiles:
    """Files that keep a temporary name, beside their own, until all of them are whole."""

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
        """Open a new file that is to become `path`."""
        name = os.path.join(os.path.dirname(path), f".{PROG}-{secrets.token_hex(8)}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._files.append((name, path))  # first, for Ctrl-C may come as soon as it is there
        try:
            descriptor = os.open(name, flags, 0o666)
        except FileExistsError:
            self._files.pop()  # another's
            raise
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            error.filename = error.filename or path  # which a write or a flush does not know
            raise

    def publish(self) -> None:
        """Give the files their names; without force none that has come to exist meanwhile."""
        for name, path in self._files:
            if self._force:
                os.replace(name, path)
                continue
            try:
                try:
                    os.link(name, path)  # fails where there is anything, a link included
                except FileExistsError:
                    raise
                except OSError:  # a file system without hard links: take the name, then fill it
                    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
                    try:
                        os.close(descriptor)
                        os.replace(name, path)
                    except BaseException:
                        os.unlink(path)  # empty
                        raise
            except FileExistsError:
                raise CommandError(f"{path} exists: --force replaces it.") from None


def one_line(error) -> str:
    """Return the error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
