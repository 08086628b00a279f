"""Compare how well criteria without labels rank settings of a selector by their test errors.

For each table of ``no_regret.py``, fourteen settings of `SkMMSelector` select n = 50 samples of the
pool. Each criterion is computed on samples outside the pool, and averaged over the seeds. *rank* is
the Spearman correlation between the criterion and the accuracy (minus the loss) of a learner that
is fitted on the coreset, over the settings: 1 ranks them as the learner does, −1 the other way
round. *loss_of_best* is the loss of the setting with the best criterion, relative to the default's.

    python examples/benchmarks/criteria.py --data DIR

DIR is the same as for ``no_regret.py``.
"""

import argparse
import warnings

import numpy as np
import pandas as pd
from _record import record
from _tasks import TABLES, real_table, table_of_file
from joblib import Parallel, delayed
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from sklearn_skmm import SkMMSelector, diagnostics
from sklearn_skmm.core._criteria import bandwidth_of, coverage, sampled_rows
from sklearn_skmm.core._moments import explained_fraction

N_SELECTED, N_TEST = 50, 600
SETTINGS = {
    "default": {},
    "c_S 0.9": {"c_S": 0.9},
    "c_S 0.7": {"c_S": 0.7},
    "c_S 0.5": {"c_S": 0.5},
    "centrality 0": {"centrality": 0.0},
    "centrality inf": {"centrality": np.inf},
    "balance 1.5": {"balance": 1.5},
    "balance inf": {"balance": np.inf},
    "exemplar": {"rounding": "exemplar"},
    "cube": {"rounding": "cube"},
    "spread": {"rounding": "spread"},
    "systematic": {"rounding": "systematic"},
    "c_S 0.5, choice": {"c_S": 0.5, "rounding": "choice"},
    "vertex, choice": {"c_S": 0.8, "init": "vertex", "rounding": "choice"},
}


def criteria(X, indices, test):
    """Return the criteria of a coreset; more is better."""
    S, h = X[indices], bandwidth_of(X[sampled_rows(len(X))])
    alpha = float(np.square(X).sum() / len(X) ** 2)
    squared = cdist(test, S, "sqeuclidean")
    found = {
        "coverage, h = 1/4 median": coverage(test, S, h / 2),
        "coverage, h = 1/2 median": coverage(test, S, h),
        "coverage, h = median": coverage(test, S, 2 * h),
        "mean distance": -float(np.sqrt(squared.min(axis=1)).mean()),
        "explained moment": explained_fraction(test, S, alpha),
        "V-optimality": -diagnostics.v_optimality(X, indices, alpha=alpha),
        "largest mass": -float(np.bincount(cdist(X, S).argmin(axis=1)).max()),
    }
    for name, width in (("1/2 median", h), ("median", 2 * h)):
        K = np.exp(-0.5 * cdist(S, S, "sqeuclidean") / width**2)
        cross = np.exp(-0.5 * squared / width**2)
        factor = cho_factor(K + 0.01 * np.eye(len(S)))
        explained = np.einsum("ij,ji->i", cross, cho_solve(factor, cross.T))
        found[f"Gaussian process, h = {name}"] = float(explained.mean())
        found[f"MMD, h = {name}"] = float(2 * cross.mean() - K.mean())
    return found


def run(name, seed, data):
    """Return a row for each setting and learner."""
    warnings.simplefilter("ignore")
    X, loss = table_of_file(name, seed, data)
    # Samples outside the selection, scaled like it: a fifth of what was drawn is set aside.
    order = np.random.RandomState(seed).permutation(len(X))
    test, pool = order[:N_TEST][: len(X) // 5], order[len(X) // 5 :]
    rows = []
    for setting, params in SETTINGS.items():
        selected = SkMMSelector(N_SELECTED, random_state=seed, **params).fit_transform(X[pool])
        found = criteria(X[pool], selected, X[test])
        for learner, value in loss(pool[selected]).items():
            rows.append(
                {"task": name, "learner": learner, "setting": setting, "loss": value} | found
            )
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="directory with tasks.npz")
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args()
    # Fewer samples than this leave too few to choose from.
    names = [n for n, _, _ in TABLES if len(real_table(args.data, n)[0]) > 8 * N_SELECTED]
    results = pd.concat(
        Parallel(n_jobs=-1)(
            delayed(run)(name, seed, args.data) for name in names for seed in range(args.seeds)
        )
    )
    rows = []
    for (task, learner), part in results.groupby(["task", "learner"], sort=False):
        means = part.groupby("setting").mean(numeric_only=True)
        for criterion in means.columns.drop("loss"):
            best = means["loss"][means[criterion].idxmax()]
            rank = -spearmanr(means[criterion], means["loss"])[0]
            rows.append((task, learner, criterion, rank, best / means["loss"]["default"]))
    table = pd.DataFrame(rows, columns=["task", "learner", "criterion", "rank", "loss_of_best"])
    summary = table.groupby("criterion").agg(
        mean_rank=("rank", "mean"),
        worst_rank=("rank", "min"),
        ranks_below_0=("rank", lambda rank: int((rank < 0).sum())),
        comparisons=("rank", "size"),
        loss_of_best=("loss_of_best", lambda ratio: np.exp(np.log(ratio).mean())),
    )
    summary = summary.sort_values("mean_rank", ascending=False).round(3).reset_index()
    print(summary.to_string(index=False))
    command = "python examples/benchmarks/criteria.py --data DIR"
    print("wrote", record(summary, "criteria", command=command).name)
    print("wrote", record(table.round(3), "criteria_by_task", command=command).name)


if __name__ == "__main__":
    main()
