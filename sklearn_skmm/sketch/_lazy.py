"""The sketch of a Dask array: lazy, chunk by chunk."""

import copy
from typing import Any

import numpy as np

from sklearn_skmm.data._dask import in_row_chunks, is_dask


def sketch_lazily(sketcher: Any, X: Any, y: Any) -> Any:
    """Return the sketch of a Dask array as a lazy Dask array.

    Each chunk of rows is sketched separately. Errors that show in the shapes are raised at once,
    and all others when the sketch is computed.

    Parameters
    ----------
    sketcher : GradientSketcher
        A fitted sketcher, as it is now: later changes to it do not matter. The model is shared,
        and must not be changed until the sketch is computed.
    X : dask.array.Array of shape (n_samples, ...)
        Opened samples, chunked along the first axis only.
    y : dask.array.Array or array-like of shape (n_samples, ...), or None
        Labels, used with ``target="label"`` only.

    Returns
    -------
    sketch : dask.array.Array of shape (n_samples, m)
        Has the same chunks along the first axis as X.
    """
    import dask
    import dask.array as da

    if sketcher.cache_dir is not None:
        # The cache numbers its blocks within one process.
        raise ValueError(
            "The 'cache_dir' parameter must be None for Dask arrays. Got "
            f"cache_dir={str(sketcher.cache_dir)!r}. To store the sketch while it is computed, use "
            "a method of the Dask array such as to_zarr."
        )
    gradients = sketcher._gradients()
    inputs = [X, ("sample", *(f"X{axis}" for axis in range(1, X.ndim)))]
    if gradients.needs_labels:
        y = _labels(y, X, gradients.no_labels)
        inputs += [y, ("sample", *(f"y{axis}" for axis in range(1, y.ndim)))]
    starts = np.cumsum((0, *X.chunks[0][:-1]))
    # All blocks depend on one key of the graph, so that a scheduler sends the model to each worker
    # once. Callbacks cannot leave their process.
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
        meta=np.empty((0, 0), dtype=gradients.sketch_dtype(X)),
    )


def _sketch_block(sketcher: Any, start: Any, X: Any, y: Any = None) -> np.ndarray:
    """Return the sketch of one chunk of rows."""
    X, gradients = _unwrapped(X), sketcher._gradients()
    if X.shape[0] == 0:  # filtering leaves empty chunks
        return np.empty((0, sketcher.projection_.m), dtype=gradients.sketch_dtype(X))
    samples = gradients.open(X, sketcher, reset=False)
    return sketcher._sketch(samples, _unwrapped(y), int(start[0]))


def _unwrapped(block: Any) -> Any:
    """Return a block without the list that Dask adds for each axis that is not in the output.

    These axes have one chunk each. Letting Dask concatenate it would copy the block.
    """
    while isinstance(block, list):
        (block,) = block
    return block


def _labels(y: Any, X: Any, no_labels: str) -> Any:
    """Return y as a Dask array with the chunks of X; `no_labels` is the error if it is None."""
    import dask.array as da

    if y is None:
        raise ValueError(no_labels)
    y = in_row_chunks(y if is_dask(y) else da.from_array(np.asarray(y), chunks=-1), "y")
    if len(y) != len(X):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {[len(X), len(y)]}"
        )
    return y.rechunk({0: X.chunks[0]})
