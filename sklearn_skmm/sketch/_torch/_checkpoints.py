"""Activation checkpoints that hide the layers inside them."""

import warnings
from typing import Any

import torch

from sklearn_skmm.sketch._torch._batches import Batch
from sklearn_skmm.sketch._torch._graph_walk import walk


def forward_through_checkpoints(engine: Any, batch: Batch) -> tuple[torch.Tensor, list]:
    """Return the engine's forward pass, but refuse reentrant checkpoints.

    These run their part of the model without gradients, compute it again in the backward pass, and
    add to the ``.grad`` of its parameters there. Other checkpoints need no care.

    Raises
    ------
    ValueError
        If the model has reentrant checkpoints.
    """
    message = (
        "The 'model' parameter must not use torch.utils.checkpoint with use_reentrant=True, which "
        "hides the gradients of single samples. Use use_reentrant=False, or no checkpoints."
    )
    try:
        with warnings.catch_warnings():
            # All that shows of a checkpoint whose inputs need no gradient.
            warnings.filterwarnings("error", "None of the inputs have requires_grad=True")
            output, calls = engine.forward(batch)
    except UserWarning as error:
        if "requires_grad=True" not in str(error):
            raise  # some other warning that the user has turned into an error
        raise ValueError(message) from error
    if output.grad_fn is not None:
        kinds = walk(output, batch.size).kinds
        if any(kind.__name__ == "CheckpointFunctionBackward" for kind in kinds):
            raise ValueError(message)
    return output, calls
