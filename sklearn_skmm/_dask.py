"""Dask arrays: sketched lazily, chunk by chunk, and gathered once for selection.

What does not fit into memory is gathered in a file, which selection reads by blocks.

Dask is an extra. Nothing here imports it before somebody passes a Dask array.
"""

import copy
import shutil
import sys
import tempfile
import threading
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from sklearn_skmm._memory import available_memory

# Threads of Dask's local scheduler share the model, whose mode is switched and whose layers get
# hooks while a block is sketched: one block at a time in each process. Torch has its own threads.
_MODEL = threading.Lock()
# Bytes of the rows that are computed at a time on their way into a file.
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


def first_rows(X: Any, k: int = 2) -> Any:
    """Return the first k samples of a Dask array, computed.

    Parameters
    ----------
    X : dask.array.Array
        Samples along the first axis.
    k : int, default=2
        How many; fewer if there are fewer.

    Returns
    -------
    rows : array of shape (k, ...)
        NumPy's, or what the chunks are.
    """
    _check_known(X, "X")
    return X[:k].compute()


def sketch_lazily(sketcher: Any, X: Any, y: Any) -> Any:
    """Return the sketch of a Dask array, as a Dask array of which nothing is computed.

    Each chunk of rows is sketched by itself. What can be refused by looking at shapes is refused
    now, the rest when the sketch is computed.

    Parameters
    ----------
    sketcher : GradientSketcher
        Fitted. The sketch is that of now, whatever is done to the sketcher before it is computed;
        the model is shared, and is not to be changed until then.
    X : dask.array.Array of shape (n_samples, ...)
        Samples.
    y : dask.array.Array or array-like of shape (n_samples, ...), or None
        Labels, for target "label" only.

    Returns
    -------
    sketch : dask.array.Array of shape (n_samples, m)
        Chunked along the first axis as X is.
    """
    import dask
    import dask.array as da

    if sketcher.cache_dir is not None:
        # Blocks of the cache are numbered in one process.
        raise ValueError(
            "The 'cache_dir' parameter is not for Dask arrays, got "
            f"cache_dir={str(sketcher.cache_dir)!r}. Store the sketch as it is computed, for "
            "instance with its to_zarr, or set cache_dir=None."
        )
    X = _rows(X, "X")
    if len(X) == 0:
        raise ValueError("Found X with 0 sample(s) while a minimum of 1 is required.")
    if X.ndim <= 2:
        validate_data(sketcher, X, reset=False, skip_check_array=True)  # number of features
    dtype = _sketch_dtype(sketcher, X)
    inputs = [X, ("sample", *(f"X{axis}" for axis in range(1, X.ndim)))]
    if sketcher.model is not None and sketcher._resolve_target() == "label":
        y = _labels(sketcher, y, X)
        inputs += [y, ("sample", *(f"y{axis}" for axis in range(1, y.ndim)))]
    starts = np.cumsum((0, *X.chunks[0][:-1]))
    # One key of the graph, on which all blocks depend: a scheduler sends the model to each worker
    # once, and again to one that takes the place of another. Callbacks hold on to their process.
    sent = copy.copy(sketcher)
    for name in [name for name in vars(sent) if "callback" in name]:
        delattr(sent, name)
    return da.blockwise(
        _sketch_block,
        ("sample", "m"),
        dask.delayed(sent, pure=False, traverse=False),
        None,
        da.from_array(starts, chunks=1),
        ("sample",),
        *inputs,
        new_axes={"m": sketcher.projection_.m},
        adjust_chunks={"sample": X.chunks[0]},
        # `starts` has one entry for each chunk of X: as many blocks, of other sizes.
        align_arrays=False,
        meta=np.empty((0, 0), dtype=dtype),
    )


def gather(X: Any, dtypes: list[type]) -> tuple[Any, str]:
    """Return a Dask array in memory or in a file, computed once.

    Parameters
    ----------
    X : dask.array.Array
        What a selector reads more than once.
    dtypes : list of type
        Those that the selector works in. Numbers of another are taken to the first, chunk by chunk.

    Returns
    -------
    X : array
        NumPy's, or what the chunks are.
    place : {"memory", "file"}
        Where it is. A file if X takes more than half of the memory that is available; it has no
        name, lies in the folder that Dask's setting ``temporary-directory`` names, or in the
        system's, and is gone when nobody reads it any more.

    Raises
    ------
    ValueError
        If X takes more than half of the available memory, and more than there is room for in that
        folder, or its chunks are not NumPy's.
    OSError
        If the folder is full before all is written. Nothing is left there.
    """
    import dask

    _check_known(X, "X")
    if X.dtype.kind in "biuf" and X.dtype not in dtypes:
        X = X.astype(dtypes[0])
    available = available_memory()
    # Half, for while Dask puts the chunks together they are in memory beside the whole.
    if available is None or 2 * X.nbytes <= available:
        return X.compute(), "memory"
    folder = dask.config.get("temporary-directory", None) or tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if X.nbytes > free or not isinstance(X._meta, np.ndarray) or X.ndim != 2:
        raise ValueError(
            f"X is a Dask array of {X.nbytes / 2**20:,.1f} MiB. A selector takes at most half of "
            f"the {available / 2**20:,.1f} MiB of memory that are available, or, of chunks that "
            f"are NumPy arrays, the {free / 2**20:,.1f} MiB that are free for temporary files. Use "
            "fewer features, as a GradientSketcher with a smaller m gives, or float32, or set "
            "'temporary-directory' in dask.config to a larger disk."
        )
    return _in_a_file(X, folder), "file"


def _in_a_file(X: Any, folder: str) -> np.ndarray:
    """Return the rows of a Dask array from a file without a name, written some chunks at a time."""
    X = _rows(X, "X")
    ends = np.cumsum(X.chunks[0])
    row_bytes = max(1, X.nbytes // max(1, len(X)))
    # Without a buffer, which would be flushed, and fail, once more when the file is closed.
    with tempfile.TemporaryFile(buffering=0, dir=folder) as file:
        start = 0
        while start < len(X):
            # As many chunks as PART holds, and one at least: they are computed side by side.
            last = np.searchsorted(ends, start + PART // row_bytes, side="right")
            stop = int(max(ends[last - 1] if last else 0, ends[ends > start][0]))
            _write(file, np.ascontiguousarray(X[start:stop].compute()), folder)
            start = stop
        return np.memmap(file, dtype=X.dtype, mode="r", shape=X.shape)


def _write(file: Any, rows: np.ndarray, folder: str) -> None:
    """Write all of the rows, or raise OSError with what to do."""
    data = rows.reshape(-1).view(np.uint8).data
    try:
        while data:
            data = data[file.write(data) :]  # a part, if there is room for no more
    except OSError as error:
        raise OSError(
            error.errno,
            "X is a Dask array that does not fit into memory, and could not be written to a "
            f"temporary file in {folder!r}: {error.strerror or error}. Nothing of it is left "
            "there. Make room, or set 'temporary-directory' in dask.config to a larger disk.",
        ) from error


def _sketch_block(sketcher: Any, start: Any, X: Any, y: Any = None) -> np.ndarray:
    """Return the sketch of one chunk of rows."""
    X = _unwrapped(X)
    if X.shape[0] == 0:  # as filtering leaves behind
        return np.empty((0, sketcher.projection_.m), dtype=_sketch_dtype(sketcher, X))
    if sketcher.model is None:
        return sketcher._sketch(X, None, int(start[0]))
    with _MODEL:
        return sketcher._sketch(X, _unwrapped(y), int(start[0]))


def _unwrapped(block: Any) -> Any:
    """Return a block without the list that Dask adds for each axis that is not in the output.

    There is one chunk along these; Dask would concatenate it, which is a copy.
    """
    while isinstance(block, list):
        (block,) = block
    return block


def _rows(X: Any, name: str) -> Any:
    """Return X chunked along its first axis only."""
    _check_known(X, name)
    return X.rechunk(dict.fromkeys(range(1, X.ndim), -1))


def _labels(sketcher: Any, y: Any, X: Any) -> Any:
    """Return y as a Dask array with the chunks of X."""
    import dask.array as da

    if y is None:
        raise ValueError(sketcher._gradients().NO_LABELS)
    y = _rows(y if is_dask(y) else da.from_array(np.asarray(y), chunks=-1), "y")
    if len(y) != len(X):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {[len(X), len(y)]}"
        )
    return y.rechunk({0: X.chunks[0]})


def _check_known(X: Any, name: str) -> None:
    if np.isnan(X.shape).any():
        raise ValueError(
            f"{name} is a Dask array with chunks of unknown size, got shape {X.shape}. "
            f"Call {name}.compute_chunk_sizes() first."
        )


def _sketch_dtype(sketcher: Any, X: Any) -> np.dtype:
    """Return the dtype of the sketch, which Dask needs to know beforehand."""
    if sketcher.model is not None:
        engine = sketcher._engine(sketcher._gradients(), sketcher._seed)
        return engine.numpy_dtype
    if sketcher.dtype is not None:
        return np.dtype(sketcher.dtype)
    return X.dtype if X.dtype in (np.float32, np.float64) else np.dtype(np.float64)
