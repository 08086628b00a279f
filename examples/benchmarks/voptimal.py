"""Compare VOptimalSelector with BAIT of bmdal-reg, which minimises the same objective.

The data are Gaussian, with variance 1 / j for the j-th feature. Both minimise tr(Σ (Σ_S + αI)^-1)
with the same alpha, the default of VOptimalSelector. BAIT has two forms: forward, the default of
bmdal-reg, and forward-backward, which selects 2n samples and removes n. BAIT is greedy and has no
certificate, so the gap in all rows is to the lower bound of VOptimalSelector. The time of `fit`
includes the bound, except in the row "without the bound", which times only the greedy start and the
exchanges.

    pip install -c constraints.txt -e '.[benchmark]'
    python examples/benchmarks/voptimal.py

Each uses one thread by default, because the two scale differently with threads, and because other
load on the machine would blur the ratio. Times of VOptimalSelector are medians of three runs; BAIT
runs once.
"""

import argparse

import numpy as np
import pandas as pd
import torch
from _record import clock, record
from bmdal_reg.bmdal.algorithms import select_batch
from bmdal_reg.bmdal.feature_data import TensorFeatureData
from threadpoolctl import threadpool_limits

from sklearn_skmm import VOptimalSelector
from sklearn_skmm.core._design import whiten
from sklearn_skmm.core._exchange import exchange, greedy
from sklearn_skmm.core._moments import spectrum
from sklearn_skmm.diagnostics import v_optimality

np.Inf = np.inf  # noqa: NPY201 (bmdal-reg 3.0.2 predates NumPy 2)

SIZES = ((20_000, 128, 500), (20_000, 64, 500), (20_000, 128, 256), (5_000, 64, 200))


def pool(N, m, seed=0):
    """Draw Gaussian features with variances 1, 1/2, …, 1/m."""
    return np.random.RandomState(seed).normal(size=(N, m)) / np.sqrt(np.arange(1, m + 1))


def bait(X, n, alpha, overselection, seed=0):
    """Run BAIT with the ridge n·alpha, starting from one random labelled sample, which is kept."""
    first = int(np.random.RandomState(seed).randint(len(X)))
    sigma = float(np.sqrt(n * alpha))
    picks, _ = select_batch(
        batch_size=n - 1,
        models=[torch.nn.Identity()],  # one feature map per model
        data={
            "train": TensorFeatureData(torch.from_numpy(X[[first]])),
            "pool": TensorFeatureData(torch.from_numpy(X)),
        },
        y_train=None,
        base_kernel="linear",
        kernel_transforms=[("train", [sigma, None])],
        selection_method="bait",
        bait_sigma=sigma,
        overselection_factor=overselection,
        verbosity=0,
    )
    return np.append(first, picks.numpy())


def without_bound(X, n, alpha):
    """Run the same exchanges from a greedy start, without solving the relaxation."""
    problem = whiten(X, spectrum(X), alpha)
    return exchange(problem, greedy(problem, n))[0]


def methods(X, n, alpha):
    """Return name -> (function, number of timed runs)."""
    ours = {
        "VOptimalSelector": {},
        "VOptimalSelector, relaxation only": {"max_iter": 0},
        "VOptimalSelector, tol=1e-5": {"tol": 1e-5},
    }
    return {
        **{
            name: (lambda params=params: VOptimalSelector(n, **params).fit_transform(X), 3)
            for name, params in ours.items()
        },
        "greedy and exchanges, without the bound": (lambda: without_bound(X, n, alpha), 3),
        "bmdal-reg BAIT, forward": (lambda: bait(X, n, alpha, 1.0), 1),
        "bmdal-reg BAIT, forward-backward": (lambda: bait(X, n, alpha, 2.0), 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    with threadpool_limits(args.threads):
        for N, m, n in SIZES:
            X = pool(N, m)
            reference = VOptimalSelector(n).fit(X)  # also warms up
            bound = reference.lower_bound_
            for name, (function, repeats) in methods(X, n, reference.alpha_).items():
                picks, seconds = clock(function, repeats)
                value = v_optimality(X, picks, alpha=reference.alpha_)
                rows.append((N, m, n, name, seconds, value, bound, 1 - bound / value))
    columns = ["N", "m", "n", "method", "seconds", "objective", "lower_bound", "gap"]
    table = pd.DataFrame(rows, columns=columns)
    ours = table["method"].eq("VOptimalSelector")
    base = table[["N", "m", "n"]].merge(table[ours], on=["N", "m", "n"])["seconds"]
    table.insert(5, "times_ours", (table["seconds"] / base).round(2))
    for column, digits in {"seconds": 3, "objective": 2, "lower_bound": 2, "gap": 4}.items():
        table[column] = table[column].round(digits)
    print(table.to_string(index=False))
    command = "python examples/benchmarks/voptimal.py"
    if args.threads != 1:
        command += f" --threads {args.threads}"
    packages = ("numpy", "scipy", "scikit-learn", "bmdal-reg", "torch")
    print("wrote", record(table, "voptimal", command=command, packages=packages).name)


if __name__ == "__main__":
    main()
