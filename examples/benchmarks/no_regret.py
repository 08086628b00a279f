"""Is a method ever worse than a uniform draw, and how far from the best is it?

Thirteen tasks of both kinds, all methods on the same Gaussian sketch of the features, without
labels, paired over seeds. The loss is the error of logistic regression on the test set, or the mean
squared error of ridge regression (its alpha by leave-one-out on the coreset) divided by the
variance of the test targets; on the paper's Gaussian mixture the risk as in ``table1.py``. The
defaults of `SkMMSelector` were decided on the tasks marked "search"; those marked "held out" were
run once, afterwards.

    pip install -c constraints.txt -e '.[benchmark]'
    python examples/benchmarks/no_regret.py --data DIR

DIR as for ``real.py``; without it the two tasks that need it are left out.
"""

import argparse
import time
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import real
import table1
from _record import RESULTS, record
from joblib import Parallel, delayed
from scipy import stats
from sklearn import datasets
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

import sklearn_skmm as s

DEFAULT = "SkMM (default)"
METHODS = {
    "uniform": lambda n, r: s.UniformSelector(n, random_state=r),
    "k-means": lambda n, r: s.KMeansSelector(n, random_state=r),
    "facility location": lambda n, r: s.FacilityLocationSelector(n, random_state=r),
    "V-optimal": lambda n, r: s.VOptimalSelector(n),
    "ridge leverage": lambda n, r: s.RidgeLeverageSelector(n, random_state=r),
    "adaptive": lambda n, r: s.AdaptiveSelector(n, random_state=r),
    "SkMM (paper)": lambda n, r: s.SkMMSelector(
        n, init="vertex", rounding="choice", random_state=r
    ),
    DEFAULT: lambda n, r: s.SkMMSelector(n, random_state=r),
}


def classification(C, X, y, X_test, y_test):
    """Return the features and the error on the test set as a function of the coreset."""

    def loss(indices):
        if len(np.unique(y[indices])) == 1:
            return float(np.mean(y_test != y[indices[0]]))
        model = LogisticRegression(C=C, max_iter=300).fit(X[indices], y[indices])
        return 1.0 - model.score(X_test, y_test)

    return X, loss


def regression(X, y, X_test, y_test):
    """Return the features and the relative squared error as a function of the coreset."""

    def loss(indices):
        model = RidgeCV(np.logspace(-3, 4, 15)).fit(X[indices], y[indices])
        return float(np.mean(np.square(model.predict(X_test) - y_test)) / np.var(y_test))

    return X, loss


def split(X, y, seed, *, test_size=0.25, stratify=False, scale=True):
    """Split and, by default, standardise by the pool."""
    parts = train_test_split(
        X, y, test_size=test_size, random_state=seed, stratify=y if stratify else None
    )
    X, X_test, y, y_test = parts
    if scale:
        scaler = StandardScaler().fit(X)
        X, X_test = scaler.transform(X), scaler.transform(X_test)
    return X, y, X_test, y_test


def table(load, seed, **params):
    """Split one of scikit-learn's bundled tables."""
    return split(*load(return_X_y=True), seed, **params)


def imbalanced(seed):
    """Five classes of two clusters each, from 60 % to 4 % of the samples."""
    X, y = datasets.make_classification(
        4000,
        20,
        n_informative=8,
        n_redundant=4,
        n_classes=5,
        n_clusters_per_class=2,
        weights=[0.6, 0.2, 0.1, 0.06, 0.04],
        class_sep=1.5,
        random_state=seed,
    )
    return split(X, y, seed, stratify=True)


def heavy_tails(seed):
    """Low effective rank, rows scaled by |t₃|, a linear target with t₃ noise."""
    rng = np.random.RandomState(seed)
    X, _ = datasets.make_regression(
        4000, 100, effective_rank=15, tail_strength=0.6, random_state=seed
    )
    X *= np.abs(rng.standard_t(3, (len(X), 1)))
    X /= X.std()
    y = X @ rng.normal(size=100)
    return split(X, y / y.std() + 0.5 * rng.standard_t(3, len(X)), seed, scale=False)


def quadratic(X, y, seed):
    """All products of two columns: outliers, and a target that is not linear in them."""
    return split(PolynomialFeatures(2, include_bias=False).fit_transform(X), y, seed)


def quadratic_friedman(seed):
    X, y = datasets.make_friedman1(5000, 10, noise=1.0, random_state=seed)
    rng = np.random.RandomState(seed)
    skew = np.exp(0.4 * rng.normal(size=X.shape))
    return quadratic((X - 0.5) * np.sqrt(12) * skew, y, seed)


def quadratic_diabetes(seed):
    X, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    return quadratic(StandardScaler().fit_transform(X), y, seed)


@cache
def files(data, name):
    """The task of that name from ``real.py``, or None."""
    found = [task for task in real.tasks(data) if task[0] == name]
    return found[0][1:] if found else None


@cache
def mixture(task_seed):
    return table1.Task(task_seed)


def gmm(task_seed):
    task = mixture(task_seed)
    return task.X, lambda indices: task.risks(indices)[0]


# name -> (kind, held out, sizes, function of (seed, data))
TASKS = {
    "R52": (
        "classification",
        False,
        (50, 100, 200, 500),
        lambda r, d: classification(10, *files(d, "R52")),
    ),
    "digits": (
        "classification",
        False,
        (20, 50, 100, 200),
        lambda r, d: classification(
            160, *table(datasets.load_digits, r, test_size=0.5, stratify=True, scale=False)
        ),
    ),
    "imbalanced": (
        "classification",
        False,
        (20, 50, 100, 300),
        lambda r, d: classification(1, *imbalanced(r)),
    ),
    "GMM, seed 0": ("regression", False, (24, 48, 80, 120, 400), lambda r, d: gmm(0)),
    "diabetes": (
        "regression",
        False,
        (10, 20, 50, 100),
        lambda r, d: regression(*table(datasets.load_diabetes, r, scale=True)),
    ),
    "friedman1": (
        "regression",
        False,
        (10, 20, 50, 200, 1000),
        lambda r, d: regression(
            *split(*datasets.make_friedman1(4000, 10, noise=1.0, random_state=r), r)
        ),
    ),
    "heavy tails": (
        "regression",
        False,
        (20, 50, 100, 400),
        lambda r, d: regression(*heavy_tails(r)),
    ),
    "quadratic friedman1": (
        "regression",
        False,
        (20, 50, 100, 200, 400),
        lambda r, d: regression(*quadratic_friedman(r)),
    ),
    "Fashion-MNIST": (
        "classification",
        True,
        (50, 100, 200, 500, 1000),
        lambda r, d: classification(10, *files(d, "Fashion-MNIST")),
    ),
    "breast cancer": (
        "classification",
        True,
        (10, 20, 50, 100),
        lambda r, d: classification(1, *table(datasets.load_breast_cancer, r, stratify=True)),
    ),
    "wine": (
        "classification",
        True,
        (10, 20, 50),
        lambda r, d: classification(1, *table(datasets.load_wine, r, stratify=True)),
    ),
    "GMM, seed 1": ("regression", True, (24, 48, 80, 120, 400), lambda r, d: gmm(1)),
    "quadratic diabetes": (
        "regression",
        True,
        (20, 50, 100, 200),
        lambda r, d: regression(*quadratic_diabetes(r)),
    ),
}


def run(name, seed, data, methods):
    """Return a row for each method and n on one draw of a task."""
    warnings.simplefilter("ignore")
    kind, held_out, sizes, draw = TASKS[name]
    X, loss = draw(seed, data)
    m = 32 if name.startswith("GMM") else 96
    sketch = s.GradientSketcher(m=m, random_state=seed).fit_transform(X)
    rows = []
    for n in sizes:
        for method in methods:
            start = time.perf_counter()
            indices = METHODS[method](n, seed).fit_transform(sketch)
            seconds = time.perf_counter() - start
            rows.append((name, kind, held_out, n, seed, method, loss(indices), seconds))
    columns = ["task", "kind", "held_out", "n", "seed", "method", "loss", "seconds"]
    return pd.DataFrame(rows, columns=columns)


def half_width(differences):
    """Half of the 95 % interval of the mean."""
    if len(differences) < 2:
        return np.nan
    return float(stats.sem(differences) * stats.t.ppf(0.975, len(differences) - 1))


def summary(results):
    """A row for each task, n and method, compared to the uniform draw and to the best other."""
    rows = []
    for (task, n), cell in results.groupby(["task", "n"], sort=False):
        losses = cell.pivot_table(index="seed", columns="method", values="loss", sort=False)
        means = losses.mean()
        is_classes = cell["kind"].iloc[0] == "classification"
        for method in losses.columns:
            difference = losses[method] - losses["uniform"]
            half = half_width(difference)
            # The best of the methods to compare with: the others, without the new default.
            others = means.drop(labels=[m for m in (method, DEFAULT) if m in means])
            best = others.min()
            close = means[method] <= (best + 0.01 if is_classes else 1.05 * best)
            rows.append(
                {
                    "task": task,
                    "kind": cell["kind"].iloc[0],
                    "tasks": "held out" if cell["held_out"].iloc[0] else "search",
                    "n": n,
                    "method": method,
                    "seeds": len(losses),
                    "loss": float(f"{means[method]:.4g}"),
                    "ratio_to_uniform": float(f"{means[method] / means['uniform']:.3g}"),
                    "minus_uniform": float(f"{difference.mean():.3g}"),
                    "half_width_95": float(f"{half:.3g}"),
                    "worse_than_uniform": bool(difference.mean() > half),
                    "best_other": others.idxmin(),
                    "ratio_to_best_other": float(f"{means[method] / best:.3g}"),
                    "close_to_best": bool(close),
                    "seconds": float(
                        f"{cell.loc[cell['method'] == method, 'seconds'].median():.2g}"
                    ),
                }
            )
    return pd.DataFrame(rows)


def totals(table):
    """Count, for each method, the cells where it is worse than uniform or close to the best."""
    rows = []
    for tasks, part in [("all", table), *table.groupby("tasks", sort=False)]:
        for method, cells in part.groupby("method", sort=False):
            rows.append(
                {
                    "tasks": tasks,
                    "method": method,
                    "cells": len(cells),
                    "worse_than_uniform": int(cells["worse_than_uniform"].sum()),
                    "close_to_best": int(cells["close_to_best"].sum()),
                    "close_share": round(cells["close_to_best"].mean(), 3),
                    "worst_ratio_to_uniform": cells["ratio_to_uniform"].max(),
                    "median_ratio_to_uniform": float(f"{cells['ratio_to_uniform'].median():.3g}"),
                }
            )
    return pd.DataFrame(rows)


def profile(table, path):
    """Draw the share of cells on which each method is within a factor of the best of all."""
    import matplotlib.pyplot as plt

    ratios = table.pivot_table(index=["task", "n"], columns="method", values="loss", sort=False)
    ratios = ratios.div(ratios.min(axis=1), axis=0)
    grid = np.geomspace(1, 4, 400)
    figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for method in METHODS:
        share = (ratios[method].to_numpy()[:, None] <= grid).mean(axis=0)
        bold = method == DEFAULT
        ax.step(grid, share, where="post", lw=2.8 if bold else 1.3, zorder=3 if bold else 2)
        ax.lines[-1].set_label(method)
    ax.set(
        xscale="log",
        xlim=(1, 4),
        ylim=(0, 1.02),
        xlabel="mean loss divided by the best method's",
        ylabel=f"share of the {len(ratios)} cells (task × n)",
        title="Performance profile: higher and further left is better",
    )
    ticks = [1, 1.1, 1.25, 1.5, 2, 3, 4]
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right", fontsize=9)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="directory with r52_minilm.npz and fashion-mnist/")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    args = parser.parse_args()
    names = [
        name
        for name in args.tasks
        if name not in ("R52", "Fashion-MNIST") or (args.data and files(args.data, name))
    ]
    jobs = [(name, seed) for name in names for seed in range(args.seeds)]
    parts = Parallel(n_jobs=-1)(
        delayed(run)(name, seed, args.data and str(Path(args.data)), list(METHODS))
        for name, seed in jobs
    )
    table = summary(pd.concat(parts))
    counts = totals(table)
    print(counts.to_string(index=False))
    if args.tasks == list(TASKS):
        command = "python examples/benchmarks/no_regret.py --data DIR"
        print("wrote", record(table, "no_regret", command=command).name)
        print("wrote", record(counts, "no_regret_totals", command=command).name)
        profile(table, RESULTS / "no_regret.png")
    else:
        print(table.to_string(index=False))


if __name__ == "__main__":
    main()
