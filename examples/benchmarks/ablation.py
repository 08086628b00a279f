"""Measure what each part of `SkMMSelector`'s default contributes, and the rejected alternatives.

The tasks are the search tasks of ``no_regret.py`` for which there are data. The counts in the table
are defined as there.

    python examples/benchmarks/ablation.py --data DIR
"""

import argparse
from unittest.mock import patch

import numpy as np
from _record import record
from _tasks import TASKS
from no_regret import DEFAULT, METHODS, run_all, totals

from sklearn_skmm import SkMMSelector
from sklearn_skmm.core import _balanced_cells, _matching
from sklearn_skmm.core._balanced_means import WHOLE


class Patched:
    """`SkMMSelector` with one function or constant of the package replaced."""

    def __init__(self, n, seed, module, name, value):
        self.selector = SkMMSelector(n, random_state=seed)
        self.replaced = module, name, value

    def fit(self, X):
        with patch.object(*self.replaced):
            return self.selector.fit(X)


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
    "centrality 0.3": skmm(centrality=0.3),
    "centrality 3": skmm(centrality=3.0),
    "centrality inf: the most central candidates": skmm(centrality=np.inf),
    "1 candidate: stratified random sampling": skmm(n_candidates=1),
    "4 candidates": skmm(n_candidates=4),
    "64 candidates": skmm(n_candidates=64),
    "all candidates": skmm(n_candidates=None),
    "all candidates, centrality 0.3": skmm(n_candidates=None, centrality=0.3),
    "balance 1: cells of equal mass": skmm(balance=1.0),
    "balance 2": skmm(balance=2.0),
    "balance 8": skmm(balance=8.0),
    "cells of k-means (balance inf)": skmm(balance=np.inf),
    "exemplars": skmm(rounding="exemplar"),
    "no rounds of balancing": patched(_balanced_cells, "WHOLE", WHOLE._replace(rounds=0)),
    "moments by share of the trace": patched(_matching, "direction_weights", by_share_of_trace),
    "moments of all directions alike": patched(_matching, "direction_weights", all_alike),
    "vertex start, then cells": skmm(init="vertex"),
    "balanced draw (cube)": skmm(rounding="cube"),
    "spread draw (local pivotal)": skmm(rounding="spread"),
    "balanced and spread draw (local cube)": skmm(rounding="local_cube"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="directory with the data, as for no_regret.py")
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args()
    names = [name for name, task in TASKS.items() if not task.held_out]
    table = run_all(names, VARIANTS, args.seeds, args.data)
    counts = totals(table)
    counts = counts[counts["tasks"] == "search"].drop(columns="tasks")
    print(counts.to_string(index=False))
    command = f"python examples/benchmarks/ablation.py --data DIR --seeds {args.seeds}"
    print("wrote", record(counts, "ablation", command=command).name)


if __name__ == "__main__":
    main()
