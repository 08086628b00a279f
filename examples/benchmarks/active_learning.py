"""Compare query strategies over ten rounds of active learning with ten labels each.

A logistic regression is fitted on all samples that have been labelled so far. Accuracy is measured
on the test set. In each seed the pool is another random part of the training samples, the same for
all strategies, so that strategies without randomness vary too, and differences are paired.

Strategies with *uncertainty* weigh each sample by one minus the margin of that classifier. With
facility location this is UHerding (Bae et al., ICLR 2025), and without the weights MaxHerding.

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

ROUNDS, BATCH = 10, 10
# Samples of a pool: this fraction of the training samples, and at most so many.
POOL, MOST = 0.7, 2000
SHOWN = (20, 50, 100)  # numbers of labels in the table
OURS = {
    "uniform": s.UniformSelector,
    "SkMM": s.SkMMSelector,
    "k-means": s.KMeansSelector,
    "facility location": s.FacilityLocationSelector,
}


def classifier():
    return LogisticRegression(C=10, max_iter=300)


def uncertainty(X, y):
    """Return one minus the margin of a classifier fitted on the labelled samples, or None."""
    labelled = np.isfinite(y)
    if len(np.unique(y[labelled])) < 2:
        return None
    top = np.sort(classifier().fit(X[labelled], y[labelled]).predict_proba(X))[:, -2:]
    return 1.0 - (top[:, 1] - top[:, 0])


def covering(build):
    """Return a strategy that covers the pool besides what is labelled."""

    def query(X, y, seed):
        return s.SelectorQuery(build(1, random_state=seed)).query(X, y, batch_size=BATCH)

    return query


def covering_the_uncertain(build):
    """Return a strategy that covers the pool weighted by the uncertainty."""

    def query(X, y, seed):
        selected = np.isfinite(y)
        given = {"selected": selected, "sample_weight": uncertainty(X, y)}
        return build(BATCH, random_state=seed).fit_transform(X, **given)

    return query


def margin_sampling(X, y, seed):
    """Query the samples of the smallest margin; the first ones at random."""
    score = uncertainty(X, y)
    if score is None:
        score = np.random.RandomState(seed).uniform(size=len(X))
    return np.argsort(-np.where(np.isfinite(y), -1.0, score), kind="stable")[:BATCH]


def peers():
    """Return the strategies of scikit-activeml."""
    try:
        from skactiveml.classifier import SklearnClassifier
        from skactiveml.pool import Badge, MaxHerding
    except ImportError:
        print("scikit-activeml is not installed: its rows are left out")
        return {}
    from sklearn_skmm.core._costs import median_distance

    def max_herding(X, y, seed):
        h = 0.5 * median_distance(X, np.random.RandomState(0))
        strategy = MaxHerding(
            normalize_samples=False, metric_dict={"gamma": 0.5 / h**2}, random_state=seed
        )
        return strategy.query(X, y, batch_size=BATCH)

    def badge(X, y, seed):
        model = SklearnClassifier(classifier(), classes=np.arange(CLASSES), random_state=seed)
        if len(np.unique(y[np.isfinite(y)])) < 2:
            return margin_sampling(X, y, seed)
        return Badge(random_state=seed).query(X, y, clf=model, batch_size=BATCH)

    return {"MaxHerding, scikit-activeml": max_herding, "BADGE, scikit-activeml": badge}


CLASSES = 52  # the largest number of classes of a task


def strategies():
    """Return name -> function of the pool, its labels (NaN where unknown) and a seed."""
    uncertain = {
        f"{name}, uncertainty": covering_the_uncertain(OURS[name])
        for name in ("SkMM", "k-means", "facility location")
    }
    plain = {name: covering(build) for name, build in OURS.items()}
    return {**plain, **uncertain, "margin sampling": margin_sampling, **peers()}


def accuracy(X, y, X_test, y_test):
    """Return the accuracy of a classifier fitted on X and y."""
    if len(np.unique(y)) == 1:
        return float(np.mean(y_test == y[0]))
    return classifier().fit(X, y).score(X_test, y_test)


def run(task, data, methods, seeds):
    """Yield a row for each seed, strategy and round."""
    X_train, y_train, X_test, y_test = data
    for seed in range(seeds):
        rng = np.random.RandomState(seed)
        pool = rng.permutation(len(X_train))[: min(MOST, round(POOL * len(X_train)))]
        X, y = X_train[pool], y_train[pool]
        for method, query in methods.items():
            given = np.full(len(X), np.nan)
            for t in range(ROUNDS):
                start = time.perf_counter()
                queried = query(X, given, 100 * seed + t)
                seconds = time.perf_counter() - start
                given[queried] = y[queried]
                rows = np.flatnonzero(np.isfinite(given))
                score = accuracy(X[rows], y[rows], X_test, y_test)
                yield {
                    "task": task, "method": method, "n": len(rows), "seed": seed,
                    "accuracy": 100 * score, "seconds": seconds,
                }  # fmt: skip


def summary(results):
    """Return a row for each task and strategy: accuracies, and paired differences of their means.

    *mean* is over the rounds: the area under the curve. The best peer is the strategy of
    scikit-activeml, or margin sampling, with the largest mean.
    """
    rows = []
    for task, part in results.groupby("task", sort=False):
        mean = part.pivot_table(index="seed", columns="method", values="accuracy", sort=False)
        at = part.pivot_table(index="n", columns="method", values="accuracy")
        seconds = part.groupby("method")["seconds"].median()
        rivals = [m for m in mean.columns if "scikit-activeml" in m or m == "margin sampling"]
        best = mean[rivals].mean().idxmax()
        for method in mean.columns:
            row = {"task": task, "method": method, "seeds": len(mean)}
            row |= {f"n_{n}": round(at.loc[n, method], 1) for n in SHOWN}
            row["mean"] = round(mean[method].mean(), 2)
            for name, other in (("uniform", "uniform"), ("best_peer", best)):
                difference = mean[method] - mean[other]
                half = difference.sem() * stats.t.ppf(0.975, max(1, len(difference) - 1))
                row[f"minus_{name}"] = round(difference.mean(), 2)
                row[f"half_width_{name}"] = round(half, 2)
            rows.append(row | {"seconds": float(f"{seconds[method]:.2g}")})
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
