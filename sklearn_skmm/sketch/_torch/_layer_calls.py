"""Calls of layers in a forward pass, and how parameters are used in the autograd graph."""

from typing import Any, NamedTuple

import torch

from sklearn_skmm.sketch._torch._row_owners import Rows

# In place of the number of rows per sample: the sample that each row belongs to was found.
MATCHED = -1


class LayerCall(NamedTuple):
    """One call of a layer during a forward pass, as recorded by a forward hook."""

    module: torch.nn.Module
    input: torch.Tensor
    output_shape: torch.Size
    input_version: int  # version counter of the input, which in-place changes increase
    # Rows of the input per sample; 0 if all samples share one, None if rows belong to no sample.
    rows_at_call: int | None
    output_edge: Any  # graph edge of the output before in-place changes
    rows: Rows | None = None  # the rows grouped by sample, if `rows_at_call` is MATCHED

    @property
    def modified(self) -> bool:
        """Whether the input was modified after the call."""
        return self.input._version != self.input_version

    @property
    def rows_per_sample(self) -> int | None:
        """Rows of the input per sample, or None if the input was modified after the call."""
        return None if self.modified else self.rows_at_call


class Signature(NamedTuple):
    """How a parameter is used in the autograd graph of a batch.

    The cache of sketches digests this tuple, so renaming a field makes existing caches stale.
    """

    edges: int  # number of graph edges that lead to the parameter
    ratios: tuple[int | None, ...]  # `rows_per_sample` of each call of a layer that owns it


UNUSED = Signature(0, ())


def rows_of_positions(call: LayerCall, dims) -> tuple[torch.Tensor, torch.Size] | None:
    """Return a layer's input with a row for each position, and the shape of such an output.

    Parameters
    ----------
    call : LayerCall
        Call of a layer.
    dims : tuple of int or None
        Numbers of last dimensions of the input and the output that are one position; None if a
        position is an entry of the first dimension.

    Returns
    -------
    rows, shape : Tensor of shape (R, ...) and torch.Size, or None
        None if the input and the output have different positions.
    """
    a, shape = call.input, call.output_shape
    start = (1, 1) if dims is None else (a.ndim - dims[0], len(shape) - dims[1])
    if min(start) < 0 or a.shape[: start[0]] != shape[: start[1]] or not a.numel():
        return None
    n_rows = a.shape[: start[0]].numel()
    return (
        a.reshape(n_rows, *a.shape[start[0] :]),
        torch.Size([n_rows, *shape[start[1] :]]),
    )
