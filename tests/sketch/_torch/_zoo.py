"""A zoo of models, with inputs and the expected source of the gradients."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.sketch._torch._models import (
    Doubling,
    LlamaRMSNorm,
    Net,
    Scaled,
    bias_only,
    conv,
    force,
    frozen,
    norm,
    numbers,
    overwritten,
    residual,
    shared_module,
    tied,
    tokens,
    two_biases,
    with_layers_of_coordinates,
    with_positions,
    with_positions_in_place,
    with_table,
)

# For each model: how to make it, its input, and the source of the gradients of every layer whose
# gradients do not come from hooks.
ZOO = {
    "linear 2-d": (norm(nn.Tanh), numbers(4), {}),
    "linear 3-d": (norm(nn.Tanh), numbers(3, 4), {}),
    "linear 4-d": (norm(nn.Tanh), numbers(2, 3, 4), {}),
    "linear without bias": (lambda: nn.Linear(4, 3, bias=False), numbers(4), {}),
    "linear by keyword": (
        lambda: Net(lambda self, x: self.a(input=x), a=nn.Linear(4, 3)),
        numbers(4),
        {},
    ),
    "linear of a vector": (
        lambda: Net(lambda self, x: x * self.a(torch.ones(4).to(x)), a=nn.Linear(4, 4)),
        numbers(4),
        {"a": "torch.func"},
    ),
    "conv1d": (conv(nn.Conv1d, 2, 4, 3, stride=2, padding=1), numbers(2, 9), {}),
    "conv1d same": (conv(nn.Conv1d, 2, 4, 4, padding="same", dilation=2), numbers(2, 9), {}),
    "conv1d without bias": (conv(nn.Conv1d, 2, 4, 3, bias=False), numbers(2, 5), {}),
    "conv1d reflect": (
        conv(nn.Conv1d, 2, 4, 3, padding=2, padding_mode="reflect"),
        numbers(2, 6),
        {},
    ),
    "conv2d": (conv(nn.Conv2d, 2, 4, (3, 2), stride=(1, 2), padding=(0, 1)), numbers(2, 5, 6), {}),
    "conv2d valid": (conv(nn.Conv2d, 2, 4, 2, padding="valid", dilation=2), numbers(2, 5, 4), {}),
    "conv2d circular": (
        conv(nn.Conv2d, 2, 4, 3, padding=1, padding_mode="circular", stride=2),
        numbers(2, 5, 4),
        {},
    ),
    "conv2d same reflect": (
        conv(nn.Conv2d, 2, 4, (2, 3), padding="same", padding_mode="reflect"),
        numbers(2, 4, 4),
        {},
    ),
    "conv2d one pixel": (conv(nn.Conv2d, 2, 4, 2), numbers(2, 2, 2), {}),
    "conv2d groups": (conv(nn.Conv2d, 4, 6, 2, groups=2, padding=1), numbers(4, 3, 3), {}),
    "conv2d groups of circular": (
        conv(nn.Conv2d, 4, 4, 3, groups=2, padding=1, padding_mode="circular", stride=2),
        numbers(4, 4, 4),
        {},
    ),
    "conv2d depthwise": (conv(nn.Conv2d, 3, 6, 3, groups=3, padding="same"), numbers(3, 3, 4), {}),
    "conv3d": (conv(nn.Conv3d, 2, 3, (1, 2, 2), padding=(1, 0, 0)), numbers(2, 2, 3, 3), {}),
    "embedding": (lambda: nn.Sequential(nn.Embedding(8, 3), nn.Tanh()), tokens(8, 4), {}),
    "embedding of a token": (
        lambda: nn.Sequential(nn.Flatten(0), nn.Embedding(8, 3), nn.Tanh()),
        tokens(8, 1),
        {},
    ),
    "embedding with padding": (
        lambda: nn.Sequential(nn.Embedding(8, 3, padding_idx=-8), nn.Tanh()),
        tokens(8, 2, 3),
        {},
    ),
    "embedding sparse": (lambda: nn.Embedding(8, 3, sparse=True), tokens(8, 4), {}),
    "embedding sparse by function": (
        lambda: Net(
            lambda self, x: F.embedding(x, self.a.weight, sparse=True), a=nn.Embedding(8, 3)
        ),
        tokens(8, 4),
        {"a": "loop"},
    ),
    "embedding max_norm": (
        lambda: nn.Sequential(nn.Embedding(8, 3, max_norm=0.5), nn.Tanh()),
        tokens(8, 4),
        {"0": "loop"},
    ),
    # Autograd scales by the frequency of tokens in the whole batch, not in each sample.
    "embedding by frequency": (
        lambda: nn.Embedding(30, 3, scale_grad_by_freq=True),
        # All tokens of the first two samples are different.
        np.vstack([np.arange(12).reshape(2, 6), tokens(8, 6)[2:]]),
        {"": "torch.func"},
    ),
    "embedding bag": (lambda: nn.EmbeddingBag(8, 3), tokens(8, 4), {"": "torch.func"}),
    "embedding of positions": (
        lambda: Net(with_positions, positions=nn.Embedding(6, 4), head=nn.Linear(4, 2)),
        numbers(3, 4),
        {},
    ),
    # If its output were repeated for each sample, the model would have that many outputs.
    "embedding as weights": (
        lambda: Net(with_table, positions=nn.Embedding(2, 4)),
        numbers(4),
        {"positions": "torch.func"},
    ),
    "embedding of positions in place": (
        lambda: Net(with_positions_in_place, positions=nn.Embedding(6, 4), head=nn.Linear(4, 2)),
        numbers(3, 4),
        {},
    ),
    "layers of positions": (
        lambda: Net(
            with_layers_of_coordinates, a=nn.Linear(2, 3), b=nn.Linear(3, 4), head=nn.Linear(4, 2)
        ),
        numbers(3, 4),
        {},
    ),
    "tied embedding": (tied(False), tokens(8, 4), {}),
    "tied embedding with bias": (tied(True), tokens(8, 4), {}),
    "layer norm": (norm(lambda: nn.LayerNorm(4)), numbers(3, 4), {}),
    "layer norm 2-d": (norm(lambda: nn.LayerNorm((3, 4))), numbers(2, 3, 4), {}),
    "layer norm of all": (norm(lambda: nn.LayerNorm((2, 3, 4))), numbers(2, 3, 4), {}),
    "layer norm plain": (
        norm(lambda: nn.LayerNorm(4, elementwise_affine=False)),
        numbers(3, 4),
        {},
    ),
    "layer norm without bias": (norm(lambda: nn.LayerNorm(4, bias=False)), numbers(4), {}),
    "rms norm": (norm(lambda: nn.RMSNorm(4)), numbers(3, 4), {}),
    "rms norm 2-d": (norm(lambda: nn.RMSNorm((3, 4), eps=0.1)), numbers(3, 4), {}),
    "rms norm of transformers": (norm(lambda: LlamaRMSNorm(4)), numbers(3, 4), {}),
    "group norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 2), nn.GroupNorm(2, 4)),
        numbers(2, 3, 3),
        {},
    ),
    "batch norm 1-d": (norm(lambda: nn.BatchNorm1d(4)), numbers(4), {}),
    "batch norm of sequences": (norm(lambda: nn.BatchNorm1d(3)), numbers(3, 4), {}),
    "batch norm 2-d": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 2, bias=False), nn.BatchNorm2d(4), nn.Tanh()),
        numbers(2, 3, 3),
        {},
    ),
    "instance norm": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 2), nn.InstanceNorm1d(4, affine=True), nn.Tanh()),
        numbers(2, 5),
        {"1": "torch.func"},
    ),
    "conv transposed": (
        conv(nn.ConvTranspose2d, 2, 3, 2, stride=2),
        numbers(2, 3, 3),
        {"0": "torch.func"},
    ),
    "bilinear": (
        lambda: Net(lambda self, x: self.a(x, x.square()), a=nn.Bilinear(4, 4, 3)),
        numbers(4),
        {"a": "torch.func"},
    ),
    "prelu": (norm(lambda: nn.PReLU(4)), numbers(4), {"1": "torch.func"}),
    "attention": (
        lambda: Net(
            lambda self, x: self.a(x, x, x)[0], a=nn.MultiheadAttention(4, 2, batch_first=True)
        ),
        numbers(3, 4),
        {"a": "torch.func", "a.out_proj": "torch.func"},
    ),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        numbers(3, 4),
        {"self_attn": "torch.func", "self_attn.out_proj": "torch.func"},
    ),
    "lstm": (lambda: nn.LSTM(3, 4, num_layers=2, batch_first=True), numbers(4, 3), {"": "loop"}),
    "gru": (
        lambda: Net(
            lambda self, x: self.b(self.a(x)[0][:, -1]),
            a=nn.GRU(3, 4, batch_first=True, bidirectional=True),
            b=nn.Linear(8, 2),
        ),
        numbers(4, 3),
        {"a": "loop"},
    ),
    "bare parameter": (
        lambda: Net(
            lambda self, x: self.a(x * self.p), p=nn.Parameter(torch.rand(3, 4)), a=nn.Linear(4, 2)
        ),
        numbers(3, 4),
        {"": "torch.func"},
    ),
    "scalar parameter": (
        lambda: Net(
            lambda self, x: self.a(x) * self.p, p=nn.Parameter(torch.tensor(2.0)), a=nn.Linear(4, 2)
        ),
        numbers(4),
        {"": "torch.func"},
    ),
    "subclass with a parameter": (lambda: Scaled(4, 3), numbers(4), {"": "torch.func"}),
    "subclass with another forward": (lambda: Doubling(4, 3), numbers(4), {"": "torch.func"}),
    "parametrized": (
        lambda: nn.Sequential(
            parametrizations.weight_norm(nn.Linear(4, 4)),
            nn.Tanh(),
            parametrizations.orthogonal(nn.Linear(4, 3), use_trivialization=False),
        ),
        numbers(4),
        {"0.parametrizations.weight": "torch.func", "2.parametrizations.weight": "torch.func"},
    ),
    "called by function": (
        lambda: Net(lambda self, x: F.linear(x, self.a.weight).tanh(), a=nn.Linear(4, 3)),
        numbers(4),
        {"a": "torch.func"},
    ),
    "called both ways": (
        lambda: Net(lambda self, x: F.linear(self.a(x).tanh(), self.a.weight), a=nn.Linear(4, 4)),
        numbers(4),
        {"a": "torch.func"},
    ),
    "called twice": (
        lambda: Net(lambda self, x: self.a(self.a(x).tanh()), a=nn.Linear(4, 4)),
        numbers(3, 4),
        {},
    ),
    "one weight, two biases": (two_biases, numbers(4), {}),
    "one module, two names": (shared_module, numbers(4), {}),
    "partly frozen": (frozen, numbers(4), {}),
    "biases alone": (bias_only, numbers(4), {}),
    "all frozen": (lambda: norm(nn.Tanh)().requires_grad_(False), numbers(4), {}),
    "unused": (
        lambda: Net(
            lambda self, x: self.a(x),
            a=nn.Linear(4, 3),
            b=nn.Linear(4, 3),
            c=nn.Parameter(torch.rand(2)),
        ),
        numbers(4),
        {"": "torch.func"},
    ),
    "in place": (
        lambda: Net(residual, a=nn.Linear(4, 4), b=nn.Linear(4, 4)),
        numbers(3, 4),
        {},
    ),
    "input of a layer in place": (
        lambda: Net(overwritten, a=bias_only()),
        numbers(4),
        {"a.0": "torch.func"},
    ),
    "inputs in place": (
        lambda: Net(
            lambda self, x: self.a(x.mul_(2)) + x.add_(1) @ self.p,
            p=nn.Parameter(torch.rand(4, 3)),
            a=nn.Linear(4, 3, bias=False).requires_grad_(False),
        ),
        numbers(4),
        {"": "torch.func"},
    ),
    "relu in place": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 2), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1)
        ),
        numbers(2, 3, 3),
        {},
    ),
    "samples second": (
        lambda: Net(
            lambda self, x: self.b(self.a(x.transpose(0, 1)).tanh().transpose(0, 1)),
            a=nn.Linear(4, 3),
            b=nn.Linear(3, 2),
        ),
        numbers(2, 4),
        {},
    ),
    "samples second, one position": (
        lambda: Net(
            lambda self, x: self.b(self.a(x[None]).tanh()[0]), a=nn.Linear(4, 3), b=nn.Linear(3, 2)
        ),
        numbers(4),
        {},
    ),
    "tokens in rows": (
        lambda: Net(
            lambda self, x: self.norm(self.a(x.reshape(-1, 4)).tanh()).reshape(len(x), -1, 3),
            a=nn.Linear(4, 3),
            norm=nn.BatchNorm1d(3),
        ),
        numbers(3, 4),
        {},
    ),
    "frames in rows": (
        lambda: Net(
            lambda self, x: self.b(self.a(x.flatten(0, 1)).tanh()).reshape(len(x), -1),
            a=nn.Conv2d(2, 4, 2),
            b=nn.Conv2d(4, 4, 2, groups=2),
        ),
        numbers(3, 2, 3, 3),
        {},
    ),
    "forces": (
        lambda: Net(force, a=nn.Linear(4, 5), b=nn.Linear(5, 1)),
        numbers(4),
        {"a": "loop", "b": "loop"},
    ),
    "dropout": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 3)),
        numbers(4),
        {},
    ),
    "zeros": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)),
        0 * numbers(4),
        {},
    ),
    # Layers with more parameters than a block of Γ has rows.
    "wide linear": (lambda: nn.Sequential(nn.Linear(70, 60), nn.Tanh()), numbers(70), {}),
    "wide conv": (conv(nn.Conv2d, 8, 60, 3), numbers(8, 4, 4), {}),
    "wide grouped conv": (conv(nn.Conv1d, 60, 88, 5, groups=4), numbers(60, 6), {}),
    "wide embedding": (lambda: nn.Embedding(700, 7), tokens(700, 3), {}),
    "wide norm": (lambda: nn.LayerNorm((50, 90)), numbers(50, 90), {}),
    "wide parameter": (
        lambda: Net(lambda self, x: x @ self.p, p=nn.Parameter(torch.randn(70, 60))),
        numbers(70),
        {"": "torch.func"},
    ),
}
