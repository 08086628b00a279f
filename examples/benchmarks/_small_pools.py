"""Pools small enough to try all subsets, and the optimum of the relaxation for them."""

from itertools import combinations

import numpy as np
from scipy.optimize import nnls


def small_pool(seed, size):
    """Draw a pool of one of four kinds: plain, clusters, heavy tails, equal rows."""
    rng = np.random.RandomState(seed)
    X = rng.normal(size=(size, 3)) * np.exp(rng.normal(size=3))
    if seed % 4 == 1:
        X += 5 * rng.normal(size=(3, 3))[rng.randint(3, size=size)]
    elif seed % 4 == 2:
        X *= np.exp(1.5 * rng.normal(size=(size, 1)))
    elif seed % 4 == 3:
        X = X[rng.randint(size // 2, size=size)]
    return X


def relaxed_minimum(A, eigenvalues, n, c_S):
    """Return the minimum of the objective over the capped simplex, the hull of its vertices.

    max(0, x)² is the minimum of (x + t)² over t >= 0, so this is a least squares problem.
    """
    vertices = np.array([A[list(S)].mean(axis=0) for S in combinations(range(len(A)), n)])
    target, unit = eigenvalues / c_S, eigenvalues.max()
    left = np.hstack([vertices.T / unit, -np.eye(len(target))])
    heavy = 1e4 * np.concatenate([np.ones(len(vertices)), np.zeros(len(target))])  # sum is one
    mixture = nnls(np.vstack([left, heavy]), np.append(target / unit, 1e4))[0][: len(vertices)]
    moments = mixture / mixture.sum() @ vertices
    return np.square(np.maximum(0, target - moments)).sum()
