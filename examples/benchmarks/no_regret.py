"""Compare each method with random sampling and with the best method on thirty tasks.

The tasks are classification and regression. All methods use the same features and no labels: a
Gaussian sketch of the features or of the gradients of a network, or the columns of a table
themselves. They are compared on the same seeds.

The loss of a classification task is the test error of logistic regression, of a support vector
machine with an RBF kernel, or of the finetuned network. The loss of a regression task is the mean
squared error of ridge regression, or of support vector regression, divided by the variance of the
test targets. On the paper's Gaussian mixture it is the risk, as in ``table1.py``.

The defaults of `SkMMSelector` were chosen on the tasks marked "search". Seven of the tables (the
"seven" of the totals) are those on which layouts of cells were compared first. The tasks marked
"held out" were not used for these choices.

    pip install -c constraints.txt -e '.[benchmark]'
    python examples/benchmarks/no_regret.py --data DIR

DIR is the same as for ``real.py``, with ``tasks.npz`` besides: for each table NAME the arrays
NAME__X, NAME__y and NAME__kind ("c" or "r"). Tasks whose data are missing are left out.
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd
from _methods import paper_skmm
from _record import RESULTS, record
from _tasks import DEEP, SEVEN, TASKS
from joblib import Parallel, delayed
from scipy import stats

import sklearn_skmm as s

DEFAULT = "SkMM (default)"
KINDS = ("classification", "regression")
WEIGHTED = "SkMM (default), fitted with weights"
METHODS = {
    "uniform": lambda n, r: s.UniformSelector(n, random_state=r),
    "k-means": lambda n, r: s.KMeansSelector(n, random_state=r),
    "facility location": lambda n, r: s.FacilityLocationSelector(n, random_state=r),
    "V-optimal": lambda n, r: s.VOptimalSelector(n),
    "spread": lambda n, r: s.SkMMSelector(n, rounding="spread", random_state=r),
    "SkMM (paper)": paper_skmm,
    DEFAULT: lambda n, r: s.SkMMSelector(n, random_state=r),
}


def run(name, seed, data, methods):
    """Return a row for each method and n on a task with one seed."""
    warnings.simplefilter("ignore")
    task = TASKS[name]
    X, loss = task.draw(seed, data)
    sketch = X
    if task.m is not None:
        sketch = s.GradientSketcher(m=task.m, random_state=seed).fit_transform(X)
    rows = []
    for n in task.sizes:
        for method, build in methods.items():
            start = time.perf_counter()
            selector = build(n, seed).fit(sketch)
            seconds = time.perf_counter() - start
            found = {method: loss(selector.sample_indices_)}
            if method == DEFAULT and task.takes_weights:
                found[WEIGHTED] = loss(selector.sample_indices_, selector.sample_weight_)
            for key, losses in found.items():
                by_learner = losses if isinstance(losses, dict) else {"": losses}
                rows += [
                    (name, task.kind, learner, task.held_out, n, seed, key, value, seconds)
                    for learner, value in by_learner.items()
                ]
    columns = ["task", "kind", "learner", "held_out", "n", "seed", "method", "loss", "seconds"]
    return pd.DataFrame(rows, columns=columns)


def half_width(differences):
    """Return half the width of the 95 % interval of the mean."""
    if len(differences) < 2:
        return np.nan
    return float(stats.sem(differences) * stats.t.ppf(0.975, len(differences) - 1))


def summary(results):
    """Return a row for each task, n and method, with comparisons to uniform and the best other."""
    rows = []
    for (task, learner, n), cell in results.groupby(["task", "learner", "n"], sort=False):
        losses = cell.pivot_table(index="seed", columns="method", values="loss", sort=False)
        means = losses.mean()
        is_classes = cell["kind"].iloc[0] == "classification"
        for method in losses.columns:
            difference = losses[method] - losses["uniform"]
            half = half_width(difference)
            # The best of the other methods, not counting the default.
            others = means[[m for m in means.index if m in METHODS and m not in (method, DEFAULT)]]
            best = others.min()
            close = means[method] <= (best + 0.01 if is_classes else 1.05 * best)
            rows.append(
                {
                    "task": task,
                    "kind": cell["kind"].iloc[0],
                    "learner": learner,
                    "tasks": "held out" if cell["held_out"].iloc[0] else "search",
                    "n": n,
                    "method": method,
                    "seeds": len(losses),
                    "loss": float(f"{means[method]:.4g}"),
                    "ratio_to_uniform": float(f"{means[method] / means['uniform']:.3g}"),
                    "minus_uniform": float(f"{difference.mean():.3g}"),
                    "half_width_95": float(f"{half:.3g}"),
                    "worse_than_uniform": bool(difference.mean() > half),
                    "better_than_uniform": bool(difference.mean() < -half),
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
    """Count how often each method is worse than uniform, and how often it is close to the best."""
    groups = {
        "all": table,
        "search": table[table["tasks"] == "search"],
        "held out": table[table["tasks"] == "held out"],
        "the seven tables": table[table["task"].isin(SEVEN)],
        "deep features": table[table["task"].isin(DEEP)],
    }
    rows = []
    for tasks, part in groups.items():
        for method, cells in part.groupby("method", sort=False):
            ratio = cells["ratio_to_uniform"]
            by_kind = {kind: geometric_mean(ratio[cells["kind"] == kind]) for kind in KINDS}
            rows.append(
                {
                    "tasks": tasks,
                    "method": method,
                    "cells": len(cells),
                    "worse_than_uniform": int(cells["worse_than_uniform"].sum()),
                    "better_than_uniform": int(cells["better_than_uniform"].sum()),
                    "worse_by_15_percent": int(
                        (cells["worse_than_uniform"] & (ratio > 1.15)).sum()
                    ),
                    "close_to_best": int(cells["close_to_best"].sum()),
                    "close_share": round(cells["close_to_best"].mean(), 3),
                    "geometric_mean": geometric_mean(ratio),
                    **by_kind,
                    "percentile_90": float(f"{ratio.quantile(0.9):.3g}"),
                    "worst_ratio_to_uniform": ratio.max(),
                }
            )
    return pd.DataFrame(rows)


def geometric_mean(ratio):
    """Return the geometric mean, to three digits."""
    return float(f"{np.exp(np.log(ratio).mean()):.3g}") if len(ratio) else np.nan


def profile(table, path):
    """Plot the fraction of comparisons in which each method is within a factor of the best."""
    table = table.rename(columns={"method": "selector", "loss": "score"})
    table["task"] += ", " + table["learner"]
    display = s.PerformanceProfileDisplay.from_results(
        table[table["selector"].isin(METHODS)],
        score_kind="loss",
        max_factor=4,
        line_kw={
            "SkMM (paper)": {"color": "0.45"},
            DEFAULT: {"linewidth": 2.8, "color": "black", "linestyle": "-", "zorder": 3},
        },
    )
    display.ax_.set(
        xlabel="mean loss divided by the best method's",
        ylabel=f"fraction of the {len(display.ratios_)} comparisons (task × n)",
        title="Performance profile: higher and further left is better",
    )
    display.figure_.savefig(path, dpi=110)


def run_all(names, methods, seeds, data):
    """Run the tasks over the seeds in parallel and return a row for each task, n and method."""
    names = [name for name in names if TASKS[name].available(data)]
    parts = Parallel(n_jobs=-1)(
        delayed(run)(name, seed, data, methods) for name in names for seed in range(seeds)
    )
    return summary(pd.concat(parts))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="directory with r52_minilm.npz and fashion-mnist/")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    args = parser.parse_args()
    table = run_all(args.tasks, METHODS, args.seeds, args.data)
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
