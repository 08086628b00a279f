"""Sketched per-sample gradients of torch models: the door through which torch enters."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from sklearn_skmm._batches import Batch, open_batches
from sklearn_skmm._engine import Engine
from sklearn_skmm._objective import Objective
from sklearn_skmm._planning import plan

__all__ = [
    "Engine",
    "Objective",
    "arrays",
    "blocks",
    "check_model",
    "fingerprint",
    "is_array",
    "open_batches",
    "plan",
]

# A file of the cache holds so many samples, or as many as come from so many bytes of input.
CACHED_ROWS, CACHED_BYTES = 4096, 64 * 2**20


def check_model(model) -> torch.nn.Module:
    """Return the torch module in model: a module, a wrapped one, or a fitted skorch net."""
    if not isinstance(model, torch.nn.Module) and isinstance(
        getattr(model, "module_", None), torch.nn.Module
    ):
        model = model.module_
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while isinstance(model, wrappers) or hasattr(model, "_orig_mod"):
        model = model.module if isinstance(model, wrappers) else model._orig_mod
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    if not modules or any(isinstance(module, torch.jit.ScriptModule) for module in modules):
        raise TypeError(
            "The 'model' parameter must be None, an instance of torch.nn.Module (not scripted) or "
            f"a fitted skorch net, got {model!r}."
        )
    return model


def fingerprint(model: torch.nn.Module) -> str:
    """Return a digest of all parameters and buffers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def is_array(X) -> bool:
    """Whether X is for NumPy to validate: array-like, and nothing that torch reads better."""
    return isinstance(X, list) or (hasattr(X, "__array__") and not isinstance(X, torch.Tensor))


def arrays(batch: Batch, labelled: bool) -> Iterator[np.ndarray | str]:
    """Yield names and values of what a batch's sketch is made from, to be digested."""
    named: dict[Any, Any] = {**dict(enumerate(batch.args)), **batch.kwargs}
    if labelled:
        named["labels"] = batch.labels
    for name, tensor in named.items():
        yield str(name)
        if tensor.dtype == torch.bfloat16:  # NumPy has none
            tensor = tensor.view(torch.int16)
        yield tensor.detach().cpu().numpy()


def blocks(batches) -> Iterator[list[Batch]]:
    """Yield batches together that make one file of the cache: neither tiny nor all of memory."""
    block: list[Batch] = []
    size = n_bytes = 0
    for batch in batches:
        block.append(batch)
        size += batch.size
        n_bytes += sum(t.nbytes for t in (*batch.args, *batch.kwargs.values()))
        if size >= CACHED_ROWS or n_bytes >= CACHED_BYTES:
            yield block
            block, size, n_bytes = [], 0, 0
    if block:
        yield block
