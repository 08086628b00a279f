"""Per-sample gradients of torch models; the only module that imports torch.

The seam for faster engines is `batches_of_gradients`: it yields exact gradients of a batch as
an array of shape (batch, r), and whoever consumes it sketches them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, grad, vmap


def check_model(model) -> None:
    """Raise unless model is a torch module with parameters."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"The 'model' parameter must be None or an instance of torch.nn.Module, got {model!r}."
        )


def select_parameters(model: torch.nn.Module, layers) -> dict[str, torch.nn.Parameter]:
    """Return the named parameters of the chosen layers, in the model's order.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    layers : None, str, int, or list of str and int
        None takes every parameter. A name takes that submodule with all below it. A position
        counts over the modules that hold parameters of their own, negative from the end.
    """
    named = dict(model.named_parameters())
    if layers is None:
        if not named:
            raise ValueError(f"model={type(model).__name__} has no parameters.")
        return named
    own = [
        name
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    modules = dict(model.named_modules())
    wanted: set[int] = set()
    for layer in [layers] if isinstance(layers, str | int) else layers:
        if isinstance(layer, str):
            if layer not in modules:
                raise ValueError(
                    f"The 'layers' parameter names {layer!r}, which is no module of the model. "
                    f"Those with parameters are {own}."
                )
            found = modules[layer].parameters()
        else:
            if not -len(own) <= layer < len(own):
                raise ValueError(
                    f"The 'layers' parameter holds position {layer}, but the model has "
                    f"{len(own)} layers with parameters: {own}."
                )
            found = modules[own[layer]].parameters(recurse=False)
        wanted.update(id(parameter) for parameter in found)
    chosen = {name: p for name, p in named.items() if id(p) in wanted}
    if not chosen:
        raise ValueError(f"layers={layers!r} selects no parameters.")
    return chosen


def n_entries(parameters: Mapping[str, torch.Tensor]) -> int:
    """Return r, the number of entries of one gradient."""
    return sum(p.numel() for p in parameters.values())


def _cross_entropy(output, target):
    return torch.nn.functional.cross_entropy(output, target)


def _squared_error(output, target):
    return (output - target.reshape(output.shape)).square().sum()


def _scalar_output(output, target):
    if output.numel() != 1:
        raise ValueError(
            f"target='output' needs a model with one output per sample, "
            f"got outputs of shape {tuple(output.shape)}."
        )
    return output.sum()


LOSSES: dict[str, Callable] = {"cross_entropy": _cross_entropy, "squared_error": _squared_error}


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Switch to evaluation mode and put every submodule's mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def batches_of_gradients(
    model: torch.nn.Module,
    X: np.ndarray,
    y: np.ndarray | None,
    *,
    parameters: Mapping[str, torch.Tensor],
    loss: str | Callable,
    target: str,
    batch_size: int,
    device: Any,
    dtype: Any,
) -> Iterator[np.ndarray]:
    """Yield the per-sample gradients of consecutive batches.

    Parameters
    ----------
    model : torch.nn.Module
        Evaluated in evaluation mode; its parameters, buffers, `.grad` and device are left alone.
    X : ndarray of shape (N, ...)
        Inputs.
    y : ndarray of shape (N, ...) or None
        Labels; used with ``target="label"``.
    parameters : dict of str to Tensor
        What to differentiate by, from `select_parameters`.
    loss : {"cross_entropy", "squared_error"} or callable
        Of one sample's output and target, without batch dimension (cross entropy aside),
        returning a scalar.
    target : {"label", "predicted", "output"}
        What the loss compares with; "output" differentiates the output itself.
    batch_size : int
        Samples at a time: memory is O(batch_size · r).
    device : torch.device, str or None
        Where to compute; None is where the parameters are.
    dtype : torch.dtype, str or None
        Floating precision; None is that of the parameters.

    Yields
    ------
    gradients : ndarray of shape (batch, r)
        Rows are flattened gradients, in the order of `parameters`.
    """
    some = next(iter(parameters.values()))
    device = some.device if device is None else torch.device(device)
    dtype = some.dtype if dtype is None else getattr(torch, str(np.dtype(dtype)))

    def place(tensor):
        tensor = tensor.detach().to(device)
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    # Copies of the references, never the model itself, go to another device or precision.
    chosen = {name: place(p) for name, p in parameters.items()}
    rest = {name: place(p) for name, p in model.named_parameters() if name not in parameters}
    rest.update({name: place(b).clone() for name, b in model.named_buffers()})
    per_sample = LOSSES[loss] if isinstance(loss, str) else loss

    def loss_of(chosen, x, label):
        # The batch dimension that the model expects, one sample at a time.
        output = functional_call(model, {**rest, **chosen}, (x.unsqueeze(0),))
        if target == "output":
            return _scalar_output(output, None)
        output = output.squeeze(0)
        if target == "predicted":
            label = output.detach().argmax(dim=0)
        value = per_sample(output, label)
        if value.numel() != 1:
            raise ValueError(
                f"loss must return one value per sample, got shape {tuple(value.shape)}."
            )
        return value.reshape(())

    gradient = vmap(grad(loss_of), in_dims=(None, 0, 0 if target == "label" else None))
    with evaluation_mode(model):
        for start in range(0, len(X), batch_size):
            inputs = place(torch.from_numpy(np.ascontiguousarray(X[start : start + batch_size])))
            labels = None
            if target == "label" and y is not None:
                labels = torch.from_numpy(np.ascontiguousarray(y[start : start + batch_size]))
                labels = place(labels)
            parts = gradient(chosen, inputs, labels)
            flat = torch.cat([parts[name].flatten(1) for name in chosen], dim=1)
            yield flat.cpu().numpy()
