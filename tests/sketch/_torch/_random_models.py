"""Random small models in which the rows of layers may leave the order of the samples."""

from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sklearn_skmm import GradientSketcher
from sklearn_skmm.sketch._torch import _engine
from tests.sketch._torch._models import Net
from tests.sketch._torch._reference import loop_gradients, weighted

VOCABULARY = 7


class Reversed(torch.autograd.Function):
    """A function of users that reverses the order of the batch."""

    @staticmethod
    def forward(ctx, h):
        return h.flip(0)

    @staticmethod
    def backward(ctx, grad):
        return grad.flip(0)


# Each function below draws a block, which maps h of shape (B, T, d) to the same shape. It gets a
# random generator and d. Blocks are called with h and a dict of the model's inputs.


def linear(rng, d):
    return Net(lambda self, h, given: torch.tanh(self.a(h)), a=nn.Linear(d, d))


def norm(rng, d):
    layer = rng.choice(["layer", "rms", "group", "batch"])
    if layer == "layer":
        return Net(lambda self, h, given: self.a(h), a=nn.LayerNorm(d))
    if layer == "rms":
        return Net(lambda self, h, given: self.a(h), a=nn.RMSNorm(d))
    if layer == "group":
        return Net(lambda self, h, given: self.a(h.mT).mT, a=nn.GroupNorm(1, d))
    return Net(lambda self, h, given: self.a(h.flatten(0, 1)).reshape(h.shape), a=nn.BatchNorm1d(d))


def convolution(rng, d):
    if rng.random() < 0.5:
        groups = int(rng.choice([1, d]))
        layer = nn.Conv1d(d, d, 3, padding=1, groups=groups)
        return Net(lambda self, h, given: torch.tanh(self.a(h.mT).mT), a=layer)
    layer = nn.Conv2d(1, 1, 3, padding=1)
    return Net(lambda self, h, given: torch.tanh(self.a(h[:, None])[:, 0]), a=layer)


def attention(rng, d):
    kind = rng.choice(["function", "product", "module"])
    if kind == "module":
        layer = nn.MultiheadAttention(d, 2, batch_first=True)
        return Net(lambda self, h, given: h + self.a(h, h, h, need_weights=False)[0], a=layer)

    def call(self, h, given):
        q, k, v = self.a(h).chunk(3, -1)
        if kind == "function":
            return h + F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        scores = (q @ k.mT).masked_fill(~given["mask"][:, None], -1e9)
        return h + scores.softmax(-1) @ v

    return Net(call, a=nn.Linear(d, 3 * d))


def packed_attention(rng, d):
    """Attention of tokens without padding, in one row, where a mask keeps samples apart."""

    def call(self, h, given):
        mask = given["mask"]
        sample = mask.nonzero()[:, 0]
        q, k, v = self.a(h[mask][None]).chunk(3, -1)
        scores = (q @ k.mT).masked_fill(sample[:, None] != sample, -torch.inf)
        return torch.zeros_like(h).masked_scatter(mask[..., None], scores.softmax(-1) @ v) + h

    return Net(call, a=nn.Linear(d, 3 * d))


def recurrent(rng, d):
    kind = rng.choice(["cells", "packed", "gru"])
    if kind == "cells":

        def call(self, h, given):
            state, states = torch.zeros_like(h[:, 0]), []
            for x in h.unbind(1):
                state = torch.tanh(self.a(x) + self.b(state))
                states.append(state)
            return torch.stack(states, 1)

        return Net(call, a=nn.Linear(d, d), b=nn.Linear(d, d))

    def call(self, h, given):
        if kind == "gru":
            return self.a(self.b(h))[0]
        packed = nn.utils.rnn.pack_padded_sequence(
            self.b(h), given["lengths"], batch_first=True, enforce_sorted=False
        )
        return nn.utils.rnn.pad_packed_sequence(
            self.a(packed)[0], batch_first=True, total_length=h.shape[1]
        )[0]

    return Net(call, a=nn.GRU(d, d, batch_first=True), b=nn.Linear(d, d))


def experts(rng, d):
    """The best one or two of three experts for each token."""
    top, written = int(rng.integers(1, 3)), rng.choice(["add", "put", "set"])

    def call(self, h, given):
        tokens = h.flatten(0, 1)
        p, chosen = self.gate(tokens).softmax(-1).topk(top, -1)
        out = torch.zeros_like(tokens)
        for e, expert in enumerate(self.experts):
            rows, slot = (chosen == e).nonzero(as_tuple=True)
            found = torch.tanh(expert(tokens[rows])) * p[rows, slot, None]
            if written == "add":
                out = out.index_add(0, rows, found)
            elif written == "put":
                out = out.index_put((rows,), found, accumulate=True)
            else:
                out[rows] += found
        return h + out.reshape(h.shape)

    return Net(call, gate=nn.Linear(d, 3), experts=_linears(3, d))


def experts_with_capacity(rng, d):
    """Experts that take at most two tokens of each sample, dispatched by products."""

    def call(self, h, given):
        p = self.gate(h).softmax(-1)
        hot = F.one_hot(p.argmax(-1), 3)
        place = hot.cumsum(1) * hot - 1
        dispatch = (place[..., None] == torch.arange(2)).to(h) * hot[..., None]
        inputs = torch.einsum("btec,btd->ebcd", dispatch, h)
        found = torch.stack([f(x) for f, x in zip(self.experts, inputs, strict=True)])
        return h + torch.einsum("btec,ebcd,bte->btd", dispatch, torch.tanh(found), p)

    return Net(call, gate=nn.Linear(d, 3), experts=_linears(3, d))


def sorting(rng, d):
    by, back = rng.choice(["lengths", "data"]), rng.choice(["index", "set", "scatter", "copy"])

    def call(self, h, given):
        keys = given["lengths"] if by == "lengths" else h.detach()[:, 0, 0]
        order = keys.argsort(descending=True, stable=True)
        found = torch.tanh(self.a(h[order]))
        if back == "index":
            return found[order.argsort()]
        out = torch.zeros_like(found)
        if back == "set":
            out[order] = found
            return out
        if back == "copy":
            return out.index_copy(0, order, found)
        return out.scatter(0, order[:, None, None].expand_as(found), found)

    return Net(call, a=nn.Linear(d, d))


def unpadding(rng, d):
    one_row = bool(rng.random() < 0.3)
    back = rng.choice(["put", "scatter", "set"])

    def call(self, h, given):
        mask = given["mask"]
        tokens = h[mask]
        found = self.norm(torch.tanh(self.a(tokens[None] if one_row else tokens)))
        found = found[0] if one_row else found
        if back == "put":
            return torch.zeros_like(h).index_put((mask,), found)
        if back == "scatter":
            return h.masked_scatter(mask[..., None], found)
        out = torch.zeros_like(h)
        out[mask] = found
        return out

    return Net(call, a=nn.Linear(d, d), norm=nn.LayerNorm(d))


def gathering(rng, d):
    kind = rng.choice(["positions", "samples", "repeated", "embedding"])
    if kind == "embedding":
        # Each token is looked up once for the whole batch.
        def call(self, h, given):
            unique, inverse = given["tokens"].unique(return_inverse=True)
            return h + self.a(self.e(unique))[inverse]

        return Net(call, e=nn.Embedding(VOCABULARY, d), a=nn.Linear(d, d))

    def call(self, h, given):
        if kind == "positions":
            index = given["tokens"].argsort(1)[..., None].expand_as(h)
            return torch.tanh(self.a(h.gather(1, index)))
        if kind == "samples":
            order = given["lengths"].argsort()
            return self.a(h.index_select(0, order)).index_select(0, order.argsort())
        return self.a(h.repeat_interleave(2, 0)).tanh().unflatten(0, (-1, 2)).sum(1)

    return Net(call, a=nn.Linear(d, d))


def concatenation(rng, d):
    kind = rng.choice(["views", "samples", "chunks"])

    def call(self, h, given):
        if kind == "views":
            first, second = torch.tanh(self.a(torch.cat([h, h.flip(1)]))).chunk(2)
            return first * second
        if kind == "samples":
            return torch.cat([torch.tanh(self.a(x)) for x in h.split(1)])
        return torch.cat([torch.tanh(self.a(x)) for x in h.split(3)])

    return Net(call, a=nn.Linear(d, d))


def reordering(rng, d):
    """Orders of the samples that depend on the size of the batch alone."""
    kind = rng.choice(["strides", "flip", "roll", "micro", "rows last", "function"])

    def call(self, h, given):
        n, f = len(h), lambda x: torch.tanh(self.a(x))
        if kind == "strides":
            order = torch.cat([torch.arange(n)[::2], torch.arange(n)[1::2]])
            return f(torch.cat([h[::2], h[1::2]]))[order.argsort()]
        if kind == "flip":
            return f(h.flip(0)).flip(0)
        if kind == "roll":
            return f(h.roll(n // 2, 0)).roll(-(n // 2), 0)
        if kind == "function":
            return Reversed.apply(f(Reversed.apply(h)))
        if kind == "rows last":
            return f(h.transpose(0, 1)).transpose(0, 1)
        if n % 2:
            return f(h)
        turned = h.reshape(2, n // 2, *h.shape[1:]).transpose(0, 1).flatten(0, 1)
        return f(turned).reshape(n // 2, 2, *h.shape[1:]).transpose(0, 1).flatten(0, 1)

    return Net(call, a=nn.Linear(d, d))


def shared_layers(rng, d):
    def call(self, h, given):
        order = given["lengths"].argsort(stable=True)
        return self.a(torch.tanh(self.a(h))[order])[order.argsort()] + self.e(given["tokens"])

    return Net(call, a=nn.Linear(d, d), e=nn.Embedding(VOCABULARY, d))


def branches(rng, d):
    """One of two layers for each sample."""
    kind = rng.choice(["where", "rows", "loop"])

    def call(self, h, given):
        first = given["lengths"] % 2 == 0
        if kind == "where":
            return torch.where(first[:, None, None], self.a(h), self.b(h))
        if kind == "loop":
            parts = zip(h, first, strict=True)
            return torch.stack([self.a(x) if yes else self.b(x) for x, yes in parts])
        out = torch.zeros_like(h)
        if first.any():
            out[first] = self.a(h[first])
        if not first.all():
            out[~first] = self.b(h[~first])
        return out

    return Net(call, a=nn.Linear(d, d), b=nn.Linear(d, d))


def read_values(rng, d):
    """Branches and factors that come from values of the whole batch, read in Python.

    Models may be refused, because outputs may depend on the batch.
    """
    ways: dict[str, Callable] = {
        "bool": lambda h, given: h.sum() > 0,
        "item": lambda h, given: h.amax().item() > 2.5,
        "any": lambda h, given: (h > 3).any(),
        "all": lambda h, given: (h < 2.5).all(),
        "int": lambda h, given: int((h > 1).sum()) > h.numel() // 8,
        "tolist": lambda h, given: max(given["tokens"].flatten().tolist()) < VOCABULARY - 1,
        "lengths": lambda h, given: given["lengths"].max().item() == h.shape[1],
        "slice": lambda h, given: h[0, 0, : given["lengths"].min()].numel() > 1,
        "numpy": lambda h, given: h.detach().numpy().std() > 1,
        "in": lambda h, given: 2 in given["tokens"],
        "equal": lambda h, given: torch.equal(h.clamp(max=3), h),
        "nonzero": lambda h, given: len((h > 3).nonzero()) > 0,
        "masked": lambda h, given: h[h > 3].numel() > 0,
    }
    way = ways[rng.choice(list(ways))]
    use = rng.choice(["layers", "detach", "factor", "same"])

    def call(self, h, given):
        yes = bool(way(h, given))
        if use == "layers":
            return torch.tanh(self.a(h) if yes else self.b(h))
        if use == "factor":
            return self.a(h) * (1 + float(yes))
        found = torch.tanh(self.a(h))
        if use == "detach" and yes:  # the outputs do not show it
            return found.detach() + self.b(h)
        return found + self.b(h)

    return Net(call, a=nn.Linear(d, d), b=nn.Linear(d, d))


def read_constants(rng, d):
    """Values that are the same in every batch."""
    kind = rng.choice(["parameter", "buffer"])

    def call(self, h, given):
        if kind == "parameter":
            return torch.tanh(self.a(h)) * self.s.item()
        return torch.tanh(self.a(h)) if self.on else h

    block = Net(call, a=nn.Linear(d, d), s=nn.Parameter(torch.tensor(1.5)))
    block.register_buffer("on", torch.tensor(True))
    return block


def in_place(rng, d):
    kind = rng.choice(["add", "position", "rows"])

    def call(self, h, given):
        out = self.a(h)
        if kind == "add":
            out += h
        elif kind == "position":
            out[:, 0] = self.b(h[:, -1])
        else:
            out[given["lengths"] > 2] *= 2
        return out.tanh_()

    return Net(call, a=nn.Linear(d, d), b=nn.Linear(d, d))


def positions(rng, d):
    def call(self, h, given):
        return torch.tanh(h + self.a(self.e(torch.arange(h.shape[1])[None])))

    return Net(call, a=nn.Linear(d, d), e=nn.Embedding(9, d))


def mixing(rng, d):
    """Blocks that mix samples, which must be refused."""
    kind = rng.choice(["mean", "attention", "statistics", "large batches"])

    def call(self, h, given):
        f = torch.tanh(self.a(h))
        if kind == "mean":
            return f - f.mean(0)
        if kind == "attention":
            flat = f.flatten(1)
            return ((flat @ flat.T).softmax(-1) @ flat).reshape(h.shape)
        if kind == "statistics":
            return F.batch_norm(f.mT, None, None, training=True).mT
        return f - f.detach().mean(0) if len(h) > 2 else f

    return Net(call, a=nn.Linear(d, d))


def overflowing_experts(rng, d):
    """Experts with a capacity for the whole batch, which must be refused where it is exceeded."""

    def call(self, h, given):
        tokens = h.flatten(0, 1)
        p = self.gate(tokens).softmax(-1)
        out = torch.zeros_like(tokens)
        for e, expert in enumerate(self.experts):
            rows = (p.argmax(-1) == e).nonzero()[:8, 0]
            out = out.index_add(0, rows, torch.tanh(expert(tokens[rows])) * p[rows, e, None])
        return h + out.reshape(h.shape)

    return Net(call, gate=nn.Linear(d, 2), experts=_linears(2, d))


def _linears(n, d):
    return nn.ModuleList(nn.Linear(d, d) for _ in range(n))


KINDS: dict[str, Callable] = {
    "linear": linear,
    "normalisation": norm,
    "convolution": convolution,
    "attention": attention,
    "attention without padding": packed_attention,
    "recurrent": recurrent,
    "experts": experts,
    "experts with capacity": experts_with_capacity,
    "sorting": sorting,
    "unpadding": unpadding,
    "gather": gathering,
    "concatenation": concatenation,
    "reordering": reordering,
    "shared layers": shared_layers,
    "branches": branches,
    "values read": read_values,
    "constants read": read_constants,
    "in place": in_place,
    "positions": positions,
    "mixing": mixing,
    "overflowing experts": overflowing_experts,
}
MIXING = ("mixing", "overflowing experts")
MAY_MIX = (*MIXING, "values read")


class RandomModel(nn.Module):
    """Blocks between a first layer and a head."""

    def __init__(self, rng, kinds, d, outputs):
        super().__init__()
        self.first, self.head = nn.Linear(3, d), nn.Linear(d, outputs)
        self.blocks = nn.ModuleList(KINDS[kind](rng, d) for kind in kinds)
        self.pooling = rng.choice(["mean", "masked", "last", "first", "max", "tokens"])

    def forward(self, x, mask, lengths, tokens):
        given = {"mask": mask, "lengths": lengths, "tokens": tokens}
        h = self.first(x)
        for block in self.blocks:
            h = block(h, given)
        if self.pooling == "mean":
            h = h.mean(1)
        elif self.pooling == "masked":
            h = (h * mask[..., None]).sum(1) / lengths[:, None]
        elif self.pooling == "last":
            h = h[torch.arange(len(h)), lengths - 1]
        elif self.pooling == "first":
            h = h[:, 0]
        elif self.pooling == "max":
            h = h.amax(1)
        return self.head(h)


class Problem(NamedTuple):
    """A random model with its inputs."""

    kind: str
    description: str
    model: nn.Module
    X: dict
    params: dict


def draw_problem(seed, i) -> Problem:
    """Draw problem i of a seed, whose kind is the i-th in turn."""
    rng = np.random.default_rng([seed, i])
    kind = list(KINDS)[i % len(KINDS)]
    ordinary = [name for name in KINDS if name not in MAY_MIX]
    kinds = [kind, *rng.choice(ordinary, size=rng.integers(3))]
    kinds = [str(name) for name in rng.permutation(kinds)]
    d, n, t = 2 * int(rng.integers(2, 4)), int(rng.integers(7, 12)), int(rng.integers(3, 6))
    torch.manual_seed(int(rng.integers(2**31)))
    dtype = torch.float64 if rng.random() < 0.7 else torch.float32
    model = RandomModel(rng, kinds, d, int(rng.integers(1, 4))).to(dtype).eval()
    lengths = rng.integers(1, t + 1, n)
    if rng.random() < 0.5:
        lengths[:2] = t, t - 1  # the first samples show nothing unusual
    X = {
        "x": rng.normal(size=(n, t, 3)).astype(str(dtype).removeprefix("torch.")),
        "mask": np.arange(t) < lengths[:, None],
        "lengths": lengths,
        "tokens": rng.integers(VOCABULARY, size=(n, t)),
    }
    params = {
        "sketch": str(rng.choice(["auto", "product"])),
        "target": str(rng.choice(["label", "output"])),
    }
    description = f"{kinds}, pooling {model.pooling}, {n} × {t} × {d}, {dtype}, {params}"
    return Problem(kind, description, model, X, params)


class Outcome(NamedTuple):
    """What the sketches of a model were."""

    refused: bool
    fast: bool  # no gradient was computed sample by sample
    wrong: int  # largest number of wrong rows for any batch size
    error: float  # largest relative error


def check_problem(problem: Problem, sizes=(2, 5, 1000)) -> Outcome:
    """Compare the sketch for several batch sizes with one sample at a time, and with a loop."""
    double = problem.model.head.weight.dtype == torch.float64
    rtol = 1e-7 if double else 2e-3
    G, y = loop_gradients(problem.model, problem.X)
    params = {"m": 6, "model": problem.model, "loss": weighted, "random_state": 0, **problem.params}
    y = y if params["target"] == "label" else None
    if y is None:
        params["loss"] = "cross_entropy"
    exact = []

    def spy(engine, names, batch, *args):
        if names and batch.size > 1:
            exact.append(names)
        return per_sample_gradients(engine, names, batch, *args)

    def one_by_one(*args):
        exact.append("all")
        return map_tensors(*args)

    per_sample_gradients, map_tensors = _engine.per_sample_gradients, _engine.map_tensors
    refused, wrong, error = False, 0, 0.0
    with (
        mock.patch.object(_engine, "per_sample_gradients", spy),
        mock.patch.object(_engine, "map_tensors", one_by_one),
    ):
        expected, sketcher = None, GradientSketcher(**params)
        for size in (1, *sizes):
            try:
                sketcher.set_params(batch_size=size)
                if expected is None:
                    sketcher.fit(problem.X, y)
                sketch = sketcher.transform(problem.X, y)
            except ValueError as raised:
                if "treat each sample independently" not in str(raised):
                    raise
                refused = True
                if expected is None:
                    break
                continue
            if expected is None:
                expected = sketch
                if y is not None:
                    reference = G @ sketcher.projection_.to_array()
                    off = np.abs(sketch - reference).max(1) / np.abs(reference).max()
                    wrong, error = int((off > rtol).sum()), float(off.max())
                continue
            off = np.abs(sketch - expected).max(1) / np.abs(expected).max()
            wrong, error = max(wrong, int((off > rtol).sum())), max(error, float(off.max()))
    return Outcome(refused, not exact, wrong, error)
