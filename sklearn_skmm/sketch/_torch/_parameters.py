"""Selection of the parameters that gradients are computed for."""

from numbers import Integral

import torch


def select_parameters(model: torch.nn.Module, layers) -> dict[str, torch.nn.Parameter]:
    """Return the named parameters of the chosen layers, in the model's order.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    layers : None, str, int, or list of str and int
        None selects every parameter that requires a gradient, or all parameters if none does. A
        name selects that submodule and everything below it. An integer is a position among the
        modules that own parameters; negative positions count from the end.
    """
    named = dict(model.named_parameters())
    if layers is None:
        if not named:
            raise ValueError(
                "The 'model' parameter must be a module with parameters, but "
                f"{type(model).__name__} has no parameters."
            )
        trainable = {name: p for name, p in named.items() if p.requires_grad}
        # Quantized weights are integers, which cannot be differentiated.
        return trainable or {name: p for name, p in named.items() if p.is_floating_point()}
    layers_with_parameters = [
        name
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    modules = dict(model.named_modules(remove_duplicate=False))
    wanted: set[int] = set()
    for layer in [layers] if isinstance(layers, str | Integral) else layers:
        if isinstance(layer, str):
            if layer not in modules:
                raise ValueError(
                    f"The 'layers' parameter names {layer!r}, which is not a module of the model. "
                    f"Modules with parameters are {layers_with_parameters}."
                )
            selected = modules[layer].parameters()
        else:
            layer = int(layer)
            if not -len(layers_with_parameters) <= layer < len(layers_with_parameters):
                raise ValueError(
                    f"The 'layers' parameter contains position {layer}, but the model has "
                    f"{len(layers_with_parameters)} layers with parameters: "
                    f"{layers_with_parameters}."
                )
            selected = modules[layers_with_parameters[layer]].parameters(recurse=False)
        wanted.update(id(parameter) for parameter in selected)
    chosen = {name: p for name, p in named.items() if id(p) in wanted}
    if not chosen:
        raise ValueError(
            f"The 'layers' parameter selects no parameters of the model. Got {layers!r}."
        )
    return chosen


def matrix_shape(parameter: torch.Tensor) -> tuple[int, int]:
    """Return the numbers of rows and columns of a parameter as a matrix."""
    rows = parameter.shape[0] if parameter.ndim else 1
    return rows, parameter.numel() // max(rows, 1)
