"""Measure how accurate the random projections of gradients are, and how good the selections.

The first gradients are those of a small convolutional network on digits, for classes sampled from
its predicted probabilities: of the last layer (one outer product δ ⊗ a per sample, the worst case
of "product") and of all layers. The table has the relative error of the Gram matrix, averaged over
the seeds, and the spread of squared norms, which is the standard deviation of ‖gΓ‖² / ‖g‖². The
second gradients span a subspace of dimension 10 in r = 4,096 = 64 × 64 dimensions, with m = 110.
The distortion is the largest relative error of the squared norm of a vector in that subspace, the
largest |λ - 1| of UᵀΓΓᵀU.

With ``--data``, a linear probe is fitted on 500 images of Fashion-MNIST. The gradients of 10,000
other images are sketched with m = 96, and a logistic regression is fitted on the SkMM coreset. The
seed determines the images, the classes and Γ.

    pip install -c constraints.txt -e '.[benchmark]'
    OMP_NUM_THREADS=1 python examples/benchmarks/sketch_accuracy.py --data DIR

DIR contains ``fashion-mnist/`` as for ``real.py``.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _record import record
from real import load_idx
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from sklearn_skmm import GradientSketcher, SkMMSelector, UniformSelector
from sklearn_skmm.sketch._product import ProductProjection
from sklearn_skmm.sketch._projection import projection_for

KINDS = ("gaussian", "sparse_sign", "product")
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch")


def net():
    """Return a briefly trained convolutional network, unseen images and sampled classes."""
    X, y = load_digits(return_X_y=True)
    X, y = torch.tensor(X.reshape(-1, 1, 8, 8) / 16), torch.tensor(y)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    ).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(X[:1000]), y[:1000]).backward()
        optimizer.step()
    X = X[1000:1400]
    with torch.no_grad():
        classes = torch.multinomial(model(X).softmax(1), 1)[:, 0]
    return model, X, classes


def exact(model, X, classes, prefix):
    """Return the exact gradients with respect to the parameters with this prefix."""
    parameters = {n: p.detach() for n, p in model.named_parameters() if n.startswith(prefix)}

    def loss(parameters, x, y):
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, X, classes)
    return torch.cat([g.flatten(1) for g in found.values()], 1).detach().numpy()


def errors(G, sketches):
    """Return the error of the Gram matrix and the spread of squared norms."""
    gram, norms = G @ G.T, np.sum(G**2, axis=1)
    error = [np.linalg.norm(s @ s.T - gram) / np.linalg.norm(gram) for s in sketches]
    ratios = [np.sum(s**2, axis=1) / norms for s in sketches]
    return {"gram_error": np.mean(error), "spread": np.std(ratios)}


def of_a_net(seeds):
    """Yield rows for gradients of the network, sketched by GradientSketcher."""
    model, X, classes = net()
    for name, layers, prefix in (("last layer, δ ⊗ a", "5", "5."), ("all layers", None, "")):
        G = exact(model, X, classes, prefix)
        for kind in KINDS:
            for m in (64, 128, 256, 512, 1024):
                sketches = [
                    GradientSketcher(
                        m,
                        model=model,
                        target="label",
                        layers=layers,
                        sketch=kind,
                        batch_size=len(X),
                        random_state=seed,
                    ).fit_transform(X, classes)
                    for seed in range(seeds)
                ]
                row = {"gradients": name, "r": G.shape[1], "sketch": kind, "m": m, "seeds": seeds}
                yield row | errors(G, sketches)


def of_exact_rank(seeds, side=64, rank=10, n=200):
    """Yield rows for gradients that span a subspace of this rank."""
    rng = np.random.RandomState(0)

    def products(left):
        """Draw δ ⊗ a with δ and a in subspaces of dimensions left and rank / left."""
        dims = (left, rank // left)
        u, v = (rng.normal(size=(n, d)) @ rng.normal(size=(d, side)) for d in dims)
        return np.einsum("ni,nj->nij", u, v).reshape(n, -1)

    matrices = {
        "rank 10, without structure": rng.normal(size=(n, rank)) @ rng.normal(size=(rank, side**2)),
        "rank 10, δ ⊗ a, 2 × 5": products(2),
        "rank 10, δ ⊗ a, one δ for all": products(1),
    }
    m = 11 * rank
    for name, G in matrices.items():
        basis = np.linalg.svd(G, full_matrices=False)[2][:rank]
        for kind in (*KINDS, "product, 4 terms"):
            sketches, distortions = [], []
            terms = 4 if kind.endswith("4 terms") else 1
            for seed in range(seeds):
                if kind.startswith("product"):
                    projection = ProductProjection(side, side, m, (seed, 0), (seed, 1), terms)
                else:
                    projection = projection_for(kind, side**2, m, seed)
                sketches.append(projection.apply(G))
                values = np.linalg.svd(projection.apply(basis), compute_uv=False) ** 2
                distortions.append(np.abs(values - 1).max())
            row = {"gradients": name, "r": side**2, "sketch": kind, "m": m, "seeds": seeds}
            row |= errors(G, sketches)
            yield row | {"distortion": np.mean(distortions), "worst": np.max(distortions)}


def images(directory, seed):
    """Yield 100 principal components of the pool, of some labelled images and of test images."""
    folder = Path(directory) / "fashion-mnist"
    (X, y), (X_test, y_test) = (
        [load_idx(folder / f"{part}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1")]
        for part in ("train", "t10k")
    )
    rng = np.random.RandomState(seed)
    pool, labelled = np.split(rng.choice(len(X), 10_500, replace=False), [10_000])
    test = rng.choice(len(X_test), 5000, replace=False)
    pca = None
    for pixels, labels, keep in ((X, y, pool), (X, y, labelled), (X_test, y_test, test)):
        flat = pixels[keep].reshape(len(keep), -1) / 255.0
        pca = pca or PCA(100, random_state=0).fit(flat)
        scale = np.sqrt(pca.explained_variance_.sum())
        yield (pca.transform(flat) / scale).astype(np.float32), labels[keep]


def fit(X, y):
    return LogisticRegression(C=10, max_iter=300).fit(X, y)


def downstream(directory, seeds):
    """Yield the accuracy for each seed, sketch and coreset size."""
    for seed in range(seeds):
        (X, y), few, test = images(directory, seed)
        fitted = fit(*few)
        probe = nn.Linear(100, 10)
        probe.load_state_dict(
            {"weight": torch.tensor(fitted.coef_), "bias": torch.tensor(fitted.intercept_)}
        )
        sketches = {
            (target, kind): GradientSketcher(
                96, model=probe, target=target, sketch=kind, batch_size=1000, random_state=seed
            ).fit_transform(X)
            for target in ("sampled", "output")
            for kind in ("gaussian", "product")
        }
        for n in (50, 100, 200):
            picks = {
                key: SkMMSelector(n, random_state=seed).fit_transform(sketch)
                for key, sketch in sketches.items()
            }
            uniform = UniformSelector(n, random_state=seed).fit_transform(X)
            for target in ("sampled", "output"):
                picks[target, "none: UniformSelector"] = uniform
            for (target, kind), indices in picks.items():
                accuracy = 100 * fit(X[indices], y[indices]).score(*test)
                yield {"target": target, "sketch": kind, "n": n, "seed": seed, "accuracy": accuracy}


def summary(results):
    """Return means, with paired differences to the Gaussian sketch and to random sampling."""
    rows = []
    for (target, n), group in results.groupby(["target", "n"], sort=False):
        wide = group.pivot(index="seed", columns="sketch", values="accuracy")
        for kind in wide:
            row = {"target": target, "sketch": kind, "n": n, "seeds": len(wide)}
            row["accuracy"] = wide[kind].mean()
            for name, other in (("gaussian", "gaussian"), ("uniform", "none: UniformSelector")):
                difference = wide[kind] - wide[other]
                half = difference.sem() * stats.t.ppf(0.975, max(1, len(wide) - 1))
                row |= {f"minus_{name}": difference.mean(), f"half_width_95_{name}": half}
            rows.append(row)
    return pd.DataFrame(rows).round(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="directory with fashion-mnist/")
    parser.add_argument("--seeds", type=int, default=20, help="seeds of Γ in the first part")
    parser.add_argument("--downstream-seeds", type=int, default=8)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    command = "python examples/benchmarks/sketch_accuracy.py --data DIR"
    table = pd.DataFrame([*of_a_net(args.seeds), *of_exact_rank(args.seeds)]).round(4)
    print(table.to_string(index=False))
    print("wrote", record(table, "sketch_accuracy", command=command, packages=PACKAGES).name)
    if args.data is not None:
        table = summary(pd.DataFrame(downstream(args.data, args.downstream_seeds)))
        print(table.to_string(index=False))
        print("wrote", record(table, "sketch_downstream", command=command, packages=PACKAGES).name)


if __name__ == "__main__":
    main()
