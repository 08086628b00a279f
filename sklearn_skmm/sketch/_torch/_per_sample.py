"""Per-sample gradients by `torch.func` or by a loop over the samples."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch.func import grad, vmap
from torch.overrides import TorchFunctionMode

from sklearn_skmm.sketch._torch._batches import Batch
from sklearn_skmm.sketch._torch._independence import check_outputs
from sklearn_skmm.sketch._torch._shared import ProcessSetting

# Memory for the gradients that are formed at the same time, which limits the size of a chunk.
CHUNK_BYTES = 256 * 2**20


@contextmanager
def _no_performance_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        # vmap warns where it loops over samples internally, which is fine here.
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        yield


# Filters of warnings belong to the whole process.
_without_warning = ProcessSetting(_no_performance_warning)


class NoNewStorage(TorchFunctionMode):
    """Raise before the data of a tensor are replaced, as ``module.to(dtype)`` does.

    Inside `torch.func` that would end the process, or leave a tensor that ends it later.
    """

    forbidden = (
        torch.Tensor.data.__set__,  # type: ignore[attr-defined]
        torch.Tensor.set_,
        torch.Tensor.resize_,
        torch.Tensor.resize_as_,
        torch.Tensor.share_memory_,
    )

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call the function if it is allowed."""
        if func in self.forbidden:
            raise RuntimeError("torch.func cannot be used where data of tensors are replaced.")
        return func(*args, **(kwargs or {}))


@contextmanager
def attributes_restored(model: torch.nn.Module) -> Iterator[None]:
    """Restore attributes that a model sets in its forward pass.

    Tensors that are kept from inside `torch.func` cannot be used afterwards.
    """
    saved = [(vars(module), dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for attributes, before in saved:
            for name in attributes.keys() - before.keys():
                del attributes[name]
            attributes.update(before)


def per_sample_gradients(
    engine, names, batch: Batch, cotangent, source, output=None
) -> Iterator[dict]:
    """Yield the flat per-sample gradients of named parameters, for chunks of a batch.

    Parameters
    ----------
    engine : Engine
        Engine with the model and its chosen parameters.
    names : list of str
        Parameters to differentiate with respect to.
    batch : Batch
        Samples, on the device of the engine.
    cotangent : Tensor
        Gradient of the objective at the outputs of the batch.
    source : {"torch.func", "loop"}
        How the gradients are computed.
    output : Tensor or None
        Outputs of the batch, which must be the same for each sample alone.
    """
    if not names:
        return
    fixed = {name: p.detach() for name, p in engine.chosen.items()}
    differentiated = {name: fixed.pop(name) for name in names}

    def value(differentiated, args, kwargs, cotangent):
        found = engine.call_model({**fixed, **differentiated}, args, kwargs)
        if output is not None and found.shape != cotangent.shape:
            check_outputs(cotangent, found, output)
        return (found * cotangent).sum(), found.detach()

    def value_of_one_sample(differentiated, args, kwargs, cotangent):
        # Add the batch dimension that the model expects.
        args, kwargs = tuple(a[None] for a in args), {k: v[None] for k, v in kwargs.items()}
        return value(differentiated, args, kwargs, cotangent[None])

    entries = sum(p.numel() for p in differentiated.values())
    rows = max(1, CHUNK_BYTES // (4 * entries)) if source == "torch.func" else 1
    outputs = []
    for start in range(0, batch.size, rows):
        part = slice(start, start + rows)
        args = tuple(a[part] for a in batch.args)
        kwargs = {k: v[part] for k, v in batch.kwargs.items()}
        if source == "torch.func":
            function = vmap(grad(value_of_one_sample, has_aux=True), in_dims=(None, 0, 0, 0))
            with _without_warning(), NoNewStorage(), attributes_restored(engine.model):
                gradients, found = function(differentiated, args, kwargs, cotangent[part])
            found = found[:, 0]
        else:
            leaves = {name: p.requires_grad_() for name, p in differentiated.items()}
            grads: Iterable = [None] * len(leaves)
            # In place in the backward pass, too, where checkpoints compute activations again.
            with engine.slots.hold({**engine.constants, **fixed, **leaves}):
                total, found = value(leaves, args, kwargs, cotangent[part])
                if total.requires_grad:
                    grads = torch.autograd.grad(total, [*leaves.values()], allow_unused=True)
            gradients = {
                name: torch.zeros_like(p)[None] if g is None else g.to_dense()[None]
                for (name, p), g in zip(leaves.items(), grads, strict=True)
            }
        outputs.append(found)
        yield {
            name: g.detach().reshape(len(g), -1).to(engine.sketch_dtype)
            for name, g in gradients.items()
        }
    if output is not None and batch.size > 1:
        check_outputs(output, torch.cat(outputs), output)
