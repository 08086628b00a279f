"""The solver against brute force, SciPy and closed forms."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from scipy.optimize import LinearConstraint, minimize

from sklearn_skmm._moments import (
    directional_energies,
    duality_gap,
    explained_fraction,
    objective,
    project_capped_simplex,
    solve,
    spectrum,
)


def problem(seed, N, k, c_S):
    rng = np.random.RandomState(seed)
    X = rng.normal(size=(N, k)) * np.exp(rng.normal(size=k)) + 0.3 * rng.normal(size=k)
    eigenvalues, eigenvectors = spectrum(X)
    return directional_energies(X, eigenvectors), eigenvalues, rng


def vertex(rng, N, n):
    s = np.zeros(N)
    s[rng.choice(N, n, replace=False)] = 1 / n
    return s


def assert_feasible(s, n):
    assert s.min() >= 0
    assert s.max() <= 1 / n + 1e-15
    assert abs(s.sum() - 1) <= 1e-12


points = hnp.arrays(
    float, st.integers(1, 30), elements=st.floats(-1e3, 1e3, allow_nan=False, width=32)
)


@settings(max_examples=300, deadline=None)
@given(points, st.data())
def test_projection_is_feasible_optimal_and_idempotent(v, data):
    n = data.draw(st.integers(1, len(v)))
    s = project_capped_simplex(v, 1 / n)
    assert_feasible(s, n)
    # The variational inequality ⟨v − s, z − s⟩ ≤ 0 at the vertex that makes it largest.
    z = np.zeros(len(v))
    z[np.argsort(-(v - s), kind="stable")[:n]] = 1 / n
    assert (v - s) @ (z - s) <= 1e-9 * max(1.0, np.abs(v).max())
    np.testing.assert_allclose(project_capped_simplex(s, 1 / n), s, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(points, st.floats(-100, 100), st.randoms(use_true_random=False))
def test_projection_ignores_shifts_and_keeps_order(v, shift, random):
    n = max(1, len(v) // 2)
    s = project_capped_simplex(v, 1 / n)
    np.testing.assert_allclose(project_capped_simplex(v + shift, 1 / n), s, atol=1e-10)
    order = list(range(len(v)))
    random.shuffle(order)
    np.testing.assert_allclose(project_capped_simplex(v[order], 1 / n), s[order], atol=1e-10)
    assert np.all(np.diff(s[np.argsort(v)]) >= -1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_projection_equals_search_over_all_active_sets(seed):
    rng = np.random.RandomState(seed)
    N, n = 6, rng.randint(1, 7)
    v, cap = rng.normal(size=6).round(1), 1 / n
    best, best_distance = None, np.inf
    for code in np.ndindex(*(3,) * N):
        code = np.array(code)  # 0 at zero, 1 at the cap, 2 free
        s, free = np.where(code == 1, cap, 0.0), code == 2
        if free.any():
            s[free] = v[free] - (v[free].sum() + s.sum() - 1) / free.sum()
        if abs(s.sum() - 1) < 1e-12 and s.min() >= -1e-12 and s.max() <= cap + 1e-12:
            distance = np.square(s - v).sum()
            if distance < best_distance:
                best, best_distance = s, distance
    np.testing.assert_allclose(project_capped_simplex(v, cap), best, atol=1e-12)


def test_projection_on_ties_and_large_input():
    np.testing.assert_allclose(project_capped_simplex(np.zeros(7), 1 / 3), 1 / 7)
    rng = np.random.RandomState(0)
    for v in (rng.normal(size=100_001), rng.randint(3, size=100_001).astype(float)):
        s = project_capped_simplex(v, 1e-3)
        assert s.min() >= 0
        assert s.max() <= 1e-3
        assert abs(s.sum() - 1) < 1e-12
        free = (s > 0) & (s < 1e-3)
        assert np.ptp((v - s)[free]) < 1e-12 if free.any() else True


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("c_S", [0.7, 0.999, 1.5])
def test_solver_against_brute_force(seed, c_S):
    """On a line between vertices f is convex: a grid over mixtures of vertices bounds min f."""
    N, n = 6, 3
    A, eigenvalues, rng = problem(seed, N, 3, c_S)
    solution = solve(A, eigenvalues, n, c_S, vertex(rng, N, n), max_iter=20_000, tol=1e-10)
    assert_feasible(solution.s, n)
    vertices = np.array([np.isin(np.arange(N), chosen) / n for chosen in combinations(range(N), n)])
    mixtures = rng.dirichlet(np.full(len(vertices), 0.2), size=20_000) @ vertices
    values = np.square(np.maximum(0, eigenvalues / c_S - mixtures @ A)).sum(axis=1)
    vertex_values = [objective(A, v, eigenvalues, c_S) for v in vertices]
    scale = np.square(eigenvalues / c_S).sum()
    assert solution.objective <= min(values.min(), min(vertex_values)) + 1e-6 * scale
    # The gap bounds the distance to every one of them.
    assert solution.objective - solution.dual_gap <= values.min() + 1e-12 * scale


@pytest.mark.parametrize(("N", "n", "k"), [(8, 2, 4), (20, 5, 6), (60, 12, 8)])
@pytest.mark.parametrize("c_S", [0.5, 0.8, 0.999, 2.0])
def test_solver_against_scipy(N, n, k, c_S):
    A, eigenvalues, rng = problem(N, N, k, c_S)
    scale = eigenvalues[0]
    A, eigenvalues = A / scale, eigenvalues / scale
    start = vertex(rng, N, n)
    ours = solve(A, eigenvalues, n, c_S, start, max_iter=50_000, tol=1e-9)

    def gradient(s):
        return -2 * A @ np.maximum(0, eigenvalues / c_S - s @ A)

    peer = minimize(
        lambda s: objective(A, s, eigenvalues, c_S),
        np.full(N, 1 / N),
        jac=gradient,
        method="SLSQP",
        bounds=[(0, 1 / n)] * N,
        constraints=LinearConstraint(np.ones(N), 1, 1),
        options={"ftol": 1e-14, "maxiter": 2000},
    )
    assert_feasible(ours.s, n)
    assert ours.objective == pytest.approx(peer.fun, abs=1e-6)
    assert ours.dual_gap >= ours.objective - peer.fun - 1e-9
    assert ours.objective == pytest.approx(objective(A, ours.s, eigenvalues, c_S), abs=1e-12)


def test_gap_is_the_best_linear_improvement():
    rng = np.random.RandomState(0)
    s, g = vertex(rng, 7, 3), rng.normal(size=7)
    best = min(g[list(c)].mean() for c in combinations(range(7), 3))
    assert duality_gap(s, g, 3) == pytest.approx(s @ g - best)


def test_uniform_weights_are_optimal_for_c_S_at_least_one():
    A, eigenvalues, _ = problem(0, 50, 5, 1.0)
    uniform = np.full(50, 1 / 50)
    solution = solve(A, eigenvalues, 10, 1.0, uniform)
    np.testing.assert_array_equal(solution.s, uniform)
    assert solution.dual_gap <= 1e-12 * eigenvalues[0] ** 2


def test_solver_is_scale_free():
    A, eigenvalues, rng = problem(1, 40, 5, 0.8)
    start = vertex(rng, 40, 8)
    one = solve(A, eigenvalues, 8, 0.8, start)
    other = solve(A * 2.0**40, eigenvalues * 2.0**40, 8, 0.8, start)
    np.testing.assert_array_equal(one.s, other.s)
    assert other.objective == one.objective * 2.0**80


@pytest.mark.parametrize("shape", [(30, 5), (5, 30), (10, 10)])
def test_spectrum(shape):
    X = np.random.RandomState(0).normal(size=shape)
    values, vectors = spectrum(X)
    rank = min(shape)
    assert values.shape == (rank,)
    assert np.all(np.diff(values) <= 0)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(rank), atol=1e-10)
    np.testing.assert_allclose((vectors * values) @ vectors.T, X.T @ X / shape[0], atol=1e-10)
    sparse_values, _ = spectrum(sparse.csr_array(X))
    np.testing.assert_allclose(sparse_values, values)


def test_spectrum_leaves_out_what_is_rounding():
    rng = np.random.RandomState(0)
    X = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 20))
    assert spectrum(X).eigenvalues.shape == (3,)
    assert spectrum(np.zeros((4, 3))).eigenvalues.shape == (0,)
    values = spectrum(X * 1e-150).eigenvalues
    np.testing.assert_allclose(values * 1e300, spectrum(X).eigenvalues, rtol=1e-9)


@pytest.mark.parametrize("n", [2, 12])
def test_explained_fraction_is_its_formula(n):
    rng = np.random.RandomState(0)
    X, S = rng.normal(size=(40, 6)), rng.normal(size=(n, 6))
    M, M_S = X.T @ X / 40, S.T @ S / n
    expected = np.trace(M @ M_S @ np.linalg.inv(M_S + 0.3 * np.eye(6))) / np.trace(M)
    assert explained_fraction(X, S, 0.3) == pytest.approx(expected)
    assert explained_fraction(sparse.csr_array(X), sparse.csr_array(S), 0.3) == pytest.approx(
        expected
    )
    assert explained_fraction(X * 1e3, S * 1e3, 0.3e6) == pytest.approx(expected)
