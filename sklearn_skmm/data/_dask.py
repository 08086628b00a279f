"""Dask arrays: gathered once, in memory or in a file, or left lazy.

Dask is an extra. Nothing here imports it before somebody passes a Dask array.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from sklearn_skmm.data._arrays import ArraySource
from sklearn_skmm.data._samples import Reader, Samples, Source
from sklearn_skmm.utils._memory import available_memory

# Bytes of rows that are computed at a time when they are written to a file.
PART = 2**28


def is_dask(X: Any) -> bool:
    """Whether X is a Dask array; Dask is not imported to find out.

    Examples
    --------
    >>> is_dask([1.0])
    False
    """
    dask_array = sys.modules.get("dask.array")
    return dask_array is not None and isinstance(X, dask_array.Array)


class DaskSource(Source):
    """Dask arrays."""

    @staticmethod
    def recognises(X: Any, reader: Reader) -> bool:
        """Whether X is a Dask array."""
        return is_dask(X)

    @staticmethod
    def open(X: Any, reader: Reader) -> Samples:
        """Return all rows, gathered, or with ``lazy=True`` the array with its rows in chunks."""
        if not reader.lazy:
            X, place = gather(X, reader.dtypes)
            samples = ArraySource.open(X, reader)
            samples.gathered = place
            return samples
        X = in_row_chunks(X, reader.name)
        if len(X) == 0:
            raise ValueError(
                f"Found {reader.name} with 0 sample(s) while a minimum of 1 is required."
            )
        if reader.reset:
            return Samples(X, lazy=True, head=ArraySource.open(X[:2].compute(), reader))
        if X.ndim <= 2:  # the number of features, without computing anything
            validate_data(reader.estimator, X, reset=False, skip_check_array=True)
        return Samples(X, lazy=True)


def gather(X: Any, dtypes: Sequence[type]) -> tuple[Any, str]:
    """Compute a Dask array once, into memory or into a file.

    Parameters
    ----------
    X : dask.array.Array
        Rows that a selector reads more than once.
    dtypes : sequence of type
        Dtypes that the selector works in. Any other is cast to the first, chunk by chunk.

    Returns
    -------
    X : array
        A NumPy array or memory map, or an array of the kind of the chunks.
    place : {"memory", "file"}
        Where the rows are. They are in a file if X takes more than half of the available memory.
        The file has no name, is in the folder of Dask's setting ``temporary-directory`` or in that
        of the system, and is removed when nothing reads it any more.

    Raises
    ------
    ValueError
        If X takes more than half of the available memory, and either does not fit into that
        folder or its chunks are not NumPy arrays.
    OSError
        If the folder fills up before all rows are written. Nothing is left there.
    """
    import dask

    check_known(X, "X")
    if X.dtype.kind in "biuf" and X.dtype not in dtypes:
        X = X.astype(dtypes[0])
    available = available_memory()
    # Half, because Dask holds the chunks and the whole at the same time when it joins them.
    if available is None or 2 * X.nbytes <= available:
        return X.compute(), "memory"
    folder = dask.config.get("temporary-directory", None) or tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if X.nbytes > free or not isinstance(X._meta, np.ndarray) or X.ndim != 2:
        raise ValueError(
            f"X is a Dask array of {X.nbytes / 2**20:,.1f} MiB, but must take at most half of the "
            f"{available / 2**20:,.1f} MiB of memory that are available, or, if its chunks are "
            f"NumPy arrays, the {free / 2**20:,.1f} MiB that are free for temporary files. Use "
            "fewer features (a GradientSketcher with a smaller m), use float32, or set "
            "'temporary-directory' in dask.config to a larger disk."
        )
    return _in_a_file(X, folder), "file"


def _in_a_file(X: Any, folder: str) -> np.ndarray:
    """Write a Dask array to a file without a name, some chunks at a time, and map it to memory."""
    X = in_row_chunks(X, "X")
    ends = np.cumsum(X.chunks[0])
    row_bytes = max(1, X.nbytes // max(1, len(X)))
    # Unbuffered, because flushing a buffer would fail once more when the file is closed.
    with tempfile.TemporaryFile(buffering=0, dir=folder) as file:
        start = 0
        while start < len(X):
            # As many chunks as fit into PART, but at least one. They are computed in parallel.
            last = np.searchsorted(ends, start + PART // row_bytes, side="right")
            stop = int(max(ends[last - 1] if last else 0, ends[ends > start][0]))
            _write(file, np.ascontiguousarray(X[start:stop].compute()), folder)
            start = stop
        return np.memmap(file, dtype=X.dtype, mode="r", shape=X.shape)


def _write(file: Any, rows: np.ndarray, folder: str) -> None:
    """Write all rows, or raise OSError with advice."""
    data = rows.reshape(-1).view(np.uint8).data
    try:
        while data:
            data = data[file.write(data) :]  # a write may be partial
    except OSError as error:
        raise OSError(
            error.errno,
            "X is a Dask array that does not fit into memory and could not be written to a "
            f"temporary file in {folder!r}: {error.strerror or error}. The file was removed. "
            "Free some space, or set 'temporary-directory' in dask.config to a larger disk.",
        ) from error


def compute_by_rows(X: Any, function: Callable, positions: np.ndarray) -> tuple[list, Any]:
    """Compute a function of each chunk of rows, and the rows at some positions, in one pass.

    Parameters
    ----------
    X : dask.array.Array
        Rows. They are never in memory all at once.
    function : callable
        Takes a chunk of rows.
    positions : ndarray of int
        Positions of the rows to return.

    Returns
    -------
    results : list
        What the function returned for each chunk.
    rows : array
        The rows at the positions.
    """
    import dask

    X = in_row_chunks(X, "X")
    tasks = [dask.delayed(function)(block) for block in X.to_delayed().ravel()]
    return dask.compute(tasks, X[positions])


def in_row_chunks(X: Any, name: str) -> Any:
    """Return X chunked along its first axis only."""
    check_known(X, name)
    return X.rechunk(dict.fromkeys(range(1, X.ndim), -1))


def check_known(X: Any, name: str) -> None:
    """Refuse chunks of unknown size."""
    if np.isnan(X.shape).any():
        raise ValueError(
            f"{name} must be a Dask array with chunks of known size. Got shape {X.shape}. "
            f"Call {name}.compute_chunk_sizes() first."
        )
