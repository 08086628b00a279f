"""Test the selectors and the fast paths with small random problems.

    python -m tests.fuzz --problems 100000 --jobs 2 --record

Each problem has a few rows of some difficult kind. It checks either the contract of a selector with
some of its options, or a fast path against its reference implementation, its twin (`tests._twins`).
Problem i of a seed is always the same: ``--seed 0 --only 12345`` runs it again and prints its
traceback. Half of the problems use the code paths for large data: even forty rows are processed in
blocks, in several steps or from a subsample. Most problems take milliseconds; one that takes longer
than two minutes is a failure.
"""

import argparse
import inspect
import multiprocessing
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from sklearn_skmm.base import BaseSelector
from sklearn_skmm.core import (
    _balanced,
    _balanced_cells,
    _balanced_means,
    _blocks,
    _cells,
    _components,
    _costs,
    _design,
    _draws,
    _exchange,
    _exemplar_cells,
    _exemplar_layout,
    _exemplars,
    _matching,
    _simplex,
)
from sklearn_skmm.core._allocation import allocate, resolve_n_to_select
from sklearn_skmm.core._balanced_means import Effort
from sklearn_skmm.core._draws import inclusion_probabilities
from sklearn_skmm.diagnostics import v_optimality
from sklearn_skmm.selectors import _v_optimal
from sklearn_skmm.utils._sklearn import StrOptions
from tests._selectors import make, selector_classes
from tests._twins import PAIRS, close, equal

# Rows, as functions of (rng, N, m).
ROWS = {
    "normal": lambda rng, N, m: rng.normal(size=(N, m)),
    "decaying": lambda rng, N, m: rng.normal(size=(N, m)) * 10.0 ** -rng.uniform(0, 6, m),
    "low rank": lambda rng, N, m: rng.normal(size=(N, 2)) @ rng.normal(size=(2, m)),
    "equal rows": lambda rng, N, m: rng.normal(size=(N, m))[rng.integers(1 + N // 3, size=N)],
    "grid": lambda rng, N, m: rng.integers(-2, 3, size=(N, m)) * 1.0,
    "one-hot": lambda rng, N, m: np.eye(m)[rng.integers(m, size=N)],
    "zero rows": lambda rng, N, m: rng.normal(size=(N, m)) * (rng.random((N, 1)) < 0.5),
    "zero": lambda rng, N, m: np.zeros((N, m)),
    "constant": lambda rng, N, m: np.tile(rng.normal(size=m), (N, 1)),
    "outlier": lambda rng, N, m: rng.normal(size=(N, m)) * 1e6 ** (np.arange(N) == 0)[:, None],
    "heavy tails": lambda rng, N, m: rng.standard_cauchy(size=(N, m)),
    "offset": lambda rng, N, m: np.round(rng.normal(size=(N, m)) * 64) / 64 + 1024,
    "two scales": lambda rng, N, m: rng.normal(size=(N, m)) * 1e-3 ** (rng.random((N, 1)) < 0.5),
    "sparse": lambda rng, N, m: rng.normal(size=(N, m)) * (rng.random((N, m)) < 0.1),
    "collinear": lambda rng, N, m: rng.normal(size=(N, 1)) + 1e-7 * rng.normal(size=(N, m)),
    "opposites": lambda rng, N, m: (
        rng.normal(size=(N, m))[np.arange(N) // 2] * (-1.0) ** np.arange(N)[:, None]
    ),
}
# Constants of modules, with values for which few samples take the code paths for many.
AS_FOR_MANY = [
    (_blocks, {"BLOCK": 32, "RUN": 4}),
    (_components, {"KEEP_BYTES": 0}),
    (_cells, {"GATHER_BYTES": 0}),
    (
        _exemplar_cells,
        {"SUBSAMPLE": 8, "SUBSAMPLE_PER_EXEMPLAR": 1, "SMALL_SUBSAMPLE_PER_EXEMPLAR": 1},
    ),
    (_exemplar_layout, {"FEW": 3, "DISTANCES": 0}),
    (_exemplar_layout, {"PART_FEW": 2, "COARSE_SUBSAMPLE": 6, "PART_SUBSAMPLE": 4}),
    (_exemplar_layout, {"SPARE": 0.5, "A_FEW": 1, "MOST": 5}),
    (_balanced_cells, {"FEW": 5, "EACH": 2, "MOST": 3, "FEW_EACH": 0}),
    (_balanced_means, {"PER_CENTRE": 2}),
    (_balanced_cells, {"WHOLE": Effort(8, trials=1, rounds=2)}),
    (_draws, {"MAX_EXACT": 6, "MAX_CELL": 4}),
    (_matching, {"BATCH_ENTRIES": 20, "PREFETCH_ENTRIES": (0, 10**6)}),
    (_balanced, {"REFRESH": 2, "BATCH": 10}),
    (_costs, {"BLOCK": 8, "CACHE_BYTES": 200}),
    (_exemplars, {"EXACT_COLUMNS": 8}),
    (_exchange, {"PAIRS_PER_BLOCK": 8, "WORKING_SET": 1}),
    (_design, {"WORKING_SET": 1, "ROUND_ITER": 5}),
    (_simplex, {"BLOCK": 4, "NEWTON_STEPS": 1}),
    (_v_optimal, {"ONE_THREAD_ENTRIES": 0}),
]
# Parameters with a unit: the power of the data's scale that they are proportional to.
UNITS = {"alpha": 2, "bandwidth": 1}
# Their weights sum to N only in expectation.
UNBIASED = {"RidgeLeverageSelector", "TruncatedLeverageSelector"}
# Beginnings of the valid error messages for pools that cannot be selected from.
REFUSED = (
    "n_to_select=",
    "The 'c_S' parameter",
    "The 'init' parameter of VOptimalSelector must contain positions",
    "The mean squared norm",
)
# The longest time for a problem, in seconds.
LIMIT = 120.0
NOT_FINITE = {"bandwidth_"}  # documented as nan without a kernel


class Problem(NamedTuple):
    """A random problem, before the check is chosen."""

    X: np.ndarray
    y: np.ndarray
    n: int
    seed: int
    many: bool
    rng: np.random.Generator
    description: str


def draw_problem(seed, i) -> Problem:
    """Return problem i of a seed."""
    rng = np.random.default_rng((seed, i))
    N = int(rng.integers(1, 41))
    m = int(rng.integers(1, 9)) if rng.random() < 0.9 else int(rng.integers(9, 61))
    n = int(rng.integers(1, N + 1)) if rng.random() < 0.9 else N
    kind = rng.choice(list(ROWS))
    dtype = rng.choice([np.float64, np.float64, np.float32])
    exponent = int(rng.choice([0, 0, 0, 20, -20]))
    X = (ROWS[kind](rng, N, m) * 2.0**exponent).astype(dtype)
    y = rng.integers(1 + rng.integers(4), size=N)
    many = bool(rng.random() < 0.5)
    text = f"{kind} {N}x{m} {dtype.__name__} 2^{exponent} n={n}" + many * " as for many"
    return Problem(X, y, n, int(rng.integers(2**31 - 1)), many, rng, text)


def as_for_many(stack: ExitStack) -> None:
    """Let few samples take the code paths for many."""
    for module, constants in AS_FOR_MANY:
        stack.enter_context(mock.patch.multiple(module, **constants))


# Selectors and their options


def variants():
    """Yield every public selector with every combination of its named options."""
    for cls in selector_classes():
        options = {}
        for name, constraint in cls._parameter_constraints.items():
            if name == "stratify":  # each problem is stratified once
                continue
            names = [c for c in constraint if isinstance(c, StrOptions)]
            if names:
                # The problems are rows of features, not matrices of all pairs.
                options[name] = sorted(set().union(*(c.options for c in names)) - {"precomputed"})
        for values in product(*options.values()):
            yield cls, dict(zip(options, values, strict=True))


VARIANTS = list(variants())


def variant_name(cls, params):
    return f"{cls.__name__}({', '.join(params.values())})"


def draw_numbers(cls, problem, n, *, stratify):
    """Return random numeric parameters; those with a unit are scaled to the data."""
    rng, X = problem.rng, problem.X.astype(np.float64)
    square = float(np.square(X).sum(axis=1).mean()) or 1.0
    fraction = n / len(X)
    numbers = {
        "c_S": float(
            rng.choice([1.0, 1.5] if stratify else [max(fraction, rng.uniform(0.2, 1)), 1])
        ),
        "centrality": float(rng.choice([0.0, 0.3, 10.0, np.inf])),
        "n_candidates": rng.choice(np.array([1, 4, 16, None])),
        "max_iter": int(rng.choice([1, 10, 100])),
        "tol": float(rng.choice([0.0, 1e-7, 1e-3])),
        "alpha": square * 10.0 ** float(rng.uniform(-6, 1)),
        "bandwidth": square**0.5 * 10.0 ** float(rng.uniform(-2, 1)),
        "n_components": int(rng.integers(1, 11)),
        "block_size": int(rng.integers(1, 20)),
        "n_init": int(rng.integers(1, 3)),
    }
    known = inspect.signature(cls).parameters
    # About half keep their defaults, except c_S, whose default may be rejected.
    return {
        name: value
        for name, value in numbers.items()
        if name in known and (name == "c_S" or rng.random() < 0.5)
    }


class _Fitted(NamedTuple):
    selector: BaseSelector
    limit_reached: bool


def fit(selector, X, y, **optional) -> _Fitted:
    """Fit, and treat every warning as an error except that of a stopped solver."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        selector.fit(X, y, **optional)
    for warning in caught:
        if not str(warning.message).startswith("The solver stopped after"):
            raise AssertionError(f"a warning: {warning.category.__name__}: {warning.message}")
    return _Fitted(selector, bool(caught))


def quietly(function, *args):
    """Call a function that may repeat the warning that the solver has stopped."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "The solver stopped after")
        return function(*args)


def public_attributes(selector):
    return {
        name: value
        for name, value in vars(selector).items()
        if name.endswith("_") and not name.startswith("_") and name != "gathered_"
    }


def check_positions(indices, n, n_samples):
    assert indices.shape == (n,)
    assert np.issubdtype(indices.dtype, np.integer)
    assert len(np.unique(indices)) == n, "positions are not distinct"
    assert 0 <= indices.min() <= indices.max() < n_samples


def check_finite(selector):
    for attribute, value in public_attributes(selector).items():
        if attribute not in NOT_FINITE and attribute != "strata_":
            parts = value if isinstance(value, list) else [value]
            assert all(np.isfinite(part).all() for part in parts), f"{attribute} is not finite"


def check_fitted(selector, problem, n):
    """Check the properties of every fitted selector."""
    N, name = len(problem.X), type(selector).__name__
    check_positions(selector.sample_indices_, n, N)
    weight = selector.sample_weight_
    assert weight.shape == (n,)
    assert np.all(weight > 0)
    if name not in UNBIASED:
        # With fewer samples than strata, the weights cover only the strata that have a sample.
        strata = problem.y[selector.sample_indices_]
        total = np.isin(problem.y, strata).sum() if selector.stratify else N
        close(weight.sum(), total, rtol=1e-5 if problem.X.dtype == np.float32 else 1e-9)
    check_finite(selector)
    score = selector.score(problem.X)
    assert -1.0 <= score <= 1.0, f"score {score}"
    equal(selector.get_support(indices=True), np.sort(selector.sample_indices_))


# Guarantees of particular selectors


def check_skmm(selector, problem, n, limit_reached):
    X = problem.X.astype(np.float64)
    N, s = len(X), selector.weights_.astype(np.float64)
    eps = float(np.finfo(problem.X.dtype).eps)
    assert s.shape == (N,)
    assert s.min() >= 0
    assert s.max() <= 1 / n * (1 + 2 * eps)
    close(s.sum(), 1.0, atol=N * eps)
    values, A = selector.eigenvalues_, np.square(X @ selector.components_.T)
    size = np.square(values / selector.c_S).sum()

    def f(s):
        return np.square(np.maximum(0.0, values / selector.c_S - s @ A)).sum()

    # In single precision the moments themselves are rounded.
    tolerance = (1e-11 if problem.X.dtype == np.float64 else 1e-5) * size
    close(selector.objective_, f(s), atol=tolerance, rtol=1e-5)
    assert selector.dual_gap_ >= 0
    below = selector.objective_ - selector.dual_gap_ - tolerance
    assert below <= f(np.full(N, 1 / N)), "the duality gap is below the distance to uniform weights"
    for _ in range(3):
        vertex = np.zeros(N)
        vertex[problem.rng.permutation(N)[:n]] = 1 / n
        assert below <= f(vertex), "the duality gap is below the distance to a vertex"
    limit = max(selector.tol * size, 1e-3 * selector.objective_)
    if abs(selector.dual_gap_ - limit) > 1e-9 * limit:
        assert limit_reached == bool(selector.dual_gap_ > limit)
    assert 1 <= selector.n_iter_ <= selector.max_iter
    equal(np.diff(selector.sample_indices_) > 0, True)
    if selector.rounding != "cells" or selector.init == "vertex":
        assert np.all(s[selector.sample_indices_] > 0), "a sample without a weight"
    if selector.rounding not in ("choice", "exemplar", "recombine", "cells"):
        certain = np.flatnonzero(n * s / s.sum() >= 1 - 1e-13)
        assert np.isin(certain, selector.sample_indices_).all(), "a certain sample is left out"


def check_v_optimal(selector, problem, n, _):
    X, rng = problem.X.astype(np.float64), problem.rng
    assert 0.0 <= selector.gap_ <= 1.0
    assert selector.lower_bound_ <= selector.objective_
    assert selector.n_iter_ <= selector.max_iter
    # Rounding errors are relative to the largest eigenvalue, and a small ridge amplifies them.
    largest = float(np.square(X).sum(axis=1).mean())
    tolerance = 1e-9 + 1e-13 * largest / selector.alpha_
    all_subsets = subsets_if_few(len(X), n, 60)
    others = all_subsets or [rng.permutation(len(X))[:n] for _ in range(5)]
    for S in others:
        V = v_optimality(X, list(S), alpha=selector.alpha_)
        assert selector.lower_bound_ <= V * (1 + 1e-7) + tolerance, (
            "the bound is above a subset's V"
        )
    V = v_optimality(X, selector.sample_indices_, alpha=selector.alpha_)
    close(selector.objective_, V, rtol=1e-7, atol=tolerance)


def subsets_if_few(N, n, most):
    count = 1.0
    for k in range(n):
        count *= (N - k) / (k + 1)
    return list(combinations(range(N), n)) if count <= most else []


def k_center_rows(selector, X):
    """Return rows whose Euclidean distances are those of the selector."""
    if selector.metric != "cosine":
        return X
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    # Rows of zeros are orthogonal to all others.
    return np.hstack([X / np.where(lengths > 0, lengths, 1.0), lengths == 0])


def check_k_center(selector, problem, n, _):
    X = k_center_rows(selector, problem.X.astype(np.float64))
    D = np.sqrt(np.square(X[:, None] - X).sum(axis=-1))
    size = np.sqrt(np.square(X - X.mean(axis=0)).sum(axis=1).max())
    close(selector.radius_, D[:, selector.sample_indices_].min(axis=1).max(), atol=1e-6 * size)
    for S in subsets_if_few(len(X), n, 60):
        assert selector.radius_ <= 2 * D[:, S].min(axis=1).max() + 1e-6 * size


def check_leverage(selector, problem, n, _):
    pi = selector.inclusion_probabilities_
    close(pi.sum(), n, rtol=1e-9)
    assert np.all((pi >= 0) & (pi <= 1))
    equal(pi, inclusion_probabilities(selector.leverage_scores_, n))
    close(selector.sample_weight_ * pi[selector.sample_indices_], 1.0)


def check_sorted(name):
    def check(selector, problem, n, _):
        values = getattr(selector, name)
        equal(selector.sample_indices_, np.argsort(-values, kind="stable")[:n])

    return check


CERTIFICATES = {
    "SkMMSelector": check_skmm,
    "VOptimalSelector": check_v_optimal,
    "KCenterSelector": check_k_center,
    "RidgeLeverageSelector": check_leverage,
    "TruncatedLeverageSelector": check_leverage,
    "GradNormSelector": check_sorted("norms_"),
    "UncertaintySelector": check_sorted("uncertainties_"),
}


# Changes that should keep the selection, and other entry points


def in_container(problem, name, folder):
    X = problem.X
    if name == "memmap":
        np.save(Path(folder) / "X.npy", X)
        return np.load(Path(folder) / "X.npy", mmap_mode="r")
    return {
        "fortran": np.asfortranarray,
        "strided": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
        "reversed": lambda X: np.ascontiguousarray(X[::-1])[::-1],
        "frame": lambda X: pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])]),
        "list": lambda X: X.tolist() if X.dtype == np.float64 else X,
    }[name](X)


def assert_same_attributes(one, other):
    assert one.keys() == other.keys()
    for name in one.keys() - {"feature_names_in_"}:
        ours, theirs = (v if isinstance(v, list) else [v] for v in (one[name], other[name]))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def another_container(selector, problem):
    kinds = ["memmap", "fortran", "strided", "reversed", "frame", "list"]
    with tempfile.TemporaryDirectory() as folder:
        X = in_container(problem, problem.rng.choice(kinds), folder)
        other = fit(clone(selector), X, problem.y).selector
        ours, theirs = public_attributes(selector), public_attributes(other)
        theirs.pop("feature_names_in_", None)
        assert_same_attributes(ours, theirs)


def another_unit(selector, problem):
    exponent = int(problem.rng.choice([-24, -3, 1, 24]))
    other = clone(selector)
    for name, power in UNITS.items():
        if isinstance(getattr(other, name, None), float):
            other.set_params(**{name: getattr(other, name) * 2.0 ** (power * exponent)})
    scaled = problem.X * problem.X.dtype.type(2.0**exponent)
    other = fit(other, scaled, problem.y).selector
    equal(other.sample_indices_, selector.sample_indices_)
    close(other.sample_weight_, selector.sample_weight_)


def sensitive_to_rounding(selector):
    """Return whether a rounding error can change the selection.

    From a vertex, the solver amplifies rounding errors. Random selection among neighbours depends
    on which of them is nearer.
    """
    neighbours = getattr(selector, "rounding", None) in ("spread", "local_cube")
    return neighbours or getattr(selector, "init", None) == "vertex"


def sparse_rows(selector, problem):
    other = fit(clone(selector), sparse.csr_array(problem.X), problem.y).selector
    check_fitted(other, problem, len(selector.sample_indices_))
    equal(quietly(other.transform, sparse.csc_array(problem.X), problem.y), other.sample_indices_)
    # The same samples, except for ties.
    exact = problem.description.startswith("normal") and problem.X.dtype == np.float64
    if exact and not problem.many and not sensitive_to_rounding(selector):
        equal(other.sample_indices_, selector.sample_indices_)


def one_stratum(selector, problem):
    if selector.stratify or not isinstance(getattr(selector, "init", ""), str):
        return
    if hasattr(selector, "estimator"):  # which uses y as labels
        return
    other = fit(clone(selector).set_params(stratify=True), problem.X, np.zeros(len(problem.X)))
    # BLAS may round a copy of the rows, at another place in memory, differently.
    if sensitive_to_rounding(selector):
        return
    equal(other.selector.sample_indices_, np.sort(selector.sample_indices_))


def another_pool(selector, problem):
    rng = problem.rng
    N = int(rng.integers(1, 41))
    kind = rng.choice(list(ROWS))
    pool = ROWS[kind](rng, N, problem.X.shape[1]).astype(problem.X.dtype)
    pool *= problem.X.dtype.type(np.abs(problem.X).max() or 1.0)
    y = rng.choice(problem.y, size=N)
    try:
        indices = quietly(selector.transform, pool, y)
    except ValueError as error:
        if not str(error).startswith(REFUSED):
            raise
        return
    check_positions(indices, resolve_n_to_select(selector.n_to_select, N), N)


def resampled(selector, problem):
    rows, labels = quietly(clone(selector).fit_resample, problem.X, problem.y)
    equal(rows, problem.X[selector.sample_indices_])
    equal(labels, problem.y[selector.sample_indices_])


def draw_weights(rng, N):
    """Return random weights, of which some may be zero."""
    weight = {
        "counts": lambda: rng.integers(1, 4, size=N),
        "lognormal": lambda: rng.lognormal(size=N),
        "decades": lambda: 10.0 ** rng.uniform(-9, 9, size=N),
        "one heavy": lambda: np.where(np.arange(N) == rng.integers(N), 1e6, 1.0),
        "equal": lambda: np.full(N, 0.1),
    }[rng.choice(["counts", "lognormal", "decades", "one heavy", "equal"])]()
    return weight * (rng.random(N) < rng.choice([1.0, 0.6]))


def weights_and_given(selector, problem):
    """Fit with random weights and samples that are in the coreset already."""
    rng, X, y = problem.rng, problem.X, problem.y
    N, name, other = len(X), type(selector).__name__, clone(selector)
    if not isinstance(getattr(selector, "init", ""), str):
        return
    keywords = inspect.signature(selector.fit).parameters
    weight, given, optional = np.ones(N), np.zeros(N, dtype=bool), {}
    if "sample_weight" in keywords and rng.random() < 0.7:
        weight = optional["sample_weight"] = draw_weights(rng, N)
    refusing = getattr(selector, "rounding", "") in ("exemplar", "recombine")
    if not refusing and rng.random() < 0.7:
        given[rng.permutation(N)[: rng.integers(N)]] = True
        optional["selected"] = (
            given if rng.random() < 0.5 else rng.permutation(np.flatnonzero(given))
        )
    free = np.flatnonzero((weight > 0) & ~given)
    if not len(free) or not weight.any():
        return
    n = int(rng.integers(1, len(free) + 1)) if rng.random() < 0.9 else len(free)
    counts, n_all = (weight > 0) | given, n + int(given.sum())
    other.set_params(n_to_select=n)
    if hasattr(other, "c_S"):
        least = 1.0 if selector.stratify else n_all / int(counts.sum())
        other.set_params(c_S=max(selector.c_S, least))
    other = fit(other, X, y, **optional).selector
    indices, own, of_given = other.sample_indices_, other.sample_weight_, np.empty(0)
    check_positions(indices, n, N)
    assert np.isin(indices, free).all(), "a sample that cannot be selected"
    assert own.shape == (n,)
    assert np.all(own > 0)
    if given.any():
        of_given = other.given_weight_
        assert of_given.shape == (n_all - n,)
        assert np.all(of_given >= 0)
    both = np.concatenate([np.flatnonzero(given), indices])
    if name not in UNBIASED:
        strata = np.isin(y, y[both]) if selector.stratify else slice(None)
        single = X.dtype == np.float32
        close(own.sum() + of_given.sum(), weight[strata].sum(), rtol=1e-5 if single else 1e-9)
    check_finite(other)
    assert -1.0 <= other.score(X) <= 1.0
    if selector.stratify:
        here = np.unique(y[counts])
        sizes = np.array([weight[y == k].sum() for k in here])
        rest, taken = (np.array([(y[which] == k).sum() for k in here]) for which in (free, given))
        expected = allocate(n, sizes, rest, taken)
        close([(y[indices] == k).sum() for k in here], expected, atol=1)  # ties by rounding
    elif name in CERTIFICATES_OF_WEIGHTED:
        CERTIFICATES_OF_WEIGHTED[name](
            other, X[counts].astype(np.float64), weight[counts], both, counts
        )
    if not counts.all() and not sensitive_to_rounding(other):
        optional = {key: value[counts] for key, value in optional.items() if key != "selected"}
        alone = fit(clone(other), X[counts], y[counts], **optional, selected=given[counts]).selector
        equal(np.flatnonzero(counts)[alone.sample_indices_], indices)
    try:
        check_positions(quietly(other.transform, X[::-1], y[::-1]), n, N)
    except ValueError as error:
        if not str(error).startswith((*REFUSED, "y contains strata")):
            raise


def check_skmm_weighted(selector, X, weight, both, counts):
    s, values, n = selector.weights_.astype(np.float64), selector.eigenvalues_, len(both)
    eps = float(np.finfo(selector.weights_.dtype).eps)
    equal(s[~counts], 0.0)
    s = s[counts]
    assert s.min() >= 0
    assert s.max() <= 1 / n * (1 + 2 * eps)
    close(s.sum(), 1.0, atol=len(s) * eps)
    missing = np.maximum(0.0, values / selector.c_S - s @ np.square(X @ selector.components_.T))
    size = np.square(values / selector.c_S).sum()
    # In single precision the moments themselves are rounded.
    tolerance = (1e-11 if eps < 1e-10 else 1e-5) * size
    close(selector.objective_, np.square(missing).sum(), atol=tolerance, rtol=1e-5)
    largest = np.average(np.square(X).sum(axis=1), weights=weight)
    close(values.sum(), largest, rtol=1e-9 if eps < 1e-10 else 1e-4)


def check_v_optimal_weighted(selector, X, weight, both, counts):
    rows = X[np.searchsorted(np.flatnonzero(counts), both)]
    sigma = (X.T * (weight / weight.sum())) @ X
    largest, alpha = np.trace(sigma), selector.alpha_
    if np.square(X).sum(axis=1).max() > 1e9 * alpha or weight.min() < 1e-6 * weight.max():
        return  # rounding errors decide, or given samples are outside of the span of the others
    ridge = alpha * np.eye(X.shape[1])
    V = np.trace(np.linalg.solve(rows.T @ rows / len(rows) + ridge, sigma))
    close(selector.objective_, V, rtol=1e-6, atol=1e-9 + 1e-13 * largest / alpha)


def check_k_center_weighted(selector, X, weight, both, counts):
    X = k_center_rows(selector, X)
    D = np.sqrt(np.square(X[:, None] - X).sum(axis=-1))
    covered = D[:, np.searchsorted(np.flatnonzero(counts), both)].min(axis=1).max()
    size = np.sqrt(np.square(X - np.average(X, axis=0, weights=weight)).sum(axis=1).max())
    close(selector.radius_, covered, atol=1e-6 * size)


CERTIFICATES_OF_WEIGHTED = {
    "SkMMSelector": check_skmm_weighted,
    "VOptimalSelector": check_v_optimal_weighted,
    "KCenterSelector": check_k_center_weighted,
}
CHANGES = [
    another_container,
    another_unit,
    sparse_rows,
    one_stratum,
    another_pool,
    resampled,
    weights_and_given,
]


def check_selector(cls, params, problem, *, changes=CHANGES):
    """Fit a selector with these options and random others, and check its guarantees."""
    rng, X, y = problem.rng, problem.X, problem.y
    stratify = bool(rng.random() < 0.2)
    as_fraction = bool(rng.random() < 0.2)
    n_to_select = float(rng.uniform(0.01, 1.0)) if as_fraction else problem.n
    n = resolve_n_to_select(n_to_select, len(X))
    numbers = draw_numbers(cls, problem, n, stratify=stratify)
    if cls.__name__ == "VOptimalSelector" and not stratify and rng.random() < 0.2:
        params = {**params, "init": rng.permutation(len(X))[: rng.integers(1, n + 1)].tolist()}
    if "estimator" in inspect.signature(cls).parameters:
        numbers["estimator"] = KNeighborsClassifier(min(3, len(X)), algorithm="brute")
    selector = make(cls, n_to_select, problem.seed, stratify=stratify, **params, **numbers)
    before = X.copy()
    X.setflags(write=False)
    selector, limit_reached = fit(selector, X, y)
    check_fitted(selector, problem, n)
    equal(quietly(selector.transform, X, y), selector.sample_indices_)
    if stratify:
        sizes = np.bincount(y)
        counts = np.bincount(y[selector.sample_indices_], minlength=len(sizes))
        equal(counts[sizes > 0], allocate(n, sizes[sizes > 0]))
    elif cls.__name__ in CERTIFICATES:
        CERTIFICATES[cls.__name__](selector, problem, n, limit_reached)
    for change in rng.choice(changes, size=min(2, len(changes)), replace=False):
        try:
            change(selector, problem)
        except Exception as error:
            raise AssertionError(f"{change.__name__}, {selector}: {error}") from error
    equal(X, before)


# Running


def run_problem(seed, i):
    """Return the kind, name and description of problem i, and its error or None."""
    problem = draw_problem(seed, i)
    rng = problem.rng
    pairs = list(PAIRS)
    if i % 2:
        cls, params = VARIANTS[rng.integers(len(VARIANTS))]
        kind, name = "contract", variant_name(cls, params)
        check, args = check_selector, (cls, params, problem)
    else:
        odds = np.array(list(PAIRS.values()), dtype=float)
        check, args = rng.choice(pairs, p=odds / odds.sum()), (problem,)
        kind, name = "twin", check.__name__
    with ExitStack() as stack:
        if problem.many:
            as_for_many(stack)
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(limited(LIMIT))
        warnings.simplefilter("error")
        try:
            check(*args)
        except Exception as error:
            return kind, name, problem.description, error
    return kind, name, problem.description, None


@contextmanager
def limited(seconds):
    """Raise TimeoutError after this many seconds, so that an infinite loop is a failure."""

    def stop(signum, frame):
        raise TimeoutError(f"not done in {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def run_part(seed, start, stop):
    """Return {(kind, name): [problems, failures, seconds]}, and a line for each failure."""
    table, lines = defaultdict(lambda: [0, 0, 0.0]), []
    with threadpool_limits(1):
        for i in range(start, stop):
            begun = time.process_time()
            kind, name, description, error = run_problem(seed, i)
            row = table[kind, name]
            row[0] += 1
            row[2] += time.process_time() - begun
            if error is not None:
                row[1] += 1
                text = " ".join(str(error).split())[:300]
                what = f"{name}: {description}: {type(error).__name__}: {text}"
                lines.append(f"--seed {seed} --only {i}  {what}")
    return dict(table), lines


def run(seed, start, stop, jobs=1, size=250, report=print):
    """Run problems start to stop, and return their table and a line for each failure."""
    parts = [(seed, k, min(k + size, stop)) for k in range(start, stop, size)]
    table, failures, begun = defaultdict(lambda: [0, 0, 0.0]), [], time.perf_counter()
    with ExitStack() as stack:
        if jobs > 1:
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(jobs))
            results = pool.imap_unordered(_run_part, parts)
        else:
            results = map(_run_part, parts)
        for done, (rows, lines) in enumerate(results, start=1):
            for key, row in rows.items():
                table[key] = [a + b for a, b in zip(table[key], row, strict=True)]
            for line in lines:
                report(line)
            failures += lines
            if done * 20 // len(parts) > (done - 1) * 20 // len(parts):
                seconds = time.perf_counter() - begun
                report(f"{done * 100 // len(parts)} % in {seconds:.0f} s, {len(failures)} failures")
    columns = ["check", "name", "problems", "failures", "seconds"]
    rows = [[*key, n, bad, round(seconds, 1)] for key, (n, bad, seconds) in sorted(table.items())]
    return pd.DataFrame(rows, columns=columns), failures


def _run_part(part):
    return run_part(*part)


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--problems", type=int, default=100_000)
    parser.add_argument("--start", type=int, default=0, help="the first problem")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", type=int, help="run this problem alone, and show what it raises")
    parser.add_argument("--record", action="store_true", help="write results/fuzz.csv")
    options = parser.parse_args(argv)
    if options.only is not None:
        *what, error = run_problem(options.seed, options.only)
        print(*what, sep=": ")
        if error is not None:
            traceback.print_exception(error)
        return int(error is not None)
    stop = options.start + options.problems
    table, failures = run(
        options.seed, options.start, stop, options.jobs, report=lambda line: print(line, flush=True)
    )
    total = table[["problems", "failures", "seconds"]].sum()
    table.loc[len(table)] = ["all", "all", *total]
    table = table.astype({"problems": int, "failures": int})
    print(table.to_string(index=False))
    if options.record:
        benchmarks = Path(__file__).parents[1] / "examples" / "benchmarks"
        sys.path.append(str(benchmarks))
        from _record import record

        command = f"python -m tests.fuzz --problems {options.problems} --seed {options.seed}"
        print(record(table, "fuzz", command=f"{command} --jobs {options.jobs} --record"))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
