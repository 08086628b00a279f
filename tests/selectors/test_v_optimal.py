"""VOptimalSelector compared with brute force, and its update formulas with recomputation."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sklearn_skmm import GradientSketcher, VOptimalSelector
from sklearn_skmm.core._design import (
    Problem,
    default_alpha,
    inverse_root,
    least_alpha,
    objective,
    relax,
    round_largest,
    whiten,
)
from sklearn_skmm.core._exchange import compare, exchange, greedy, start_state, update
from sklearn_skmm.core._moments import spectrum
from sklearn_skmm.datasets import make_gmm_regression
from sklearn_skmm.diagnostics import v_optimality


def decaying(N, m, seed=0):
    return np.random.RandomState(seed).normal(size=(N, m)) / np.sqrt(np.arange(1, m + 1))


def problem_of(X, alpha):
    return whiten(X, spectrum(X), alpha)


def optimum(X, n, alpha):
    """Return the least V-optimality over all subsets of size n, as `diagnostics` computes it."""
    sets = np.array(list(combinations(range(len(X)), n)))
    moments = X[sets].transpose(0, 2, 1) @ X[sets] / n + alpha * np.eye(X.shape[1])
    values = np.trace(np.linalg.solve(moments, X.T @ X / len(X)), axis1=1, axis2=2)
    best = v_optimality(X, sets[values.argmin()], alpha=alpha)
    assert best == pytest.approx(values.min(), rel=1e-9)
    return best


def assert_exchange_optimal(X, indices, alpha, tol):
    value = v_optimality(X, indices, alpha=alpha)
    for position in range(len(indices)):
        for i in np.setdiff1d(np.arange(len(X)), indices):
            other = indices.copy()
            other[position] = i
            assert v_optimality(X, other, alpha=alpha) >= value * (1 - tol - 1e-9)


@pytest.mark.parametrize("n", [1, 2, 4, 7])
@pytest.mark.parametrize("alpha", [None, 1e-3, 1.0])
def test_selection_is_near_the_optimum_of_brute_force(n, alpha):
    for seed in range(3):
        X = decaying(12, 4, seed)
        selector = VOptimalSelector(n, alpha=alpha).fit(X)
        best = optimum(X, n, selector.alpha_)
        assert selector.lower_bound_ <= best * (1 + 1e-12)
        assert best <= selector.objective_ * (1 + 1e-12)
        assert selector.objective_ <= 1.05 * best
        assert_exchange_optimal(X, selector.sample_indices_, selector.alpha_, selector.tol)


@pytest.mark.parametrize("init", ["relaxation", "greedy", list(range(6))])
@pytest.mark.slow
def test_no_exchange_improves_even_outside_of_the_working_set(init):
    X = decaying(200, 5)  # the working set is 48 of them
    selector = VOptimalSelector(6, init=init, tol=0).fit(X)
    assert selector.n_iter_ < selector.max_iter
    assert_exchange_optimal(X, selector.sample_indices_, selector.alpha_, 0)


def test_attributes_equal_their_formulas():
    X = decaying(300, 8)
    selector = VOptimalSelector(40).fit(X)
    expected = v_optimality(X, selector.sample_indices_, alpha=selector.alpha_)
    assert selector.objective_ == pytest.approx(expected, rel=1e-10)
    gap = 1 - selector.lower_bound_ / selector.objective_
    assert selector.gap_ == pytest.approx(gap, rel=1e-10)
    assert selector.weights_.sum() == pytest.approx(1)
    assert np.all((selector.weights_ >= 0) & (selector.weights_ <= 1 / 40 + 1e-15))
    moment = (X.T * selector.weights_) @ X + selector.alpha_ * np.eye(8)
    relaxed = np.trace(np.linalg.solve(moment, X.T @ X / 300))
    assert selector.lower_bound_ <= relaxed <= selector.lower_bound_ * 1.002
    assert np.all(np.diff(selector.sample_indices_) > 0)


@pytest.mark.parametrize(
    ("N", "m", "n", "gap"), [(2000, 4, 8, 0.05), (2000, 32, 256, 0.05), (500, 20, 400, 0.01)]
)
def test_certified_gap_is_small(N, m, n, gap):
    assert VOptimalSelector(n).fit(decaying(N, m)).gap_ <= gap


def test_better_than_greedy_and_random_sampling():
    X = decaying(1000, 16)
    best = VOptimalSelector(64).fit(X)
    alone = VOptimalSelector(64, init="greedy", max_iter=0).fit(X)
    assert alone.n_iter_ == 0
    assert best.objective_ < alone.objective_
    for seed in range(5):
        S = np.random.RandomState(seed).choice(1000, 64, replace=False)
        assert best.objective_ < 0.9 * v_optimality(X, S, alpha=best.alpha_)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(3, 12), st.floats(-6, 1))
def test_updates_equal_recomputation(seed, k, n, log_alpha):
    rng = np.random.RandomState(seed)
    problem = problem_of(rng.normal(size=(30, k)) * np.exp(rng.normal(size=k)), 10**log_alpha)
    columns = np.ascontiguousarray(problem.rows.T)
    S = rng.choice(30, n, replace=False)
    out, new = S[0], np.setdiff1d(np.arange(30), S)[0]
    before = start_state(problem, S, n)
    for entering, leaving, after in (
        ([new], [], np.append(S, new)),
        ([], [out], S[1:]),
        ([new], [out], np.append(S[1:], new)),
    ):
        ours = update(problem, columns, before, after, n, added=entering, removed=leaving)
        for a, b in zip(ours, start_state(problem, after, n), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9 * abs(b).max())
    # The change of V by adding or removing a row, as greedy selection computes it.
    V = n * problem.signal @ np.diag(before.inverse)
    added = start_state(problem, np.append(S, new), n).inverse
    assert V - n * problem.signal @ np.diag(added) == pytest.approx(
        n * before.w[new] / (1 + before.q[new]), rel=1e-6, abs=1e-9 * V
    )
    removed = start_state(problem, S[1:], n).inverse
    assert n * problem.signal @ np.diag(removed) - V == pytest.approx(
        n * before.w[out] / (1 - before.q[out]), rel=1e-6, abs=1e-9 * V
    )


def test_comparison_equals_recomputation():
    rng = np.random.RandomState(0)
    problem = problem_of(decaying(40, 5), 0.01)
    members = rng.choice(40, 6, replace=False)
    value = objective(problem, members)
    decrease = np.full((40, 6), -np.inf)
    for i in np.setdiff1d(np.arange(40), members):
        for r in range(6):
            other = members.copy()
            other[r] = i
            decrease[i, r] = value - objective(problem, other)
    for least in (0.0, 0.01 * value, 0.05 * value):
        better, improvable = compare(problem, members, least / 6)
        np.testing.assert_array_equal(better, (decrease > least).any(axis=1))
        np.testing.assert_array_equal(improvable, (decrease > least).any(axis=0))


@pytest.mark.parametrize("alpha", [1e-4, 0.1])
def test_greedy_equals_recomputation(alpha):
    problem = problem_of(decaying(50, 6), alpha)
    S = []
    for _ in range(20):  # rows of a partial subset have weight 1 / 20
        rest = [i for i in range(50) if i not in S]
        M = [start_state(problem, np.array([*S, i]), 20).inverse for i in rest]
        S.append(rest[int(np.argmin([problem.signal @ np.diag(m) for m in M]))])
    np.testing.assert_array_equal(greedy(problem, 20), S)
    np.testing.assert_array_equal(greedy(problem, 20, S[:7]), S)


@pytest.mark.parametrize("max_iter", [0, 1, 2, 5, 500])
@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.slow
def test_lower_bound_holds_wherever_the_relaxation_stops(max_iter, n):
    for seed in range(4):
        X = decaying(12, 4, seed)
        bound = relax(problem_of(X, 0.01), n, max_iter=max_iter).lower_bound
        assert bound <= optimum(X, n, 0.01) * (1 + 1e-12)


def test_gap_uses_the_rank_when_n_is_below_it():
    X = decaying(500, 40)
    selector = VOptimalSelector(10, alpha=1e-4).fit(X)
    moment = (X.T * selector.weights_) @ X + 1e-4 * np.eye(40)
    relaxed = np.trace(np.linalg.solve(moment, X.T @ X / 500))
    assert relaxed < 0.05 * selector.objective_  # the relaxation ignores the rank
    assert selector.gap_ < 0.3


@pytest.mark.slow
def test_warm_start_is_never_worse_and_greedy_completes_it():
    X = decaying(300, 6)
    problem = problem_of(X, 0.01)
    for seed in range(10):
        start = np.random.RandomState(seed).choice(300, 12, replace=False)
        for tol in (0, 1e-4, 0.1):
            selector = VOptimalSelector(12, alpha=0.01, init=start, tol=tol).fit(X)
            assert selector.objective_ <= objective(problem, start)
        kept = VOptimalSelector(12, alpha=0.01, init=start, max_iter=0).fit(X)
        np.testing.assert_array_equal(kept.sample_indices_, np.sort(start))
        part = VOptimalSelector(12, alpha=0.01, init=start[:5], max_iter=0).fit(X)
        np.testing.assert_array_equal(part.sample_indices_, np.sort(greedy(problem, 12, start[:5])))
    best = VOptimalSelector(12, tol=0).fit(X)
    again = VOptimalSelector(12, tol=0, init=best.sample_indices_).fit(X)
    np.testing.assert_array_equal(again.sample_indices_, best.sample_indices_)
    assert again.n_iter_ <= 2


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ([0, 0], "distinct positions"),
        ([-1, 2], r"from 0 to 29, because X has n_samples=30\. Got positions from -1 to 2"),
        ([3, 30], r"from 0 to 29, because X has n_samples=30\. Got positions from 3 to 30"),
        (
            [0.5, 1.0],
            r"1-d array of integer positions\. Got an array of shape \(2,\) and dtype float64",
        ),
        ([[0, 1]], r"array of shape \(1, 2\)"),
        ([0, 1, 2, 3, 4], r"at most n=4 positions\. Got 5"),
        ("random", "The 'init' parameter"),
        (None, "The 'init' parameter"),
    ],
)
def test_init_is_validated(init, message):
    with pytest.raises(ValueError, match=message):
        VOptimalSelector(4, init=init).fit(decaying(30, 3))


def test_init_is_checked_again_for_another_pool():
    X = decaying(30, 3)
    selector = VOptimalSelector(4, init=[20, 25]).fit(X)
    np.testing.assert_array_equal(selector.transform(X), selector.sample_indices_)
    with pytest.raises(ValueError, match=r"X has n_samples=10\. Got positions from 20 to 25"):
        selector.transform(X[:10])


def test_transform_uses_the_fitted_moment_and_ridge():
    X, pool = decaying(100, 4), decaying(60, 4, 1) * np.array([0.2, 3, 1, 5])
    selector = VOptimalSelector(6, tol=0).fit(X)
    selected = selector.transform(pool)
    moment = X.T @ X / 100

    def V(S):
        ridge = selector.alpha_ * np.eye(4)
        return np.trace(np.linalg.solve(pool[S].T @ pool[S] / len(S) + ridge, moment))

    for r in range(6):
        for i in np.setdiff1d(np.arange(60), selected):
            other = selected.copy()
            other[r] = i
            assert V(other) >= V(selected) * (1 - 1e-9)


def test_selection_is_scale_free():
    X = decaying(80, 5)
    expected = VOptimalSelector(12).fit(X)
    for factor in (1e-150, 1e-20, 1e20, 1e150):
        selector = VOptimalSelector(12).fit(factor * X)
        np.testing.assert_array_equal(selector.sample_indices_, expected.sample_indices_)
        assert selector.objective_ == pytest.approx(expected.objective_, rel=1e-9)
        assert selector.lower_bound_ == pytest.approx(expected.lower_bound_, rel=1e-9)
        assert selector.alpha_ == pytest.approx(factor**2 * expected.alpha_, rel=1e-9)
    # The smallest feature has 1e-10 of the largest one's variance, and is still covered.
    selected = VOptimalSelector(12).fit_transform(X * np.array([1e4, 1, 0.1, 1, 1]))
    assert v_optimality(X, selected, alpha=1e-6) < 1.3 * v_optimality(
        X, expected.sample_indices_, alpha=1e-6
    )


def test_default_ridge():
    values = spectrum(decaying(500, 20)).eigenvalues
    for n in (3, 10, 18, 100):
        alpha = default_alpha(values, n, 500)
        dimension = np.sum(values / (values + alpha))
        assert dimension >= min(n, 18) - 1e-6
        capped = alpha == pytest.approx(values.sum() / 500)
        assert capped or dimension == pytest.approx(min(n, 18))
        assert default_alpha(1e30 * values, n, 500) == pytest.approx(1e30 * alpha)
        assert default_alpha(values, n + 1, 500) <= alpha
        assert alpha > least_alpha(values, n)
    assert default_alpha(np.empty(0), 3, 5) == 1.0


@pytest.mark.parametrize("n", [10, 12, 24])
@pytest.mark.slow
def test_dominant_directions_do_not_hide_the_others(n):
    # Here a ridge of a tenth of the mean eigenvalue would exceed whole clusters and miss them.
    data = make_gmm_regression(random_state=0)
    G = GradientSketcher(m=32, random_state=0).fit_transform(data.X)
    selected = VOptimalSelector(n).fit_transform(G)
    assert len(np.unique(data.clusters[selected])) == 8


DEGENERATE = {
    "zeros": np.zeros((9, 3)),
    "ones": np.ones((9, 3)),
    "one row": np.ones((1, 3)),
    "one column": decaying(9, 1),
    "constant column": np.c_[decaying(30, 2), np.ones(30)],
    "four distinct rows": np.repeat(decaying(4, 6), 8, axis=0),
    "rank two": decaying(40, 2) @ np.random.RandomState(1).normal(size=(2, 10)),
    "wide": decaying(10, 100),
    "outlier": np.vstack([decaying(30, 4), np.full((1, 4), 1e6)]),
    "columns decades apart": decaying(40, 6) * 10.0 ** -np.arange(0, 12, 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("X", DEGENERATE.values(), ids=DEGENERATE.keys())
@pytest.mark.parametrize(
    "params",
    [{}, {"init": "greedy"}, {"init": [0]}, {"alpha": 1e-300}, {"alpha": 1e300}, {"tol": 0}],
)
def test_degenerate_input(X, params):
    for n in {1, min(3, len(X)), -(-len(X) // 2), len(X)}:
        for pool in (X, sparse.csr_array(X)):
            selector = VOptimalSelector(n, **params).fit(pool)
            assert len(np.unique(selector.sample_indices_)) == n
            for name in ("objective_", "lower_bound_", "gap_", "alpha_"):
                assert np.isfinite(getattr(selector, name))
            assert 0 <= selector.gap_ <= 1
            assert selector.n_iter_ < selector.max_iter


def test_ties_go_to_the_smaller_position():
    assert VOptimalSelector(3).fit_transform(np.zeros((8, 2))).tolist() == [0, 1, 2]
    assert VOptimalSelector(3, init="greedy").fit_transform(np.ones((8, 2))).tolist() == [0, 1, 2]
    assert VOptimalSelector(1).fit_transform([[1.0], [2.0], [2.0]]).tolist() == [1]


def test_huge_ridge_selects_the_most_energetic_samples():
    X = decaying(50, 3)
    selected = VOptimalSelector(5, alpha=1e6).fit_transform(X)
    energies = np.einsum("ij,jk,ik->i", X, X.T @ X, X)
    assert set(selected) == set(np.argsort(-energies)[:5])


def test_stratify_reports_one_value_per_stratum():
    X, y = decaying(60, 3), np.repeat(["a", "b"], [40, 20])
    selector = VOptimalSelector(9, stratify=True).fit(X, y)
    assert len(selector.objective_) == len(selector.gap_) == len(selector.alpha_) == 2
    with pytest.raises(ValueError, match="with stratify=True"):
        VOptimalSelector(9, stratify=True, init=[1]).fit(X, y)


@pytest.mark.parametrize("kind", ["rows", "columns"])
@pytest.mark.slow
def test_exchanges_are_never_worse_where_rounding_looks_like_an_improvement(kind):
    rng, trials = np.random.RandomState(0), 0
    for _ in range(20):
        X = rng.normal(size=(15, 5))
        X *= 10.0 ** rng.uniform(-6, 6, size=(15, 1) if kind == "rows" else 5)
        problem = Problem(X, np.ones(5), np.full(5, 1e-12))
        start = np.sort(rng.choice(15, 4, replace=False))
        members, n_iter = exchange(problem, start, tol=0.0)
        assert len(np.unique(members)) == 4
        assert objective(problem, members) <= objective(problem, start)
        trials += n_iter > 1
    assert trials


def test_inverse_root_of_a_ridge_below_rounding():
    """A row still covers its own direction, and every other direction has at least the ridge."""
    x, ridge = np.array([3e9, 4e9]), np.full(2, 1e-3)
    root = inverse_root(x[None], ridge)
    assert np.square(root.T @ x).sum() == pytest.approx(1)
    assert np.linalg.norm(root @ root.T, 2) <= (1 + 1e-12) / 1e-3


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-7])
def test_relaxation_reaches_the_requested_tolerance(tol):
    """This close to the minimum, some of the last steps do not improve."""
    for seed in range(3):
        problem = problem_of(decaying(40, 5, seed), 1e-3)
        relaxation = relax(problem, 10, tol=tol)
        moment = (problem.rows.T * relaxation.weights) @ problem.rows + np.diag(problem.ridge)
        value = problem.signal @ np.diag(np.linalg.inv(moment))
        assert value * (1 - tol) <= relaxation.lower_bound <= value * (1 + 1e-12)


def test_exchanges_stop_when_step_returns_true():
    problem = problem_of(decaying(200, 8), 1e-3)
    start = np.arange(20)
    once, n_iter = exchange(problem, start, step=lambda: True)
    assert n_iter == 1
    assert objective(problem, once) < objective(problem, start)


def test_exchanges_start_from_the_rounded_relaxation():
    X = decaying(300, 8)
    problem = problem_of(X, 0.01)
    start = round_largest(relax(problem, 40), 40)
    kept = VOptimalSelector(40, alpha=0.01, max_iter=0).fit(X)
    np.testing.assert_array_equal(kept.sample_indices_, np.sort(start))
    expected, _ = exchange(problem, start)
    selector = VOptimalSelector(40, alpha=0.01).fit(X)
    np.testing.assert_array_equal(selector.sample_indices_, np.sort(expected))
