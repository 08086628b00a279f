"""Results in blocks, in single precision and in two steps equal those of plain references."""

import subprocess
import sys
import tracemalloc
from contextlib import closing

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from sklearn_skmm import SkMMSelector, UniformSelector
from sklearn_skmm.core import (
    _balanced_cells,
    _blocks,
    _cells,
    _costs,
    _exemplar_cells,
    _exemplar_layout,
    _exemplars,
)
from sklearn_skmm.core._balanced_cells import balanced_cells
from sklearn_skmm.core._blocks import dot, mean_squared_norm, row_blocks, weighted_block_sum
from sklearn_skmm.core._components import Components, Energies
from sklearn_skmm.core._draws import inclusion_probabilities
from sklearn_skmm.core._exemplar_cells import clip_outliers
from sklearn_skmm.core._exemplar_layout import at_once, exemplar_cells
from sklearn_skmm.core._matching import MomentFeatures, match_in_cells, moment_features
from sklearn_skmm.core._moments import (
    directional_energies,
    explained_fraction,
    objective,
    solve,
    spectrum,
)
from sklearn_skmm.core._simplex import _search, project_capped_simplex
from sklearn_skmm.selectors import _skmm
from sklearn_skmm.utils import _threads
from tests._selectors import ROUNDINGS

SINGLE = {"rtol": 2e-5, "atol": 1e-6}
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def mixture(N, m=16, k=12, seed=0, dtype=np.float32):
    """Return a Gaussian mixture whose spectrum decays by a power law."""
    rng = np.random.RandomState(seed)
    labels = rng.choice(k, size=N, p=rng.dirichlet(np.ones(k)))
    X = 2.0 * rng.normal(size=(k, m))[labels]
    X += rng.normal(size=(N, m)) * np.exp(0.5 * rng.normal(size=k))[labels, None]
    return (X * np.arange(1, m + 1) ** -0.5).astype(dtype)


@pytest.fixture(params=["one block", "small blocks"])
def blocks(request, monkeypatch):
    """Put rows into one block, or into many of 256 with a shorter last one."""
    if request.param == "small blocks":
        monkeypatch.setattr(_blocks, "BLOCK", 256 * 16)
    return request.param


@pytest.mark.parametrize("N", [0, 1, 127, 128, 1000, 4096])
def test_blocks_are_whole_runs_and_cover_the_rows(N, blocks):
    parts = row_blocks(N, 16)
    positions = np.concatenate([np.arange(N)[part] for part in parts]) if parts else np.arange(0)
    np.testing.assert_array_equal(positions, np.arange(N))
    assert all(part.start % _blocks.RUN == 0 for part in parts)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, SINGLE), (np.float64, EXACT)])
@pytest.mark.parametrize("N", [1, 100, 1000, 1111])
@pytest.mark.parametrize("k", [5, 200, 3000])
def test_sums_by_runs_equal_plain_sums(N, k, dtype, tolerance):
    rng = np.random.RandomState(0)
    a, b, A = rng.normal(size=N), rng.normal(size=N), rng.normal(size=(N, k))
    total = weighted_block_sum(a.astype(dtype), A.astype(dtype))
    assert total.dtype == np.float64
    np.testing.assert_allclose(
        total, a @ A, rtol=tolerance["rtol"], atol=1e-4 * (dtype == np.float32) + 1e-12
    )
    assert dot(a.astype(dtype), b.astype(dtype)) == pytest.approx(a @ b, rel=1e-4)
    assert _blocks.total(b.astype(dtype)) == pytest.approx(b.sum(), rel=1e-4)


def test_sum_of_many_blocks_keeps_few_of_them_in_memory():
    """Scatter matrices of thousands of directions take tens of megabytes each."""
    blocks, shape = [slice(k, k + 1) for k in range(100)], (256, 256)
    tracemalloc.start()
    found = _blocks.sum_of_blocks(lambda rows: np.full(shape, rows.start), blocks, shape)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, np.full(shape, 99 * 50))
    assert peak < 16 * found.nbytes


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, SINGLE), (np.float64, EXACT)])
@pytest.mark.parametrize("keep", [0, 40_000, 2**30])
def test_energies_equal_the_plain_product(kind, dtype, tolerance, keep, blocks):
    X = mixture(1111, dtype=dtype)
    values, vectors = spectrum(X)
    unit = float(np.sqrt(values[0]))
    A = directional_energies(X.astype(float), vectors) / values[0]
    operator = Energies(kind(X), vectors, unit, keep=keep)
    assert operator.shape == A.shape
    s = np.random.RandomState(0).dirichlet(np.ones(1111))
    g = np.random.RandomState(1).normal(size=A.shape[1])
    np.testing.assert_allclose(operator.rmatvec(s.astype(dtype)), s @ A, **tolerance)
    np.testing.assert_allclose(operator.matvec(g), A @ g, rtol=1e-4, atol=1e-4)
    assert operator.matvec(g).dtype == dtype
    centred = A - A.mean(axis=0)
    np.testing.assert_allclose(
        operator.scatter(), centred.T @ centred, rtol=1e-4, atol=1e-4 * len(A)
    )
    assert operator.held.nbytes <= keep
    assert bool(operator.held.size) == (keep == 2**30 or (keep == 40_000 and blocks != "one block"))


@pytest.mark.parametrize("keep", [0, 2**30])
def test_components_equal_the_plain_product(keep, blocks):
    X = mixture(1000, dtype=float)
    vectors = spectrum(X).eigenvectors
    members = np.arange(0, 1000, 3)
    rows = np.array([5, 300, 2])
    P = Components(X, vectors, 2.0, keep=keep)
    part = Components(X, vectors, 2.0, members=members, keep=keep)
    assert (P.held is None) == (keep == 0)
    np.testing.assert_allclose(P[:], X @ vectors / 2, **EXACT)
    np.testing.assert_allclose(P[rows], (X @ vectors / 2)[rows], **EXACT)
    np.testing.assert_allclose(part[rows], (X @ vectors / 2)[members[rows]], **EXACT)
    assert part.shape == (334, 16)


@pytest.mark.parametrize("init", ["uniform", "vertex"])
@pytest.mark.parametrize("c_S", [0.6, 0.999])
def test_single_precision_solves_the_same_problem(init, c_S, blocks):
    X = mixture(3000)
    values, vectors = spectrum(X)
    A, n = directional_energies(X.astype(float), vectors) / values[0], 100
    s = np.full(3000, 1 / 3000)
    if init == "vertex":
        s = np.zeros(3000)
        s[np.random.RandomState(0).choice(3000, n, replace=False)] = 1 / n
    plain = solve(A, values / values[0], n, c_S, s)
    ours = solve(Energies(X, vectors, float(np.sqrt(values[0]))), values / values[0], n, c_S, s)
    assert ours.s.dtype == np.float32
    assert ours.s.min() >= 0
    assert ours.s.max() <= np.float32(1 / n)
    assert ours.s.sum(dtype=float) == pytest.approx(1, abs=1e-6)
    scale = np.square(values / values[0] / c_S).sum()
    assert ours.dual_gap <= 1e-7 * scale
    assert ours.objective == pytest.approx(plain.objective, abs=2e-7 * scale)
    reached = objective(A, ours.s.astype(float), values / values[0], c_S)
    assert ours.objective == pytest.approx(reached, abs=1e-7 * scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spread", [1e-6, 1e-3, 1.0])
def test_newton_and_search_find_the_same_root(dtype, spread):
    rng = np.random.RandomState(0)
    for cap in (1 / 4000, 1 / 1000, 1 / 20):
        v = (rng.normal(size=5000) * spread + 1 / 5000).astype(dtype)
        s = project_capped_simplex(v, cap)
        low, high = float(v.min()) - cap, float(v.max())
        tau = _search(v.astype(float), cap, low, high)
        assert np.clip(v.astype(float) - tau, 0, cap).sum() == pytest.approx(1)
        np.testing.assert_allclose(
            s,
            np.clip(v.astype(float) - tau, 0, cap),
            atol=4 * np.finfo(dtype).eps * max(cap, spread),
        )


def test_spectrum_and_norms_by_blocks(blocks):
    X = mixture(2000, dtype=float)
    values, vectors = spectrum(X)
    np.testing.assert_allclose((vectors * values) @ vectors.T, X.T @ X / 2000, **EXACT)
    single = spectrum(X.astype(np.float32))
    assert single.eigenvalues.dtype == np.float64
    np.testing.assert_allclose(single.eigenvalues, values, rtol=1e-6)
    assert mean_squared_norm(X) == pytest.approx(np.square(X).sum(axis=1).mean())
    for coreset in (X[:5], X[:100]):
        sigma, sigma_s = X.T @ X / 2000, coreset.T @ coreset / len(coreset)
        ratio = np.trace(sigma @ sigma_s @ np.linalg.inv(sigma_s + 0.1 * np.eye(16)))
        fraction = explained_fraction(X, coreset, 0.1)
        assert fraction == pytest.approx(ratio / np.trace(sigma))
        assert explained_fraction(
            X.astype(np.float32), coreset.astype(np.float32), 0.1
        ) == pytest.approx(fraction, rel=1e-5)


def test_rounding_to_single_precision_adds_no_direction():
    rng = np.random.RandomState(0)
    X = (rng.normal(size=(20, 3)) @ rng.normal(size=(3, 10))).astype(np.float32)
    assert spectrum(X).eigenvalues.shape == (3,)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_selection_when_squares_overflow_or_underflow_single_precision(scale):
    X = mixture(300)
    plain = SkMMSelector(20, random_state=0).fit(X)
    other = SkMMSelector(20, random_state=0).fit(X * np.float32(scale))
    np.testing.assert_allclose(other.eigenvalues_, plain.eigenvalues_ * scale**2, rtol=1e-5)
    assert len(np.intersect1d(plain.sample_indices_, other.sample_indices_)) >= 18
    assert other.score(X * np.float32(scale)) == pytest.approx(plain.score(X), rel=1e-5)


def test_capped_probabilities_are_proportional_to_scores_below_one():
    rng = np.random.RandomState(0)
    for scores in (rng.uniform(size=500), rng.pareto(1.0, size=500)):
        for n in (1, 20, 400):
            pi = inclusion_probabilities(scores, n)
            assert pi.sum() == pytest.approx(n)
            below = pi < 1
            np.testing.assert_allclose(np.ptp(pi[below] / scores[below]), 0, atol=1e-8 * n)
            assert not below.any() or scores[~below].min(initial=np.inf) >= scores[below].max()


def test_features_by_rows_equal_those_of_the_whole_matrix():
    P = mixture(700, dtype=float)
    values = spectrum(P).eigenvalues
    F = MomentFeatures(P, values, 50)
    whole = moment_features(P, values, 50)
    rows = np.array([3, 500, 9])
    s = np.random.RandomState(1).dirichlet(np.ones(700))
    np.testing.assert_allclose(F[rows], whole[rows])
    np.testing.assert_allclose(F.squared_norms(rows), np.square(whole[rows]).sum(axis=1))
    np.testing.assert_allclose(F.mean(s), s @ whole, **EXACT)
    cells = exemplar_cells(P, s, 50, np.random.RandomState(0))
    for rho in (0.0, 0.3):
        selected = [
            match_in_cells(features, s @ whole, cells, rho, np.random.RandomState(0))
            for features in (F, whole)
        ]
        np.testing.assert_array_equal(*selected)


def test_members_are_clipped_like_an_array_of_their_own(monkeypatch):
    P = mixture(900, dtype=float)
    members = np.arange(0, 900, 2)
    s = np.random.RandomState(0).dirichlet(np.ones(450))
    plain = clip_outliers(P[members], s)
    monkeypatch.setattr(_cells, "GATHER_BYTES", 0)
    part = _exemplar_cells.ClippedRows(P, s, members)
    assert part.P.members is not None
    np.testing.assert_allclose(part[:], plain, **EXACT)
    np.testing.assert_allclose(part[[7, 1]], plain[[7, 1]], **EXACT)


@pytest.mark.parametrize("seed", range(5))
def test_dense_greedy_equals_lazy_greedy(seed):
    rng = np.random.RandomState(seed)
    X, weight = rng.normal(size=(300, 4)), rng.uniform(size=300)
    X[50:60] = X[0]
    lazy = _exemplars.greedy_exemplars(X, 80, bandwidth=0.7, weight=weight).indices
    squared = _costs.squared_distances(X)
    np.testing.assert_array_equal(
        _exemplars.greedy_exemplars_dense(squared, 80, 0.7, weight).indices, lazy
    )


def test_nearest_in_single_precision():
    P = mixture(500)
    labels, costs = _cells.nearest(P, P[:40])
    distances = cdist(P, P[:40], "sqeuclidean")
    np.testing.assert_array_equal(labels, distances.argmin(axis=1))
    np.testing.assert_allclose(costs, distances.min(axis=1), rtol=1e-3, atol=1e-5)
    assert not costs[:40].any()


def force_two_steps(monkeypatch):
    monkeypatch.setattr(_exemplar_layout, "FEW", 50)
    monkeypatch.setattr(_exemplar_layout, "PART_FEW", 20)
    monkeypatch.setattr(_exemplar_layout, "DISTANCES", 0)
    monkeypatch.setattr(_balanced_cells, "FEW", 50)
    monkeypatch.setattr(_balanced_cells, "EACH", 20)


def test_when_exemplars_are_laid_out_at_once():
    assert at_once(256, 10**7)
    assert at_once(1000, 20_000)
    assert at_once(2000, 6532)
    assert not at_once(1000, 10**5)


@pytest.mark.slow
def test_two_steps_are_as_good_as_one(monkeypatch):
    """Coverage is within 2 %."""
    N, n = 20_000, 1700
    P = mixture(N, dtype=float)
    s = np.full(N, 1 / N)
    assert not at_once(n, N)
    two = exemplar_cells(P, s, n, np.random.RandomState(0))
    monkeypatch.setattr(_exemplar_layout, "DISTANCES", 10**12)
    one = exemplar_cells(P, s, n, np.random.RandomState(0))
    assert not np.array_equal(np.sort(one.exemplars), np.sort(two.exemplars))
    clipped = clip_outliers(P, s)
    h = _exemplar_cells.BANDWIDTH * _costs.median_distance(clipped, np.random.RandomState(0))
    cost = [_exemplar_cells.around(clipped, h, c.exemplars).costs.mean() for c in (one, two)]
    assert cost[1] <= 1.02 * cost[0]


@pytest.mark.slow
def test_balanced_cells_within_coarse_ones_are_nearly_as_good(monkeypatch):
    """The scatter within cells is at most 6 % larger."""
    P, s = mixture(8000, dtype=float), np.full(8000, 1 / 8000)
    two = balanced_cells(P, s, 400, 4.0, np.random.RandomState(0))
    monkeypatch.setattr(_balanced_cells, "FEW", 400)
    one = balanced_cells(P, s, 400, 4.0, np.random.RandomState(0))
    assert one.costs.mean() < two.costs.mean() < 1.06 * one.costs.mean()


@pytest.mark.parametrize(
    "n", [51, *(pytest.param(n, marks=pytest.mark.slow) for n in (200, 499, 500))]
)
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["one blob", "two scales", "one row", "three rows", "decades"])
def test_two_steps_give_a_partition(n, dtype, kind, monkeypatch):
    force_two_steps(monkeypatch)
    rng = np.random.RandomState(0)
    P = rng.normal(size=(500, 3))
    if kind == "two scales":
        P[:300] *= 1e-3
    elif kind == "one row":
        P = np.repeat(P[:1], 500, axis=0)
    elif kind == "three rows":
        P = P[rng.randint(3, size=500)]
    elif kind == "decades":
        P *= np.logspace(-12, 12, 500)[:, None]
    s = rng.dirichlet(np.full(500, 50.0)).astype(dtype)
    cells = exemplar_cells(P.astype(dtype), s, n, rng)
    assert len(np.unique(cells.exemplars)) == n
    np.testing.assert_array_equal(cells.labels[cells.exemplars], np.arange(n))
    np.testing.assert_array_equal(np.unique(cells.labels), np.arange(n))
    assert np.isfinite(cells.costs).all()


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.slow
def test_single_precision_is_kept_and_selects_as_well(rounding):
    X = mixture(1500)
    selector = SkMMSelector(60, rounding=rounding, random_state=0).fit(X)
    assert selector.weights_.dtype == np.float32
    assert selector._coreset.dtype == np.float32
    assert len(np.unique(selector.sample_indices_)) == 60
    double = SkMMSelector(60, rounding=rounding, random_state=0).fit(X.astype(float))
    assert double.weights_.dtype == np.float64
    np.testing.assert_allclose(selector.eigenvalues_, double.eigenvalues_)
    if rounding not in ("spread", "local_cube"):  # one last bit can change the random selection
        common = np.intersect1d(selector.sample_indices_, double.sample_indices_)
        assert len(common) >= 55
    np.testing.assert_array_equal(selector.transform(X), selector.sample_indices_)
    assert selector.score(X) == pytest.approx(double.score(X), abs=0.02)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m", [8, 32, 100])
def test_products_have_the_same_bits_on_any_number_of_threads(m, dtype):
    X = mixture(9000, m=m, dtype=dtype)
    V, found = spectrum(X).eigenvectors, []
    for threads in (1, 2):
        with threadpool_limits(threads):
            A = Energies(X, V, keep=0)
            s, g = np.full(9000, 1 / 9000, dtype), np.linspace(-1, 1, m)
            parts = [A.rmatvec(s), A.matvec(g), A.scatter(), Components(X, V)[:]]
            found.append([*parts, *_cells.nearest(X, X[:300])])
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_one_thread_restores_the_number_of_threads():
    def count():
        return max(pool["num_threads"] for pool in _threads._blas().info())

    with threadpool_limits(2, user_api="blas"):
        with _threads.one_thread(), _threads.one_thread():
            assert count() == 1
        with pytest.raises(ZeroDivisionError), _threads.one_thread():
            1 / 0  # noqa: B018
        assert count() == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_map_ahead_is_limited_and_ends_with_its_reader(threads):
    def count():
        return max(pool["num_threads"] for pool in _threads._blas().info())

    started = []

    def double(task):
        started.append(task)
        return 2 * task

    with threadpool_limits(threads, user_api="blas"):
        assert list(_threads.map_ahead(double, range(20), limit=2)) == list(range(0, 40, 2))
        started.clear()
        with closing(_threads.map_ahead(double, range(100), limit=2)) as results:
            assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
            assert count() == 1
        assert count() == threads
        assert sorted(started) in (list(range(5)), list(range(6)))  # two threads, in any order
        with pytest.raises(ZeroDivisionError):
            _threads.in_threads(lambda task: 1 / task, [1, 0, 2])
        assert count() == threads


@pytest.mark.parametrize("rounding", ["cells", "exemplar", "systematic"])
@pytest.mark.parametrize("init", ["uniform", "vertex"])
@pytest.mark.slow
def test_threads_and_containers_change_nothing(rounding, init, monkeypatch, tmp_path):
    force_two_steps(monkeypatch)
    monkeypatch.setattr(_skmm, "Components", lambda *a, **k: Components(*a, **k, keep=0))
    X = mixture(40_000, m=32)
    np.save(tmp_path / "X.npy", X)
    on_disk = np.load(tmp_path / "X.npy", mmap_mode="r")
    fitted = []
    for rows, threads in ((X, 1), (X, 2), (on_disk, 2)):
        selector = SkMMSelector(
            400, rounding=rounding, init=init, max_iter=30, tol=1e-3, random_state=0
        )
        with threadpool_limits(threads):
            fitted.append(selector.fit(rows))
    for other in fitted[1:]:
        np.testing.assert_array_equal(other.weights_, fitted[0].weights_)
        np.testing.assert_array_equal(other.sample_indices_, fitted[0].sample_indices_)


@pytest.mark.parametrize("selector", [SkMMSelector(5), UniformSelector(5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_not_copied(selector, dtype):
    X = mixture(100, dtype=dtype)
    X.flags.writeable = False
    assert np.shares_memory(selector._open_rows(X, reset=True).X, X)


def test_step_is_called_for_each_iteration_and_coarse_cell(monkeypatch):
    force_two_steps(monkeypatch)
    calls = []
    exemplar_cells(
        mixture(3000),
        np.full(3000, 1 / 3000, np.float32),
        100,
        np.random.RandomState(0),
        lambda: calls.append(1) or False,
    )
    assert len(calls) == int(_exemplar_layout.COARSE * 10)


CHILD = """
import resource, sys
import numpy as np
from sklearn_skmm import SkMMSelector
from sklearn_skmm.core import _components
_components.KEEP_BYTES = 0
X = np.random.default_rng(0).standard_normal((500_000, 64), dtype=np.float32)
selector = SkMMSelector(300, max_iter=2, tol=1e-2, random_state=0)
roundings = ("systematic", "cells")
for rounding in roundings:
    selector.set_params(rounding=rounding).fit(X[:5000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for rounding in roundings:
    selector.set_params(rounding=rounding).fit(X)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / X.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.slow
def test_memory_next_to_X_is_bounded():
    """The solver needs half of X and some vectors of N entries, but no copy of X."""
    out = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    peaks = [float(line) for line in out.stdout.splitlines()]  # the peak so far after each rounding
    assert len(peaks) == 2
    assert max(peaks) <= 0.85


def test_sparse_rows_are_summed_in_double_precision():
    X = mixture(400)
    X[X < 0] = 0.0
    dense, rows = spectrum(X), spectrum(sparse.csr_array(X))
    np.testing.assert_allclose(rows.eigenvalues, dense.eigenvalues, rtol=1e-12)
    one, other = (SkMMSelector(30, random_state=0).fit(A) for A in (X, sparse.csr_array(X)))
    assert other.weights_.dtype == np.float32
    assert len(np.intersect1d(one.sample_indices_, other.sample_indices_)) >= 27
