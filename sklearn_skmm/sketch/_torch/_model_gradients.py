"""Per-sample gradients of a torch model."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from sklearn_skmm.data import Samples, open_samples
from sklearn_skmm.sketch._projection import BlockProjection
from sklearn_skmm.sketch._sketch_plan import Plan, SketchPlan
from sklearn_skmm.sketch._torch._cached_sketch import sketch_with_cache
from sklearn_skmm.sketch._torch._datasets import open_batches
from sklearn_skmm.sketch._torch._decoder_inputs import makes_decoder_inputs, with_decoder_inputs
from sklearn_skmm.sketch._torch._engine import Engine
from sklearn_skmm.sketch._torch._model_state import original_state
from sklearn_skmm.sketch._torch._objective import NO_LABELS, Objective
from sklearn_skmm.sketch._torch._planner import plan_parameters


class ModelGradients:
    """What `GradientSketcher` sketches with a model.

    Parameters
    ----------
    model, layers, loss, batch_size, device, dtype, cache_dir
        As in `GradientSketcher`.
    target : {"label", "predicted", "sampled", "random", "output"}
        What the loss compares the output with.
    """

    no_labels = NO_LABELS

    def __init__(
        self, model, *, layers, loss, target, batch_size=64, device=None, dtype=None, cache_dir=None
    ):
        self.model = check_model(model)
        self.layers, self.loss, self.target = layers, loss, target
        self.batch_size, self.device, self.dtype = batch_size, device, dtype
        self.cache_dir = cache_dir
        self.needs_labels = target == "label"

    def open(self, X: Any, sketcher: Any, *, reset: bool) -> Samples:
        """Open the inputs of the model."""
        return open_samples(X, estimator=sketcher, reset=reset, lazy=True, rows=False)

    def plan(self, samples: Samples, y: Any, sketch: str, m: int, seed: int) -> Plan:
        """Plan the sketch of each parameter on the first two samples."""
        engine = self._engine(seed)
        # Planning needs labels only where the inputs of a decoder are made from them.
        y = y if self.needs_labels and makes_decoder_inputs(self.model) else None
        first = open_batches(samples.X, y, 2, engine.model.forward).first(2)
        first = with_decoder_inputs(engine.model, first)
        parameters = plan_parameters(engine, first, sketch, m, seed)
        projection = BlockProjection([p.projection for p in parameters])
        return Plan(parameters, projection, SketchPlan.of(parameters), seed)

    def sketches(self, samples: Samples, y: Any, start: int, plan: Plan) -> Iterator[np.ndarray]:
        """Yield GΓ for consecutive batches, of which the first sample is at position `start`."""
        engine = self._engine(plan.seed)
        y = y if self.needs_labels else None
        opened = open_batches(samples.X, y, self.batch_size, engine.model.forward)
        batches = (with_decoder_inputs(engine.model, batch) for batch in opened)
        if self.cache_dir is not None:
            yield from sketch_with_cache(engine, batches, plan.parameters, self.cache_dir)
            return
        for batch in batches:
            yield engine.sketch(batch, start, plan.parameters)
            start += batch.size

    def sketch_dtype(self, X: Any) -> np.dtype:
        """Return the dtype of the sketch."""
        return self._engine(0).numpy_dtype

    def _engine(self, seed: int) -> Engine:
        objective = Objective(self.loss, self.target, seed)
        with original_state(self.model):  # not while another thread replaces parameters
            return Engine(self.model, self.layers, objective, device=self.device, dtype=self.dtype)


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
    _check_in_memory(model)
    return model


def _check_in_memory(model: torch.nn.Module) -> None:
    """Refuse models with weights that hooks fetch, layer by layer, or that do not exist at all."""
    layers = [
        name or type(module).__name__
        for name, module in model.named_modules()
        if any(t.is_meta for t in (*module.parameters(False), *module.buffers(False)))
    ]
    if layers:
        shown = ", ".join(map(repr, layers[:3]))
        more = f" and {len(layers) - 3} more layers" if len(layers) > 3 else ""
        raise ValueError(
            "The 'model' parameter must have all its weights in memory, but those of "
            f"{shown}{more} are offloaded, or were never loaded (they are on the meta device). "
            "Load the model without device_map and offloading, in a lower precision if it does "
            "not fit."
        )
