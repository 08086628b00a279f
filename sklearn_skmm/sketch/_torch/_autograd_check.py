"""Whether the hooks give the per-sample gradients that autograd gives."""

import numpy as np
import torch

from sklearn_skmm.sketch._torch._layer_rules import Exact
from sklearn_skmm.sketch._torch._parameters import matrix_shape


def autograd_sums(engine, names, output, cotangent) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return random weights of the samples, and with these autograd's sums of gradients."""
    weights = _random(engine, len(output), 1)[:, 0]
    weighted = cotangent * weights.to(cotangent).reshape(-1, *[1] * (output.ndim - 1))
    leaves = [engine.chosen[name] for name in names]
    grads = torch.autograd.grad(output, leaves, weighted, retain_graph=True, allow_unused=True)
    return weights, {
        name: (torch.zeros_like(p) if g is None else g.to_dense()).to(engine.sketch_dtype)
        for name, p, g in zip(names, leaves, grads, strict=True)
    }


def confirm(engine, weights, truths, uses, deltas) -> set[str]:
    """Return the parameters whose per-sample gradients the hooks give.

    Sums over the samples are compared, with random weights and from the left and right
    multiplied by random vectors: they agree by no accident, and no gradient is formed.

    Parameters
    ----------
    weights, truths : Tensor of shape (B,), dict of str to Tensor
        From `autograd_sums`.
    uses, deltas : list
        Uses of layers, and the gradients at their outputs, without weights.
    """
    sides = {
        name: [_random(engine, n, 8, seed) for seed, n in enumerate(matrix_shape(g), 1)]
        for name, g in truths.items()
    }
    found = {name: weights.new_zeros(8) for name in truths}
    for use, delta in zip(uses, deltas, strict=True):
        names = found.keys() & engine.names[use.module].values()
        if delta is None or not names:
            continue
        try:
            terms = engine.terms(use, delta, len(weights))
            for name in names & terms.keys():
                found[name] += weights @ terms[name].product(*sides[name])
        except Exception:  # the rule may not be made for this
            for name in names:
                found[name] += torch.nan
    products = {
        name: Exact(g.reshape(1, -1), matrix_shape(g)[1]).product(*sides[name])[0] / 8**0.5
        for name, g in truths.items()
    }
    return agreeing(engine, {name: g / 8**0.5 for name, g in found.items()}, products, truths)


def agreeing(engine, found, expected, truths) -> set[str]:
    """Return the parameters for which two vectors agree, as far as autograd is precise."""
    largest = max(float(g.norm()) for g in truths.values())
    return {
        name
        for name, g in truths.items()
        if agree(
            float((found[name] - expected[name]).norm()),
            float(g.norm()),
            largest,
            engine.chosen[name].dtype,
        )
    }


def agree(difference, truth, largest, dtype) -> bool:
    """Whether two ways to one gradient agree, by the norms of their difference and of itself.

    Parameters
    ----------
    difference, truth : float
        Norms.
    largest : float
        Norm of the largest gradient of a parameter. What is next to nothing beside it, such as
        that of a bias below a softmax, is rounding.
    dtype : torch.dtype
        Precision in which it was computed.
    """
    eps = torch.finfo(dtype).eps
    relative = max(20 * eps, min(10 * eps**0.5, 1e-2)) if eps < 1e-4 else 20 * eps
    rounding = 20 * min(eps, torch.finfo(torch.float32).eps)
    return bool(difference <= relative * truth + rounding * largest)


def noise(engine, like):
    """Return random numbers in the shape of a tensor."""
    return _random(engine, like.numel(), 1, 3).reshape(like.shape).to(like.dtype)


def _random(engine, rows, cols, seed=0):
    """Return standard normal numbers, the same every time."""
    stream = np.random.Generator(np.random.Philox(key=[1, seed]))
    drawn = torch.as_tensor(stream.standard_normal((rows, cols)))
    return drawn.to(engine.device, engine.sketch_dtype)
