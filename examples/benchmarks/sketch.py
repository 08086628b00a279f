"""Compare time and memory of the gradient sketch with the model's passes and other libraries.

There are five shapes, with m = 512: a linear probe, a whole ResNet-18 and its last layers at 7 × 7,
all linear layers of GPT-2 small, and sparse rows without a model. This library, the forward and
backward pass, and the other libraries use the same batches and the same loss; only bmdal-reg sums
the outputs instead, and TRAK uses its margin. Times include drawing Γ. Every row runs once to warm
up. Then the rows take turns, and the fastest time counts. Ratios compare seconds per sample with
the row of the same batch size where there is one. Memory is the peak that one call adds to a
process that already holds the inputs and the model; it is measured in a separate process without
warm-up (Linux only).

    pip install -c constraints.txt -e '.[benchmark]'
    python examples/benchmarks/sketch.py
    python examples/benchmarks/sketch.py --quick  # all rows with few samples; not recorded
"""

import argparse
import subprocess
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from _record import clock, record
from scipy import sparse
from sklearn.preprocessing import normalize
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from sklearn_skmm import GradientSketcher

M = 512
CLASSES = 196
OURS, BOTH = "GradientSketcher, auto", "forward and backward"


class Row(NamedTuple):
    """One timed function: run() processes N samples in batches."""

    method: str
    N: int
    batch: int
    repeats: int
    run: Callable


def parts(N, batch):
    """Return the slices of consecutive batches."""
    return [slice(start, start + batch) for start in range(0, N, batch)]


def ours(X, y, batch, target="label", **params):
    """Sketch the gradients of the cross entropy with the labels y."""
    sketcher = GradientSketcher(M, target=target, batch_size=batch, random_state=0, **params)
    return lambda: sketcher.fit_transform(X, y)


def passes(model, loss, N, batch):
    """Run forward and backward only: gradients of all parameters, summed over each batch."""

    def run():
        for part in parts(N, batch):
            model.zero_grad()
            loss(part).backward()

    return run


def formed(model, X, y, batch):
    """Multiply δ ⊗ a and δ of each sample by a dense Gaussian matrix."""
    r = sum(p.numel() for p in model.parameters())

    @torch.no_grad()
    def run():
        gamma = torch.randn(r, M) / M**0.5
        out = []
        for part in parts(len(X), batch):
            a = X[part]
            delta = model(a).softmax(1) - F.one_hot(y[part], CLASSES)
            outer = delta[:, :, None] * a[:, None, :]
            out.append(torch.cat([outer.flatten(1), delta], 1) @ gamma)
        return torch.cat(out)

    return run


def func(model, X, y, batch):
    """Multiply per-sample gradients from torch.func by a dense Gaussian matrix."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    r = sum(p.numel() for p in parameters.values())

    def loss(parameters, x, y):
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    def run():
        gamma = torch.randn(r, M) / M**0.5
        per_sample = vmap(grad(loss), in_dims=(None, 0, 0))
        out = []
        for part in parts(len(X), batch):
            found = per_sample(parameters, X[part], y[part])
            out.append(torch.cat([g.flatten(1) for g in found.values()], 1) @ gamma)
        return torch.cat(out)

    return run


def trak(model, X, y, batch, kind):
    """Compute TRAK's features before scaling, with the projector that it uses on a CPU."""
    from trak.gradient_computers import FunctionalGradientComputer
    from trak.modelout_functions import ImageClassificationModelOutput
    from trak.projectors import BasicProjector

    r = sum(p.numel() for p in model.parameters())

    @torch.no_grad()
    def run():
        task = ImageClassificationModelOutput()
        gradients = FunctionalGradientComputer(model, task, r, torch.float32, "cpu")
        projector = BasicProjector(r, M, 0, kind, "cpu")
        batches = [(X[part], y[part]) for part in parts(len(X), batch)]
        return torch.cat(
            [projector.project(gradients.compute_per_sample_grad(b), model_id=0) for b in batches]
        )

    return run


def bmdal(model, X, y, batch):
    """Compute bmdal-reg's base kernel "grad" with ("rp", [m]), a product of Gaussians."""
    from bmdal_reg.bmdal.feature_data import TensorFeatureData
    from bmdal_reg.bmdal.features import Features
    from bmdal_reg.bmdal.layer_features import LinearGradientComputation, create_grad_feature_map

    def run():
        feature_map = create_grad_feature_map(model, [LinearGradientComputation(model)])
        features = Features(feature_map, TensorFeatureData(X)).batched(batch)
        return features.sketch_tfm(M)(features).precompute().get_feature_matrix()

    return run


def linear(N):
    """Return rows for a linear probe on 512 features; r = 100,548."""
    model, X, y = nn.Linear(512, CLASSES), torch.randn(N, 512), torch.randint(CLASSES, (N,))

    def loss(part):
        return F.cross_entropy(model(X[part]), y[part])

    rows = []
    for batch in (64, 1024):  # the default, and one that suits the other libraries
        rows.append(Row(OURS, N, batch, 9, ours(X, y, batch, model=model)))
        rows.append(Row(BOTH, N, batch, 9, passes(model, loss, N, batch)))
    sampled = ours(X, None, batch, model=model, target="sampled")
    rows.append(Row(OURS + ', target="sampled"', N, batch, 9, sampled))
    peers = {
        f"GradientSketcher, {kind}": (ours, (X, y, batch), {"model": model, "sketch": kind})
        for kind in ("gaussian", "sparse_sign")
    }
    peers["formed, dense Gaussian"] = formed, (model, X, y, batch), {}
    peers["torch.func, dense Gaussian"] = func, (model, X, y, batch), {}
    for kind in ("normal", "rademacher"):
        peers[f"TRAK, {kind}"] = trak, (model, X, y, batch), {"kind": kind}
    peers["bmdal-reg, rp"] = bmdal, (model, X, y, batch), {}
    for method, (build, args, params) in peers.items():
        try:
            run = build(*args, **params)
        except ImportError as error:
            print(f"{method} is left out: {error}", file=sys.stderr)
        else:
            rows.append(Row(method, N, batch, 9 if build is bmdal else 2, run))
    return rows


class Block(nn.Module):
    """Residual block with two convolutions."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Identity()
        if stride > 1:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.downsample(x))


def resnet18():
    """Return ResNet-18 with random weights, built as in torchvision."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers = {"stem": nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))}
    inputs = 64
    for i, outputs in enumerate((64, 128, 256, 512), 1):
        blocks = Block(inputs, outputs, 1 if i == 1 else 2), Block(outputs, outputs, 1)
        layers[f"layer{i}"], inputs = nn.Sequential(*blocks), outputs
    layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(OrderedDict(layers, fc=nn.Linear(512, CLASSES))).eval()


def images(model, X, batch, layers, repeats):
    """Return rows for the model's passes and for the sketch of these layers."""
    y = torch.randint(CLASSES, (len(X),))

    def loss(part):
        return F.cross_entropy(model(X[part]), y[part])

    N = len(X)
    sketch = ours(X, y, batch, model=model, layers=layers)
    return [
        Row(OURS, N, batch, repeats, sketch),
        Row(BOTH, N, batch, repeats, passes(model, loss, N, batch)),
    ]


def resnet(N):
    """Return rows for ResNet-18 on 224 × 224 pixels, sketching its last convolution and fc."""
    X = torch.randn(N, 3, 224, 224)
    return images(resnet18(), X, 16, ["layer4.1.conv2", "fc"], 3)


def tail(N):
    """Return rows for ResNet-18 from its last convolution on, sketching that and fc."""
    last = resnet18()
    conv, norm = last.layer4[1].conv2, last.layer4[1].bn2
    model = nn.Sequential(conv, norm, nn.ReLU(), last.avgpool, nn.Flatten(), last.fc)
    return images(model.eval(), torch.randn(N, 512, 7, 7), 64, ["0", "5"], 3)


def gpt2(N):
    """Return rows for GPT-2 small on 128 tokens, sketching all linear layers and the tied head."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(use_cache=False, attn_implementation="sdpa")
    model = GPT2LMHeadModel(config).eval()
    tokens = torch.randint(config.vocab_size, (N, 128))
    following = F.pad(tokens[:, 1:], (0, 1), value=-100)  # the last token has no target
    layers = [
        name
        for name, module in model.named_modules()
        if type(module).__name__ == "Conv1D" or name == "lm_head"
    ]

    def loss(part):
        logits = model(input_ids=tokens[part]).logits
        return F.cross_entropy(logits.flatten(0, 1), following[part].flatten())

    batch = 4
    sketch = ours({"input_ids": tokens}, following, batch, model=model, layers=layers)
    return [Row(OURS, N, batch, 2, sketch), Row(BOTH, N, batch, 2, passes(model, loss, N, batch))]


class Experts(nn.Module):
    """The best of eight experts for each token, and a head."""

    def __init__(self):
        super().__init__()
        self.gate, self.head = nn.Linear(128, 8), nn.Linear(128, CLASSES)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 128)) for _ in range(8)
        )

    def forward(self, x, mask):
        tokens = x.flatten(0, 1)
        p, chosen = self.gate(tokens).softmax(-1).max(-1)
        out = torch.zeros_like(tokens)
        for e, expert in enumerate(self.experts):
            rows = (chosen == e).nonzero()[:, 0]
            out = out.index_add(0, rows, expert(tokens[rows]) * p[rows, None])
        return self.head(out.reshape(x.shape).mean(1))


class Unpadded(nn.Module):
    """Layers of the tokens that are no padding, and a head."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(128, 512), nn.GELU(), nn.Linear(512, 128))
        self.head = nn.Linear(128, CLASSES)

    def forward(self, x, mask):
        h = self.layers(x[mask])
        h = h.new_zeros(*mask.shape, h.shape[1]).index_put((mask,), h)
        return self.head(h.sum(1) / mask.sum(1, keepdim=True))


def moving(cls, N):
    """Return rows for a model that moves rows between samples, on up to 32 tokens."""
    model, x, y = cls().eval(), torch.randn(N, 32, 128), torch.randint(CLASSES, (N,))
    mask = torch.arange(32) < torch.randint(1, 33, (N, 1))

    def loss(part):
        return F.cross_entropy(model(x[part], mask[part]), y[part])

    X, batch = {"x": x, "mask": mask}, 64
    return [
        Row(OURS, N, batch, 3, ours(X, y, batch, model=model)),
        Row(BOTH, N, batch, 3, passes(model, loss, N, batch)),
        Row("GradientSketcher, one sample at a time", N, batch, 3, ours(X, y, 1, model=model)),
    ]


def rows_of_text(N, r=100_000, words=100):
    """Return rows like bags of words, with about one nonzero entry in a thousand."""
    rng = np.random.RandomState(0)
    p = 1 / np.arange(10, r + 10)
    columns = rng.choice(r, size=N * words, p=p / p.sum())
    values = rng.lognormal(size=N * words)
    X = sparse.csr_array((values, columns, np.arange(0, N * words + 1, words)), shape=(N, r))
    X.sum_duplicates()
    return normalize(X)


def csr(N):
    """Return rows for sparse gradients given directly, without a model."""
    X = rows_of_text(N)
    methods = {
        "GradientSketcher, sparse_sign": GradientSketcher(M, sketch="sparse_sign", random_state=0),
        "GradientSketcher, gaussian": GradientSketcher(M, sketch="gaussian", random_state=0),
        "scikit-learn SparseRandomProjection": SparseRandomProjection(
            M, dense_output=True, random_state=0
        ),
        "scikit-learn SparseRandomProjection, as many entries": SparseRandomProjection(
            M, density=8 / M, dense_output=True, random_state=0
        ),
        "scikit-learn GaussianRandomProjection": GaussianRandomProjection(M, random_state=0),
    }
    return [
        Row(method, N, 0, 3 if "aussian" in method else 9, lambda t=t: t.fit_transform(X))
        for method, t in methods.items()
    ]


# Name: function that builds the rows, number of samples, and number of samples for --quick.
SHAPES = {
    "Linear(512, 196)": (linear, 4096, 128),
    "ResNet-18, 224 × 224": (resnet, 32, 2),
    "last layers of ResNet-18, 7 × 7": (tail, 4096, 64),
    "GPT-2 small, 128 tokens": (gpt2, 32, 2),
    "experts, 32 tokens": (partial(moving, Experts), 512, 64),
    "no padding, 32 tokens": (partial(moving, Unpadded), 512, 64),
    "CSR, r = 100,000, density 1e-3": (csr, 20_000, 500),
}


def build(shape, quick):
    """Return the rows of a shape, or none if a package is missing."""
    function, N, few = SHAPES[shape]
    torch.manual_seed(0)
    try:
        return function(few if quick else N)
    except ImportError as error:
        print(f"{shape} is left out: {error}", file=sys.stderr)
        return []


def seconds(rows, quick):
    """Return the fastest time of each row, with the rows taking turns."""
    times = [[] for _ in rows]
    for turn in range(-1, 1 if quick else max(row.repeats for row in rows)):
        for row, found in zip(rows, times, strict=True):
            if turn < row.repeats:
                _, time = clock(row.run)
                found += [time] if turn >= 0 else []
    return [min(found) for found in times]


def memory(run):
    """Return by how many MiB the peak of the resident set exceeds its start."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return float("nan")

    def resident(key):
        return int(status.read_text().split(key)[1].split()[0]) / 1024

    reset.write_text("5")  # resets the recorded peak to the current size
    before = resident("VmRSS:")
    run()
    return resident("VmHWM:") - before


def memory_in_child(shape, index, quick):
    """Return the memory of one row that runs once in its own process."""
    command = [sys.executable, __file__, "--memory", shape, str(index)]
    child = subprocess.run(
        command + ["--quick"] * quick, check=True, stdout=subprocess.PIPE, text=True
    )
    return float(child.stdout)


def measure(shape, quick):
    """Return the table of a shape."""
    rows = build(shape, quick)
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows).drop(columns=["repeats", "run"])
    table.insert(0, "shape", shape)
    table.insert(3, "m", M)
    table["seconds"] = seconds(rows, quick)
    table["seconds_per_sample"] = each = table["seconds"] / table["N"]
    table["peak_MiB"] = [memory_in_child(shape, i, quick) for i in range(len(rows))]
    base = {
        "ratio_to_forward_backward": table["method"] == BOTH,
        "ratio_to_ours": ~table.duplicated("batch"),  # the first row of each batch size
    }
    for column, rows_of_base in base.items():
        table[column] = each / table["batch"].map(
            each[rows_of_base].set_axis(table["batch"][rows_of_base])
        )
    table["batch"] = table["batch"].where(table["batch"] > 0).astype("Int64")
    table["peak_MiB"] = table["peak_MiB"].round()
    for column in table.columns[table.columns.str.contains("seconds|ratio")]:
        table[column] = [float(f"{value:.3g}") for value in table[column]]
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples, record nothing")
    parser.add_argument(
        "--memory", nargs=2, metavar=("SHAPE", "ROW"), help="memory of one row, in MiB"
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.memory:
        shape, index = args.memory
        print(memory(build(shape, args.quick)[int(index)].run))
        return
    tables = []
    for shape in SHAPES:
        tables.append(measure(shape, args.quick))
        print(tables[-1].to_string(index=False), "\n", flush=True)
    table = pd.concat(tables)
    if not args.quick:
        peers = ("traker", "bmdal-reg", "transformers")
        packages = ("numpy", "scipy", "scikit-learn", "torch", *peers)
        command = "python examples/benchmarks/sketch.py"
        print("wrote", record(table, "sketch", command=command, packages=packages).name)


if __name__ == "__main__":
    main()
