"""The engine of sketched gradients against a plain loop of autograd, over a zoo of models."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from sklearn_skmm import GradientSketcher
from sklearn_skmm.sketch._torch import _engine

N, M = 5, 7  # with batches of 4 the last has one sample
SKETCHES = ["auto", "gaussian", "sparse_sign", "product"]


class Net(nn.Module):
    """A model of these parts with this forward pass."""

    def __init__(self, call, **parts):
        super().__init__()
        self.call = call
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args, **kwargs):
        return self.call(self, *args, **kwargs)


def weighted(output, target):
    """A loss that weights each output on its own."""
    return (output * target).sum()


def tensor_of(result):
    for name in ("logits", "last_hidden_state"):
        if hasattr(result, name):
            return getattr(result, name)
    if isinstance(result, dict):
        return result["logits"]
    return result if isinstance(result, torch.Tensor) else result[0]


def plain(model, X, scalar=weighted, y=None):
    """Per-sample gradients in evaluation mode by a plain loop, and y: random where it is None."""
    model = model.eval()
    named = dict(model.named_parameters())
    chosen = [p for p in named.values() if p.requires_grad]
    if not chosen:
        chosen = [p.requires_grad_() for p in named.values()]
    rows, labels = [], []
    n_samples = len(next(iter(X.values())) if isinstance(X, dict) else X)
    for i in range(n_samples):
        if isinstance(X, dict):
            result = model(**{k: torch.tensor(v[i : i + 1]) for k, v in X.items()})
        else:
            x = torch.tensor(X[i : i + 1])
            result = model(x.to(next(iter(named.values())).dtype) if x.is_floating_point() else x)
        output = tensor_of(result)[0]
        generator = torch.Generator().manual_seed(i)
        label = torch.randn(output.shape, generator=generator).to(output) if y is None else y[i]
        grads = torch.autograd.grad(scalar(output, label), chosen, allow_unused=True)
        dense = [
            torch.zeros_like(p) if g is None else g.to_dense()
            for p, g in zip(chosen, grads, strict=True)
        ]
        rows.append(torch.cat([g.flatten() for g in dense]).detach())
        labels.append(label)
    return torch.stack(rows).double().numpy(), torch.stack(labels) if y is None else y


def built(make, dtype=torch.float64):
    torch.manual_seed(0)
    model = make().to(dtype)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)  # of batch norms
    return model


def check(make, X, rtol=1e-9, dtype=torch.float64, **params):
    """Compare with the plain loop; return how gradients are found, by layer, if not by hooks."""
    G, y = plain(built(make, dtype), X)
    params = {"loss": weighted, "batch_size": 4, "random_state": 0} | params
    sketcher = GradientSketcher(M, model=built(make, dtype), **params)
    sketch = sketcher.fit_transform(X, y.detach())
    assert sketch.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert sketcher.n_parameters_ == G.shape[1]
    expected = G @ sketcher.projection_.to_array()
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(sketch, expected, rtol=rtol, atol=rtol * np.abs(expected).max())
    return {row.layer: row.source for row in sketcher.sketch_plan_ if row.source != "hooks"}


def numbers(*shape):
    return np.random.RandomState(0).normal(size=(N, *shape))


def tokens(high, *shape):
    # The first samples share tokens, and one has the same several times.
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
    """A subclass with a parameter of its own."""

    def __init__(self, *args):
        super().__init__(*args)
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.scale * super().forward(x)


class Doubling(nn.Linear):
    """A subclass whose rule does not hold."""

    def forward(self, x):
        return super().forward(2 * x)


class LlamaRMSNorm(nn.Module):
    """As in transformers."""

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


def by_coordinates(self, x):
    places = torch.linspace(0, 1, 6).to(x).reshape(1, 3, 2)
    return self.head(torch.tanh(x + self.b(self.a(places).tanh())))


def by_position(self, x):
    return self.head(torch.tanh(x + self.positions(torch.arange(x.shape[1])[None])))


def by_table(self, x):
    return x @ self.positions(torch.zeros(1, dtype=int)).T


def by_position_in_place(self, x):
    h = self.positions(torch.arange(x.shape[1])[None])
    h += 1
    return self.head(torch.tanh(x * h))


# A model, its input, and the layers for which no rule fits.
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
    # Autograd of a batch scales by its tokens, which is not per sample.
    "embedding by frequency": (
        lambda: nn.Embedding(30, 3, scale_grad_by_freq=True),
        np.vstack([np.arange(12).reshape(2, 6), tokens(8, 6)[2:]]),  # at first all are different
        {"": "torch.func"},
    ),
    "embedding bag": (lambda: nn.EmbeddingBag(8, 3), tokens(8, 4), {"": "torch.func"}),
    "embedding of positions": (
        lambda: Net(by_position, positions=nn.Embedding(6, 4), head=nn.Linear(4, 2)),
        numbers(3, 4),
        {},
    ),
    # Repeated for each sample it would give as many outputs.
    "embedding as weights": (
        lambda: Net(by_table, positions=nn.Embedding(2, 4)),
        numbers(4),
        {"positions": "torch.func"},
    ),
    "embedding of positions in place": (
        lambda: Net(by_position_in_place, positions=nn.Embedding(6, 4), head=nn.Linear(4, 2)),
        numbers(3, 4),
        {},
    ),
    "layers of positions": (
        lambda: Net(by_coordinates, a=nn.Linear(2, 3), b=nn.Linear(3, 4), head=nn.Linear(4, 2)),
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
        {"a": "torch.func"},
    ),
    "samples second, one position": (
        lambda: Net(
            lambda self, x: self.b(self.a(x[None]).tanh()[0]), a=nn.Linear(4, 3), b=nn.Linear(3, 2)
        ),
        numbers(4),
        {"a": "torch.func"},
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
    # More entries than a block of Γ.
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


@pytest.mark.parametrize("sketch", SKETCHES)
@pytest.mark.parametrize("name", ZOO)
def test_zoo(name, sketch):
    make, X, others = ZOO[name]
    assert check(make, X, sketch=sketch) == others


def test_auto_takes_the_product_of_wide_layers():
    make = lambda: nn.Sequential(nn.Linear(700, 600), nn.ReLU(), nn.Linear(600, 3))  # noqa: E731
    assert check(make, numbers(700)) == {}
    plan = GradientSketcher(M, model=built(make), random_state=0).fit(numbers(700)).sketch_plan_
    assert [(row.layer, row.method, row.r) for row in plan] == [
        ("0", "product", 420_600),
        ("2", "gaussian", 1803),
    ]


def test_batch_sizes_and_single_samples():
    make, X, _ = ZOO["transformer"]
    _, y = plain(built(make), X)
    whole = GradientSketcher(M, model=built(make), loss=weighted, random_state=0).fit(X, y)
    expected = whole.transform(X, y)
    for size in (1, 2, 3, N, 1000):
        sketcher = whole.set_params(batch_size=size)
        np.testing.assert_allclose(sketcher.transform(X, y), expected, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(whole.transform(X[2:3], y[2:3]), expected[2:3], rtol=1e-9)


@pytest.mark.parametrize("name", ["embedding of positions", "samples second", "tokens in rows"])
def test_plans_from_one_sample_hold_for_more(name, monkeypatch):
    make, X, _ = ZOO[name]
    G, y = plain(built(make), X)
    sketcher = GradientSketcher(M, model=built(make), loss=weighted, random_state=0).fit(X[:1])
    # fit confirmed every parameter
    monkeypatch.setattr(_engine, "parameters_confirmed_by_autograd", None)
    expected = G @ sketcher.projection_.to_array()
    np.testing.assert_allclose(sketcher.transform(X, y), expected, rtol=1e-9, atol=1e-14)


def by_sign(self, x):
    """Send samples to one of two experts."""
    first = x[:, 0] > 0
    out = x.new_zeros(len(x), 3)
    out[first] = self.a(x[first]).tanh()
    out[~first] = self.b(x[~first]).tanh()
    return out


def by_size(self, x):
    """Call a layer by another way if a sample is large."""
    return F.linear(x, self.a.weight, self.a.bias) if x.abs().max() > 3 else self.a(x)


SIGNS = {"++-+-": [1, 1, -1, 1, -1], "+-++-": [1, -1, 1, 1, -1], "++++-": [1, 1, 1, 1, -1]}


@pytest.mark.parametrize("size", [2, 4, 5])
@pytest.mark.parametrize("signs", SIGNS)
def test_what_the_first_samples_do_not_show_is_noticed(signs, size):
    X = np.abs(numbers(4)) * np.array(SIGNS[signs])[:, None]
    slow = check(lambda: Net(by_sign, a=nn.Linear(4, 3), b=nn.Linear(4, 3)), X, batch_size=size)
    assert slow == ({} if signs.startswith("++") else {"a": "loop", "b": "loop"})
    # The first samples have no gradient, by which a rule could be seen not to hold.
    check(lambda: nn.Sequential(nn.ReLU(), Doubling(4, 3, bias=False)), -X, batch_size=size)
    X[3] *= 10
    check(lambda: Net(by_size, a=nn.Linear(4, 3)), X, batch_size=size)


def where_positive(self, x):
    rows = x[:, 0] > 0
    out = x.new_zeros(len(x), 3)
    if rows.any():  # else the output has no graph
        out[rows] = self.a(x[rows]).tanh()
    return out


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("signs", SIGNS)
def test_samples_of_an_output_without_gradient(signs, size):
    signs = np.array(SIGNS[signs])[:, None]
    X = np.abs(numbers(4))
    G, y = plain(built(lambda: Net(where_positive, a=nn.Linear(4, 3))), X)
    model = built(lambda: Net(where_positive, a=nn.Linear(4, 3)))
    sketcher = GradientSketcher(M, model=model, loss=weighted, batch_size=size, random_state=0)
    sketch = sketcher.fit_transform(X * signs, y.detach())
    # Of those that have one the sign is that of the first column of X only.
    G = np.where(signs > 0, G, 0.0)
    np.testing.assert_allclose(sketch, G @ sketcher.projection_.to_array(), atol=1e-12)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_device_is_that_of_the_model_without_a_gpu():
    model = built(norm(nn.Tanh))
    sketches = [
        GradientSketcher(M, model=model, device=device, random_state=0).fit_transform(numbers(4))
        for device in (None, "auto", "cpu")
    ]
    assert sketches[0].tobytes() == sketches[1].tobytes() == sketches[2].tobytes()


def test_new_adapters_have_hooks(monkeypatch):
    model = Net(
        lambda self, x: self.base(x) + self.up(self.down(x)),
        base=nn.Linear(4, 3).requires_grad_(False),
        down=nn.Linear(4, 2, bias=False),
        up=nn.Linear(2, 3, bias=False),
    ).double()
    nn.init.zeros_(model.up.weight)
    X = numbers(4)
    sketcher = GradientSketcher(M, model=model, loss=weighted, random_state=0).fit(X)
    assert {row.source for row in sketcher.sketch_plan_} == {"hooks"}
    monkeypatch.setattr(_engine, "parameters_confirmed_by_autograd", None)
    for _ in range(2):
        G, y = plain(copy.deepcopy(model), X)
        expected = G @ sketcher.projection_.to_array()
        np.testing.assert_allclose(sketcher.transform(X, y), expected, rtol=1e-9, atol=1e-14)
        nn.init.ones_(model.up.weight)
    assert G[:, :8].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    make = lambda: nn.Sequential(  # noqa: E731
        nn.Conv1d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4), nn.LayerNorm(4)
    )
    model = built(make, dtype)
    X, params = numbers(2, 6), {"m": M, "target": "label", "random_state": 0}
    half = GradientSketcher(model=model, **params)
    single = GradientSketcher(model=copy.deepcopy(model).float(), **params)
    sketch, expected = (
        half.fit_transform(X, [0, 1, 2, 3, 0]),
        single.fit_transform(X, [0, 1, 2, 3, 0]),
    )
    assert half.sketch_plan_ == single.sketch_plan_
    assert sketch.dtype == np.float32
    tolerance = 4 * torch.finfo(dtype).eps
    np.testing.assert_allclose(sketch, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_mixed_precision_keeps_each_parameter_as_it_is():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).to(torch.bfloat16)
    model[1].register_forward_pre_hook(lambda _, args: args[0].float())
    model[1].float()
    X = numbers(4).astype("float32")
    sketch = GradientSketcher(M, model=model, layers="1", random_state=0).fit_transform(X)
    model[1]._forward_pre_hooks.clear()
    single = GradientSketcher(M, model=model, layers="1", dtype="float32", random_state=0)
    assert sketch.dtype == np.float32
    np.testing.assert_allclose(sketch, single.fit_transform(X), rtol=0, atol=0.02)


def state(model):
    """What a sketch must leave as it was."""
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


def fails_at_last(self, x):
    if (x == 4).any():
        raise RuntimeError("a token too many")
    return self.c(self.b(self.a(x).mean(1)))


class Merging(nn.Linear):
    """As of loralib: a switch to evaluation mode changes weights."""

    def train(self, mode=True):
        super().train(mode)
        with torch.no_grad():
            self.weight += 1
        return self


@pytest.mark.parametrize("tokens_", [[[0, 1], [2, 3], [1, 1]], [[0, 1], [2, 3], [1, 4]]])
def test_the_model_comes_back_as_it_was(tokens_):
    torch.manual_seed(0)
    model = Net(
        fails_at_last,
        a=nn.Embedding(5, 3, max_norm=0.1),
        b=nn.BatchNorm1d(3),
        c=nn.Sequential(Merging(3, 3), nn.Dropout(), nn.Linear(3, 2)),
    )
    model.b.eval()
    model.c[2].bias.requires_grad_(False)
    model.c(torch.ones(2, 3)).sum().backward()
    before = state(model)
    sketcher = GradientSketcher(M, model=model, batch_size=1, random_state=0)
    if tokens_[-1] == [1, 4]:
        with pytest.raises(RuntimeError, match="a token too many"):
            sketcher.fit_transform(tokens_)
    else:
        assert sketcher.fit_transform(tokens_).shape == (3, M)
        with torch.no_grad():  # the caller's mode does not matter
            sketcher.fit_transform(tokens_)
    torch.testing.assert_close(state(model), before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("make", "X", "message"),
    [
        (norm(lambda: nn.BatchNorm1d(4, track_running_stats=False)), numbers(4), r"batch.*\['1'\]"),
        (
            lambda: nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3, track_running_stats=False)),
            numbers(2, 3)[:1],
            r"batch.*\['1'\]",
        ),
        (norm(lambda: Net(lambda _, x: x - x.mean(0))), numbers(4), "the batch or on chance"),
        (norm(lambda: Net(lambda _, x: F.dropout(x))), numbers(4)[:1], "the batch or on chance"),
        (norm(lambda: Net(lambda _, x: x.mean())), numbers(4), r"Got shape \(\) for 2"),
        (norm(lambda: Net(lambda _, x: x.squeeze()), 4, 1), numbers(4), r"\(1,\) for one .* \(\)"),
        (norm(lambda: Net(lambda _, x: x.detach())), numbers(4), "do not depend on the chosen"),
        (norm(lambda: Net(lambda _, x: x.log())), numbers(4), "finite outputs"),
        (lambda: nn.Flatten(), numbers(4), "has no parameters"),
    ],
)
def test_models_that_are_refused(make, X, message):
    with pytest.raises(ValueError, match=message):
        GradientSketcher(M, model=built(make), random_state=0).fit_transform(X)


def test_gradients_that_are_not_finite():
    X = numbers(4)
    X[3] = np.nan
    with pytest.raises(ValueError, match="of 1 samples are not finite, the first at position 3"):
        GradientSketcher(M, model=nn.Linear(4, 2), random_state=0).fit_transform(torch.tensor(X))


def test_quantized_weights_are_no_parameters_to_differentiate_by():
    model = Net(
        lambda self, x: self.a(x * self.q),
        q=nn.Parameter(torch.arange(4, dtype=torch.int8), requires_grad=False),
        a=nn.Linear(4, 3).requires_grad_(False),
    )
    sketcher = GradientSketcher(M, model=model, dtype="float64", random_state=0)
    assert sketcher.fit_transform(numbers(4)).any()
    assert sketcher.n_parameters_ == 15


def test_complex_parameters_are_refused():
    model = Net(lambda self, x: (x * self.p).abs(), p=nn.Parameter(torch.ones(4) * 1j))
    with pytest.raises(ValueError, match=r"real floating numbers, but \['p'\]"):
        GradientSketcher(M, model=model).fit(numbers(4))


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_wrapped_models(wrap):
    model = built(norm(nn.Tanh))
    expected = GradientSketcher(M, model=model, random_state=0).fit_transform(numbers(4))
    sketch = GradientSketcher(M, model=wrap(model), random_state=0).fit_transform(numbers(4))
    np.testing.assert_array_equal(sketch, expected)


def compiled_in_place():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    model[0].compile(backend="eager")
    return model


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="needs torch 2.6")
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(torch.compile(nn.Linear(4, 4), backend="eager"), nn.Linear(4, 3)),
        compiled_in_place,
    ],
)
def test_compiled_layers(make):
    assert check(make, numbers(4)) == {}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("wrap", [lambda m: m, nn.Sequential])
def test_scripted_models_are_refused(wrap):
    model = wrap(torch.jit.script(nn.Linear(4, 3)))
    with pytest.raises(TypeError, match="not scripted"):
        GradientSketcher(M, model=model).fit(numbers(4))


def checkpointed(reentrant):
    return lambda: Net(
        lambda self, x: self.b(checkpoint(lambda h: self.a(h).tanh(), x, use_reentrant=reentrant)),
        a=nn.Linear(4, 4),
        b=nn.Linear(4, 3),
    )


@pytest.mark.filterwarnings("ignore:.torch.cpu.amp.autocast:FutureWarning")  # torch 2.4's own
def test_activation_checkpointing():
    assert check(checkpointed(False), numbers(4)) == {}
    # In another precision torch recomputes with the model's own, and notices.
    with pytest.raises(RuntimeError, match="must have the same dtype"):
        GradientSketcher(M, model=checkpointed(False)(), dtype="float64").fit(numbers(4))
    with pytest.raises(RuntimeError, match="use_reentrant=True"):
        GradientSketcher(M, model=nn.Sequential(nn.Linear(4, 4), checkpointed(True)())).fit(
            numbers(4)
        )


def test_layers_are_found_by_any_name_and_number():
    model = built(shared_module)
    for layers in ("2", ["0"], np.int64(-1), [np.int64(0)]):
        sketcher = GradientSketcher(M, model=model, layers=layers, random_state=0)
        assert sketcher.fit(numbers(4)).n_parameters_ == 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize(
    "name", ["conv2d", "wide linear", "tied embedding with bias", "gru", "transformer", "wide norm"]
)
def test_gpu(name, device):
    make, X, _ = ZOO[name]
    model = built(make, torch.float32)
    params = {"m": M, "model": model, "random_state": 0}
    expected = GradientSketcher(**params).fit_transform(X)
    sketch = GradientSketcher(**params, device=device).fit_transform(X)
    assert next(model.parameters()).device.type == "cpu"
    np.testing.assert_allclose(sketch, expected, rtol=0, atol=5e-3 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weight_norm_by_hooks():
    # Its parameters have other names than the rule of a linear layer gives.
    check(lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)), nn.Tanh()), numbers(4))


TEXT = {
    "input_ids": tokens(20, 6),
    "attention_mask": (np.arange(6) < np.array([6, 4, 3, 6, 2])[:, None]).astype(int),
}
SMALL = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 9,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
GPT2 = {
    "vocab_size": 20,
    "n_embd": 8,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 9,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
LLAMA = SMALL | {"num_key_value_heads": 1}


@pytest.mark.parametrize("sketch", ["auto", "product"])
@pytest.mark.parametrize(
    ("model", "config", "params"),
    [
        ("GPT2LMHeadModel", "GPT2Config", GPT2),  # with tied weights
        ("GPT2ForSequenceClassification", "GPT2Config", GPT2),
        ("BertModel", "BertConfig", SMALL),
        ("BertForSequenceClassification", "BertConfig", SMALL),
        ("LlamaForCausalLM", "LlamaConfig", LLAMA),
        ("GemmaForCausalLM", "GemmaConfig", LLAMA | {"head_dim": 4}),
        ("T5EncoderModel", "T5Config", {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 9}),
    ],
)
def test_transformers(model, config, params, sketch):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    model, config = getattr(transformers, model), getattr(transformers, config)(**params)
    # Parts of some are computed in single precision whatever the model's.
    single = {"dtype": torch.float32, "rtol": 1e-4}
    exact = model.__name__.startswith(("GPT2", "Bert"))
    slow = check(lambda: model(config), TEXT, sketch=sketch, **({} if exact else single))
    # T5's embedding of relative positions is for all samples, and not in rows.
    assert all("relative_attention_bias" in layer for layer in slow)


# peft asks transformers for what will be called otherwise.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("initialised", [True, False])
def test_adapters_of_peft(initialised):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    peft = pytest.importorskip("peft", reason="needs peft")

    def make():
        base = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
        config = peft.LoraConfig(
            r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=initialised
        )
        return peft.get_peft_model(base, config)

    assert check(make, TEXT) == {}
    model = make()
    before = state(model)
    sketcher = GradientSketcher(M, model=model, random_state=0).fit(TEXT)
    sketcher.transform(TEXT)
    torch.testing.assert_close(state(model), before, rtol=0, atol=0)
    assert sketcher.n_parameters_ == 2 * (2 * 8 + 2 * 24)
    assert all("lora" in row.layer for row in sketcher.sketch_plan_)


def test_skorch():
    skorch = pytest.importorskip("skorch", reason="needs skorch")
    net = skorch.NeuralNetClassifier(norm(nn.Tanh)(), max_epochs=1, verbose=0, train_split=None)
    sketcher = GradientSketcher(M, model=net, random_state=0)
    X = numbers(4).astype("float32")
    with pytest.raises(TypeError, match="a fitted skorch net"):
        sketcher.fit(X)
    net.fit(X, np.array([0, 1, 2, 3, 0]))
    expected = GradientSketcher(M, model=net.module_, random_state=0).fit_transform(X)
    np.testing.assert_array_equal(sketcher.fit_transform(X), expected)
