"""Measure the loss of quality when large selections are made in two steps.

    python examples/benchmarks/two_steps.py

At N = 20,000 and n = 2,000, both variants can be run: the two steps that the rounding uses at this
size, and a single step with all distances, where the centres of cells are computed from all
samples. The pools are the mixture of ``scale.py`` and one normal distribution in twenty dimensions.
Without clusters, coverage across the borders of coarse cells matters most.

*cost* is the objective of exemplars, the mean of 1 − exp(−d²/2h²), where d is the distance to the
nearest selected sample and h half the median distance. *coverage* is the mean of d. *mismatch* is
the relative difference of the second moments of the selected and of all samples, along the
eigenvectors of the latter. Lower is better for all three. The last columns are the mean ratio over
the seeds and half the width of its 95 % interval.
"""

from contextlib import ExitStack
from itertools import product
from unittest import mock

import numpy as np
import pandas as pd
from _record import record
from scale import mixture
from scipy import stats
from sklearn.metrics import pairwise_distances_argmin_min

from sklearn_skmm import SkMMSelector
from sklearn_skmm.core import _balanced_cells, _draws, _exemplar_cells, _exemplar_layout
from sklearn_skmm.core._balanced_means import WHOLE
from sklearn_skmm.core._costs import median_distance

N, n, SEEDS = 20_000, 2_000, 5
POOLS = {
    "mixture": lambda seed: mixture(N, seed).astype(float),
    "normal": lambda seed: np.random.RandomState(seed).normal(size=(N, 20)),
}
# With these constants, the package uses a single step with all distances.
AT_ONCE = {
    "cells": [(_balanced_cells, "FEW", n), (_balanced_cells, "WHOLE", WHOLE._replace(size=N))],
    "exemplar": [(_exemplar_layout, "DISTANCES", N * n), (_exemplar_cells, "SUBSAMPLE", N)],
    "spread": [(_draws, "MAX_EXACT", N)],
}


def quality(X, picks, h):
    """Return the three measures of a selection."""
    distances = pairwise_distances_argmin_min(X, X[picks])[1]
    values, V = np.linalg.eigh(X.T @ X / len(X))
    moments = np.square(X[picks] @ V).mean(axis=0)
    return {
        "cost": float(-np.expm1(-0.5 * np.square(distances / h)).mean()),
        "coverage": float(distances.mean()),
        "mismatch": float(np.linalg.norm(moments / values - 1) / np.sqrt(len(values))),
    }


def main():
    rows = []
    for (pool, draw), seed in product(POOLS.items(), range(SEEDS)):
        X = draw(seed)
        h = _exemplar_cells.BANDWIDTH * median_distance(X, np.random.RandomState(0))
        for (rounding, constants), steps in product(AT_ONCE.items(), ("two steps", "at once")):
            with ExitStack() as stack:
                for constant in constants if steps == "at once" else ():
                    stack.enter_context(mock.patch.object(*constant))
                selector = SkMMSelector(n, rounding=rounding, random_state=seed).fit(X)
            found = quality(X, selector.sample_indices_, h)
            rows += [(pool, rounding, seed, steps, name, value) for name, value in found.items()]
            print(pool, rounding, seed, steps, found, flush=True)
    table = pd.DataFrame(rows, columns=["pool", "rounding", "seed", "steps", "measure", "value"])
    index = ["pool", "rounding", "measure", "seed"]
    wide = table.pivot_table(index=index, columns="steps", values="value")
    wide["ratio"] = wide["two steps"] / wide["at once"]
    grouped = wide.groupby(index[:-1])
    out = grouped[["at once", "two steps", "ratio"]].mean()
    out["half_width"] = grouped["ratio"].sem() * stats.t.ppf(0.975, SEEDS - 1)
    out = out.rename(columns={"at once": "at_once", "two steps": "two_steps"}).round(4)
    print(out)
    command = "python examples/benchmarks/two_steps.py"
    print("wrote", record(out.reset_index(), "two_steps", command=command).name)


if __name__ == "__main__":
    main()
