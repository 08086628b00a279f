"""Small models that use parameters in many ways, and inputs for them."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

N, M = 5, 7  # in batches of 4, the last batch has one sample


class Net(nn.Module):
    """A model with these parts and this forward pass."""

    def __init__(self, call, **parts):
        super().__init__()
        self.call = call
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args, **kwargs):
        return self.call(self, *args, **kwargs)


def numbers(*shape):
    return np.random.RandomState(0).normal(size=(N, *shape))


def tokens(high, *shape):
    # The first samples share tokens, and one sample has the same token several times.
    return np.random.RandomState(0).randint(high, size=(N, *shape)) // 2 * 2


def conv(kind, *args, **kwargs):
    return lambda: nn.Sequential(kind(*args, **kwargs), nn.Tanh(), nn.Flatten())


def norm(layer, n_in=4, n_out=4):
    return lambda: nn.Sequential(nn.Linear(n_in, n_out), layer(), nn.Tanh())


def tied(bias):
    def make():
        model = Net(
            lambda self, x: self.head(torch.tanh(self.embedding(x))),
            embedding=nn.Embedding(8, 3),
            head=nn.Linear(3, 8, bias=bias),
        )
        model.head.weight = model.embedding.weight
        return model

    return make


def two_biases():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    model[4].bias = model[0].bias
    return model


def shared_module():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer)


def frozen():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    model[1].weight.requires_grad_(False)
    model[3].bias.requires_grad_(False)
    return model


def bias_only():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    model[0].weight.requires_grad_(False)
    model[2].weight.requires_grad_(False)
    return model


def force(self, x):
    x = x.requires_grad_()
    energy = self.b(torch.tanh(self.a(x))).sum()
    return torch.autograd.grad(energy, x, create_graph=True)[0]


class Scaled(nn.Linear):
    """A subclass of a layer that adds a parameter."""

    def __init__(self, *args):
        super().__init__(*args)
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.scale * super().forward(x)


class Doubling(nn.Linear):
    """A subclass of a layer for which the layer's rule is wrong."""

    def forward(self, x):
        return super().forward(2 * x)


class LlamaRMSNorm(nn.Module):
    """The RMS norm of Llama in transformers."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size))
        self.variance_epsilon = 0.1

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.1)


def residual(self, x):
    h = self.a(x)
    h += x  # changes the output of a layer in place
    out = self.b(h.tanh_())
    return F.relu_(out) + out


def overwritten(self, x):
    h = self.a(x)
    x.zero_()  # allowed, as the weight is frozen
    return h + x[:, :3]


def with_layers_of_coordinates(self, x):
    places = torch.linspace(0, 1, 6).to(x).reshape(1, 3, 2)
    return self.head(torch.tanh(x + self.b(self.a(places).tanh())))


def with_positions(self, x):
    return self.head(torch.tanh(x + self.positions(torch.arange(x.shape[1])[None])))


def with_table(self, x):
    return x @ self.positions(torch.zeros(1, dtype=int)).T


def with_positions_in_place(self, x):
    h = self.positions(torch.arange(x.shape[1])[None])
    h += 1
    return self.head(torch.tanh(x * h))


def build(make, dtype=torch.float64):
    """Build a model with seed 0 and random statistics of its batch norms."""
    torch.manual_seed(0)
    model = make().to(dtype)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return model


def model_state(model):
    """Return everything about a model that a sketch must not change."""
    return {
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "grad": {
            k: None if p.grad is None else p.grad.clone() for k, p in model.named_parameters()
        },
        "requires_grad": {k: p.requires_grad for k, p in model.named_parameters()},
        "ids": {k: id(p) for k, p in model.named_parameters()},
        "modes": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
    }
