r"""Per-sample gradients of a layer's parameters from its input and the gradient at its output.

A call of a layer with input a and gradient δ at its output adds to the gradient of the weight a sum
of outer products over positions (tokens, pixels). A *term* stores the two sides u and v of these
outer products. It returns either the exact gradient, some rows at a time, or its product sketch
:math:`\sum_t (Q^\top u_t) \circ (P^\top v_t)`, which never forms the gradient. A *rule* states, for
one kind of module, the terms of its parameters.

Choosing a rule by the kind of a module is only a guess: `_planner` uses a rule only where it agrees
with autograd.
"""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class OuterProducts:
    """The gradient of a (rows × cols) weight, Σ_t u_t ⊗ v_t.

    Parameters
    ----------
    u : Tensor of shape (B, T, rows)
        Row side of the outer product at each position.
    v : Tensor of shape (B, T, cols)
        Column side.
    delta_is_u : bool
        Whether u is the gradient at the output. The bias joins the other side, as an input that
        is constantly one.
    """

    def __init__(self, u, v, delta_is_u=True):
        self.u, self.v, self.delta_is_u = u, v, delta_is_u
        self.shape = u.shape[2], v.shape[2]
        self.positions = u.shape[1]

    def _project_sides(self, Q, P):
        """Return Qᵀu and Pᵀv, each of shape (B, T, m)."""
        return self.u @ Q, self.v @ P

    def product_sketch(self, Q, P, beta=None):
        """Return Σ_t Qᵀu_t∘Pᵀv_t of shape (B, m), with β added to the side of the layer's input."""
        left, right = self._project_sides(Q, P)
        if beta is not None:
            if self.delta_is_u:
                right += beta
            else:
                left += beta
        left *= right
        return left.sum(1) if left.shape[1] > 1 else left[:, 0]

    def gradient_rows(self, start, stop):
        """Return rows start to stop of the weight's gradient, flattened to shape (B, ·)."""
        return torch.einsum("btr,btc->brc", self.u[:, :, start:stop], self.v).flatten(1)


class TokenOuterProducts(OuterProducts):
    """The gradient of an embedding's weight, where u_t is the unit vector of a token."""

    def __init__(self, tokens, v, rows, skip):
        # Padding tokens get no gradient.
        self.tokens = tokens
        self.v = v if skip is None else v * (tokens != skip)[:, :, None]
        self.delta_is_u = False
        self.shape = rows, v.shape[2]
        self.positions = tokens.shape[1]

    def _project_sides(self, Q, P):
        return Q[self.tokens], self.v @ P

    def gradient_rows(self, start, stop):
        out = self.v.new_zeros(len(self.v), stop - start + 1, self.v.shape[2])
        # Tokens of other rows are added to an extra last row, which is cut off.
        inside = (self.tokens >= start) & (self.tokens < stop)
        index = torch.where(inside, self.tokens - start, stop - start)
        out.scatter_add_(1, index[:, :, None].expand_as(self.v), self.v)
        return out[:, :-1].flatten(1)


class PatchOuterProducts(OuterProducts):
    """The gradient of a convolution's weight, where v_t is the input patch at position t.

    The columns of P have the shape of the layer's filters, so Pᵀv_t for all t is a convolution.
    Patches are extracted only for the exact gradient.
    """

    def __init__(self, module, a, delta, size):
        self.module, self.a, self.size = module, a, size
        self.u = _pixels_by_sample(delta, size)
        self.delta_is_u = True
        self.shape = module.weight.shape[0], module.weight[0].numel()
        self.positions = self.u.shape[1]

    def _project_sides(self, Q, P):
        filters = P.T.reshape(P.shape[1], *self.module.weight.shape[1:])
        return self.u @ Q, _pixels_by_sample(_convolve(self.module, self.a, filters), self.size)

    @cached_property
    def v(self):
        """The patches, of shape (B, T, cols)."""
        # Filters that each extract one entry of a patch work for any stride, dilation and padding.
        unit = torch.eye(self.shape[1], dtype=self.a.dtype, device=self.a.device)
        return self._project_sides(self.u.new_zeros(self.shape[0], 1), unit)[1]


def _convolve(module, a, filters, groups=1):
    """Convolve the input with filters, as the module does with its weight."""
    convolve = (F.conv1d, F.conv2d, F.conv3d)[a.ndim - 3]
    padding: str | tuple[int, ...] = module.padding
    if module.padding_mode != "zeros":
        a = F.pad(a, module._reversed_padding_repeated_twice, mode=module.padding_mode)
        padding = (0,) * (a.ndim - 2)
    return convolve(a, filters, None, module.stride, padding, module.dilation, groups)


class FormedGradient:
    """The exact gradient as a tensor, for parameters with few entries.

    Parameters
    ----------
    values : Tensor of shape (B, entries)
        The flat gradient of each sample.
    cols : int, default=1
        Number of columns of the parameter as a matrix.
    positions : int, default=1
        Number of positions that were summed over, if that is a significant cost.
    """

    def __init__(self, values, cols=1, positions=1):
        self.values, self.positions = values, positions
        self.shape = values.shape[1] // cols, cols

    def product_sketch(self, Q, P, beta=None):
        """Return qᵀAp for corresponding columns q of Q and p of P, with A the gradient matrix."""
        return ((self.values.reshape(-1, len(Q), len(P)) @ P) * Q).sum(1)

    def gradient_rows(self, start, stop):
        """Return rows start to stop of the gradient, flattened to shape (B, ·)."""
        return self.values[:, start * self.shape[1] : stop * self.shape[1]]


class Rule(NamedTuple):
    """How the gradients of the parameters of one kind of module are computed."""

    matches: Callable  # module -> bool
    terms: Callable  # (module, a, delta, size) -> {"weight": term, "bias": term}
    # Side of the weight that δ belongs to: 0 for rows, 1 for columns, None if not an outer product.
    delta_side: int | None = None
    # Numbers of last dimensions of the input and the output, as a function of the module, that are
    # one position. None if a position is a whole entry of the first dimension.
    dims_of_position: Callable | None = None


# The first dimension of a layer's input may be a multiple of the number of samples, for example if
# tokens or windows are flattened into it.


def _tokens_by_sample(x, size):
    """Reshape x from (size · k, ..., d) to (size, T, d)."""
    return x.reshape(size, -1, x.shape[-1])


def _pixels_by_sample(x, size):
    """Reshape x from (size · k, channels, ...) to (size, T, channels)."""
    return x.reshape(*x.shape[:2], -1).transpose(1, 2).reshape(size, -1, x.shape[1])


def _linear(module, a, delta, size):
    delta = _tokens_by_sample(delta, size)
    return {
        "weight": OuterProducts(delta, _tokens_by_sample(a, size)),
        "bias": FormedGradient(delta.sum(1)),
    }


def _linear_transposed(module, a, delta, size):
    a, delta = _tokens_by_sample(a, size), _tokens_by_sample(delta, size)
    return {
        "weight": OuterProducts(a, delta, delta_is_u=False),
        "bias": FormedGradient(delta.sum(1)),
    }


def _embedding(module, a, delta, size):
    # Some embeddings in transformers multiply by a fixed scale.
    delta = _tokens_by_sample(delta, size) * getattr(module, "embed_scale", 1.0)
    tokens = a.reshape(size, -1)
    return {"weight": TokenOuterProducts(tokens, delta, module.num_embeddings, module.padding_idx)}


def _convolution(module, a, delta, size):
    weight = PatchOuterProducts(module, a, delta, size)
    return {"weight": weight, "bias": FormedGradient(weight.u.sum(1))}


def _grouped_convolution(module, a, delta, size):
    groups, rows, cols = module.groups, module.weight.shape[0], module.weight[0].numel()
    unit = torch.eye(cols, dtype=a.dtype, device=a.device)
    filters = unit.reshape(cols, *module.weight.shape[1:])
    filters = filters.repeat(groups, *[1] * (filters.ndim - 1))
    patches = _pixels_by_sample(_convolve(module, a, filters, groups), size)
    patches = patches.reshape(size, -1, groups, cols)
    delta = _pixels_by_sample(delta, size)
    sides = delta.reshape(size, -1, groups, rows // groups), patches
    gradient = torch.einsum("btgr,btgc->bgrc", *sides).reshape(size, -1)
    return {
        "weight": FormedGradient(gradient, cols, delta.shape[1]),
        "bias": FormedGradient(delta.sum(1)),
    }


def _terms_over_last_dims(normal, delta, size):
    """Return the terms of a scale and a shift over the last dimensions."""
    return {
        "weight": FormedGradient((delta * normal).reshape(size, -1, normal.shape[-1]).sum(1)),
        "bias": FormedGradient(delta.reshape(size, -1, normal.shape[-1]).sum(1)),
    }


def _normalisation(normalise):
    """Return the function `terms` of a rule for layers that normalise the last dimensions."""

    def terms(module, a, delta, size):
        normal = normalise(a, module.normalized_shape, eps=module.eps)
        over = a.ndim - len(module.normalized_shape)
        return _terms_over_last_dims(normal.flatten(over), delta.flatten(over), size)

    return terms


def _transformers_rms_norm(module, a, delta, size):
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return _terms_over_last_dims(F.rms_norm(a, a.shape[-1:], eps=eps), delta, size)


def _terms_over_channels(normal, delta, size):
    """Return the terms of a scale and a shift of each channel."""
    return {
        "weight": FormedGradient(_pixels_by_sample(delta * normal, size).sum(1)),
        "bias": FormedGradient(_pixels_by_sample(delta, size).sum(1)),
    }


def _group_norm(module, a, delta, size):
    return _terms_over_channels(F.group_norm(a, module.num_groups, eps=module.eps), delta, size)


def _batch_norm(module, a, delta, size):
    mean, variance = module.running_mean.to(a), module.running_var.to(a)
    return _terms_over_channels(F.batch_norm(a, mean, variance, eps=module.eps), delta, size)


RULES = (
    Rule(lambda m: isinstance(m, nn.Linear), _linear, 0, lambda m: (1, 1)),
    # The Conv1D of GPT-2 in transformers is a linear layer with a transposed weight.
    Rule(
        lambda m: type(m).__name__ == "Conv1D" and hasattr(m, "nf"),
        _linear_transposed,
        1,
        lambda m: (1, 1),
    ),
    Rule(
        lambda m: (
            isinstance(m, nn.Embedding)
            # Subclasses may take inputs that are not tokens, which cannot be used as indices.
            and (type(m).forward is nn.Embedding.forward or hasattr(m, "embed_scale"))
            and m.max_norm is None
            and not m.scale_grad_by_freq
        ),
        _embedding,
        1,
        lambda m: (0, 1),
    ),
    Rule(
        lambda m: isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d) and m.groups == 1,
        _convolution,
        0,
    ),
    Rule(lambda m: isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d), _grouped_convolution),
    Rule(
        lambda m: isinstance(m, nn.LayerNorm),
        _normalisation(F.layer_norm),
        None,
        lambda m: (len(m.normalized_shape),) * 2,
    ),
    Rule(
        lambda m: isinstance(m, nn.RMSNorm),
        _normalisation(F.rms_norm),
        None,
        lambda m: (len(m.normalized_shape),) * 2,
    ),
    # RMS norms in transformers, such as LlamaRMSNorm.
    Rule(
        lambda m: type(m).__name__.endswith(("RMSNorm", "T5LayerNorm")),
        _transformers_rms_norm,
        None,
        lambda m: (1, 1),
    ),
    Rule(lambda m: isinstance(m, nn.GroupNorm), _group_norm),
    Rule(
        lambda m: isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None,
        _batch_norm,
    ),
)


def rule_for(module: nn.Module) -> Rule | None:
    """Return the rule for a module, or None if there is none."""
    return next((rule for rule in RULES if rule.matches(module)), None)
