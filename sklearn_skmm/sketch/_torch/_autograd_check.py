"""Check that the hooks find the same per-sample gradients as autograd."""

from typing import NamedTuple

import numpy as np
import torch

from sklearn_skmm.sketch._torch._layer_rules import FormedGradient
from sklearn_skmm.sketch._torch._parameters import matrix_shape


class AutogradSums(NamedTuple):
    """Weighted sums over a batch of the per-sample gradients, computed by autograd."""

    weights: torch.Tensor  # random, of shape (B,)
    gradients: dict[str, torch.Tensor]  # the weighted sum for each parameter


def autograd_sums(engine, names, output, cotangent) -> AutogradSums:
    """Draw random weights for the samples and let autograd sum the gradients with them."""
    weights = _standard_normal(engine, len(output), 1)[:, 0]
    weighted = cotangent * weights.to(cotangent).reshape(-1, *[1] * (output.ndim - 1))
    leaves = [engine.chosen[name] for name in names]
    grads = torch.autograd.grad(output, leaves, weighted, retain_graph=True, allow_unused=True)
    gradients = {
        name: (torch.zeros_like(p) if g is None else g.to_dense()).to(engine.sketch_dtype)
        for name, p, g in zip(names, leaves, grads, strict=True)
    }
    return AutogradSums(weights, gradients)


def parameters_confirmed_by_autograd(engine, sums: AutogradSums, calls, deltas) -> set[str]:
    """Return the parameters for which the hooks' per-sample gradients agree with autograd.

    The randomly weighted sums over the samples are compared, after multiplying them from the left
    and the right by random vectors. They cannot agree by accident, and no per-sample gradient is
    formed.

    Parameters
    ----------
    sums : AutogradSums
        From `autograd_sums`.
    calls, deltas : list
        Calls of layers, and the gradients at their outputs, without the random weights.
    """
    weights, gradients = sums
    random_sides = {
        name: [_standard_normal(engine, n, 8, seed) for seed, n in enumerate(matrix_shape(g), 1)]
        for name, g in gradients.items()
    }
    from_hooks = {name: weights.new_zeros(8) for name in gradients}
    for call, delta in zip(calls, deltas, strict=True):
        names = from_hooks.keys() & engine.parameter_names[call.module].values()
        if delta is None or not names:
            continue
        try:
            samples, terms = engine.gradient_terms(call, delta, len(weights))
            for name in names & terms.keys():
                sketch = terms[name].product_sketch(*random_sides[name])
                from_hooks[name] += weights[samples] @ sketch
        except Exception:  # the rule may not apply to this layer
            for name in names:
                from_hooks[name] += torch.nan
    from_hooks = {name: products / 8**0.5 for name, products in from_hooks.items()}
    from_autograd = {}
    for name, g in gradients.items():
        formed = FormedGradient(g.reshape(1, -1), matrix_shape(g)[1])
        from_autograd[name] = formed.product_sketch(*random_sides[name])[0] / 8**0.5
    return parameters_that_agree(engine, from_hooks, from_autograd, gradients)


def parameters_that_agree(engine, found, expected, gradients) -> set[str]:
    """Return the parameters for which two vectors agree to the precision of autograd."""
    largest = max(float(g.norm()) for g in gradients.values())
    return {
        name
        for name, g in gradients.items()
        if equal_up_to_rounding(
            float((found[name] - expected[name]).norm()),
            float(g.norm()),
            largest,
            torch.finfo(engine.chosen[name].dtype).eps,
        )
    }


def equal_up_to_rounding(difference, expected, largest, eps) -> bool:
    """Return whether two computations of a gradient agree, from the norm of their difference.

    Parameters
    ----------
    difference, expected : float
        Norms of the difference and of the gradient.
    largest : float
        Largest norm among the gradients of all parameters. Gradients that are tiny compared with
        it, such as that of a bias followed by a softmax, are rounding errors.
    eps : float
        Precision of the computation.
    """
    relative = max(20 * eps, min(10 * eps**0.5, 1e-2)) if eps < 1e-4 else 20 * eps
    rounding = 20 * min(eps, torch.finfo(torch.float32).eps)
    return bool(difference <= relative * expected + rounding * largest)


def random_like(engine, like):
    """Return random numbers with the shape and dtype of a tensor, the same in every call."""
    return _standard_normal(engine, like.numel(), 1, 3).reshape(like.shape).to(like.dtype)


def _standard_normal(engine, rows, cols, seed=0):
    """Return standard normal numbers, the same in every call."""
    stream = np.random.Generator(np.random.Philox(key=[1, seed]))
    drawn = torch.as_tensor(stream.standard_normal((rows, cols)))
    return drawn.to(engine.device, engine.sketch_dtype)
