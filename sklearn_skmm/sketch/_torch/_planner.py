"""Plan how the gradient of each parameter is computed and sketched, from the first samples.

A rule of `_layer_rules` is used for a parameter if it reproduces the gradient from autograd. It
does not if, for example, the layer is not called through its ``forward``, or the rows of its input
are not the samples.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from sklearn_skmm.sketch._product import ProductProjection
from sklearn_skmm.sketch._projection import projection_for
from sklearn_skmm.sketch._sketch_plan import MAX_FORMED_ENTRIES, PlannedParameter
from sklearn_skmm.sketch._torch._autograd_check import (
    AutogradSums,
    autograd_sums,
    parameters_confirmed_by_autograd,
    parameters_that_agree,
    random_like,
)
from sklearn_skmm.sketch._torch._batches import Batch
from sklearn_skmm.sketch._torch._checkpoints import forward_through_checkpoints
from sklearn_skmm.sketch._torch._engine import Engine
from sklearn_skmm.sketch._torch._graph_walk import walk
from sklearn_skmm.sketch._torch._independence import check_first_samples, check_outputs
from sklearn_skmm.sketch._torch._layer_calls import UNUSED, Signature
from sklearn_skmm.sketch._torch._model_state import evaluation_mode
from sklearn_skmm.sketch._torch._parameters import matrix_shape
from sklearn_skmm.sketch._torch._per_sample import per_sample_gradients

# Multiply-adds per sample that take only a few microseconds.
NEGLIGIBLE_COST = 2**18


def plan_parameters(
    engine: Engine, batch: Batch, sketch: str, m: int, seed: int
) -> list[PlannedParameter]:
    """Plan from the first samples how each parameter's gradient is computed and sketched.

    Parameters
    ----------
    engine : Engine
        Engine with the model and its chosen parameters.
    batch : Batch
        The first samples; two are enough.
    sketch : {"auto", "gaussian", "sparse_sign", "product"}
        Kind of random projection.
    m : int
        Sketch dimension.
    seed : int
        Seed of Γ.

    Returns
    -------
    planned : list of PlannedParameter
        One entry for each chosen parameter, in the model's order.
    """
    if batch.size == 1:
        # With one sample it cannot be checked that samples are independent.
        twice = {name: torch.cat([value, value]) for name, value in batch.kwargs.items()}
        batch = Batch(tuple(torch.cat([a, a]) for a in batch.args), twice, None, 2)
    batch = engine.place(batch)
    with evaluation_mode(engine.model), engine.slots.hold(engine.tensors), torch.enable_grad():
        sources, signatures, positions = _gradient_sources(engine, batch)
    names = list(engine.chosen)
    owners = _owners(engine)
    planned: list[PlannedParameter] = []
    for i, name in enumerate(names):
        module, layer, local = owners[name]
        shape = matrix_shape(engine.chosen[name])
        r = shape[0] * shape[1]
        rule = engine.rules.get(module) if sources[name] == "hooks" else None
        delta_side = None if rule is None else rule.delta_side
        method, partner = sketch, None
        weight = engine.parameter_names[module].get("weight")
        if sketch == "auto":
            method = "gaussian" if r <= MAX_FORMED_ENTRIES else "sparse_sign"
            if delta_side is not None and local == "weight" and r > MAX_FORMED_ENTRIES:
                method = "product"
        if delta_side is not None and local == "bias" and weight is not None:
            found = next((p for p in planned if p.name == weight), None)
            if found is not None and found.method == "product" and found.source == "hooks":
                method, partner = "product", weight
        if method == "product":
            row_stream, terms = (seed, i, 0), _n_products(shape, m, positions.get(name, 1))
            if partner is not None and delta_side is not None:
                # Share the factor on the side of the weight that δ belongs to.
                weight_index = names.index(partner)
                row_stream = (seed, weight_index, delta_side)
                terms = planned[weight_index].projection.terms
            projection: Any = ProductProjection(*shape, m, row_stream, (seed, i, 1), terms)
        else:
            state = np.random.SeedSequence([seed, i]).generate_state(1, np.uint64)
            projection = projection_for(method, r, m, int(state[0] >> 1))
        planned.append(
            PlannedParameter(
                name,
                layer,
                type(module).__name__,
                shape,
                sources[name],
                method,
                positions.get(name, 1),
                partner,
                projection,
                signatures[name],
            )
        )
    return planned


def _n_products(shape, m, positions) -> int:
    """Return the number of products to average: up to four, as long as they are cheap.

    They are cheap if they cost no more than the layer's forward and backward pass, or if their cost
    is negligible. The result does not depend on the number of tokens, and so neither does Γ.
    """
    rows, cols = shape
    budget = 3 * rows * cols
    if positions == 1:
        budget = max(budget, NEGLIGIBLE_COST)
    return int(np.clip(budget // ((rows + cols) * m), 1, 4))


def _owners(engine) -> dict[str, tuple]:
    """Return the owner of each chosen parameter: module, its name, parameter's local name."""
    owners: dict[str, tuple] = {}
    for layer, module in engine.model.named_modules():
        for local, name in engine.parameter_names[module].items():
            owners.setdefault(name, (module, layer, local))
    return owners


def _gradient_sources(engine, batch) -> tuple[dict[str, str], dict[str, Signature], dict[str, int]]:
    """Compare the hooks, then `torch.func`, with autograd on the first samples."""
    output, calls = forward_through_checkpoints(engine, batch)
    if not torch.isfinite(output).all():
        raise ValueError(
            "The 'model' parameter must return finite outputs, but its outputs on X are not finite."
        )
    check_first_samples(engine, batch, output.detach())
    if output.grad_fn is None:
        raise ValueError(
            "The outputs of the 'model' parameter do not depend on the chosen parameters, or are "
            "computed without gradients. Choose other layers, or remove detach and no_grad from "
            "the forward method."
        )
    _find_shared_layers(engine, batch, output.detach(), calls)
    # Layers in `shared` are called in another way.
    forward = (output, calls) if not engine.shared else engine.forward(batch)
    compared = _compare_hooks_with_autograd(engine, batch, list(engine.chosen), *forward)
    del output, calls, forward
    agreed, nonzero, signatures = compared.agreed, compared.nonzero, compared.signatures
    # Gradients that are zero for all samples confirm nothing. New adapters are multiplied by a
    # weight of zeros, so compare again with random weights in place of zeros.
    all_zero = [name for name in agreed - nonzero if signatures[name] != UNUSED]
    if all_zero:
        chosen = engine.chosen
        try:
            engine.chosen = {
                name: p if p.any() else (random_like(engine, p) / 100).requires_grad_()
                for name, p in chosen.items()
            }
            again = _compare_hooks_with_autograd(engine, batch, all_zero, *engine.forward(batch))
        finally:
            engine.chosen = chosen
        agreed -= again.nonzero - again.agreed
        nonzero |= again.nonzero
    for name in agreed - nonzero:
        signatures[name] = UNUSED  # confirm when its gradient is not zero
    with_rule = {
        local_names[local]
        for local_names in map(engine.parameter_names.get, engine.rules)
        for local in local_names.keys() & {"weight", "bias"}
    }
    others = [name for name in engine.chosen if name not in agreed & with_rule]
    sources = dict.fromkeys(engine.chosen, "hooks")
    if others:
        works = _vmap_works(engine, batch, others, compared)
        sources |= dict.fromkeys(others, "torch.func" if works else "loop")
    return sources, signatures, compared.positions


def _find_shared_layers(engine, batch, output, calls):
    """Find layers that return one row for all samples, such as position embeddings.

    The engine repeats this row for each sample, if that does not change the outputs of the model.
    """
    engine.shared = {call.module for call in calls if call.input.shape[:1] == (1,)}
    if engine.shared:
        try:
            again, its_calls = engine.forward(batch)
            check_outputs(output, again.detach(), output, torch.finfo(output.dtype).eps)
            # A checkpoint around the layer computes its one row again.
            engine.backward(again, its_calls, torch.ones_like(again), retain_graph=False)
        except Exception:  # mismatched shapes raise many kinds of errors
            engine.shared = set()


class HookComparison(NamedTuple):
    """Comparison of the gradients from hooks with those from autograd."""

    agreed: set[str]  # parameters for which both agree
    nonzero: set[str]  # parameters with a gradient that is not zero
    signatures: dict[str, Signature]  # of all parameters
    positions: dict[str, int]  # tokens or pixels per sample in the layers' inputs
    cotangent: torch.Tensor  # random, at the outputs of the batch
    sums: AutogradSums  # autograd's gradients with this cotangent


def _compare_hooks_with_autograd(engine, batch, names, output, calls) -> HookComparison:
    """Compare the hooks' gradients of named parameters with those from autograd."""
    cotangent = random_like(engine, output)
    graph = walk(output, batch.size)
    doubtful = engine.doubtful(graph, calls, names)
    deltas = engine.backward(output, calls, cotangent, retain_graph=True)
    calls = engine.match_rows(output, calls, deltas, cotangent, doubtful)
    sums = autograd_sums(engine, names, output, cotangent)
    agreed = parameters_confirmed_by_autograd(engine, sums, calls, deltas)
    positions: dict[str, int] = {}
    for call, delta in zip(calls, deltas, strict=True):
        if delta is not None and call.rows_per_sample is not None:
            for name, term in engine.gradient_terms(call, delta, batch.size)[1].items():
                positions[name] = positions.get(name, 0) + term.positions
    nonzero = {name for name in names if sums.gradients[name].any()}
    signatures = engine.signatures(graph, calls)
    return HookComparison(agreed, nonzero, signatures, positions, cotangent, sums)


def _vmap_works(engine, batch, names, compared: HookComparison) -> bool:
    try:
        parts = [*per_sample_gradients(engine, names, batch, compared.cotangent, "torch.func")]
    except Exception:  # torch raises many kinds of errors for what vmap does not support
        return False
    weights, gradients = compared.sums
    from_vmap = {name: weights @ torch.cat([part[name] for part in parts]) for name in names}
    from_autograd = {name: gradient.flatten() for name, gradient in gradients.items()}
    found = {**from_autograd, **from_vmap}
    return parameters_that_agree(engine, found, from_autograd, gradients) >= set(names)
