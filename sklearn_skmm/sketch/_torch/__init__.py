"""Sketched per-sample gradients of torch models: the only folder that imports torch."""

import torch

from sklearn_skmm.sketch._torch._cached_sketch import sketch_with_cache
from sklearn_skmm.sketch._torch._datasets import open_batches
from sklearn_skmm.sketch._torch._engine import Engine
from sklearn_skmm.sketch._torch._objective import NO_LABELS, Objective
from sklearn_skmm.sketch._torch._planner import plan_parameters

__all__ = [
    "NO_LABELS",
    "Engine",
    "Objective",
    "check_model",
    "open_batches",
    "plan_parameters",
    "sketch_with_cache",
]


def check_model(model) -> torch.nn.Module:
    """Return the torch module of a model: a module, a wrapped module or a fitted skorch net."""
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
            f"a fitted skorch net. Got {model!r} instead."
        )
    return model
