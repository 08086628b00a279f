"""Measure time and memory of a complete fit for a hundred thousand to ten million samples.

    pip install -c constraints.txt -e '.[benchmark]'
    python examples/benchmarks/scale.py --max 1e7

Each row runs in its own process, so that peak memory is measured separately. The samples are
float32 from a Gaussian mixture in 64 dimensions whose spectrum decays as a power law. n is a
hundredth of N, at most 10,000. A bare pass is the mean of the times of ``s @ X`` and ``X @ g`` in
the same process. The selectors are compared with scikit-learn's MiniBatchKMeans, with n clusters
and the samples nearest to the centres, limited to five minutes. At ten million samples it takes
longer and runs only with --peer-max 1e7.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd
from _record import RESULTS, clock, record
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import pairwise_distances_argmin_min

from sklearn_skmm import SkMMSelector, UniformSelector
from sklearn_skmm.core._blocks import mean_squared_norm, second_moments

M, CLUSTERS, BLOCK = 64, 50, 65_536
LIMIT = 300  # seconds for MiniBatchKMeans
JUDGED = 100_000  # samples from which the coverage is estimated
METHODS = ["systematic", "cells", "exemplar", "mini-batch k-means", "uniform"]


def mixture(N, seed=0):
    """Return float32 rows, made in blocks to need no memory in addition to X."""
    rng = np.random.default_rng(seed)
    decay = (np.arange(1, M + 1) ** -0.5).astype(np.float32)
    centres = 3 * rng.standard_normal((CLUSTERS, M), dtype=np.float32)
    shares = rng.dirichlet(np.ones(CLUSTERS))
    spread = np.exp(0.5 * rng.standard_normal(CLUSTERS)).astype(np.float32)
    X = np.empty((N, M), dtype=np.float32)
    for start in range(0, N, BLOCK):
        rows = X[start : start + BLOCK]
        labels = rng.choice(CLUSTERS, size=len(rows), p=shares)
        rng.standard_normal(out=rows, dtype=np.float32)
        rows *= spread[labels, None]
        rows += centres[labels]
        rows *= decay
    return X


def select(method, X, n):
    """Return positions; MiniBatchKMeans may give fewer than n distinct ones."""
    if method == "uniform":
        return UniformSelector(n, random_state=0).fit_transform(X)
    if method != "mini-batch k-means":
        return SkMMSelector(n, rounding=method, random_state=0).fit_transform(X)
    kmeans = MiniBatchKMeans(n, n_init=1, batch_size=4096, random_state=0).fit(X)
    return np.unique(pairwise_distances_argmin_min(kmeans.cluster_centers_, X)[0])


def quality(X, picks):
    """Return the mean distance to the nearest selected sample and V-optimality, α = tr(Σ) / N."""
    rows = X[np.random.RandomState(0).permutation(len(X))[:JUDGED]]
    coverage = float(pairwise_distances_argmin_min(rows, X[picks])[1].mean())
    sigma = second_moments(X, 1.0) / len(X)
    coreset = X[picks].astype(float)
    alpha = mean_squared_norm(X) / len(X)
    sigma_s = coreset.T @ coreset / len(coreset) + alpha * np.eye(M)
    return coverage, float(np.trace(np.linalg.solve(sigma_s, sigma)))


def measure(N, method):
    """Return one row of the table."""
    X, n = mixture(N), min(N // 100, 10_000)
    s, g = np.full(N, 1 / N, dtype=np.float32), np.ones(M, dtype=np.float32)
    bare = (clock(lambda: s @ X, 7)[1] + clock(lambda: X @ g, 7)[1]) / 2
    start, cpu = time.perf_counter(), time.process_time()
    picks = select(method, X, n)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    coverage, v_optimality = quality(X, picks)
    return {
        "N": N,
        "n": n,
        "method": method,
        "picks": len(picks),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "bare_pass": bare,
        "passes": seconds / bare,
        "peak_bytes": peak,
        "peak_over_X": peak / X.nbytes,
        "peak_allowed": (1.6 * X.nbytes + 2**30) / X.nbytes,
        "coverage": coverage,
        "v_optimality": v_optimality,
    }


def in_a_process(N, method):
    """Measure in a new process and return the row, or None if it takes too long."""
    command = [sys.executable, __file__, "--child", str(N), method]
    # The child also makes the samples and measures the quality.
    limit = LIMIT + 60 + N / 1e5 if method == "mini-batch k-means" else None
    try:
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return None
    row = json.loads(out.stdout)
    return row if method != "mini-batch k-means" or row["seconds"] <= LIMIT else None


def slopes(table):
    """Return the slope of log seconds over log N for each method with at least two sizes."""
    return {
        method: float(np.polyfit(np.log(rows["N"]), np.log(rows["seconds"]), 1)[0])
        for method, rows in table.groupby("method", sort=False)
        if len(rows) > 1
    }


def plot(table, slope):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
    for method, rows in table.groupby("method", sort=False):
        label = f"{method} (slope {slope[method]:.2f})" if method in slope else method
        left.loglog(rows["N"], rows["seconds"], "o-", label=label)
        right.loglog(rows["N"], rows["peak_bytes"] / 2**30, "o-", label=method)
    bytes_of_X = np.unique(table["N"]) * M * 4
    right.loglog(np.unique(table["N"]), bytes_of_X / 2**30, "k:", label="X itself")
    left.set(xlabel="samples N", ylabel="seconds of fit")
    right.set(xlabel="samples N", ylabel="peak memory, GiB")
    handles, labels = left.get_legend_handles_labels()
    dotted, itself = right.get_legend_handles_labels()
    legend = [*handles, dotted[-1]], [*labels, itself[-1]]
    figure.legend(*legend, loc="outside lower center", ncols=3)
    path = RESULTS / "scale.png"
    figure.savefig(path, dpi=150)
    return path


def options(description, methods, largest):
    """Return a parser with the options shared with `scale_all`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--max", type=float, default=largest, help="largest N")
    parser.add_argument("--methods", nargs="+", default=methods, choices=methods)
    parser.add_argument("--dry", action="store_true", help="print only, record nothing")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser


def main():
    parser = options(__doc__, METHODS, largest=1e7)
    parser.add_argument("--peer-max", type=float, default=1e6, help="largest N for k-means")
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(int(args.child[0]), args.child[1])))
        return
    rows, given_up = [], set()
    for N in (100_000, 1_000_000, 10_000_000):
        for method in args.methods:
            peer = method == "mini-batch k-means"
            if (args.peer_max if peer else args.max) < N or method in given_up:
                continue
            row = in_a_process(N, method)
            if row is None:
                given_up.add(method)
                print(f"{method} takes more than {LIMIT} s at N = {N:,}", flush=True)
                continue
            rows.append(row)
            print(
                "N={N:,} {method}: {seconds:.2f} s, {passes:.0f} passes, peak {peak_over_X:.2f} X "
                "(allowed {peak_allowed:.2f}), coverage {coverage:.4f}, "
                "V {v_optimality:.2f}".format(**row),
                flush=True,
            )
    table = pd.DataFrame(rows)
    slope = slopes(table)
    print("slopes:", {method: round(value, 3) for method, value in slope.items()})
    table["slope"] = table["method"].map(slope)
    for column in ("seconds", "cpu_seconds", "bare_pass", "coverage", "v_optimality", "slope"):
        table[column] = table[column].round(4)
    for column in ("passes", "peak_over_X", "peak_allowed"):
        table[column] = table[column].round(2)
    if not args.dry:
        command = f"python examples/benchmarks/scale.py --max {args.max:g}"
        print("wrote", record(table, "scale", command=command).name, plot(table, slope).name)


if __name__ == "__main__":
    main()
