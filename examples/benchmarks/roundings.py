"""Measure time, balance and spread of each rounding at N = 100,000, m = 64 and n = 1,000.

``balance`` is the mean over the directions of |mean over the coreset of a_ij − its target|, where
a_ij are the squared components. ``voronoi`` measures the spread: the mass of the samples nearest to
each selected sample should be one, and this is its mean squared deviation from one (Stevens & Olsen
2004). Both are relative to systematic sampling, and are means over the seeds.

    python examples/benchmarks/roundings.py
"""

import argparse
import time

import numpy as np
import pandas as pd
from _record import record
from sklearn.metrics import pairwise_distances_argmin

from sklearn_skmm import SkMMSelector

ROUNDINGS = ("systematic", "choice", "cube", "spread", "local_cube", "exemplar", "cells")


def pool(n_samples, m):
    """Draw fifty clusters of different sizes, in directions of decaying scale."""
    rng = np.random.RandomState(0)
    scale = 1.0 / np.sqrt(np.arange(1, m + 1))
    centres = 1.5 * rng.normal(size=(50, m))
    sizes = rng.dirichlet(np.ones(50))
    labels = rng.choice(50, size=n_samples, p=sizes)
    return (centres[labels] + rng.normal(size=(n_samples, m))) * scale


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    N, m, n = 100_000, 64, 1000
    X = pool(N, m)
    rows = []
    for rounding in ROUNDINGS:
        for seed in range(args.seeds):
            selector = SkMMSelector(n, rounding=rounding, random_state=seed)
            seconds = clock_rounding(selector, X)
            picks = selector.sample_indices_
            A = np.square(X @ selector.components_.T)
            s = selector.weights_
            balance = np.abs(A[picks].mean(axis=0) / (s @ A) - 1.0).mean()
            nearest = pairwise_distances_argmin(X, X[picks])
            mass = n * np.bincount(nearest, weights=s, minlength=n)
            rows.append((rounding, *seconds, balance, np.square(mass - 1.0).mean()))
    columns = ["rounding", "seconds", "seconds_in_all", "balance", "voronoi"]
    table = pd.DataFrame(rows, columns=columns).groupby("rounding", sort=False).mean().reset_index()
    for column in ("balance", "voronoi"):
        table[column] /= table.loc[table["rounding"] == "systematic", column].iloc[0]
    for column in columns[1:]:
        table[column] = [float(f"{value:.3g}") for value in table[column]]
    table.insert(1, "N", N)
    table.insert(2, "m", m)
    table.insert(3, "n", n)
    print(table.to_string(index=False))
    print(
        "wrote", record(table, "roundings", command="python examples/benchmarks/roundings.py").name
    )


def clock_rounding(selector, X):
    """Fit the selector and return the seconds of the rounding and of the whole fit."""
    inside = []
    round_ = selector._round

    def timed(*args):
        start = time.perf_counter()
        result = round_(*args)
        inside.append(time.perf_counter() - start)
        return result

    selector._round = timed
    start = time.perf_counter()
    selector.fit(X)
    total = time.perf_counter() - start
    del selector._round
    return inside[0], total


if __name__ == "__main__":
    main()
