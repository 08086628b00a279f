"""Exemplars and their costs compared with plain greedy selection and loops at small size."""

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist, pdist

from sklearn_skmm.core import _costs, _exemplars

METRICS = ["gaussian", "euclidean", "sqeuclidean"]
PROBLEMS = {
    "plain": [(60, 20), (1200, 12)],
    "weights": [(60, 40), (513, 20)],
    "duplicates": [(61, 15), (600, 25)],
}
equal, close = np.testing.assert_array_equal, np.testing.assert_allclose


def gaussian(N, d, seed=0):
    return np.random.RandomState(seed).normal(size=(N, d))


def cost_matrix(X, metric, h):
    if metric == "gaussian":
        return -np.expm1(-cdist(X, X, "sqeuclidean") / (2 * h**2))
    return cdist(X, X, metric)


def plain_greedy(C, n, weight, metric):
    """Select greedily on the whole cost matrix; of ties, the first.

    Without an exemplar the cost is 1 for the Gaussian, else the largest cost.
    """
    baseline = 1.0 if metric == "gaussian" else C.max()
    current, selected = np.full(len(C), baseline), []
    while len(selected) < n:
        gains = weight @ np.maximum(current[:, None] - C, 0.0)
        gains[selected] = -1.0
        selected.append(int(np.argmax(gains >= gains.max() - 1e-12 * weight @ C.max(axis=1))))
        current = np.minimum(current, C[:, selected[-1]])
    return selected, weight @ current / weight.sum()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("size", [0, 1])
def test_exemplars_equal_plain_greedy(metric, kind, size, monkeypatch):
    N, n = PROBLEMS[kind][size]
    rng = np.random.RandomState(N + n)
    X = rng.normal(size=(N, 3)) + 5.0
    if kind == "duplicates":
        X = X[rng.randint(N // 3, size=N)]
    weight = rng.gamma(1.0, size=N) if kind == "weights" else np.ones(N)
    C = cost_matrix(X, metric, 0.7)
    selected, value = plain_greedy(C, n, weight, metric)
    keywords = {"metric": metric, "bandwidth": 0.7, "weight": weight}
    result = _exemplars.greedy_exemplars(X, n, **keywords)
    equal(result.indices, selected)
    assert result.objective == pytest.approx(value, rel=1e-7)
    assert result.counts.sum() == pytest.approx(weight.sum())
    if kind != "duplicates":
        close(result.counts, np.bincount(np.argmin(C[:, selected], axis=1), weight, n))
    equal(_exemplars.greedy_exemplars(sparse.csr_array(X), n, **keywords).indices, selected)
    monkeypatch.setattr(_costs, "CACHE_BYTES", 3 * 8 * N)
    equal(_exemplars.greedy_exemplars(X, n, **keywords).indices, selected)


class Blurred(_costs.Costs):
    """Costs whose errors reach their bounds, which hardly ever happens in practice."""

    blur = 0.01

    def __init__(self, *args):
        super().__init__(*args)
        N = len(self.errors)
        self.errors = self.errors + self.blur  # in addition to the error of single precision
        self.signs = np.random.RandomState(N).choice([-1.0, 1.0], size=N)

    def __call__(self, rows, columns, fast=False):
        block = super().__call__(rows, columns, fast)
        if not fast:
            return block
        # All costs of one candidate are too large, and all those of another too small. If all
        # columns are requested, the candidates are the rows.
        candidates = self.signs[rows][:, None] if columns == slice(None) else self.signs[columns]
        return block + 2.0 * self.blur * candidates

    def errors_of(self, j, column):
        return self.errors + self.errors[j]


@pytest.mark.parametrize("blur", [0.01, 0.2])
def test_gains_lie_between_their_bounds(blur, monkeypatch):
    monkeypatch.setattr(Blurred, "blur", blur)
    for N in range(60, 64):
        X, weight = gaussian(N, 2, N), np.random.RandomState(N).gamma(1.0, size=N)
        C = cost_matrix(X, "gaussian", 1.0)
        costs = Blurred(X, "gaussian", 1.0)
        search = _exemplars._LazyGreedy(costs, _exemplars._Nearest(costs, np.ones(N)), weight)
        for _ in range(10):
            low = search.tighten()
            left = search.bounds > -np.inf
            gains = weight @ np.maximum(search.nearest.exact()[:, None] - C, 0.0)
            assert np.all(low <= gains + 1e-9)
            assert np.all(search.bounds[left] >= gains[left] - 1e-9)
            assert np.isfinite(low).any()
            search.add_next()


@pytest.mark.parametrize("metric", ["gaussian", "sqeuclidean"])
def test_errors_within_the_bounds_do_not_change_the_selection(metric, monkeypatch):
    monkeypatch.setattr(_exemplars, "Costs", Blurred)
    for N in range(60, 66):
        X, weight = gaussian(N, 2, N), np.ones(N)
        selected, _ = plain_greedy(cost_matrix(X, metric, 1.0), 15, weight, metric)
        for budget in (_costs.CACHE_BYTES, 0):
            with monkeypatch.context() as patch:
                patch.setattr(_costs, "CACHE_BYTES", budget)
                equal(_exemplars.greedy_exemplars(X, 15, metric=metric).indices, selected)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_ties_of_the_first_exemplar_do_not_depend_on_the_scale(metric):
    # Each row ties with its mirror image, and the first of the two must be selected.
    rows = gaussian(8, 2)
    X = np.concatenate([rows, -rows])
    selected = _exemplars.greedy_exemplars(X, 4, metric=metric).indices
    assert selected[0] in range(1, 8)
    for exponent in (-30, 30):
        scaled = _exemplars.greedy_exemplars(X * 2.0**exponent, 4, metric=metric)
        equal(scaled.indices, selected)


def test_search_stops_once_all_rows_are_represented(monkeypatch):
    n_columns, get = [], _costs.Columns.get

    def count(self, wanted):
        n_columns.append(len(wanted))
        return get(self, wanted)

    monkeypatch.setattr(_costs.Columns, "get", count)
    X = np.repeat(gaussian(3, 2), 20, axis=0)
    # Not in single precision, which cannot tell a gain of zero from rounding.
    selected = _exemplars.greedy_exemplars(X, 9, metric="euclidean").indices
    equal(np.sort(selected[:3] // 20), range(3))
    assert n_columns[-5:] == [1] * 5  # the columns of the exemplars themselves


def test_default_bandwidth_is_one():
    X = gaussian(30, 2)
    selected, value = plain_greedy(cost_matrix(X, "gaussian", 1.0), 5, np.ones(30), "gaussian")
    result = _exemplars.greedy_exemplars(X, 5)
    equal(result.indices, selected)
    assert result.objective == pytest.approx(value)


@pytest.mark.parametrize("size", [5, 1000])
def test_median_distance_is_that_of_a_subsample(size):
    X = gaussian(size + 1, 3)
    subsample = X[np.random.RandomState(0).choice(size + 1, size, replace=False)]
    keywords = {} if size == 1000 else {"size": size}  # 1000 is the default
    value = _costs.median_distance(X, np.random.RandomState(0), **keywords)
    assert value == pytest.approx(np.median(pdist(subsample)), rel=1e-12)
    rng = np.random.RandomState(0)  # no sampling: the generator does not advance
    value = _costs.median_distance(X[1:], rng, **keywords)
    assert value == pytest.approx(np.median(pdist(X[1:])), rel=1e-12)
    assert rng.uniform() == np.random.RandomState(0).uniform()


def test_median_distance_of_equal_rows():
    rng = np.random.RandomState(0)
    assert _costs.median_distance(np.ones((1, 2)), rng) == 1.0
    assert _costs.median_distance(np.ones((4, 2)), rng) == 1.0
    X = np.array([[0.0], [0.0], [0.0], [0.0], [5.0]])
    assert _costs.median_distance(X, rng) == pytest.approx(4 * 5 / 10)
    assert _costs.median_or_mean(np.array([])) == _costs.median_or_mean(np.zeros(3)) == 1.0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array, sparse.csr_matrix])
@pytest.mark.parametrize("h", [0.1, 0.7, 30.0])
def test_costs_and_their_bounds(metric, kind, h, monkeypatch):
    """Exact costs are correct and fast costs within their errors, for all pairs and in blocks."""
    monkeypatch.setattr(_costs, "BLOCK", 4)  # more blocks than tasks
    N = 50
    X = gaussian(N, 3) * 0.3
    X[7], X[9] = X[8], 20.0
    C = cost_matrix(X, metric, h)
    costs = _costs.Costs(kind(X), metric, h)
    assert sparse.issparse(costs.X) == (kind is not np.asarray)
    single = metric != "euclidean"
    assert costs.single == single
    rows, columns = slice(5, 40), [3, 7, 8, 9]
    exact, fast = costs(rows, columns), costs(rows, columns, fast=True)
    close(exact, C[rows][:, columns], atol=1e-10)
    assert type(exact) is type(fast) is np.ndarray
    assert exact.dtype == float
    assert costs.dtype == (np.float32 if single else np.float64)
    assert fast.dtype == costs.dtype
    assert exact[3, 1] == exact[2, 2] == 0.0
    error = costs.errors[rows, None] + costs.errors[columns]
    assert np.all(np.abs(fast - C[rows][:, columns]) <= error + 1e-10)
    for j in range(N):
        column = costs(slice(None), [j], fast=True)[:, 0]
        errors = costs.errors_of(j, column)
        assert np.all(np.abs(column - C[:, j]) <= errors + 1e-10)
        # At most the sum of both samples' errors, up to the rounding of the cost itself.
        together = costs.errors + costs.errors[j]
        assert np.all(errors <= 1.1 * together + 2e-7)
        if metric == "gaussian" and h == 0.1:  # certainly far apart
            assert np.all(errors[column == 1.0] <= 3e-7)
    # Blocks have the requested precision, kept or not.
    weight, current = np.random.RandomState(0).gamma(1.0, size=N), C[:, [1, 9]].min(axis=1)
    close(costs.totals(weight), weight @ C, rtol=1e-9)
    gains = weight @ np.maximum(current[:, None] - C, 0.0)
    blur = np.random.RandomState(1).uniform(size=N)
    slack = 2 * (weight @ costs.errors + weight.sum() * costs.errors)
    for costs.keeps_all in (False, True, True):
        assert {block.dtype for *_, block in costs.pairs_of_blocks(True)} == {np.dtype(costs.dtype)}
        assert {block.dtype for *_, block in costs.pairs_of_blocks(False)} == {np.dtype(float)}
        bounds = costs.gain_bounds(current, np.zeros(N), weight)
        assert np.all(bounds >= gains)
        close(costs.gain_bounds(current, blur, weight), bounds + weight @ blur)
        assert np.all(bounds <= gains * 1.001 + slack + 1e-9)
    close(costs.kept_column(21), costs(slice(None), [21], fast=True)[:, 0], rtol=1e-5, atol=1e-6)


def test_errors_of_fast_costs():
    X, eps = gaussian(20, 4), np.finfo(np.float32).eps
    squares = (np.sqrt(4) + 4) * eps * np.square(X - X.mean(axis=0)).sum(axis=1)
    close(_costs.Costs(X, "sqeuclidean", 3.0).errors, squares)
    close(_costs.Costs(X, "gaussian", 3.0).errors, squares / 18 + eps / 2)
    equal(_costs.Costs(X, "euclidean", 3.0).errors, 0.0)
    for scale, single in ((1e-9, False), (1e-2, True), (1e9, False)):
        for metric in ("gaussian", "sqeuclidean"):
            assert _costs.Costs(X * scale, metric, scale).single == single


def test_errors_of_a_candidate():
    """An error of δ in the exponent changes exp(-e) to at most exp(δ - e)."""
    eps = np.finfo(np.float32).eps
    X = gaussian(4, 2)
    column = np.array([0.0, 0.5, 0.9, 1.0], dtype=np.float32)
    costs = _costs.Costs(X, "gaussian", 1.0)
    costs.growth = np.exp([0.1, 2.0, 30.0, 40.0])
    grown = np.expm1([0.2, 2.1, 30.1, 40.1])
    close(costs.errors_of(0, column), (1.0 + eps - column) * grown + eps, rtol=1e-9)
    costs = _costs.Costs(X, "sqeuclidean", 1.0)
    equal(costs.errors_of(1, column), costs.errors + costs.errors[1])
    equal(_costs.Costs(X, "euclidean", 1.0).errors_of(1, column), 0.0)


def test_distances_of_short_rows_next_to_long_ones_are_accurate():
    # Two cases: few pairs are this near, or most are.
    for n_long, n_short in ((30, 3), (1, 19)):
        long, short = gaussian(n_long, 2), 1e-8 * gaussian(n_short, 2, 1)
        X = np.concatenate([long, -long, short, -short])
        squared, few = _costs.squared_distances(X), X[2 * n_long :]
        close(squared[2 * n_long :, 2 * n_long :], cdist(few, few, "sqeuclidean"), rtol=1e-6)
        assert np.all(squared + np.eye(len(X)) > 0.0)


def test_distances_within_rounding_are_zero():
    """Rows count as equal up to eight units in the last place of their norms, not beyond."""
    eps, half = np.finfo(float).eps, np.full(3, 0.5)
    units = np.array([7.5, 8.0, 8.5])
    squared = _costs.squared_from_products(half - units * eps / 2, half, half)
    equal(squared, np.where(units > 8, units * eps, 0.0))


@pytest.mark.parametrize("copies", [1, 30])
def test_only_equal_rows_are_at_distance_zero(copies):
    X = gaussian(40, 3) + 1e4
    X[:copies] = X[-1]
    squared = _costs.squared_distances(X)
    same = (X[:, None] == X).all(axis=2)
    equal(squared == 0.0, same)
    close(squared, cdist(X, X, "sqeuclidean"), atol=1e-6)


def test_bound_of_a_zero_gain_is_the_error_of_the_costs():
    X, weight = gaussian(30, 3), np.random.RandomState(0).gamma(1.0, size=30)
    costs = _costs.Costs(X, "sqeuclidean", 1.0)
    blur = costs.errors[::-1]
    errors = weight @ (blur[:, None] + costs.errors[:, None] + costs.errors)
    close(costs.gain_bounds(np.zeros(30), blur, weight), errors)


@pytest.mark.parametrize("metric", METRICS)
def test_costs_far_from_zero(metric):
    X = gaussian(30, 3) + np.array([1e8, -3e7, 0.0])
    costs = _costs.Costs(X, metric, 0.7)
    everything = np.arange(30)
    close(costs(everything, everything), cost_matrix(X, metric, 0.7), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_costs_are_never_negative(metric):
    X = np.repeat(gaussian(40, 30) * 1e3, 2, axis=0)
    costs = _costs.Costs(X, metric, 100.0)
    for fast in (False, True):
        block = costs(np.arange(0, 80, 2), np.arange(1, 80, 2), fast=fast)
        assert block.min() >= 0


@pytest.mark.parametrize("metric", METRICS)
def test_cached_costs_fit_the_budget(metric, monkeypatch):
    monkeypatch.setattr(_costs, "BLOCK", 8)
    X = gaussian(16, 3)
    itemsize = 8 if metric == "euclidean" else 4
    triangle = 3 * 8 * 8 * itemsize  # three blocks
    for spare in (0, -1):
        monkeypatch.setattr(_costs, "CACHE_BYTES", triangle + spare)
        costs = _costs.Costs(X, metric, 1.0)
        assert costs.keeps_all == (spare == 0)
    for budget, capacity in ((3 * 16 * itemsize + 1, 3), (1, 1)):
        monkeypatch.setattr(_costs, "CACHE_BYTES", budget)
        costs = _costs.Costs(X, metric, 1.0)
        columns = _costs.Columns(costs)
        for wanted in ([4], [1, 2], [2, 4, 7, 9], [0, 9]):
            for j, column in zip(wanted, columns.get(np.array(wanted)), strict=True):
                close(column, costs(slice(None), [j])[:, 0], atol=1e-5)
                assert column.dtype == costs.dtype
            assert len(columns.kept) <= capacity
        assert len(columns.kept) == capacity


@pytest.mark.parametrize("metric", METRICS)
def test_exact_costs_are_updated_in_blocks(metric, monkeypatch):
    monkeypatch.setattr(_exemplars, "EXACT_COLUMNS", 3)
    X = gaussian(30, 2)
    X[12], X[5] = X[3], X[3]
    costs = _costs.Costs(X, metric, 0.7)
    nearest = _exemplars._Nearest(costs, np.full(30, np.inf))
    assert nearest.fast.dtype == costs.dtype
    selected = [3, 12, 8, 20, 5, 1, 9, 11]
    for batch in (selected[:7], selected[7:]):
        for j in batch:
            nearest.add(j, costs(slice(None), [j], fast=True)[:, 0])
        C = cost_matrix(X, metric, 0.7)[:, nearest.indices]
        close(nearest.exact(), C.min(axis=1), atol=1e-12)
        close(nearest.fast, C.min(axis=1), atol=1e-5)
        assert np.all(np.abs(nearest.fast - C.min(axis=1)) <= nearest.error_bounds + 1e-12)
        equal(nearest.label, C.argmin(axis=1))  # of ties, the first


def test_error_bounds_include_errors_of_earlier_columns():
    costs = _costs.Costs(np.zeros((4, 1)), "sqeuclidean", 1.0)
    nearest = _exemplars._Nearest(costs, np.array([2.0, 2.0, 2.0, 2.0]))
    for column, error in ([1.0, 3.0, 5.0, 2.0], 1.5), ([0.5, 1.5, 1.5, 2.0], 0.25):
        costs.errors = np.full(4, error / 2)
        nearest.add(0, np.array(column))
    # By the first column, the first cost is at least 1 - 1.5 = -0.5, which is 1 below its current
    # value, and the last is at least 2 - 1.5 = 0.5. The others have the error of the second column.
    equal(nearest.fast, [0.5, 1.5, 1.5, 2.0])
    equal(nearest.error_bounds, [1.0, 0.25, 0.25, 1.5])


@pytest.mark.parametrize(("budget", "times"), [(_costs.CACHE_BYTES, 2), (0, 8)])
def test_exemplars_of_isolated_samples_compute_few_columns(budget, times, monkeypatch):
    """Many samples cover only themselves and tie: each is evaluated a few times, not every time."""
    monkeypatch.setattr(_costs, "CACHE_BYTES", budget)
    columns, compute = [], _costs.Costs.__call__

    def count(self, rows, wanted, fast=False):
        if not isinstance(wanted, slice):
            columns.append(len(wanted))
        return compute(self, rows, wanted, fast)

    N, n = 400, 200
    X = gaussian(N, 8) * np.exp(2.0 * np.random.RandomState(1).normal(size=(N, 1)))
    h = _costs.median_distance(X, np.random.RandomState(0)) / 2
    selected, value = plain_greedy(cost_matrix(X, "gaussian", h), n, np.ones(N), "gaussian")
    monkeypatch.setattr(_costs.Costs, "__call__", count)
    result = _exemplars.greedy_exemplars(X, n, bandwidth=h)
    equal(result.indices, selected)
    assert result.objective == pytest.approx(value)
    assert sum(columns) <= times * N


@pytest.mark.parametrize("dtype", [float, np.float32])
def test_squared_distances(dtype):
    X = (gaussian(30, 3) + np.array([3e5, -3e5, 0.0])).astype(dtype)
    X[7] = X[4]
    squared = _costs.squared_distances(X)
    assert squared.dtype == float
    close(squared, cdist(X.astype(float), X.astype(float), "sqeuclidean"), rtol=1e-9, atol=1e-12)
    assert squared[4, 7] == squared[7, 4] == 0.0
    equal(squared.diagonal(), 0.0)


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix])
def test_squared_distances_of_sparse_rows(kind):
    X = gaussian(30, 3).astype(np.float32)
    X[X < 0.3] = 0.0
    squared = _costs.squared_distances(kind(X))
    assert type(squared) is np.ndarray
    assert squared.dtype == float
    close(squared, cdist(X.astype(float), X.astype(float), "sqeuclidean"), atol=1e-12)


@pytest.mark.parametrize("seed", [7, 14, 17, 25])
def test_exemplars_with_a_distant_heavy_outlier_are_greedy(seed):
    """The error of the nearest exemplar's costs counts, too; with it the selection is greedy."""
    rng = np.random.RandomState(seed)
    X, weight = rng.normal(size=(200, 5)), np.ones(200)
    X[0], weight[0] = [1e4, 0, 0, 0, 0], 300.0
    selected = _exemplars.greedy_exemplars(X, 20, metric="sqeuclidean", weight=weight).indices
    C = cdist(X, X, "sqeuclidean")
    current = C[:, selected[0]]
    tie = 2e-12 * (weight @ current)
    for j in selected[1:]:
        gains = weight @ np.maximum(current[:, None] - C, 0.0)
        assert gains[j] >= gains.max() - tie
        current = np.minimum(current, C[:, j])


@pytest.mark.parametrize("kind", ["plain", "weights", "duplicates"])
def test_dense_greedy_equals_plain_greedy(kind):
    calls = []
    for seed in range(4):
        X, weight = gaussian(40, 2, seed), np.full(40, 2.0)
        if kind == "duplicates":
            X = X[np.random.RandomState(seed).randint(15, size=40)]
            weight *= 1e7 / 3  # equal gains differ by rounding that is not small in absolute terms
        elif kind == "weights":
            weight = np.random.RandomState(seed).gamma(1.0, size=40)
        for n in (1, 12):
            squared = _costs.squared_distances(X)
            selected = _exemplars.greedy_exemplars_dense(
                squared, n, 0.7, weight, lambda: calls.append(0)
            ).indices
            equal(selected, plain_greedy(cost_matrix(X, "gaussian", 0.7), n, weight, "gaussian")[0])
            assert selected.dtype == int
    assert len(calls) == 4 * (1 + 12)
    # Once all distinct rows are selected, the remaining samples follow, each once.
    selected = _exemplars.greedy_exemplars_dense(
        _costs.squared_distances(X), 40, 0.7, weight
    ).indices
    equal(np.sort(selected), np.arange(40))
