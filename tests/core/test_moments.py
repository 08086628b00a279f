"""The solver compared with brute force, SciPy and closed forms."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from scipy.optimize import LinearConstraint, minimize

from sklearn_skmm.core import _simplex
from sklearn_skmm.core._moments import (
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("steps", [0, 1])
def test_projection_by_breakpoints_equals_that_by_newton(dtype, steps, monkeypatch):
    """Force the search of breakpoints by limiting Newton's steps, which hardly ever run out."""
    rng = np.random.RandomState(0)
    # In single precision no breakpoint is left between the bounds of the first root.
    cases = [(np.array([0.2, 0.0, 0.1]), 3), (np.array([0.0, 0.0, 5.0, 5.0]), 2)]
    for kind in range(3):
        for N in (2, 7, 40):
            v = rng.normal(size=N) * 10.0 ** rng.randint(-2, 3)
            v = [v, v.round(1), rng.randint(3, size=N) / N][kind]
            cases += [(v, n) for n in {1, N // 2, N}]
    for v, n in cases:
        v = v.astype(dtype)
        newton = project_capped_simplex(v, 1 / n)
        with monkeypatch.context() as patch:
            patch.setattr(_simplex, "NEWTON_STEPS", steps)
            s = project_capped_simplex(v, 1 / n)
        eps = np.finfo(dtype).eps * max(1.0, np.abs(v).max())
        np.testing.assert_allclose(s, newton, rtol=0, atol=8 * eps)
        assert s.dtype == dtype
        assert abs(s.sum(dtype=float) - 1) <= len(v) * eps


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
    """f is convex on lines between vertices, so random mixtures of vertices bound min f."""
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
    # The gap bounds how far f is above every one of them.
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


def test_spectrum_omits_eigenvalues_below_rounding():
    rng = np.random.RandomState(0)
    X = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 20))
    assert spectrum(X).eigenvalues.shape == (3,)
    assert spectrum(np.zeros((4, 3))).eigenvalues.shape == (0,)
    values = spectrum(X * 1e-150).eigenvalues
    np.testing.assert_allclose(values * 1e300, spectrum(X).eigenvalues, rtol=1e-9)


@pytest.mark.parametrize("n", [2, 12])
def test_explained_fraction_equals_its_formula(n):
    rng = np.random.RandomState(0)
    X, S = rng.normal(size=(40, 6)), rng.normal(size=(n, 6))
    M, M_S = X.T @ X / 40, S.T @ S / n
    expected = np.trace(M @ M_S @ np.linalg.inv(M_S + 0.3 * np.eye(6))) / np.trace(M)
    assert explained_fraction(X, S, 0.3) == pytest.approx(expected)
    assert explained_fraction(sparse.csr_array(X), sparse.csr_array(S), 0.3) == pytest.approx(
        expected
    )
    assert explained_fraction(X * 1e3, S * 1e3, 0.3e6) == pytest.approx(expected)


def test_explained_fraction_at_its_extremes():
    zero, row = np.zeros((3, 2)), np.array([[0.0, 2.0]])
    assert explained_fraction(zero, zero, 1.0) == 1.0
    assert explained_fraction(zero, row, 1.0) == 1.0
    assert explained_fraction(row, zero, 1.0) == 0.0
    assert explained_fraction(row[:, ::-1], row, 1.0) == 0.0
    assert explained_fraction(np.eye(2), row[:, ::-1] / 2, 1.0) == 0.25
    for seed in range(50):  # without a ridge all is explained; rounding must not exceed 1
        X = np.random.RandomState(seed).normal(size=(9, 4))
        assert 1 - 1e-12 < explained_fraction(X, X, 0.0) <= 1.0


@pytest.mark.parametrize(
    ("dtype", "N", "square", "rank"),
    [
        (float, 2, 1e-16, 1),
        (float, 2, 6e-16, 2),
        (float, 1000, 1e-13, 1),
        (float, 1000, 1e-12, 2),
        (np.float32, 2, 8e-13, 1),
        (np.float32, 2, 1e-12, 2),
    ],
)
def test_spectrum_keeps_eigenvalues_above_rounding(dtype, N, square, rank):
    """Two directions have sums of squares 1 and `square`; the second may be below rounding."""
    X = np.zeros((N, 2), dtype=dtype)
    X[0, 0], X[1, 1] = 1.0, np.sqrt(square)
    np.testing.assert_allclose(spectrum(X).eigenvalues, [1 / N, square / N][:rank], rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 50, 2998, 2999, 3000])
def test_gap_of_large_problems(n):
    rng, N = np.random.RandomState(n), 3000
    for _ in range(5):
        s, g = vertex(rng, N, n), rng.normal(size=N)
        assert duality_gap(s, g, n) == pytest.approx(s @ g - np.sort(g)[:n].mean(), abs=1e-12)
        s = np.where(np.isin(np.arange(N), np.argsort(g)[:n]), 1 / n, 0.0)
        assert 0 <= duality_gap(s, g, n) < 1e-12


def test_gap_in_single_precision_equals_that_in_double():
    g = (1000 + np.random.RandomState(0).uniform(size=100_001)).astype(np.float32)
    s = np.zeros(100_001, dtype=np.float32)
    s[0] = 1.0
    expected = float(g[0]) - np.sort(g)[:100_000].mean(dtype=float)
    assert duality_gap(s, g, 100_000) == pytest.approx(max(0.0, expected), abs=1e-9)


@pytest.mark.parametrize("k", [0, 3])
def test_start_is_returned_when_there_is_nothing_to_match(k):
    s = np.full(4, 1 / 4)
    solution = solve(np.ones((4, k)), np.zeros(k), 2, 0.9, s)
    np.testing.assert_array_equal(solution.s, s)
    assert solution[1:] == (0.0, 0.0, 0)


def textbook_fista(A, target, n, s, n_iter):
    """Return the iterates of FISTA on dense arrays.

    Beck & Teboulle with backtracking, restarted as by O'Donoghue & Candès.
    """
    centred = A - A.mean(axis=0)
    most = bound = 2 * np.linalg.eigvalsh(centred.T @ centred)[-1]
    f = lambda s: np.square(np.maximum(0, target - s @ A)).sum()  # noqa: E731
    y, t, iterates = s, 1.0, [s]
    for _ in range(n_iter):
        gradient = -2 * A @ np.maximum(0, target - y @ A)
        bound *= 0.8
        while True:
            new = project_capped_simplex(y - gradient / bound, 1 / n)
            move = new - y
            if f(new) <= f(y) + gradient @ move + bound / 2 * move @ move or bound >= most:
                break
            bound = min(2 * bound, most)
        if move @ (new - iterates[-1]) < 0:
            t = 1.0
        t, before = (1 + np.sqrt(1 + 4 * t**2)) / 2, t
        y = new + (before - 1) / t * (new - iterates[-1])
        iterates.append(new)
    return iterates


@pytest.mark.parametrize("c_S", [0.3, 0.8])
def test_solver_takes_the_steps_of_textbook_fista(c_S):
    N, n = 40, 8
    A, eigenvalues, rng = problem(3, N, 5, c_S)
    start, scale = vertex(rng, N, n), eigenvalues[0]
    iterates = textbook_fista(A / scale, eigenvalues / (scale * c_S), n, start, 30)
    values = [objective(A, s, eigenvalues, c_S) for s in iterates]
    for k in range(31):
        solution = solve(A, eigenvalues, n, c_S, start, max_iter=k, tol=0.0)
        assert solution.n_iter == k
        # The best iterate so far with its own gap: to the best vertex, or f if that is smaller.
        best = iterates[int(np.argmin(values[: k + 1]))]
        assert solution.objective == pytest.approx(min(values[: k + 1]), rel=1e-6)
        np.testing.assert_allclose(solution.s, best, atol=1e-7)
        gradient = -2 * A @ np.maximum(0, eigenvalues / c_S - solution.s @ A)
        gap = min(solution.s @ gradient - np.sort(gradient)[:n].mean(), solution.objective)
        assert solution.dual_gap == pytest.approx(gap, rel=1e-6, abs=1e-9 * scale**2)


def test_solver_stops_by_tolerance_iterations_and_step():
    N, n, c_S = 40, 8, 0.3
    A, eigenvalues, rng = problem(3, N, 5, c_S)
    start, whole = vertex(rng, N, n), np.square(eigenvalues / c_S).sum()
    run = lambda **keywords: solve(A, eigenvalues, n, c_S, start, **keywords)  # noqa: E731
    at = {k: run(max_iter=k, tol=0.0) for k in (0, 1, 3)}
    for k, least in ((0, 0), (1, 1)):  # exactly when the gap falls to the tolerance
        gap, value = at[k].dual_gap, at[k].objective
        assert run(tol=gap / whole * (1 + 1e-9)).n_iter == least
        assert run(tol=gap / whole * (1 - 1e-9)).n_iter > least
        assert run(tol=0.0, rtol=gap / value * (1 + 1e-9)).n_iter == least
        assert run(tol=0.0, rtol=gap / value * (1 - 1e-9), max_iter=50).n_iter > least
    converged = run()
    assert converged.dual_gap <= 1e-7 * whole
    assert converged.n_iter % 10 == 0  # the gap is computed every ten iterations
    calls = []
    stopped = run(tol=0.0, step=lambda: calls.append(0) or len(calls) == 3)
    assert stopped.n_iter == len(calls) == 3
    np.testing.assert_array_equal(stopped.s, at[3].s)
    assert stopped.dual_gap == at[3].dual_gap
    # Nothing is left to gain.
    assert solve(A, eigenvalues, n, 2.0, np.full(N, 1 / N), tol=0.0).n_iter == 0


def test_solver_stops_at_2000_iterations():
    A, eigenvalues, rng = problem(60, 60, 8, 0.3)
    assert solve(A, eigenvalues, 12, 0.3, vertex(rng, 60, 12), tol=0.0).n_iter == 2000


@pytest.mark.parametrize("exponent", [-40, 40])
def test_certificate_is_scale_free(exponent):
    A, eigenvalues, rng = problem(1, 40, 5, 0.8)
    start, times = vertex(rng, 40, 8), 2.0**exponent
    one = solve(A, eigenvalues, 8, 0.8, start, max_iter=7, tol=0.0)
    other = solve(A * times, eigenvalues * times, 8, 0.8, start, max_iter=7, tol=0.0)
    np.testing.assert_array_equal(one.s, other.s)
    assert other.objective == one.objective * times**2
    assert other.dual_gap == one.dual_gap * times**2 > 0


@pytest.mark.parametrize(("difference", "c_S"), [(1e-12, 0.5), (1e-7, 1e-3)])
def test_solver_stops_at_once_when_all_rows_have_the_same_moments(difference, c_S):
    A = np.ones((6, 2)) + difference * np.random.RandomState(0).normal(size=(6, 2))
    solution = solve(A, np.ones(2), 3, c_S, np.repeat([1 / 3, 0.0], 3), tol=0.0)
    assert solution.n_iter == 0
    assert solution.objective == pytest.approx(2 * (1 / c_S - 1) ** 2, rel=1e-4)


@pytest.mark.parametrize(("units", "n_iter"), [(0.9, 0), (1.1, 1), (1.9, 1)])
def test_solver_iterates_only_when_the_curvature_is_above_rounding(units, n_iter):
    """The curvature is twice the sum of squares of the single, centred column."""
    d = np.sqrt(units * np.finfo(float).eps / 8)
    A = 0.5 + d * np.array([[1.0], [-1.0], [1.0], [-1.0]])
    solution = solve(A, np.ones(1), 2, 1.0, np.full(4, 0.25), tol=0.0, max_iter=5)
    assert solution.n_iter == n_iter
    np.testing.assert_array_equal(solution.s, [0.5, 0, 0.5, 0] if n_iter else np.full(4, 0.25))


def test_solver_works_in_the_precision_of_A():
    A, eigenvalues, rng = problem(1, 40, 5, 0.8)
    for max_iter in (0, 5):
        solution = solve(
            A.astype(np.float32), eigenvalues, 8, 0.8, vertex(rng, 40, 8), max_iter=max_iter
        )
        assert solution.s.dtype == np.float32
