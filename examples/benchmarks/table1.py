"""Reproduce Table 1 of the paper, and run methods beyond the paper on the same task.

The data are the Gaussian mixture of `sklearn_skmm.datasets.make_gmm_regression` (N = 2000, r =
2400). Samples are selected on a Gaussian sketch with m = 32, and ridge regression without intercept
is fitted on the coreset. The risk is ||X (theta_S - theta)||^2 / N over all samples. Alpha is one
of linspace(1e-3, 100, 10). It is chosen by the risk itself, as in the paper, and by leave-one-out
cross-validation on the coreset alone, because users do not know the risk.

    python examples/benchmarks/table1.py
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd
from _methods import paper_skmm
from _record import record
from scipy import linalg
from sklearn.exceptions import ConvergenceWarning

import sklearn_skmm as s
from sklearn_skmm.datasets import make_gmm_regression

ALPHAS = np.linspace(1e-3, 100, 10)
SIZES = (48, 64, 80, 120, 400, 800, 1600)
SMALL_SIZES = (24, 32, 48, 64, 80, 120, 400)

# Y. Dong et al., NeurIPS 2024 (arXiv 2407.06120), Table 1: mean and standard deviation, 8 seeds.
PAPER = {
    "Herding": "740 740 740 740 738 117 2.95e-3",
    "Uniform": (
        "1.14e-1±2.71e-1 1.01e-1±2.75e-1 3.44e-3±0.29e-3 3.13e-3±0.14e-3 2.99e-3±0.03e-3 "
        "2.96e-3±0.01e-3 2.95e-3±0"
    ),
    "K-center": (
        "1.23e-2±0.40e-2 9.53e-2±0.60e-2 1.12e-2±0.45e-2 2.73e-2±1.81e-2 5.93e-2±4.80e-2 "
        "1.18e-1±0.64e-1 1.13±0.70"
    ),
    "Adaptive": (
        "3.81e-3±0.65e-3 3.79e-3±1.37e-3 4.83e-3±1.90e-3 4.03e-3±1.35e-3 3.40e-3±0.67e-3 "
        "7.34e-3±3.97e-3 3.19e-3±0.16e-3"
    ),
    "T-leverage": (
        "0.99e-2±1.65e-2 3.63e-3±0.49e-3 3.30e-3±0.30e-3 3.24e-3±0.14e-3 2.98e-3±0.01e-3 "
        "2.96e-3±0.01e-3 2.95e-3±0"
    ),
    "R-leverage": (
        "4.08e-3±1.58e-3 3.48e-3±0.43e-3 3.25e-3±0.31e-3 3.09e-3±0.06e-3 3.00e-3±0.02e-3 "
        "2.97e-3±0.01e-3 2.95e-3±0"
    ),
    "SkMM": (
        "3.54e-3±0.51e-3 3.31e-3±0.15e-3 3.12e-3±0.07e-3 3.07e-3±0.08e-3 2.98e-3±0.02e-3 "
        "2.96e-3±0.01e-3 2.95e-3±0"
    ),
}


class HerdingWithoutUpdate:
    """Herding that ignores the selected samples: the n largest inner products with the mean."""

    def __init__(self, n):
        self.n = n

    def fit_transform(self, X):
        return np.argsort(-(X @ X.mean(axis=0)), kind="stable")[: self.n]


METHODS = {
    "Herding": lambda n, seed: s.HerdingSelector(n),
    "Uniform": lambda n, seed: s.UniformSelector(n, random_state=seed),
    "K-center": lambda n, seed: s.KCenterSelector(n, random_state=seed),
    "Adaptive": lambda n, seed: s.AdaptiveSelector(n, random_state=seed),
    "T-leverage": lambda n, seed: s.TruncatedLeverageSelector(n, random_state=seed),
    "R-leverage": lambda n, seed: s.RidgeLeverageSelector(n, random_state=seed),
    "SkMM": paper_skmm,
}
BEYOND = {
    "Herding, no update": lambda n, seed: HerdingWithoutUpdate(n),
    **{name: METHODS[name] for name in ("Uniform", "Adaptive", "R-leverage", "SkMM")},
    "SkMM, default": lambda n, seed: s.SkMMSelector(n, random_state=seed),
    "V-optimal": lambda n, seed: s.VOptimalSelector(n),
    "K-means": lambda n, seed: s.KMeansSelector(n, random_state=seed),
    "Facility location, Gaussian": lambda n, seed: s.FacilityLocationSelector(n, random_state=seed),
    "Facility location, distance": lambda n, seed: s.FacilityLocationSelector(
        n, metric="euclidean", random_state=seed
    ),
}


class Task:
    """The task for one seed, with its full Gram matrix, of which every coreset uses a part."""

    def __init__(self, seed):
        data = make_gmm_regression(random_state=seed)
        self.X, self.y = data.X, data.y
        self.gram = data.X @ data.X.T

    def risks(self, indices):
        """Return the risks for the best alpha and for the alpha chosen by cross-validation."""
        gram, y = self.gram[np.ix_(indices, indices)], self.y[indices]
        values, vectors = linalg.eigh(gram, check_finite=False)
        values = np.maximum(values, 0.0)
        coefficients = vectors.T @ y
        # Dual coefficients for each alpha, predictions on all samples: X θ = K(:, S) a.
        dual = vectors @ (coefficients[:, None] / (values[:, None] + ALPHAS))
        errors = self.gram[:, indices] @ dual - self.y[:, None]
        risk = np.square(errors).mean(axis=0)
        # Leave-one-out residuals are dual_i divided by the i-th diagonal entry of (K + αI)⁻¹.
        diagonal = np.square(vectors) @ (1.0 / (values[:, None] + ALPHAS))
        loo = np.square(dual / diagonal).mean(axis=0)
        return float(risk.min()), float(risk[np.argmin(loo)])


def run(methods, sizes, seeds):
    """Return one row for each method, n and seed."""
    task = Task(0)
    rows = []
    for seed in seeds:
        sketch = s.GradientSketcher(m=32, random_state=seed).fit_transform(task.X)
        for name, build in methods.items():
            for n in sizes:
                start = time.perf_counter()
                indices = build(n, seed).fit_transform(sketch)
                seconds = time.perf_counter() - start
                best, by_cv = task.risks(indices)
                rows.append((name, n, seed, best, by_cv, seconds))
    columns = ["method", "n", "seed", "risk", "risk_alpha_by_cv", "seconds"]
    return pd.DataFrame(rows, columns=columns)


def summary(results, paper=None):
    """Return means and standard deviations over the seeds, with those of the paper."""
    grouped = results.groupby(["method", "n"], sort=False)
    table = grouped.agg(
        risk=("risk", "mean"),
        std=("risk", "std"),
        risk_alpha_by_cv=("risk_alpha_by_cv", "mean"),
        worst=("risk", "max"),
        seconds=("seconds", "mean"),
    ).reset_index()
    if paper:
        cells = [
            paper[m].split()[SIZES.index(n)] for m, n in zip(table.method, table.n, strict=True)
        ]
        table.insert(4, "paper_risk", [float(c.split("±")[0]) for c in cells])
        table.insert(5, "paper_std", [float((c + "±0").split("±")[1]) for c in cells])
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    args = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    command = "python examples/benchmarks/table1.py"
    for name, methods, sizes, paper in (
        ("table1", METHODS, SIZES, PAPER),
        ("table1_beyond", BEYOND, SMALL_SIZES, None),
    ):
        results = run(methods, sizes, range(args.seeds))
        table = summary(results, paper)
        for column in table.columns.drop(["method", "n"]):
            table[column] = [float(f"{value:.3g}") for value in table[column]]
        print(table.to_string(index=False), "\n")
        print("wrote", record(table, name, command=command).name)


if __name__ == "__main__":
    main()
