"""Per-sample gradients from `torch.func`, or from one sample after the other."""

import warnings
from collections.abc import Iterable, Iterator

import torch
from torch.func import grad, vmap

from sklearn_skmm.sketch._torch._batches import Batch

# Gradients that are formed for a part of a batch together.
CHUNK_BYTES = 256 * 2**20


def per_sample_gradients(engine, names, batch: Batch, cotangent, source) -> Iterator[dict]:
    """Yield, for parts of a batch, the flat gradients of the named parameters.

    Parameters
    ----------
    engine : Engine
        With the model and its chosen parameters.
    names : list of str
        Parameters to differentiate by.
    batch : Batch
        Samples, placed.
    cotangent : Tensor
        Gradient at the outputs of the batch.
    source : {"torch.func", "loop"}
        How.
    """
    if not names:
        return
    fixed = {name: p.detach() for name, p in engine.chosen.items()}
    differentiated = {name: fixed.pop(name) for name in names}

    def value(differentiated, args, kwargs, cotangent):
        return (engine.call_model({**fixed, **differentiated}, args, kwargs) * cotangent).sum()

    def value_of_one_sample(differentiated, args, kwargs, cotangent):
        # The batch dimension that the model expects, one sample at a time.
        args, kwargs = tuple(a[None] for a in args), {k: v[None] for k, v in kwargs.items()}
        return value(differentiated, args, kwargs, cotangent[None])

    entries = sum(p.numel() for p in differentiated.values())
    rows = max(1, CHUNK_BYTES // (4 * entries)) if source == "torch.func" else 1
    for start in range(0, batch.size, rows):
        part = slice(start, start + rows)
        args = tuple(a[part] for a in batch.args)
        kwargs = {k: v[part] for k, v in batch.kwargs.items()}
        if source == "torch.func":
            function = vmap(grad(value_of_one_sample), in_dims=(None, 0, 0, 0))
            with warnings.catch_warnings():
                # Some operations are looped over inside, which is what is wanted of them.
                warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
                gradients = function(differentiated, args, kwargs, cotangent[part])
        else:
            leaves = {name: p.requires_grad_() for name, p in differentiated.items()}
            total = value(leaves, args, kwargs, cotangent[part])
            grads: Iterable = [None] * len(leaves)
            if total.requires_grad:
                grads = torch.autograd.grad(total, [*leaves.values()], allow_unused=True)
            gradients = {
                name: torch.zeros_like(p)[None] if g is None else g.to_dense()[None]
                for (name, p), g in zip(leaves.items(), grads, strict=True)
            }
        yield {
            name: g.detach().reshape(len(g), -1).to(engine.sketch_dtype)
            for name, g in gradients.items()
        }
