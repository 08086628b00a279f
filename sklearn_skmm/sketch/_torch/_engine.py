"""Forward pass, backward pass and sketch of each batch.

There is one forward and one backward pass per batch. Hooks record the input of each chosen layer
and the gradient at its output, from which `_layer_rules` computes the layer's part of the sketch.
The per-sample gradients of other parameters come from `torch.func` or from a loop over the samples.

Hooks are used only where they agree with autograd (see `_autograd_check`). Each parameter has a
*signature*, which describes how it is used in the autograd graph of a batch. Once confirmed, hooks
are trusted for later batches with the same signature. For any other signature they are checked
again.
"""

import sys
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch.autograd.graph import _engine_run_backward, get_gradient_edge

from sklearn_skmm.sketch._projection import BLOCK_ROWS
from sklearn_skmm.sketch._sketch_plan import PlannedParameter
from sklearn_skmm.sketch._torch._autograd_check import (
    autograd_sums,
    parameters_confirmed_by_autograd,
)
from sklearn_skmm.sketch._torch._batches import Batch, map_tensors, to_device
from sklearn_skmm.sketch._torch._graph_walk import GraphWalk, walk
from sklearn_skmm.sketch._torch._independence import (
    OneByOne,
    check_all_alone,
    check_first_dimension,
    check_halves,
    check_some_alone,
)
from sklearn_skmm.sketch._torch._input_casts import InputCasts
from sklearn_skmm.sketch._torch._layer_calls import (
    MATCHED,
    UNUSED,
    LayerCall,
    Signature,
    rows_of_positions,
)
from sklearn_skmm.sketch._torch._layer_rules import FormedGradient, rule_for
from sklearn_skmm.sketch._torch._model_state import TensorSlots, evaluation_mode
from sklearn_skmm.sketch._torch._objective import output_of
from sklearn_skmm.sketch._torch._own_loss import LabelReader
from sklearn_skmm.sketch._torch._parameters import select_parameters
from sklearn_skmm.sketch._torch._per_sample import per_sample_gradients
from sklearn_skmm.sketch._torch._row_owners import (
    group_rows,
    in_equal_blocks,
    owners_of_rows,
    sample_weights,
)
from sklearn_skmm.sketch._torch._shared import ProcessSetting
from sklearn_skmm.sketch._torch._value_reads import ValueReads

_uncompiled = ProcessSetting(lambda: torch.compiler.set_stance("force_eager"))


class Engine:
    """Sketch the per-sample gradients of batches, without changing the model.

    Parameters
    ----------
    model : torch.nn.Module
        Model from `check_model`. It is run in evaluation mode; its parameters, buffers, `.grad`
        and device are not changed.
    layers : None, str, int, or list of str and int
        Layers whose parameters are chosen, as in `select_parameters`.
    objective : Objective
        Objective to differentiate.
    device : torch.device, str or None
        Device of the computation. None is the device of the parameters; "auto" is a GPU if there
        is one.
    dtype : str or None
        Floating precision of the computation; None is that of the parameters.
    """

    def __init__(self, model, layers, objective, *, device=None, dtype=None):
        self.model, self.objective = model, objective
        parameters = select_parameters(model, layers)
        not_floating = [name for name, p in parameters.items() if not p.is_floating_point()]
        if not_floating:
            raise ValueError(
                "The parameters selected by 'layers' must be real floating numbers, but "
                f"{not_floating} are not. Select other layers."
            )
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        first = next(iter(parameters.values()))
        self.device = first.device if device is None else torch.device(device)
        cast = None if dtype is None else getattr(torch, dtype)
        # Layers with max_norm change their weights in each forward pass, even in evaluation mode.
        renormalised = {
            id(p)
            for module in model.modules()
            if getattr(module, "max_norm", None) is not None
            for p in module.parameters(recurse=False)
        }

        def place(tensor):
            to = cast if tensor.is_floating_point() else None
            return tensor.detach().to(self.device, to, copy=id(tensor) in renormalised)

        # Move the tensors to another device or precision, never the model itself.
        self.chosen = {name: place(p).requires_grad_() for name, p in parameters.items()}
        fixed = {name: place(p) for name, p in model.named_parameters() if name not in parameters}
        self.constants = fixed | {name: place(b).clone() for name, b in model.named_buffers()}
        # Inputs get the precision of the model; adapters may have a higher one.
        floating = (p.dtype for p in model.parameters() if p.is_floating_point())
        self.dtype = cast or next(floating)
        # Only the model runs in half precision; sketches sum over too many entries for it.
        double = any(p.dtype == torch.float64 for p in self.chosen.values())
        self.sketch_dtype = torch.float64 if double else torch.float32
        self.numpy_dtype = np.dtype(np.float64 if double else np.float32)
        # Tied weights are known by the first of their names.
        names = {id(p): name for name, p in parameters.items()}
        self.parameter_names = {
            module: {
                local: names[id(p)]
                for local, p in module.named_parameters(recurse=False)
                if id(p) in names
            }
            for module in model.modules()
        }
        self.rules = {}
        for module, local_names in self.parameter_names.items():
            rule = rule_for(module)
            if rule is not None and local_names.keys() & {"weight", "bias"}:
                self.rules[module] = rule
        # Layers that return one row for all samples, such as position embeddings.
        self.shared: set[torch.nn.Module] = set()
        self.label_reader = LabelReader(self)
        self.slots = TensorSlots(model)
        self.input_casts = InputCasts(self.dtype)
        self.value_reads = ValueReads(self.tensors.values())
        # Signatures that were confirmed after planning.
        self._confirmed: dict[str, set[Signature]] = {name: set() for name in self.chosen}
        # Sizes of batches and graphs for which samples were run alone.
        self._checked: set[tuple] = set()
        self._factors: dict[tuple, torch.Tensor] = {}

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers of the computation, by name."""
        return {**self.constants, **self.chosen}

    def place(self, batch: Batch) -> Batch:
        """Move a batch to the device and precision of the computation."""
        placed = to_device(batch, self.device, self.dtype)
        if batch.labels is None or not batch.labels.is_floating_point():
            return placed
        return placed._replace(labels=batch.labels.to(self.device, self.sketch_dtype))

    def call_model(self, parameters: Mapping, args: tuple, kwargs: dict) -> torch.Tensor:
        """Return the outputs of the model with the given parameters."""
        return output_of(self.run_model(parameters, args, kwargs))

    def run_model(self, parameters: Mapping, args: tuple, kwargs: dict) -> Any:
        """Return what the model returns with the given parameters."""
        tensors = {**self.constants, **parameters}

        def call(args, kwargs):
            try:
                with self.slots.hold(tensors):
                    return self.model(*args, **kwargs)
            except RuntimeError as error:
                if type(error).__name__ != "UncapturedHigherOrderOpError":
                    raise
                raise ValueError(
                    "The 'model' parameter must not use operators for control flow, such as "
                    "torch.cond. Use if and for in the forward method instead."
                ) from error

        # Compiled code would skip the hooks or fail on them, and hide values that are read. Always
        # watch, because parts of torch work in another way meanwhile.
        compiled = "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance")
        with _uncompiled() if compiled else nullcontext(), self.value_reads:
            return self.input_casts.call(call, args, kwargs)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, list[LayerCall]]:
        """Return the outputs, and the calls of layers that computed them."""
        calls: list[LayerCall] = []
        size = batch.size

        def hook(module, args, kwargs, output):
            with torch._C.DisableTorchFunction():  # `value_reads` would only slow this down
                return record(module, args, kwargs, output)

        def record(module, args, kwargs, output):
            if not isinstance(output, torch.Tensor) or not output.requires_grad:
                return None
            if module not in self.rules or not output.numel():
                return None  # a copy made inside the model, or an expert that gets no tokens
            a = (args[0] if args else next(iter(kwargs.values()))).detach()
            rows, changed = None, None
            if output.ndim > 1 and len(a) == len(output):
                if module in self.shared and len(a) == 1 < size:
                    # Repeat it for each sample, to separate the gradients of the samples.
                    a = a.expand(size, *a.shape[1:])
                    output = changed = output.expand(size, *output.shape[1:]).clone()
                    rows = 0
                elif len(a) % size == 0:
                    rows = len(a) // size
            # In-place changes would replace the edge of a view, such as the output of a linear
            # layer, but not the edge of its base.
            base = output._base
            whole = base is not None and base.requires_grad and base.numel() == output.numel()
            edge = get_gradient_edge(base if whole and base.is_contiguous() else output)
            calls.append(LayerCall(module, a, output.shape, a._version, rows, edge))
            return changed

        handles = [m.register_forward_hook(hook, with_kwargs=True) for m in self.rules]
        try:
            return self.call_model(self.chosen, batch.args, batch.kwargs), calls
        finally:
            for handle in handles:
                handle.remove()

    def backward(self, output, calls, cotangent, retain_graph) -> tuple:
        """Return the gradients at the outputs of layer calls, None where there is no effect."""
        if not calls:
            return ()
        edges = [call.output_edge for call in calls]
        # Hooks and functions of users may read values, too. `torch.autograd.grad` would hide it.
        with self.value_reads:
            return _engine_run_backward(
                (output,),
                (cotangent,),
                retain_graph,
                False,
                tuple(edges),
                True,
                accumulate_grad=False,
            )

    def signatures(self, graph: GraphWalk, calls) -> dict[str, Signature]:
        """Return how each parameter is used in the autograd graph of the outputs."""
        rows_per_sample: dict[str, list] = {name: [] for name in self.chosen}
        for call in calls:
            if call.output_edge.node in graph.strides:
                names = self.parameter_names[call.module]
                for local in names.keys() & {"weight", "bias"}:
                    rows_per_sample[names[local]].append(call.rows_per_sample)
        return {
            name: Signature(graph.leaves[id(p)], tuple(rows_per_sample[name]))
            for name, p in self.chosen.items()
        }

    def doubtful(self, graph: GraphWalk, calls, names) -> list[int]:
        """Return the positions of calls whose rows may not be one block for each sample.

        Only calls that use parameters of these names are considered.
        """
        if graph.size == 1:
            return []
        found = []
        for i, call in enumerate(calls):
            stride = graph.stride(call.output_edge)
            if stride is None or call.modified:
                continue  # no effect on the outputs, or no use of the input
            in_blocks = stride * graph.size == call.output_shape.numel()
            if (call.rows_at_call is None or not in_blocks) and not set(names).isdisjoint(
                self.parameter_names[call.module].values()
            ):
                found.append(i)
        return found

    def match_rows(self, output, calls, deltas, cotangent, doubtful) -> list[LayerCall]:
        """Return the calls, after finding the samples that the rows of doubtful ones belong to.

        This takes one more backward pass, and keeps the graph.
        """
        if not doubtful:
            return calls
        calls = list(calls)
        weights = sample_weights(len(output), output.dtype)
        weighted: Iterable = [None] * len(doubtful)
        if weights is not None:
            factors = weights.to(cotangent).reshape(-1, *[1] * (output.ndim - 1))
            edges = [calls[i].output_edge for i in doubtful]
            weighted = torch.autograd.grad(
                output, edges, cotangent * factors, retain_graph=True, allow_unused=True
            )
        for i, delta in zip(doubtful, weighted, strict=True):
            matched = None
            if delta is not None:
                matched = self._matched_call(calls[i], deltas[i], delta, weights, output.dtype)
            calls[i] = matched or calls[i]._replace(rows_at_call=None)
        return calls

    def _matched_call(self, call, delta, weighted, weights, dtype) -> LayerCall | None:
        """Return a call with the samples of its rows, or None if rows have no single sample."""
        dims = self.rules[call.module].dims_of_position
        split = rows_of_positions(call, dims and dims(call.module))
        if split is None:
            return None
        a, shape = split
        eps = max(torch.finfo(d).eps for d in (delta.dtype, dtype))
        delta, weighted = (d.reshape(len(a), -1) for d in (delta, weighted))
        owners = owners_of_rows(delta, weighted, weights, eps)
        if owners is None:
            return None
        if call.rows_at_call is not None and in_equal_blocks(owners, len(weights)):
            return call
        return call._replace(
            input=a,
            output_shape=shape,
            input_version=a._version,
            rows_at_call=MATCHED,
            rows=group_rows(owners),
        )

    def gradient_terms(self, call: LayerCall, delta: torch.Tensor, size: int) -> tuple:
        """Return the samples in a layer call, and their gradient terms by parameter name."""
        if call.rows_per_sample is None:
            raise ValueError("The rows of the layer's input do not belong to samples.")
        a = call.input.to(self.sketch_dtype) if call.input.is_floating_point() else call.input
        delta = delta.to(self.sketch_dtype).reshape(call.output_shape)
        samples: Any = slice(None)
        if call.rows is not None:
            samples, size = call.rows.samples, len(call.rows.samples)
            if not size:
                return samples, {}  # no effect on the outputs
            a, delta = call.rows.group(a), call.rows.group(delta, padding=0)
        terms = self.rules[call.module].terms(call.module, a, delta, size)
        names = self.parameter_names[call.module]
        return samples, {names[local]: term for local, term in terms.items() if local in names}

    def sketch(self, batch: Batch, start: int, parameters: list[PlannedParameter]) -> np.ndarray:
        """Return GΓ of one batch, of shape (B, m).

        Parameters
        ----------
        batch : Batch
            Samples.
        start : int
            Position of the first sample.
        parameters : list of PlannedParameter
            Plan from `plan_parameters`.
        """
        try:
            return self._sketch(batch, start, parameters)
        except OneByOne:
            pass
        samples = (
            map_tensors(lambda tensor, i=i: tensor[i : i + 1], batch) for i in range(batch.size)
        )
        return np.concatenate(
            [self._sketch(one, start + i, parameters) for i, one in enumerate(samples)]
        )

    def _sketch(self, batch, start, parameters) -> np.ndarray:
        """Return GΓ of one batch whose samples are run together."""
        batch = self.place(batch)
        planned = {p.name: p for p in parameters}
        hooked = {p.name for p in parameters if p.source == "hooks"}
        self.shared = {
            module
            for module in self.rules
            for name in self.parameter_names[module].values()
            if name in hooked and 0 in planned[name].signature.ratios
        }
        m = parameters[0].projection.m
        out = torch.zeros(batch.size, m, dtype=self.sketch_dtype, device=self.device)
        with evaluation_mode(self.model), self.slots.hold(self.tensors), torch.enable_grad():
            output, calls = self.forward(batch)
            check_first_dimension(output, batch.size)
            if batch.size > 1 and self.value_reads.found:
                check_all_alone(self, batch, output.detach())
                raise OneByOne
            cotangent = self._cotangent(output, batch, start)
            if output.grad_fn is None:
                self._check_independence(batch, output, False, ())
                return out.cpu().numpy()
            graph = walk(output, batch.size)
            doubtful = self.doubtful(graph, calls, hooked)
            signatures = self.signatures(graph, calls)

            def unconfirmed_names():
                return [
                    name
                    for name, p in planned.items()
                    if name in hooked
                    and signatures[name] not in (UNUSED, p.signature, *self._confirmed[name])
                ]

            unconfirmed = unconfirmed_names()
            deltas = self.backward(output, calls, cotangent, bool(doubtful or unconfirmed))
            if batch.size > 1 and self.value_reads.found:
                raise OneByOne
            if doubtful:
                calls = self.match_rows(output, calls, deltas, cotangent, doubtful)
                signatures = self.signatures(graph, calls)
                unconfirmed = unconfirmed_names()
            rejected = {name for name in unconfirmed if None in signatures[name].ratios}
            unconfirmed = [name for name in unconfirmed if name not in rejected]
            if unconfirmed:
                sums = autograd_sums(self, unconfirmed, output, cotangent)
                agreed = parameters_confirmed_by_autograd(self, sums, calls, deltas)
                rejected |= set(unconfirmed) - agreed
                for name in agreed:
                    if sums.gradients[name].any():  # zeros confirm nothing
                        self._confirmed[name].add(signatures[name])
            output = output.detach()
            with torch.no_grad():
                for call, delta in zip(calls, deltas, strict=True):
                    names = (hooked - rejected) & set(self.parameter_names[call.module].values())
                    if delta is not None and names:
                        samples, terms = self.gradient_terms(call, delta, batch.size)
                        if call.rows is None:
                            self._add_layer_call(out, terms, names, planned)
                        else:
                            of_these = out.new_zeros(len(samples), m)
                            self._add_layer_call(of_these, terms, names, planned)
                            out[samples] += of_these
            mixes, kinds = graph.mixes, tuple(graph.kinds)
            del graph, calls, deltas
            exact = {
                source: [
                    name
                    for name, p in planned.items()
                    if source == ("loop" if name in rejected else p.source)
                    and signatures[name].edges
                ]
                for source in ("torch.func", "loop")
            }
            if not any(exact.values()):
                how = kinds, tuple(signatures.values())
                self._check_independence(batch, output, mixes, how)
            for source, remaining in exact.items():
                first = 0
                for part in per_sample_gradients(self, remaining, batch, cotangent, source, output):
                    rows = out[first : first + len(part[remaining[0]])]
                    first += len(rows)
                    for name, gradient in part.items():
                        self._add_formed_gradient(
                            rows, FormedGradient(gradient), planned[name].projection
                        )
        return out.cpu().numpy()

    def _check_independence(self, batch, output, mixes, how):
        """Raise if it is found that the output for a sample depends on the others in the batch.

        Where nothing mixes samples, this is checked once for each size and way to use the model.
        """
        if batch.size == 1:
            return
        if mixes:
            check_halves(self, batch, output)
        elif (batch.size, how) not in self._checked:
            check_some_alone(self, batch, output)
            self._checked.add((batch.size, how))

    def _cotangent(self, output, batch, start):
        """Return the gradient of the objective at the outputs (the cotangent of the model)."""
        output = output.detach().requires_grad_()
        labels, mask = self.label_reader.read(batch, output)
        with torch.no_grad():
            targets = self.objective.targets(output, labels, start)
        precise = output.to(self.sketch_dtype)
        values = self.objective(precise, targets, mask)
        gradient = None
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), output, allow_unused=True)
        return torch.zeros_like(output) if gradient is None else gradient

    def _add_layer_call(self, out, terms, names, planned):
        """Add the sketches of the named parameters in one layer call to out."""
        # A bias joins its weight if both are present.
        present = [name for name in terms if name in names]
        biases = {
            planned[name].partner: name for name in present if planned[name].partner in present
        }
        for name in present:
            p, term = planned[name], terms[name]
            if p.partner in present:
                continue
            if p.method == "product":
                beta = self._factor(planned[biases[name]].projection, 1) if name in biases else None
                Q, P = self._factor(p.projection, 0), self._factor(p.projection, 1)
                products = term.product_sketch(Q, P, beta).reshape(len(out), -1, out.shape[1])
                out.add_(products.sum(1), alpha=Q.shape[1] ** -0.5)
            else:
                self._add_formed_gradient(out, term, p.projection)

    def _add_formed_gradient(self, out, term, projection):
        """Form the part of the gradient for each block of Γ, multiply, and add to out."""
        rows, cols = term.shape
        for k, first in enumerate(range(0, rows * cols, BLOCK_ROWS)):
            last = min(first + BLOCK_ROWS, rows * cols)
            top = first // cols
            part = term.gradient_rows(top, -(-last // cols))[
                :, first - top * cols : last - top * cols
            ]
            block = projection.block(k, self.numpy_dtype)
            if isinstance(block, np.ndarray):
                out += part @ torch.from_numpy(block).to(self.device)
            else:
                out += torch.from_numpy((block.T @ part.cpu().numpy().T).T).to(out)

    def _factor(self, projection, side):
        """Return one factor of a product projection on the device."""
        key = (id(projection), side)
        if key not in self._factors:
            factor = (projection.row_factor, projection.col_factor)[side](self.numpy_dtype)
            self._factors[key] = torch.from_numpy(factor).to(self.device)
        return self._factors[key]
