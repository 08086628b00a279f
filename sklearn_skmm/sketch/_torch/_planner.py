"""How each parameter's gradient is found and sketched, decided on the first samples.

A rule of `_layer_rules` is used for a parameter where it reproduces autograd's gradient. It
does not for a layer that is called by another way than its ``forward``, say, or whose input does
not have the samples in its rows.
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
    equal_up_to_rounding,
    parameters_confirmed_by_autograd,
    parameters_that_agree,
    random_like,
)
from sklearn_skmm.sketch._torch._batches import Batch
from sklearn_skmm.sketch._torch._engine import Engine
from sklearn_skmm.sketch._torch._layer_calls import UNUSED, Signature
from sklearn_skmm.sketch._torch._model_state import evaluation_mode
from sklearn_skmm.sketch._torch._parameters import matrix_shape
from sklearn_skmm.sketch._torch._per_sample import per_sample_gradients

# Multiply-adds per sample, a few microseconds.
NEGLIGIBLE_COST = 2**18


def _same_outputs(output, other) -> bool:
    """Whether two ways to the same outputs agree."""
    if output.shape != other.shape:
        return False
    norm = float(output.norm())
    return equal_up_to_rounding(float((output - other).norm()), norm, norm, output.dtype)


def _check_independence(engine, batch, output):
    """Raise if what a sample gives depends on the samples beside it, or on chance."""
    batch_normalised = [
        name
        for name, module in engine.model.named_modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_mean is None
    ]
    if batch_normalised:
        raise ValueError(
            "The 'model' parameter must treat each sample on its own, but these layers normalise "
            f"over the batch, in evaluation mode too: {batch_normalised}."
        )
    if output.ndim == 0 or len(output) != batch.size:
        raise ValueError(
            "The 'model' parameter must return outputs whose first dimension is the samples, got "
            f"shape {tuple(output.shape)} for {batch.size} samples."
        )
    args, kwargs = tuple(a[:1] for a in batch.args), {k: v[:1] for k, v in batch.kwargs.items()}
    alone = engine.call_model(engine.chosen, args, kwargs).detach()
    if alone.shape != output[:1].shape:
        raise ValueError(
            f"The 'model' parameter must return outputs of shape {tuple(output[:1].shape)} for one "
            f"sample, as it does for {batch.size} of shape {tuple(output.shape)}, got "
            f"{tuple(alone.shape)}."
        )
    if not _same_outputs(output[:1], alone):
        raise ValueError(
            "The 'model' parameter must treat each sample on its own, but its output for the first "
            "sample depends on the samples beside it, or on chance, in evaluation mode too."
        )


def plan_parameters(
    engine: Engine, batch: Batch, sketch: str, m: int, seed: int
) -> list[PlannedParameter]:
    """Look at the first samples and say how each parameter's gradient is found and sketched.

    Parameters
    ----------
    engine : Engine
        With the model and its chosen parameters.
    batch : Batch
        The first samples, two are enough.
    sketch : {"auto", "gaussian", "sparse_sign", "product"}
        The embedding.
    m : int
        Sketch dimension.
    seed : int
        Of Γ.
    """
    if batch.size == 1:
        # Of one sample nobody could tell whether samples are kept apart.
        twice = {name: torch.cat([value, value]) for name, value in batch.kwargs.items()}
        batch = Batch(tuple(torch.cat([a, a]) for a in batch.args), twice, None, 2)
    batch = engine.place(batch)
    with evaluation_mode(engine.model), torch.enable_grad():
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
                # The side of the weight that takes the output's gradient.
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
    """Return how many products to average: four, or what is cheap.

    Cheap is what costs no more than the layer's forward and backward, or next to nothing. It does
    not depend on the number of tokens, so that Γ does not.
    """
    rows, cols = shape
    budget = 3 * rows * cols
    if positions == 1:
        budget = max(budget, NEGLIGIBLE_COST)
    return int(np.clip(budget // ((rows + cols) * m), 1, 4))


def _owners(engine) -> dict[str, tuple]:
    """Return the module, its name and the local name of each chosen parameter."""
    owners: dict[str, tuple] = {}
    for layer, module in engine.model.named_modules():
        for local, name in engine.parameter_names[module].items():
            owners.setdefault(name, (module, layer, local))
    return owners


def _gradient_sources(engine, batch) -> tuple[dict[str, str], dict[str, Signature], dict[str, int]]:
    """Try the hooks, then `torch.func`, against autograd on the first samples."""
    output, calls = engine.forward(batch)
    if not torch.isfinite(output).all():
        raise ValueError("The 'model' parameter gives outputs that are not finite on X.")
    _check_independence(engine, batch, output.detach())
    if output.grad_fn is None:
        raise ValueError(
            "The outputs of the 'model' parameter do not depend on the chosen parameters, or are "
            "computed without gradients."
        )
    _find_shared_layers(engine, batch, output.detach(), calls)
    compared = _compare_hooks_with_autograd(engine, batch, list(engine.chosen))
    agreed, nonzero, signatures = compared.agreed, compared.nonzero, compared.signatures
    # What is zero for all samples confirms nothing. New adapters are multiplied by a weight of
    # zeros, so look again with others.
    all_zero = [name for name in agreed - nonzero if signatures[name] != UNUSED]
    if all_zero:
        chosen = engine.chosen
        try:
            engine.chosen = {
                name: p if p.any() else (random_like(engine, p) / 100).requires_grad_()
                for name, p in chosen.items()
            }
            again = _compare_hooks_with_autograd(engine, batch, all_zero)
        finally:
            engine.chosen = chosen
        agreed -= again.nonzero - again.agreed
        nonzero |= again.nonzero
    for name in agreed - nonzero:
        signatures[name] = UNUSED  # to be confirmed when it is used
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
    """Find layers whose one output all samples share, such as embeddings of positions.

    The engine repeats it for each sample, if that is all the same to the model.
    """
    engine.shared = {call.module for call in calls if call.input.shape[:1] == (1,)}
    if engine.shared:
        try:
            again, _ = engine.forward(batch)
            same = _same_outputs(output, again.detach())
        except Exception:  # shapes that do not fit, of many kinds
            same = False
        if not same:
            engine.shared = set()


class HookComparison(NamedTuple):
    """How the gradients that hooks find compare with those of autograd."""

    agreed: set[str]  # parameters for which both agree
    nonzero: set[str]  # parameters with a gradient that is not zero
    signatures: dict[str, Signature]  # of all parameters
    positions: dict[str, int]  # tokens or pixels per sample that layers see
    cotangent: torch.Tensor  # random, at the outputs of the batch
    sums: AutogradSums  # of autograd's gradients with this cotangent


def _compare_hooks_with_autograd(engine, batch, names) -> HookComparison:
    """Compare the hooks' gradients of named parameters with autograd's."""
    output, calls = engine.forward(batch)
    cotangent = random_like(engine, output)
    deltas = engine.backward(output, calls, cotangent, retain_graph=True)
    sums = autograd_sums(engine, names, output, cotangent)
    agreed = parameters_confirmed_by_autograd(engine, sums, calls, deltas)
    positions: dict[str, int] = {}
    for call, delta in zip(calls, deltas, strict=True):
        if delta is not None and call.rows_per_sample is not None:
            for name, term in engine.gradient_terms(call, delta, batch.size).items():
                positions[name] = positions.get(name, 0) + term.positions
    nonzero = {name for name in names if sums.gradients[name].any()}
    signatures = engine.signatures(output, calls)
    return HookComparison(agreed, nonzero, signatures, positions, cotangent, sums)


def _vmap_works(engine, batch, names, compared: HookComparison) -> bool:
    try:
        parts = [*per_sample_gradients(engine, names, batch, compared.cotangent, "torch.func")]
    except Exception:  # torch raises many kinds for what vmap cannot do
        return False
    weights, gradients = compared.sums
    from_vmap = {name: weights @ torch.cat([part[name] for part in parts]) for name in names}
    from_autograd = {name: gradient.flatten() for name, gradient in gradients.items()}
    found = {**from_autograd, **from_vmap}
    return parameters_that_agree(engine, found, from_autograd, gradients) >= set(names)
