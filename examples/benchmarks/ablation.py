"""Measure what each part of `SkMMSelector`'s default contributes, and the rejected alternatives.

The tasks are the search tasks of ``no_regret.py`` whose data come with scikit-learn. The counts in
the table are defined as there.

    python examples/benchmarks/ablation.py
"""

import argparse
from unittest.mock import patch

import numpy as np
from _record import record
from _tasks import TASKS
from no_regret import DEFAULT, METHODS, run_all, totals
from sklearn.cluster import KMeans

from sklearn_skmm import SkMMSelector
from sklearn_skmm.core import _cells, _layout, _matching
from sklearn_skmm.selectors import _skmm


class Patched:
    """`SkMMSelector` with one function or constant of the package replaced."""

    def __init__(self, n, seed, module, name, value):
        self.selector = SkMMSelector(n, random_state=seed)
        self.replaced = module, name, value

    def fit_transform(self, X):
        with patch.object(*self.replaced):
            return self.selector.fit_transform(X)


def k_means_cells(P, s, n, rng, step):
    """Return cells and costs of k-means, after clipping outliers as the default does."""
    P = _cells.clip_outliers(P, s)
    kmeans = KMeans(n, n_init=1, tol=0, random_state=rng.randint(2**31 - 1)).fit(P)
    labels = kmeans.labels_
    costs = np.square(P - kmeans.cluster_centers_[labels]).sum(axis=1)
    exemplars = np.array([np.flatnonzero(labels == c)[0] for c in range(n)])
    return _cells.Cells(exemplars, labels, costs)


def by_share_of_trace(eigenvalues, n):
    """Weight directions by their eigenvalues."""
    return eigenvalues / eigenvalues.sum()


def all_alike(eigenvalues, n):
    """Weight all directions equally."""
    return np.full(len(eigenvalues), 1.0 / len(eigenvalues))


def skmm(**params):
    return lambda n, r: SkMMSelector(n, random_state=r, **params)


def patched(module, name, value):
    return lambda n, r: Patched(n, r, module, name, value)


VARIANTS = {
    **{name: METHODS[name] for name in ("uniform", "k-means", "facility location", DEFAULT)},
    "centrality 0: moments alone": skmm(centrality=0.0),
    "centrality 0.1": skmm(centrality=0.1),
    "centrality 1": skmm(centrality=1.0),
    "exemplars alone": skmm(rounding="exemplar"),
    "cells of any mass": patched(_layout, "SHARES", np.inf),
    "at most 1.5 shares in a cell": patched(_layout, "SHARES", 1.5),
    "at most 3 shares in a cell": patched(_layout, "SHARES", 3.0),
    "outliers not clipped": patched(_cells, "CLIP_FACTOR", np.inf),
    "outliers clipped to 1.5 medians": patched(_cells, "CLIP_FACTOR", 1.5),
    "outliers clipped to 1 median": patched(_cells, "CLIP_FACTOR", 1.0),
    "moments by share of the trace": patched(_matching, "direction_weights", by_share_of_trace),
    "moments of all directions alike": patched(_matching, "direction_weights", all_alike),
    "cells of k-means": patched(_skmm, "bounded_cells", k_means_cells),
    "bandwidth 0.35 medians": patched(_cells, "BANDWIDTH", 0.35),
    "bandwidth 0.7 medians": patched(_cells, "BANDWIDTH", 0.7),
    "vertex start, then cells": skmm(init="vertex"),
    "balanced draw (cube)": skmm(rounding="cube"),
    "spread draw (local pivotal)": skmm(rounding="spread"),
    "balanced and spread draw (local cube)": skmm(rounding="local_cube"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    args = parser.parse_args()
    names = [name for name, task in TASKS.items() if not task.held_out]
    table = run_all(names, VARIANTS, args.seeds, None)
    counts = totals(table)
    counts = counts[counts["tasks"] == "search"].drop(columns="tasks")
    print(counts.to_string(index=False))
    command = "python examples/benchmarks/ablation.py"
    print("wrote", record(counts, "ablation", command=command).name)


if __name__ == "__main__":
    main()
