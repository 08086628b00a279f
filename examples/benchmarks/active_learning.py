"""Compare query strategies over five rounds of active learning with 20 labels each.

A logistic regression is fitted on all samples that have been labelled so far. Accuracy is measured
on the test set. In each seed, the pool is another random 70 % of the training samples, the same for
all strategies, so that strategies without randomness vary too, and differences are paired.

    pip install -c constraints.txt -e '.[benchmark]'
    python examples/benchmarks/active_learning.py --data DIR

DIR contains ``r52_minilm.npz``, as for ``real.py``. It may be missing; the digits come with
scikit-learn. Without scikit-activeml, its rows are left out.
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd
from _record import record
from real import tasks
from scipy import stats
from sklearn.linear_model import LogisticRegression

import sklearn_skmm as s

ROUNDS, BATCH, POOL = 5, 20, 0.7
OURS = {
    "UniformSelector": lambda r: s.UniformSelector(1, random_state=r),
    "SkMMSelector": lambda r: s.SkMMSelector(1, random_state=r),
    "KMeansSelector": lambda r: s.KMeansSelector(1, random_state=r),
    "FacilityLocationSelector": lambda r: s.FacilityLocationSelector(1, random_state=r),
}


def strategies(query=s.SelectorQuery):
    """Return name -> function of the pool and the seed that returns a query strategy."""
    found = {name: lambda X, r, build=build: query(build(r)) for name, build in OURS.items()}
    try:
        from skactiveml.pool import MaxHerding
    except ImportError:
        print("scikit-activeml is not installed: its rows are left out")
        return found
    from sklearn_skmm.core._costs import median_distance

    def max_herding(X, seed):
        h = 0.5 * median_distance(X, np.random.RandomState(0))
        return MaxHerding(
            normalize_samples=False, metric_dict={"gamma": 0.5 / h**2}, random_state=seed
        )

    found["scikit-activeml MaxHerding"] = max_herding
    return found


def accuracy(X, y, X_test, y_test):
    """Return the accuracy of a classifier fitted on X and y."""
    if len(np.unique(y)) == 1:
        return float(np.mean(y_test == y[0]))
    return LogisticRegression(C=10, max_iter=300).fit(X, y).score(X_test, y_test)


def run(task, data, methods, seeds):
    """Yield a row for each seed, strategy and round."""
    X_train, y_train, X_test, y_test = data
    for seed in range(seeds):
        rng = np.random.RandomState(seed)
        pool = rng.permutation(len(X_train))[: round(POOL * len(X_train))]
        X, y = X_train[pool], y_train[pool]
        for method, build in methods.items():
            strategy = build(X, seed)
            given = np.full(len(X), np.nan)
            for _ in range(ROUNDS):
                start = time.perf_counter()
                queried = strategy.query(X, given, batch_size=BATCH)
                seconds = time.perf_counter() - start
                given[queried] = y[queried]
                rows = np.flatnonzero(np.isfinite(given))
                score = accuracy(X[rows], y[rows], X_test, y_test)
                yield {
                    "task": task, "method": method, "n": len(rows), "seed": seed,
                    "accuracy": 100 * score, "seconds": seconds,
                }  # fmt: skip


def summary(results, to="UniformSelector"):
    """Return means per task, strategy and round, with the paired difference to random sampling."""
    index = ["task", "method", "n"]
    accuracies = results.set_index([*index, "seed"])["accuracy"]
    base = accuracies.xs(to, level="method")
    rows = []
    for (task, method, n), group in results.groupby(index, sort=False):
        values = group.set_index("seed")["accuracy"]
        difference = values - base[task, n]
        rows.append(
            {
                "task": task,
                "method": method,
                "n": n,
                "seeds": len(group),
                "accuracy": round(values.mean(), 2),
                "minus_uniform": round(difference.mean(), 2),
                "half_width_95": round(
                    difference.sem() * stats.t.ppf(0.975, max(1, len(difference) - 1)), 2
                ),
                "seconds": float(f"{group['seconds'].median():.3g}"),
            }
        )
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="directory with r52_minilm.npz")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for name, *data in tasks(args.data):
        if name in ("digits", "R52"):
            rows.extend(run(name, data, strategies(), args.seeds))
    table = summary(pd.DataFrame(rows))
    print(table.to_string(index=False))
    command = "python examples/benchmarks/active_learning.py --data DIR"
    packages = ("numpy", "scipy", "scikit-learn", "scikit-activeml")
    print("wrote", record(table, "active_learning", command=command, packages=packages).name)


if __name__ == "__main__":
    main()
