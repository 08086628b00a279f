"""Compare the library's solver with the paper's recipe in steps and time.

Both start from the same random vertex on the same problem, N = 20,000, m = 64, n = 500. The paper's
recipe is Adam at a learning rate of 1e-5 over the capped simplex. It can be read in two ways: each
step is projected exactly, or it is clipped to [0, 1/n] and divided by its sum. The second is not a
projection. It spreads mass over all samples in a few steps, so that little of the vertex remains.

    python examples/benchmarks/solver.py
"""

import argparse
import time

import numpy as np
import pandas as pd
from _record import record

from sklearn_skmm.core._moments import (
    directional_energies,
    objective,
    project_capped_simplex,
    solve,
    spectrum,
)

C_S = 0.999


def problem(N, m, seed):
    """Draw a Gaussian mixture with clusters of unequal size and spread."""
    rng = np.random.RandomState(seed)
    k = 20
    labels = rng.choice(k, size=N, p=rng.dirichlet(np.ones(k)))
    X = 3 * rng.normal(size=(k, m))[labels]
    X += rng.normal(size=(N, m)) * np.exp(rng.normal(size=k))[labels, None]
    eigenvalues, eigenvectors = spectrum(X)
    scale = eigenvalues[0]
    return directional_energies(X, eigenvectors) / scale, eigenvalues / scale


def clip_and_normalise(v, cap):
    """Make v feasible by clipping and normalising, the second reading of the recipe."""
    v = np.clip(v, 0.0, cap)
    return v / v.sum()


READINGS = {
    "Adam, exact projection": project_capped_simplex,
    "Adam, clipped and normalised": clip_and_normalise,
}


def adam(A, eigenvalues, n, s, steps, project, lr=1e-5, betas=(0.9, 0.999), eps=1e-8):
    """Yield the iterates of Adam (Kingma & Ba 2015), made feasible after each step."""
    first, second = np.zeros_like(s), np.zeros_like(s)
    for t in range(1, steps + 1):
        gradient = -2.0 * (A @ np.maximum(0.0, eigenvalues / C_S - s @ A))
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        direction = first / (1 - betas[0] ** t) / (np.sqrt(second / (1 - betas[1] ** t)) + eps)
        s = project(s - lr * direction, 1 / n)
        yield s


def clock(function):
    """Return the result and the seconds of a call."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="number of Adam steps")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    N, m, n = 20_000, 64, 500
    curves, ratios = [], []
    for seed in range(args.seeds):
        A, eigenvalues = problem(N, m, seed)
        start = np.zeros(N)
        start[np.random.RandomState(seed).choice(N, n, replace=False)] = 1 / n
        curves.append((seed, "start", 0, 0.0, objective(A, start, eigenvalues, C_S), np.nan))
        reached = {}
        for name, project in READINGS.items():
            begin = time.perf_counter()
            for step, s in enumerate(adam(A, eigenvalues, n, start, args.steps, project), 1):
                if step in (1, 10, 100, 1000, args.steps):
                    seconds = time.perf_counter() - begin
                    value = objective(A, s, eigenvalues, C_S)
                    curves.append((seed, name, step, seconds, value, np.nan))
            reached[name] = value, seconds
        for steps in (1, 2, 5, 10, 20, 50, 100, 200, 500):
            begin = time.perf_counter()
            ours = solve(A, eigenvalues, n, C_S, start, max_iter=steps, tol=0)
            seconds = time.perf_counter() - begin
            curves.append((seed, "ours", steps, seconds, ours.objective, ours.dual_gap))
            for name, (value, peer_seconds) in list(reached.items()):
                if ours.objective <= value:
                    ratios.append((seed, name, steps, args.steps / steps, peer_seconds / seconds))
                    del reached[name]
    command = "python examples/benchmarks/solver.py"
    for name, rows, columns in (
        (
            "solver",
            curves,
            ["seed", "solver", "steps", "seconds", "objective", "dual_gap"],
        ),
        (
            "solver_ratios",
            ratios,
            ["seed", "passed", "our_steps", "fewer_steps", "less_time"],
        ),
    ):
        table = pd.DataFrame(rows, columns=columns)
        print(table.to_string(index=False), "\n")
        print("wrote", record(table, name, command=command).name, "\n")


if __name__ == "__main__":
    main()
