"""How each parameter's gradient is found and sketched, decided on the first samples.

A rule of `_layer_rules` is used for a parameter where it reproduces autograd's gradient. It
does not for a layer that is called by another way than its ``forward``, say, or whose input does
not have the samples in its rows.
"""

from typing import Any

import numpy as np
import torch

from sklearn_skmm.sketch._product import ProductProjection
from sklearn_skmm.sketch._projection import projection_for
from sklearn_skmm.sketch._sketch_plan import FORMED, PlannedParameter
from sklearn_skmm.sketch._torch._autograd_check import (
    agree,
    agreeing,
    autograd_sums,
    confirm,
    noise,
)
from sklearn_skmm.sketch._torch._batches import Batch
from sklearn_skmm.sketch._torch._engine import Engine
from sklearn_skmm.sketch._torch._layer_calls import UNUSED, Signature
from sklearn_skmm.sketch._torch._model_state import evaluation_mode
from sklearn_skmm.sketch._torch._parameters import matrix_shape
from sklearn_skmm.sketch._torch._per_sample import per_sample_gradients

# Multiply-adds per sample, a few microseconds.
NOTHING = 2**18


def _same_outputs(output, other) -> bool:
    """Whether two ways to the same outputs agree."""
    if output.shape != other.shape:
        return False
    norm = float(output.norm())
    return agree(float((output - other).norm()), norm, norm, output.dtype)


def _check_independence(engine, batch, output):
    """Raise if what a sample gives depends on the samples beside it, or on chance."""
    mixing = [
        name
        for name, module in engine.model.named_modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_mean is None
    ]
    if mixing:
        raise ValueError(
            "The 'model' parameter must treat each sample on its own, but these layers normalise "
            f"over the batch, in evaluation mode too: {mixing}."
        )
    if output.ndim == 0 or len(output) != batch.size:
        raise ValueError(
            "The 'model' parameter must return outputs whose first dimension is the samples, got "
            f"shape {tuple(output.shape)} for {batch.size} samples."
        )
    args, kwargs = tuple(a[:1] for a in batch.args), {k: v[:1] for k, v in batch.kwargs.items()}
    alone = engine.call(engine.chosen, args, kwargs).detach()
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


def plan(engine: Engine, batch: Batch, sketch: str, m: int, seed: int) -> list[PlannedParameter]:
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
        sources, signatures, positions = _sources(engine, batch)
    names = list(engine.chosen)
    where = _owners(engine)
    found: list[PlannedParameter] = []
    for i, name in enumerate(names):
        module, layer, local = where[name]
        shape = matrix_shape(engine.chosen[name])
        r = shape[0] * shape[1]
        rule = engine.rules.get(module) if sources[name] == "hooks" else None
        delta = None if rule is None else rule.delta
        method, partner = sketch, None
        weight = engine.names[module].get("weight")
        if sketch == "auto":
            method = "gaussian" if r <= FORMED else "sparse_sign"
            if delta is not None and local == "weight" and r > FORMED:
                method = "product"
        if delta is not None and local == "bias" and weight is not None:
            joined = next((p for p in found if p.name == weight), None)
            if joined is not None and joined.method == "product" and joined.source == "hooks":
                method, partner = "product", weight
        if method == "product":
            side, terms = (seed, i, 0), _terms(shape, m, positions.get(name, 1))
            if partner is not None and delta is not None:
                # The side of the weight that takes the output's gradient.
                w = names.index(partner)
                side, terms = (seed, w, delta), found[w].projection.terms
            projection: Any = ProductProjection(*shape, m, side, (seed, i, 1), terms)
        else:
            own = int(np.random.SeedSequence([seed, i]).generate_state(1, np.uint64)[0] >> 1)
            projection = projection_for(method, r, m, own)
        found.append(
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
    return found


def _terms(shape, m, positions) -> int:
    """Return how many products to average: four, or what is cheap.

    Cheap is what costs no more than the layer's forward and backward, or next to nothing. It does
    not depend on the number of tokens, so that Γ does not.
    """
    rows, cols = shape
    budget = 3 * rows * cols
    if positions == 1:
        budget = max(budget, NOTHING)
    return int(np.clip(budget // ((rows + cols) * m), 1, 4))


def _owners(engine) -> dict[str, tuple]:
    """Return the module, its name and the local name of each chosen parameter."""
    owners: dict[str, tuple] = {}
    for layer, module in engine.model.named_modules():
        for local, name in engine.names[module].items():
            owners.setdefault(name, (module, layer, local))
    return owners


def _sources(engine, batch) -> tuple[dict[str, str], dict[str, Signature], dict[str, int]]:
    """Try the hooks, then `torch.func`, against autograd on the first samples."""
    output, uses = engine.forward(batch)
    if not torch.isfinite(output).all():
        raise ValueError("The 'model' parameter gives outputs that are not finite on X.")
    _check_independence(engine, batch, output.detach())
    if output.grad_fn is None:
        raise ValueError(
            "The outputs of the 'model' parameter do not depend on the chosen parameters, or are "
            "computed without gradients."
        )
    _share(engine, batch, output.detach(), uses)
    agreed, shown, signatures, positions, sums = _probe(engine, batch, list(engine.chosen))
    # What is zero for all samples confirms nothing. New adapters are multiplied by a weight of
    # zeros, so look again with others.
    hidden = [name for name in agreed - shown if signatures[name] != UNUSED]
    if hidden:
        chosen = engine.chosen
        try:
            engine.chosen = {
                name: p if p.any() else (noise(engine, p) / 100).requires_grad_()
                for name, p in chosen.items()
            }
            again, shown_again, *_ = _probe(engine, batch, hidden)
        finally:
            engine.chosen = chosen
        agreed -= shown_again - again
        shown |= shown_again
    for name in agreed - shown:
        signatures[name] = UNUSED  # to be confirmed when it is used
    ruled = {
        own[local]
        for own in map(engine.names.get, engine.rules)
        for local in own.keys() & {"weight", "bias"}
    }
    rest = [name for name in engine.chosen if name not in agreed & ruled]
    sources = dict.fromkeys(engine.chosen, "hooks")
    if rest:
        works = _vmap_works(engine, batch, rest, *sums)
        sources |= dict.fromkeys(rest, "torch.func" if works else "loop")
    return sources, signatures, positions


def _share(engine, batch, output, uses):
    """Find layers whose one output all samples share, such as embeddings of positions.

    The engine repeats it for each sample, if that is all the same to the model.
    """
    engine.shared = {use.module for use in uses if use.a.shape[:1] == (1,)}
    if engine.shared:
        try:
            again, _ = engine.forward(batch)
            same = _same_outputs(output, again.detach())
        except Exception:  # shapes that do not fit, of many kinds
            same = False
        if not same:
            engine.shared = set()


def _probe(engine, batch, names):
    """Compare the hooks' gradients of named parameters with autograd's.

    Returns
    -------
    agreed, shown : set of str
        Parameters for which they agree, and those with a gradient that is not zero.
    signatures : dict of str to Signature
        Of all parameters.
    positions : dict of str to int
        Tokens or pixels per sample that layers see.
    sums : tuple
        Cotangent, weights of the samples, and weighted sums of autograd's gradients.
    """
    output, uses = engine.forward(batch)
    cotangent = noise(engine, output)
    deltas = engine.backward(output, uses, cotangent, retain_graph=True)
    weights, truths = autograd_sums(engine, names, output, cotangent)
    agreed = confirm(engine, weights, truths, uses, deltas)
    positions: dict[str, int] = {}
    for use, delta in zip(uses, deltas, strict=True):
        if delta is not None and use.ratio is not None:
            for name, term in engine.terms(use, delta, batch.size).items():
                positions[name] = positions.get(name, 0) + term.positions
    shown = {name for name in names if truths[name].any()}
    return agreed, shown, engine.signatures(output, uses), positions, (cotangent, weights, truths)


def _vmap_works(engine, batch, names, cotangent, weights, truths) -> bool:
    try:
        parts = [*per_sample_gradients(engine, names, batch, cotangent, "torch.func")]
    except Exception:  # torch raises many kinds for what vmap cannot do
        return False
    found = {name: weights @ torch.cat([part[name] for part in parts]) for name in names}
    flat = {name: truth.flatten() for name, truth in truths.items()}
    return agreeing(engine, {**flat, **found}, flat, truths) >= set(names)
