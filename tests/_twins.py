"""Every fast path of the package compared with a plain reference, on one random problem.

Each function takes a `tests.fuzz.Problem` and raises if the two disagree. For a greedy method, the
reference computes the value of every sample given those selected earlier; the fast path may deviate
from the best only at ties.
"""

import tempfile
from itertools import product
from unittest import mock

import numpy as np
import torch
from scipy import sparse
from scipy.spatial.distance import cdist, pdist
from torch import nn

import sklearn_skmm as skmm
from sklearn_skmm.core import _cells, _draws, _exemplar_cells, _exemplar_layout, _matching
from sklearn_skmm.core._balanced_cells import balanced_cells
from sklearn_skmm.core._blocks import dot, mean_squared_norm, weighted_block_sum
from sklearn_skmm.core._components import Components, Energies
from sklearn_skmm.core._costs import median_distance, squared_distances
from sklearn_skmm.core._design import objective, relax, whiten
from sklearn_skmm.core._draws import inclusion_probabilities, spread, systematic
from sklearn_skmm.core._exchange import compare, exchange, greedy, start_state, update
from sklearn_skmm.core._exemplars import greedy_exemplars, greedy_exemplars_dense
from sklearn_skmm.core._matching import MomentFeatures, match_in_cells, moment_features
from sklearn_skmm.core._moments import (
    directional_energies,
    duality_gap,
    explained_fraction,
    project_capped_simplex,
    solve,
    spectrum,
)
from sklearn_skmm.sketch import _product, _projection
from tests.core.test_draws import all_roundings
from tests.core.test_exemplars import cost_matrix
from tests.selectors.test_baselines import hat_diagonal
from tests.sketch._projections import make_projection
from tests.sketch._torch._models import build
from tests.sketch._torch._reference import loop_gradients

equal, close = np.testing.assert_array_equal, np.testing.assert_allclose


def assert_greedy(selected, rows, values_of, tolerance=1e-10, start=0):
    """Assert that each sample has the best value, up to rounding; of equal rows, the first."""
    assert len(np.unique(selected)) == len(selected)
    for t, index in list(enumerate(selected))[start:]:
        values, size = values_of(selected[:t])
        free = np.ones(len(rows), dtype=bool)
        free[selected[:t]] = False
        short = values[free].max() - values[index]
        assert short <= tolerance * size, f"sample {t} is {short} below the best (scale {size})"
        same = free & (rows == rows[index]).all(axis=1)
        assert index == np.argmax(same), f"sample {t} is not the first of its equal rows"


def dense(problem):
    """Return the rows in double precision."""
    return problem.X.astype(np.float64)


def random_weights(problem, n):
    """Return weights in the capped simplex, sometimes at its vertices."""
    rng, N = problem.rng, len(problem.X)
    return project_capped_simplex(rng.normal(size=N) * rng.choice([1e-6, 0.1, 10.0]), 1 / n)


# Greedy selection


def exemplar_values(C, weight, metric):
    baseline = np.ones(len(C)) if metric == "gaussian" else C.max(axis=1)

    def values_of(selected):
        if metric != "gaussian" and not len(selected):  # the first is selected by its total cost
            return -(weight @ C), weight @ C.max(axis=1)
        current = np.minimum(baseline, C[:, selected].min(axis=1, initial=np.inf))
        return weight @ np.maximum(current[:, None] - C, 0.0), weight @ baseline

    return values_of


def bandwidth(problem, X):
    h = float(np.median(pdist(X))) if len(X) > 1 else 0.0
    return (h or 1.0) * problem.rng.choice([0.2, 0.5, 2.0])


def lazy_exemplars(problem):
    X, rng = dense(problem), problem.rng
    metric = rng.choice(["gaussian", "euclidean", "sqeuclidean"])
    h, weight = bandwidth(problem, X), rng.gamma(1.0, size=len(X)) + 1e-3
    if rng.random() < 0.5:
        weight[:] = 1.0
    rows = sparse.csr_array(X) if rng.random() < 0.3 else X
    result = greedy_exemplars(rows, problem.n, metric=metric, bandwidth=h, weight=weight)
    C = cost_matrix(X, metric, h)
    # Squared distances cancel, so their errors are relative to the rows' lengths.
    centred = X if sparse.issparse(rows) else X - X.mean(axis=0)
    blur = 1e-14 * np.square(centred).sum(axis=1).max() / {"gaussian": 2 * h**2}.get(metric, 1.0)
    blur = np.sqrt(blur) if metric == "euclidean" else blur
    largest = weight @ C.max(axis=1) or 1.0
    tolerance = 1e-10 + 10 * blur * weight.sum() / largest
    assert_greedy(result.indices, X, exemplar_values(C, weight, metric), tolerance)
    cost = weight @ C[:, result.indices].min(axis=1)
    assert abs(result.objective * weight.sum() - cost) <= tolerance * largest
    close(result.counts.sum(), weight.sum())


def exemplars_of_few(problem):
    X = dense(problem)
    h, weight = bandwidth(problem, X), problem.rng.gamma(1.0, size=len(X)) + 1e-3
    selected = greedy_exemplars_dense(squared_distances(X), problem.n, h, weight).indices
    C = cost_matrix(X, "gaussian", h)
    blur = 1e-14 * np.square(X - X.mean(axis=0)).sum(axis=1).max() / h**2
    assert_greedy(selected, X, exemplar_values(C, weight, "gaussian"), 1e-10 + 10 * blur)


def median_of_distances(problem):
    X = dense(problem)
    if len(X) < 2:
        assert median_distance(X, None) == 1.0
        return
    distances = pdist(X)
    expected = np.median(distances) or distances.mean() or 1.0
    blur = 1e-7 * np.sqrt(np.square(X).sum(axis=1).max())
    # A median within rounding of zero may count as zero or not.
    if np.median(distances) == 0.0 or np.median(distances) > blur:
        close(median_distance(X, None), expected, rtol=1e-6, atol=blur)


def k_center(problem):
    X, rng = dense(problem), problem.rng
    init = rng.choice(["random", "center"])
    rows = sparse.csr_array(X) if rng.random() < 0.3 else X
    selector = skmm.KCenterSelector(problem.n, init=init, random_state=problem.seed).fit(rows)
    D = cdist(X, X, "sqeuclidean")
    centred = X if sparse.issparse(rows) else X - X.mean(axis=0)
    size = np.square(centred).sum(axis=1).max() or 1.0

    def values_of(selected):
        if not len(selected):
            return -np.square(X - X.mean(axis=0)).sum(axis=1), size
        return D[:, selected].min(axis=1), size

    selected = selector.sample_indices_
    assert_greedy(selected, X, values_of, 1e-11, start=int(init == "random"))
    close(selector.radius_**2, D[:, selected].min(axis=1).max(), atol=1e-13 * size, rtol=1e-9)


def herding(problem):
    X = dense(problem)
    selected = skmm.HerdingSelector(problem.n).fit(X).sample_indices_
    mean = X.mean(axis=0)
    size = np.square(X).sum(axis=1).max()

    def values_of(chosen):
        t = len(chosen)
        return X @ ((t + 1) * mean - X[chosen].sum(axis=0)), (t + 1) * size

    assert_greedy(selected, X, values_of, 1e-11)


def greedy_pivoting(problem):
    X = dense(problem)
    selected = skmm.AdaptiveSelector(problem.n, pivoting="greedy").fit(X).sample_indices_
    assert len(np.unique(selected)) == problem.n
    start = 0
    for t, index in enumerate(selected):
        free = np.setdiff1d(np.arange(len(X)), selected[:t])
        largest = np.square(X[np.setdiff1d(np.arange(len(X)), selected[:start])]).sum(axis=1).max()
        basis = np.linalg.qr(X[selected[start:t]].T)[0]
        residual = np.square(X - X @ basis @ basis.T).sum(axis=1)
        if residual[free].max() <= 1e-10 * largest:
            if residual[free].max() > 1e-16 * largest:
                return  # rounding decides whether the basis is full
            start = t  # restart
            residual = np.square(X).sum(axis=1)
            largest = residual[free].max()
        assert residual[index] >= residual[free].max() - 1e-11 * largest


def v_problem(problem, max_rows=40):
    X = dense(problem)[:max_rows]
    pairs = spectrum(X)
    largest = pairs.eigenvalues.max(initial=0.0) or 1.0
    return X, whiten(X, pairs, largest * 10.0 ** problem.rng.uniform(-4, 1))


def v_optimal_greedy(problem):
    X, design = v_problem(problem)
    n = min(problem.n, len(X))
    selected = greedy(design, n)

    def values_of(chosen):
        state = start_state(design, list(chosen), n)
        values = state.w / (1.0 + state.q)
        return values, values.max() or 1.0

    assert_greedy(selected, design.rows, values_of, 1e-8)


def v_optimal_update(problem):
    X, design = v_problem(problem)
    N, rng = len(X), problem.rng
    if N < 3:
        return
    n = int(rng.integers(2, N))
    order = rng.permutation(N)
    S, out, new = order[:n], order[0], order[n]
    columns = np.ascontiguousarray(design.rows.T)
    before = start_state(design, S, n)
    entering, leaving, after = [
        ([new], [], np.append(S, new)),
        ([], [out], S[1:]),
        ([new], [out], np.append(S[1:], new)),
    ][rng.integers(3)]
    ours = update(design, columns, before, after, n, added=entering, removed=leaving)
    for a, b in zip(ours, start_state(design, after, n), strict=True):
        close(a, b, rtol=1e-6, atol=1e-9 * abs(b).max(initial=0.0))


def decreases(design, members):
    """Return V and its decrease if row i replaces member r, computed from scratch."""
    value, N = objective(design, members), len(design.rows)
    table = np.full((N, len(members)), -np.inf)
    for i, r in product(np.setdiff1d(np.arange(N), members), range(len(members))):
        other = members.copy()
        other[r] = i
        table[i, r] = value - objective(design, other)
    return value, table


def v_optimal_comparison(problem):
    X, design = v_problem(problem, max_rows=12)
    members = problem.rng.permutation(len(X))[: min(problem.n, len(X))]
    value, table = decreases(design, members)
    least = value * problem.rng.choice([0.01, 0.05, 0.2])
    if np.any(np.abs(table - least) <= 1e-8 * value):
        return  # decided by rounding
    better, improvable = compare(design, members, least / len(members))
    equal(better, (table > least).any(axis=1))
    equal(improvable, (table > least).any(axis=0))


def v_optimal_exchange(problem):
    X, design = v_problem(problem, max_rows=12)
    n = min(problem.n, len(X))
    start = problem.rng.permutation(len(X))[:n]
    members, n_iter = exchange(design, start, tol=1e-6)
    assert len(np.unique(members)) == n
    value, table = decreases(design, members)
    assert value <= objective(design, start) * (1 + 1e-12)
    assert n_iter < 100
    assert table.max() <= 2e-6 * value
    relaxation = relax(design, n, max_iter=int(problem.rng.choice([0, 3, 500])))
    assert relaxation.lower_bound <= value * (1 + 1e-9)
    s = relaxation.weights
    assert s.min() >= 0
    assert s.max() <= 1 / n + 1e-12
    close(s.sum(), 1.0)


# Cells


def random_cells(problem):
    X, N = dense(problem), len(problem.X)
    s = problem.rng.dirichlet(np.full(N, 5.0))
    return X, s, min(problem.n, N)


def cells_at_once(problem):
    X, s, n = random_cells(problem)
    with (
        mock.patch.object(_exemplar_layout, "FEW", 256),
        mock.patch.object(_exemplar_cells, "SUBSAMPLE", 8192),
    ):
        cells = _exemplar_layout.exemplar_cells(X, s, n, np.random.RandomState(0))
    clipped = _exemplar_cells.clip_outliers(X, s)
    h = _exemplar_cells.BANDWIDTH * median_distance(clipped, np.random.RandomState(0))
    C = cost_matrix(clipped, "gaussian", h)
    blur = 1e-14 * np.square(clipped).sum(axis=1).max() / h**2
    selected = cells.exemplars
    assert_greedy(selected, clipped, exemplar_values(C, s, "gaussian"), 1e-10 + 10 * blur)
    own = C[np.arange(len(X)), selected[cells.labels]]
    close(own, C[:, selected].min(axis=1), atol=1e-12 + 100 * blur)
    close(cells.costs, own, atol=1e-12 + 100 * blur)


def assert_partition(cells, n):
    assert len(np.unique(cells.exemplars)) == n
    equal(cells.labels[cells.exemplars], np.arange(n))
    equal(np.unique(cells.labels), np.arange(n))
    assert np.isfinite(cells.costs).all()
    assert cells.costs.min() >= 0


def exemplar_partition(problem):
    X, s, n = random_cells(problem)
    X, s = X.astype(problem.X.dtype), s.astype(problem.X.dtype)
    cells = _exemplar_layout.exemplar_cells(X, s, n, np.random.RandomState(problem.seed))
    assert_partition(cells, n)
    assert cells.costs.max() <= 1 + 1e-6


def balanced_partition(problem):
    """Each cell has a mass within the bounds, and the costs are distances from its mean."""
    X, s, n = random_cells(problem)
    balance = problem.rng.choice([1.0, 1.5, 2.0, 4.0, np.inf])
    uniform = problem.rng.random() < 0.7
    s = np.full(len(X), 1 / len(X)) if uniform else s
    X, s = X.astype(problem.X.dtype), s.astype(problem.X.dtype)
    found = []
    for gather_bytes in (0, 2**26):
        with mock.patch.object(_cells, "GATHER_BYTES", gather_bytes):
            rng = np.random.RandomState(problem.seed)
            found.append(balanced_cells(X, s, n, balance, rng))
    cells = found[0]
    for one, other in zip(*found, strict=True):
        equal(one, other)
    assert_partition(cells, n)
    counts = np.bincount(cells.labels)
    if uniform:
        share = len(X) / n
        assert counts.min() >= max(1, np.floor(share / balance + 1e-6))
        assert counts.max() <= np.ceil(share * balance - 1e-6)
    means = np.array(
        [
            np.average(X[cells.labels == c].astype(float), axis=0, weights=s[cells.labels == c])
            for c in range(n)
        ]
    )
    expected = np.square(X - means[cells.labels]).sum(axis=1)
    eps = np.finfo(X.dtype).eps
    largest = np.square(X.astype(float)).sum(axis=1).max()
    close(cells.costs, expected, rtol=1e-3, atol=64 * eps * largest)
    smallest = np.full(n, np.inf)
    np.minimum.at(smallest, cells.labels, cells.costs)
    equal(cells.costs[cells.exemplars], smallest)


def cells_of_members(problem):
    """The cells do not depend on whether members are gathered once or at each access."""
    X, s, n = random_cells(problem)
    members = np.flatnonzero(problem.rng.random(len(X)) < 0.7)
    members = members if len(members) else np.array([0])
    s, n = s[members] / s[members].sum(), min(n, len(members))
    found = []
    for gather_bytes in (0, 2**26):
        with mock.patch.object(_cells, "GATHER_BYTES", gather_bytes):
            clipped = _exemplar_cells.ClippedRows(X, s, members)
            exemplars, h = _exemplar_cells.exemplars_of(clipped, s, n, np.random.RandomState(0))
            cells = _exemplar_cells.around(clipped, h, exemplars.indices)
        found.append((*cells, clipped[:], h))
    for one, other in zip(*found, strict=True):
        equal(one, other)


def nearest_in_single(problem):
    rows = problem.X.astype(np.float32)
    rows = rows - rows.mean(axis=0)
    labels, smallest = _cells.nearest(rows, rows[: problem.n])
    D = cdist(rows.astype(float), rows[: problem.n].astype(float), "sqeuclidean")
    blur = 1e-5 * (np.square(rows.astype(float)).sum(axis=1).max() or 1.0)
    close(D[np.arange(len(rows)), labels], D.min(axis=1), atol=blur)
    close(smallest, D.min(axis=1), atol=blur, rtol=1e-3)
    assert np.all(smallest >= -blur)


def matching_objective(F, target, cells, selected, centrality):
    gap = F[selected].mean(axis=0) - target
    mean = cells.costs.mean() or 1.0
    return gap @ gap + centrality * cells.costs[selected].mean() / mean


def matching(problem):
    X, s, n = random_cells(problem)
    values, vectors = spectrum(X)
    if not values.size:
        return
    P = X @ vectors
    cells = _exemplar_layout.exemplar_cells(P, s, n, np.random.RandomState(0))
    F = moment_features(P, values, n)
    centrality = problem.rng.choice([0.0, 0.3, 5.0])
    target = s @ F
    for features in (MomentFeatures(P, values, n), F):
        with mock.patch.object(_matching, "SWEEPS", 200):
            selected = match_in_cells(
                features, target, cells, centrality, np.random.RandomState(problem.seed)
            )
        equal(cells.labels[selected], np.arange(n))
        value = matching_objective(F, target, cells, selected, centrality)
        alone = np.square(F).sum(axis=1) / n**2 + centrality * cells.costs
        for c in range(n):
            for i in np.flatnonzero(cells.labels == c):
                other = selected.copy()
                other[c] = i
                least = matching_objective(F, target, cells, other, centrality)
                assert value <= least + 1e-10 * alone.max()


# Sums, moments and the solver


def sums(problem):
    X, rng = problem.X, problem.rng
    s = rng.dirichlet(np.ones(len(X))).astype(X.dtype)
    size = float(np.abs(X.astype(float)).max()) or 1.0
    eps = 100 * np.finfo(X.dtype).eps
    A = dense(problem)
    close(weighted_block_sum(s, X), s.astype(float) @ A, atol=eps * size, rtol=0)
    column = np.ascontiguousarray(X[:, 0])
    close(dot(s, column), s.astype(float) @ A[:, 0], atol=eps * size, rtol=0)
    close(mean_squared_norm(X), np.square(A).sum(axis=1).mean(), rtol=1e-10)


def energies(problem):
    X = problem.X
    values, vectors = spectrum(X)
    if not values.size:
        return
    unit = float(np.sqrt(values[0]))
    A = directional_energies(dense(problem), vectors) / values[0]
    rows = sparse.csr_array(X) if problem.rng.random() < 0.3 else X
    keep = int(problem.rng.choice([0, 100, 2**20]))
    operator = Energies(rows, vectors, unit, keep=keep)
    s, g = problem.rng.dirichlet(np.ones(len(X))), problem.rng.normal(size=A.shape[1])
    eps = 100 * np.finfo(X.dtype).eps * max(1.0, A.max())
    close(operator.rmatvec(s.astype(X.dtype)), s @ A, atol=eps, rtol=0)
    close(operator.matvec(g), A @ g, atol=eps * np.abs(g).sum(), rtol=0)
    centred = A - A.mean(axis=0)
    close(operator.scatter(), centred.T @ centred, atol=len(A) * eps * max(1.0, A.max()), rtol=0)
    members = np.flatnonzero(problem.rng.random(len(X)) < 0.6)
    P = Components(rows, vectors, unit, members=members, keep=keep)
    expected = dense(problem)[members] @ vectors / unit
    close(P[np.arange(len(members))], expected, atol=eps, rtol=0)
    features = MomentFeatures(Components(rows, vectors, unit, keep=keep), values / values[0], 3)
    F = moment_features(dense(problem) @ vectors / unit, values / values[0], 3)
    blur = 1e3 * np.finfo(X.dtype).eps * values[0] / values[-1] * max(1.0, np.abs(F).max())
    chosen = problem.rng.permutation(len(X))
    close(features[chosen], F[chosen], atol=blur, rtol=0)
    lengths = np.square(F).sum(axis=1)
    close(features.squared_norms(chosen), lengths[chosen], atol=blur * max(1.0, lengths.max()))
    close(features.mean(s.astype(X.dtype)), s @ F, atol=blur, rtol=0)


def eigenpairs(problem):
    X, A = problem.X, dense(problem)
    rows = sparse.csr_array(X) if problem.rng.random() < 0.3 else X
    values, vectors = spectrum(rows)
    moment = A.T @ A / len(A)
    size = np.abs(moment).max() or 1.0
    # Omitted eigenvalues are within rounding.
    close((vectors * values) @ vectors.T, moment, atol=1e-11 * size, rtol=0)
    wide = X.shape[1] > X.shape[0]
    floor = 1e-9 if wide else 0.0  # right singular vectors of small values lose digits
    large = values > floor * values.max(initial=0.0)
    basis = vectors[:, large]
    close(basis.T @ basis, np.eye(large.sum()), atol=1e-5 if wide else 1e-10)
    assert np.all(np.diff(values) <= 0)
    coreset = A[problem.rng.permutation(len(A))[: problem.n]]
    alpha = size * 10.0 ** problem.rng.uniform(-3, 1)
    moment_S = coreset.T @ coreset / len(coreset)
    total = np.trace(moment)
    ratio = np.trace(moment @ moment_S @ np.linalg.inv(moment_S + alpha * np.eye(len(moment))))
    close(explained_fraction(A, coreset, alpha), ratio / total if total else 1.0, rtol=1e-8)


def projection_onto_simplex(problem):
    rng, N, n = problem.rng, len(problem.X), problem.n
    v = (rng.normal(size=N) * 10.0 ** rng.uniform(-6, 3)).astype(problem.X.dtype)
    if rng.random() < 0.3:
        v = np.round(v)
    s = project_capped_simplex(v, 1 / n)
    assert s.dtype == v.dtype
    low, high = float(v.min()) - 1 / n, float(v.max())
    for _ in range(200):  # bisection
        tau = 0.5 * (low + high)
        if np.clip(v.astype(float) - tau, 0, 1 / n).sum() >= 1:
            low = tau
        else:
            high = tau
    eps = np.finfo(v.dtype).eps
    expected = np.clip(v.astype(float) - low, 0, 1 / n)
    # The reference finds its root only as accurately as a sum of N entries, which is 1.
    close(s, expected, atol=16 * eps * max(1 / n, float(np.abs(v).max())) + N * eps, rtol=0)
    assert s.min() >= 0
    assert s.max() <= v.dtype.type(1 / n)
    close(s.sum(dtype=float), 1.0, atol=N * eps)


def solver(problem):
    """Solve from two starts; each gap bounds how far the other, or any point, is below."""
    X, rng, N, n = dense(problem), problem.rng, len(problem.X), problem.n
    values, vectors = spectrum(X)
    if not values.size:
        return
    A, values = directional_energies(X, vectors) / values[0], values / values[0]
    c_S = max(n / N, rng.uniform(0.3, 1.2))
    vertex = np.zeros(N)
    vertex[rng.permutation(N)[:n]] = 1 / n
    found = [
        solve(A, values, n, c_S, start, max_iter=300, tol=1e-6)
        for start in (np.full(N, 1 / N), vertex)
    ]
    size = np.square(values / c_S).sum()
    points = [s.s for s in found] + [random_weights(problem, n) for _ in range(3)]

    def f(s):
        return np.square(np.maximum(0, values / c_S - s @ A)).sum()

    for one in found:
        assert one.s.min() >= 0
        assert one.s.max() <= 1 / n + 1e-15
        close(one.s.sum(), 1.0, atol=1e-12)
        close(one.objective, f(one.s), atol=1e-12 * size)
        assert one.dual_gap >= 0
        for other in points:
            assert one.objective - one.dual_gap <= f(other) + 1e-12 * size
    g = rng.normal(size=N)
    best = np.sort(g)[:n].mean()
    close(duality_gap(points[-1], g, n), max(0.0, points[-1] @ g - best), atol=1e-12)


# Rounding


def roundings(problem):
    n = problem.n
    A, X = np.square(dense(problem)), dense(problem)
    s = random_weights(problem, n)
    for name, rounding in all_roundings(A, X).items():
        selected = rounding(s, n, np.random.RandomState(problem.seed))
        assert selected.shape == (n,), name
        assert np.all(np.diff(selected) > 0), name
        assert np.all(s[selected] > 0), name
        if name != "choice":
            sure = n * s / s.sum() >= 1 - 1e-13
            assert np.isin(np.flatnonzero(sure), selected).all(), f"{name} omits a certain item"
        if "cube" in name:
            off = np.abs(A[selected].sum(axis=0) - n * s @ A)
            assert np.all(off <= (A.shape[1] + 1) * A.max(axis=0) * (1 + 1e-9)), name


def plain_systematic(problem):
    N, n = len(problem.X), problem.n
    s = random_weights(problem, n)
    selected = systematic(s, n, np.random.RandomState(problem.seed))
    rng = np.random.RandomState(problem.seed)
    order, total, expected = rng.permutation(N), 0.0, []
    u, unit = rng.uniform(), n / s.sum()
    for i in order:
        before, total = total, total + s[i] * unit
        points = [k for k in range(n) if before <= u + k < total]
        near = min(abs(total - u - k) for k in range(n))
        if near < 1e-12:
            return  # decided by rounding
        expected += [i] * len(points)
    equal(selected, np.sort(expected))


def plain_spread(problem):
    """The reference finds all nearest neighbours anew in each round, not only where they left."""
    X, n = dense(problem), problem.n
    s = random_weights(problem, n)

    def pivot(pi, X, stop, rng):
        pi, distances, items = pi.copy(), _draws._squared_distances(X), np.arange(len(pi))
        while len(items) > max(stop, 1):
            nearest = np.full(len(pi), -1)
            nearest[items] = items[distances[np.ix_(items, items)].argmin(axis=1)]
            first = [i for i in items if nearest[nearest[i]] == i and i < nearest[i]]
            _draws._pivotal_step(pi, np.array(first), nearest[first], rng)
            items = items[_draws.is_undecided(pi[items])]
        return pi

    selected = spread(s, n, X, np.random.RandomState(problem.seed))
    with mock.patch.object(_draws, "_pivot_neighbours", pivot):
        equal(selected, spread(s, n, X, np.random.RandomState(problem.seed)))


def probabilities(problem):
    rng, N, n = problem.rng, len(problem.X), problem.n
    scores = 10.0 ** rng.uniform(-6, 3, size=N) * (rng.random(N) < 0.9)
    pi = inclusion_probabilities(scores, n)
    close(pi.sum(), n)
    positive = scores > 0
    if positive.sum() <= n:
        equal(pi[positive], 1.0)
        close(pi[~positive], pi[~positive][:1].repeat((~positive).sum()))
        return
    low, high = 0.0, n / scores[positive].min()
    for _ in range(200):
        c = 0.5 * (low + high)
        low, high = (c, high) if np.minimum(1, c * scores).sum() < n else (low, c)
    close(pi, np.minimum(1, high * scores), rtol=1e-9, atol=1e-12)


def leverage(problem):
    X, rng, n = dense(problem), problem.rng, problem.n
    values = spectrum(X).eigenvalues
    sigma = np.linalg.svd(X, compute_uv=False)
    if np.any((sigma > 1e-12 * sigma[0]) & (sigma < 1e-4 * sigma[0])) or not sigma[0]:
        return  # the dense formulas determine another rank
    alpha = [None, float(values[0])][rng.integers(2)]
    for selector in (
        skmm.RidgeLeverageSelector(n, alpha=alpha, random_state=0),
        skmm.TruncatedLeverageSelector(n, random_state=0),
    ):
        if selector.get_params().get("alpha", 0) is None and n <= 2:
            continue
        n_kept = max(1, int(n / np.log(n + 1)))
        gap = values[n_kept - 1] - values[n_kept] if n_kept < len(values) else values[-1]
        if gap < 1e-6 * values[0]:
            continue  # rounding decides which directions are kept
        selector.fit(sparse.csr_array(X) if rng.random() < 0.3 else X)
        expected, _ = hat_diagonal(selector, X)
        close(selector.leverage_scores_, expected, rtol=1e-6, atol=1e-8)


# Sketches


def projections(problem):
    X, rng = problem.X, problem.rng
    kind = rng.choice(["gaussian", "sparse_sign", "product", "block"])
    r, m = 2 * int(rng.integers(4, 40)), int(rng.integers(1, 12))
    G = rng.normal(size=(len(X), r)).astype(X.dtype)
    G[rng.random(G.shape) < rng.choice([0.0, 0.5, 0.98])] = 0.0
    rows = int(rng.integers(1, 30))
    with (
        mock.patch.multiple(_projection, BLOCK_ROWS=rows, APPLIED_BLOCKS=3),
        mock.patch.object(_product, "BLOCK_ROWS", rows),
    ):
        projection = make_projection(kind, r, m, int(problem.seed))
        expected = G.astype(float) @ projection.to_array()
        budget = 0 if rng.random() < 0.5 else 2**20
        container = [np.asarray, sparse.csr_array, sparse.csc_array, sparse.coo_array][
            rng.integers(4)
        ]
        with mock.patch.object(_projection, "CACHE_BYTES", budget):
            for _ in range(2):  # generated, then perhaps cached
                sketch = projection.apply(container(G))
                assert sketch.dtype == G.dtype
                size = max(1.0, np.abs(expected).max(initial=0.0))
                close(sketch, expected, atol=r * np.finfo(G.dtype).eps * size * 8, rtol=0)


def product_factors(problem):
    """The product sketch equals that from the factors, without forming the gradient."""
    rng, N = problem.rng, len(problem.X)
    out, inner, t = (int(rng.integers(1, 8)) for _ in range(3))
    m, terms = int(rng.integers(1, 10)), int(rng.integers(1, 4))
    delta, a = rng.normal(size=(N, t, out)), rng.normal(size=(N, t, inner))
    projection = _product.ProductProjection(out, inner, m, (problem.seed, 0), (1,), terms)
    G = np.einsum("nti,ntj->nij", delta, a).reshape(N, -1)
    both = (delta @ projection.row_factor()) * (a @ projection.col_factor())
    fast = both.sum(axis=1).reshape(N, terms, m).sum(axis=1) / np.sqrt(terms * m)
    close(projection.apply(G), fast, atol=1e-10)


def network(problem):
    rng, n_in = problem.rng, problem.X.shape[1]
    width, n_out = (int(rng.integers(1, 6)) for _ in range(2))
    bias = bool(rng.random() < 0.7)
    activation = [nn.Tanh, nn.ReLU, nn.GELU][rng.integers(3)]
    model = build(
        lambda: nn.Sequential(
            nn.Linear(n_in, width, bias=bias), activation(), nn.Linear(width, n_out)
        )
    )
    X = rng.normal(size=problem.X.shape)[:6]
    return model, X, rng.normal(size=(len(X), n_out))


def model_gradients(problem):
    model, X, y = network(problem)
    sketch = problem.rng.choice(["gaussian", "sparse_sign", "product"])
    m, batch = int(problem.rng.integers(1, 8)), int(problem.rng.integers(1, 7))
    sketcher = skmm.GradientSketcher(
        m,
        model=model,
        loss="squared_error",
        target="label",
        sketch=sketch,
        batch_size=batch,
        random_state=int(problem.seed),
    )
    ours = sketcher.fit_transform(X, y)
    G, _ = loop_gradients(model, X, lambda f, label: (f - torch.tensor(label)).square().sum(), y)
    expected = G @ sketcher.projection_.to_array()
    close(ours, expected, rtol=1e-9, atol=1e-10 * max(1.0, np.abs(expected).max()))
    with tempfile.TemporaryDirectory() as folder:
        cached = sketcher.set_params(cache_dir=folder)
        for _ in range(2):  # written, then read
            equal(cached.fit_transform(X, y), ours)


def lazy_arrays(problem):
    """Dask arrays with chunks of any size."""
    import dask
    import dask.array as da

    X, rng = problem.X, problem.rng
    chunks = tuple(int(rng.integers(1, size + 1)) for size in X.shape)
    lazy = da.from_array(X, chunks=chunks)
    sketcher = skmm.GradientSketcher(int(rng.integers(1, 6)), random_state=problem.seed)
    with dask.config.set(scheduler="synchronous"):
        if rng.random() < 0.5:
            expected = sketcher.fit_transform(X)
            size = np.abs(expected).max() or 1.0
            eps = 1e3 * np.finfo(X.dtype).eps
            close(sketcher.fit_transform(lazy).compute(), expected, rtol=0, atol=eps * size)
            return
        for selector in (
            skmm.KCenterSelector(problem.n, random_state=problem.seed),
            skmm.SkMMSelector(problem.n, c_S=1.0, random_state=problem.seed),
        ):
            expected = selector.fit_transform(X)
            equal(selector.fit_transform(lazy), expected)
            equal(selector.transform(lazy), expected)


# Each comparison and its relative frequency, lower for those that start something large.
PAIRS = {
    lazy_exemplars: 6,
    exemplars_of_few: 4,
    median_of_distances: 1,
    k_center: 4,
    herding: 4,
    greedy_pivoting: 3,
    v_optimal_greedy: 3,
    v_optimal_update: 3,
    v_optimal_comparison: 2,
    v_optimal_exchange: 2,
    cells_at_once: 4,
    exemplar_partition: 4,
    balanced_partition: 8,
    cells_of_members: 3,
    nearest_in_single: 2,
    matching: 3,
    sums: 2,
    energies: 4,
    eigenpairs: 3,
    projection_onto_simplex: 4,
    solver: 4,
    roundings: 6,
    plain_systematic: 2,
    plain_spread: 4,
    probabilities: 2,
    leverage: 2,
    projections: 3,
    product_factors: 2,
    model_gradients: 1,
    lazy_arrays: 1,
}
