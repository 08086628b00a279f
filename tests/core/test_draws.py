"""Roundings: inclusion probabilities, balance and spread."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import chi2

from sklearn_skmm.core import _balanced, _draws
from sklearn_skmm.core._balanced import cube, local_cube
from sklearn_skmm.core._draws import (
    ROUNDINGS,
    choice,
    inclusion_probabilities,
    median_cells,
    spread,
    systematic,
)
from sklearn_skmm.core._moments import project_capped_simplex

REPEATS = 5000


def weights(N=40, n=10, seed=0):
    rng = np.random.RandomState(seed)
    return project_capped_simplex(rng.gamma(0.7, size=N) / N * 1.5, 1 / n)


def all_roundings(A, X):
    """Return every rounding as a function of (s, n, rng)."""
    return {
        **ROUNDINGS,
        "cube": lambda s, n, rng: cube(s, n, A, rng),
        "spread": lambda s, n, rng: spread(s, n, X, rng),
        "local_cube": lambda s, n, rng: local_cube(s, n, A, X, rng),
    }


NAMES = sorted(all_roundings(None, None))


def frequencies(rounding, s, n):
    rng = np.random.RandomState(0)
    selected = np.concatenate([rounding(s, n, rng) for _ in range(REPEATS)])
    return np.bincount(selected, minlength=len(s)) / REPEATS


def chi_squared(observed, pi):
    """Return the chi-squared statistic of the items that are not certain, and their number."""
    random = (pi > 1e-9) & (pi < 1 - 1e-9)
    z = (observed - pi)[random] / np.sqrt(pi * (1 - pi) / REPEATS)[random]
    return np.square(z).sum(), random.sum()


def voronoi_balance(X, pi, selected):
    """Return the mean squared deviation from 1 of the π in each Voronoi cell; 0 is perfect."""
    mass = np.bincount(cdist(X, X[selected]).argmin(axis=1), weights=pi, minlength=len(selected))
    return np.square(mass - 1).mean()


def imbalance(A, pi, selected):
    """Return the error of each column's total, relative to the column's largest entry."""
    return np.abs(A[selected].sum(axis=0) - pi @ A) / np.abs(A).max(axis=0)


def test_systematic_includes_with_probability_n_s():
    """`test_statistics.py` covers the other roundings, and other weights."""
    s = weights()
    observed = frequencies(systematic, s, 10)
    statistic, df = chi_squared(observed, 10 * s)
    assert statistic < chi2.ppf(0.999, df)
    np.testing.assert_array_equal(observed[s == 0], 0)
    np.testing.assert_array_equal(observed[s >= 0.1 - 1e-12], 1)


def test_choice_does_not_include_with_probability_n_s():
    statistic, df = chi_squared(frequencies(choice, weights(), 10), 10 * weights())
    assert statistic > 5 * chi2.ppf(0.999, df)


# Difficult columns to balance, or coordinates to spread over, as functions of (N, q, rng).
KINDS = {
    "normal": lambda N, q, rng: rng.normal(size=(N, q)),
    "zero": lambda N, q, rng: np.zeros((N, q)),
    "constant": lambda N, q, rng: np.full((N, q), 0.3),
    "equal rows": lambda N, q, rng: rng.normal(size=(N, q))[rng.randint(1 + N // 4, size=N)],
    "rank one": lambda N, q, rng: np.outer(rng.normal(size=N), np.arange(1, q + 1)),
    "one-hot": lambda N, q, rng: np.eye(q)[rng.randint(q, size=N)],
    "collinear": lambda N, q, rng: rng.normal(size=(N, 1)) + 1e-7 * rng.normal(size=(N, q)),
    "powers": lambda N, q, rng: np.linspace(0, 1, N)[:, None] ** np.arange(q),
    "heavy tails": lambda N, q, rng: rng.standard_cauchy(size=(N, q)) ** 2,
    "sparse": lambda N, q, rng: rng.normal(size=(N, q)) * (rng.uniform(size=(N, q)) < 0.05),
    "decades": lambda N, q, rng: rng.normal(size=(N, q)) * 10.0 ** -np.linspace(0, 30, q),
    "huge": lambda N, q, rng: rng.normal(size=(N, q)) * 1e300,
    "tiny": lambda N, q, rng: rng.normal(size=(N, q)) * 1e-300,
}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_n_distinct_items_from_the_support(name, data):
    N = data.draw(st.integers(1, 40))
    n = data.draw(st.integers(1, N))
    seed = data.draw(st.integers(0, 2**31 - 1))
    q = data.draw(st.integers(1, 45))
    kinds = st.sampled_from(sorted(KINDS))
    rng = np.random.RandomState(seed)
    A, X = (KINDS[data.draw(kinds)](N, q, rng) for _ in range(2))
    s = project_capped_simplex(rng.normal(size=N) * rng.choice([1e-6, 0.1, 10]), 1 / n)
    selected = all_roundings(A, X)[name](s, n, rng)
    assert selected.shape == (n,)
    assert len(np.unique(selected)) == n
    assert np.all(np.diff(selected) > 0)
    assert np.all(s[selected] > 0)


@pytest.mark.parametrize("name", NAMES)
def test_vertex_weights_select_their_support(name):
    s = np.zeros(9)
    s[[1, 4, 8]] = 1 / 3
    rounding = all_roundings(np.eye(9)[:, :2], np.eye(9)[:, :2])[name]
    for seed in range(50):
        np.testing.assert_array_equal(rounding(s, 3, np.random.RandomState(seed)), [1, 4, 8])


@pytest.mark.parametrize("name", NAMES)
def test_all_items_are_selected_when_n_is_N(name):
    A = np.random.RandomState(0).normal(size=(7, 3))
    selected = all_roundings(A, A)[name](np.full(7, 1 / 7), 7, np.random.RandomState(0))
    np.testing.assert_array_equal(selected, np.arange(7))


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_gives_the_same_items_and_inputs_are_unchanged(name):
    rng = np.random.RandomState(0)
    A, X, s = rng.normal(size=(60, 3)), rng.normal(size=(60, 2)), np.full(60, 1 / 60)
    for array in (A, X, s):
        array.setflags(write=False)
    first, second = (all_roundings(A, X)[name](s, 9, np.random.RandomState(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("rounding", [cube, local_cube])
@pytest.mark.parametrize(("N", "q", "n"), [(60, 3, 8), (500, 10, 60), (3000, 33, 200)])
@pytest.mark.slow
def test_landing_bounds_the_imbalance(rounding, N, q, n):
    rng = np.random.RandomState(0)
    A = rng.normal(size=(N, q)) ** 2
    X = () if rounding is cube else (rng.normal(size=(N, 3)),)
    errors = []
    for s in (np.full(N, 1 / N), weights(N, n), inclusion_probabilities(A[:, 0], n) / n):
        errors += [imbalance(A, n * s, rounding(s, n, A, *X, rng)) for _ in range(3)]
    assert np.max(errors) < q + 1
    # At most q + 1 last items are rounded independently: errors add up like a random walk.
    assert np.mean(errors) < np.sqrt(q + 1) / 2


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("rounding", [cube, local_cube])
def test_difficult_columns_are_balanced(rounding, kind):
    N, q, n = 1200, 20, 150
    rng = np.random.RandomState(0)
    A, s = KINDS[kind](N, q, rng), weights(N, n)
    X = () if rounding is cube else (rng.normal(size=(N, 3)),)
    selected = rounding(s, n, A, *X, rng)
    assert len(np.unique(selected)) == n
    A = A[:, np.any(A != 0, axis=0)]
    assert np.all(imbalance(A, n * s, selected) < q + 1)


def test_cube_beats_systematic_on_balance():
    N, q, n = 2000, 8, 200
    rng = np.random.RandomState(0)
    A, s = rng.normal(size=(N, q)), np.full(N, 1 / N)
    ours = np.mean([imbalance(A, n * s, cube(s, n, A, rng)) for _ in range(20)])
    theirs = np.mean([imbalance(A, n * s, systematic(s, n, rng)) for _ in range(20)])
    assert ours < theirs / 5


def test_cube_selects_from_each_stratum_in_proportion():
    """With disjoint strata, landing rounds one item in each, so counts are off by at most 1."""
    rng = np.random.RandomState(0)
    stratum = rng.randint(12, size=600)
    A, s = np.eye(12)[stratum], weights(600, 70)
    for _ in range(20):
        counts = np.bincount(stratum[cube(s, 70, A, rng)], minlength=12)
        assert np.all(np.abs(counts - 70 * s @ A) < 1 + 1e-9)
    # Expected counts that are integers are met exactly.
    stratum = np.repeat(np.arange(12), 50)
    for _ in range(20):
        selected = cube(np.full(600, 1 / 600), 60, np.eye(12)[stratum], rng)
        np.testing.assert_array_equal(np.bincount(stratum[selected]), 5)


@pytest.mark.slow
def test_landing_drops_the_last_columns_first():
    N, q, n = 1000, 24, 100
    rng = np.random.RandomState(0)
    A, s = rng.normal(size=(N, q)), np.full(N, 1 / N)
    errors = np.mean([imbalance(A, n * s, cube(s, n, A, rng)) for _ in range(40)], axis=0)
    assert errors[:4].mean() < 0.7 * errors[-4:].mean()


@pytest.mark.parametrize(("n_rows", "n_columns"), [(5, 2), (5, 4), (5, 7)])
def test_null_vector_is_orthogonal_to_the_first_columns(n_rows, n_columns):
    rows = np.random.RandomState(0).normal(size=(n_rows, n_columns))
    rows[:, 1] = 2 * rows[:, 0]
    v = _balanced._null_vector(rows)
    assert v @ v == pytest.approx(1)
    np.testing.assert_allclose(v @ rows[:, :5], 0, atol=1e-12)
    if n_columns > 5:
        assert np.abs(v @ rows[:, 5:]).min() > 1e-3


def test_inaccurate_inverse_is_corrected():
    rng = np.random.RandomState(0)
    rows = rng.normal(size=(8, 4))
    members = np.array([[0, 1, 2, 3, 7], [4, -1, 5, 6, 7]])
    bases = rows[[[0, 1, 2, 3], [4, 0, 5, 6]]].transpose(0, 2, 1)
    bases[1, :, 1] = np.eye(4)[1]
    for error in (1e-6, 10.0):
        inverse = np.zeros((2, 5, 4))
        inverse[:, :-1] = np.linalg.inv(bases) + error * rng.normal(size=(2, 4, 4))
        _balanced._refresh(inverse, rows, members)
        np.testing.assert_allclose(
            bases @ inverse[:, :-1], np.tile(np.eye(4), (2, 1, 1)), atol=1e-9
        )


@pytest.mark.parametrize(("name", "times"), [("spread", 3), ("local_cube", 2.5)])
def test_spread_roundings_spread_better_than_systematic(name, times):
    N, n = 400, 40
    s, rng = np.full(N, 1 / N), np.random.RandomState(0)
    ours, theirs = [], []
    for _ in range(60):
        X = rng.uniform(size=(N, 2))
        ours.append(voronoi_balance(X, n * s, all_roundings(X, X)[name](s, n, rng)))
        theirs.append(voronoi_balance(X, n * s, systematic(s, n, rng)))
    assert np.mean(ours) < np.mean(theirs) / times


@pytest.mark.slow
def test_spread_within_cells_is_nearly_as_good(monkeypatch):
    N, n = 1500, 60
    X, s = np.random.RandomState(0).uniform(size=(N, 2)), np.full(N, 1 / N)

    def mean_balance():
        rng = np.random.RandomState(0)
        return np.mean([voronoi_balance(X, n * s, spread(s, n, X, rng)) for _ in range(15)])

    exact = mean_balance()
    monkeypatch.setattr(_draws, "MAX_EXACT", 300)
    monkeypatch.setattr(_draws, "MAX_CELL", 100)
    assert mean_balance() < 1.3 * exact


def test_equal_rows_are_never_both_selected():
    rng = np.random.RandomState(0)
    X = np.repeat(rng.normal(size=(30, 4)), 2, axis=0)
    X[0], X[1] = 0.0, -0.0
    order = rng.permutation(60)
    s = inclusion_probabilities(rng.uniform(1, 2, size=60), 18) / 18
    assert 18 * s.max() <= 1 / 2
    group = np.repeat(np.arange(30), 2)[order]
    for _ in range(200):
        selected = spread(s, 18, X[order], rng)
        assert len(np.unique(group[selected])) == 18


def test_equal_rows_are_selected_in_proportion_to_their_number():
    rng = np.random.RandomState(0)
    group = np.repeat(np.arange(8), np.arange(1, 9))
    X, s = rng.normal(size=(8, 2))[group], np.full(36, 1 / 36)
    expected = np.arange(1, 9) / 4
    for _ in range(100):
        counts = np.bincount(group[spread(s, 9, X, rng)], minlength=8)
        assert np.all(counts >= np.floor(expected))
        assert np.all(counts <= np.ceil(expected))


def test_median_cells_partition_the_items_and_are_compact():
    rng = np.random.RandomState(0)
    X, items = rng.uniform(size=(500, 2)), np.arange(100, 500)
    parts = median_cells(X, items, 50, rng)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), items)
    assert all(25 <= len(part) <= 50 for part in parts)
    within = np.mean(
        [np.square(X[part] - X[part].mean(axis=0)).sum(axis=1).mean() for part in parts]
    )
    assert within < 0.25 * np.square(X - X.mean(axis=0)).sum(axis=1).mean()


def test_distances_are_symmetric_to_the_last_bit():
    # Otherwise there may be no two items that are each other's nearest neighbours.
    X = np.random.RandomState(0).normal(size=(301, 17))
    distances = _draws._squared_distances(X)
    np.testing.assert_array_equal(distances, distances.T)


def test_inclusion_probabilities_of_scores_whose_sum_overflows():
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(inclusion_probabilities(np.full(3, 1e308), 2), 2 / 3)
        pi = inclusion_probabilities(np.array([1e308, 1.2e308, 8e307, 5e307]), 2)
    np.testing.assert_allclose(pi, np.array([10, 12, 8, 5]) * 2 / 35)
    single = np.full(3, 3e38, dtype=np.float32)  # in double precision nothing overflows
    np.testing.assert_allclose(inclusion_probabilities(single, 2), 2 / 3, rtol=1e-6)


class FixedRandomState:
    """A stub of RandomState with a fixed uniform number and the identity permutation."""

    def __init__(self, uniform):
        self.uniform, self.permutation = lambda: uniform, np.arange


def test_systematic_at_both_ends_of_the_uniform_range():
    s = np.array([0.0, 1 / 3, 1 / 3, 1 / 3])
    for uniform in (0.0, 1 - 2.0**-53):
        np.testing.assert_array_equal(systematic(s, 3, FixedRandomState(uniform)), [1, 2, 3])
    s = np.full(8, 1 / 8)  # n - 1 + u rounds to n
    np.testing.assert_array_equal(systematic(s, 4, FixedRandomState(1 - 2.0**-53))[-1], 7)


def test_systematic_accepts_weights_of_any_sum_and_precision():
    s = np.random.RandomState(0).uniform(0.5, 1, size=200_000)
    s /= s.sum()
    expected = systematic(s, 1000, np.random.RandomState(1))
    np.testing.assert_array_equal(systematic(8 * s, 1000, np.random.RandomState(1)), expected)
    single = s.astype(np.float32)
    expected = systematic(single.astype(float), 1000, np.random.RandomState(1))
    np.testing.assert_array_equal(systematic(single, 1000, np.random.RandomState(1)), expected)


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_spread_of_two_items(p):
    s, X, rng = np.array([p, 1 - p]), np.array([[0.0], [1.0]]), np.random.RandomState(0)
    selected = np.array([spread(s, 1, X, rng) for _ in range(2000)])
    assert selected.shape == (2000, 1)
    assert abs(selected.mean() - (1 - p)) < 4 * np.sqrt(p * (1 - p) / 2000)


@pytest.mark.parametrize("N", [40, 41, 300])
def test_spread_leaves_a_quarter_of_each_cell_to_the_next_round(monkeypatch, N):
    calls, pivot = [], _draws._pivot_neighbours

    def recorded(pi, X, stop, rng):
        calls.append((len(pi), stop))
        return pivot(pi, X, stop, rng)

    monkeypatch.setattr(_draws, "_pivot_neighbours", recorded)
    monkeypatch.setattr(_draws, "MAX_EXACT", 40)
    monkeypatch.setattr(_draws, "MAX_CELL", 11)
    rng = np.random.RandomState(0)
    spread(np.full(N, 1 / N), N // 9, rng.normal(size=(N, 2)), rng)
    *cells, last = calls
    assert last[0] <= 40
    assert last[1] == 1
    assert all(5 <= size <= 11 and stop == size // 4 for size, stop in cells)
    assert bool(cells) == (N > 40)


def test_median_cells_may_have_the_maximum_size():
    X = np.random.RandomState(0).normal(size=(24, 2))
    parts = median_cells(X, np.arange(24), 12, np.random.RandomState(0))
    assert [len(part) for part in parts] == [12, 12]


def test_cells_are_split_across_the_widest_direction():
    rng = np.random.RandomState(0)
    # Columns are centred, so offsets do not matter.
    X = rng.normal(size=(200, 3)) * [5.0, 0.1, 0.1] + [0.0, 1e4, -1e4]
    direction = np.abs(_draws._wide_direction(X, rng))
    assert direction[0] > 0.99


def test_probabilities_near_0_and_1_are_snapped():
    edge = _draws.EDGE
    s = np.array([0.0, edge, 0.5 * edge, 0.25, 0.75, 1 - edge, 1 - 0.5 * edge, 1.0])
    pi = _draws.snapped_probabilities(3 * s, s.sum())
    np.testing.assert_array_equal(pi[[0, 2, 6, 7]], [0, 0, 1, 1])
    np.testing.assert_allclose(pi[3:5], [0.25, 0.75])
    np.testing.assert_array_equal(
        _draws.snapped_probabilities(np.array([edge, 1 - edge]), 1), [0, 1]
    )
    assert _draws.snapped_probabilities(np.full(4, 0.25, dtype=np.float32), 2).dtype == float
    is_undecided = _draws.is_undecided(np.array([0.0, edge, 2 * edge, 1 - 2 * edge, 1 - edge, 1.0]))
    np.testing.assert_array_equal(is_undecided, [False, False, True, True, False, False])


def test_at_most_one_of_equal_rows_stays_undecided():
    rng = np.random.RandomState(0)
    # Equal up to the sign of zero; equal in one column; nearly equal; three equal rows.
    X = np.array([[0.0, 1], [-0.0, 1], [0, 2], [1e-20, 3], [2e-20, 3], [7, 7], [7, 7], [7, 7]])
    group = np.array([0, 0, 1, 2, 3, 4, 4, 4])
    for _ in range(50):
        before = rng.uniform(0.1, 0.9, size=8)
        pi = before.copy()
        _draws._pivot_equal_rows(pi, X, rng)
        np.testing.assert_allclose(np.bincount(group, pi), np.bincount(group, before))
        assert np.bincount(group, _draws.is_undecided(pi)).max() <= 1
        np.testing.assert_array_equal(pi[2:5], before[2:5])


def test_pivoting_stops_when_few_items_are_undecided():
    rng = np.random.RandomState(0)
    X, pi = rng.normal(size=(12, 2)), rng.uniform(0.2, 0.4, size=12)
    np.testing.assert_array_equal(_draws._pivot_neighbours(pi, X, 12, rng), pi)
    after = _draws._pivot_neighbours(pi, X, 11, rng)
    assert 6 <= np.count_nonzero(_draws.is_undecided(after)) <= 11
    assert after.sum() == pytest.approx(pi.sum())


def test_pivotal_steps_are_independent_and_keep_the_sum():
    rng = np.random.RandomState(0)
    first, second = np.arange(500), np.arange(500, 1000)
    before = np.repeat(rng.uniform(size=2 * 500)[None], 400, axis=0)
    after = before.copy()
    for pi in after:
        _draws._pivotal_step(pi, first, second, rng)
    joint = before[:, first] + before[:, second]
    np.testing.assert_allclose(after[:, first] + after[:, second], joint)
    higher = np.maximum(after[:, first], after[:, second])
    np.testing.assert_allclose(higher, np.minimum(joint, 1.0))
    assert after.min() >= 0
    np.testing.assert_allclose(after.mean(axis=0), before[0], atol=4.5 * 0.5 / np.sqrt(400))
    # Pairs use independent random numbers, so the mean is kept over the pairs, too.
    assert np.abs((after - before)[:, first].mean(axis=1)).max() < 4.5 * 0.5 / np.sqrt(500)


@pytest.mark.parametrize("offset", [0.0, 1e6 * np.arange(5)])
def test_distances_are_those_of_scaled_rows(offset):
    X = np.random.RandomState(0).normal(size=(30, 5)) + offset
    expected = cdist(X, X, "sqeuclidean") / np.square(np.abs(X - X.mean(axis=0)).max())
    np.fill_diagonal(expected, np.inf)
    np.testing.assert_allclose(_draws._squared_distances(X), expected, rtol=1e-6)
