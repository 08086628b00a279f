"""Cell moment matching: cells equal those of plain greedy; selections are locally optimal."""

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sklearn_skmm import SkMMSelector
from sklearn_skmm.core import _exemplar_cells, _matching
from sklearn_skmm.core._cells import Cells
from sklearn_skmm.core._costs import median_distance
from sklearn_skmm.core._exemplar_cells import clip_outliers
from sklearn_skmm.core._exemplar_layout import exemplar_cells
from sklearn_skmm.core._matching import (
    MomentFeatures,
    draw_candidates,
    match_in_cells,
    moment_features,
)
from sklearn_skmm.core._moments import ridge_of_dimension, spectrum


def cloud(N=60, k=3, seed=0):
    rng = np.random.RandomState(seed)
    return rng.normal(size=(N, k)) * [3.0, 1.0, 0.3][:k], rng


def test_clipping_bounds_the_distance_and_keeps_the_direction():
    P, rng = cloud()
    P[:3] *= 100.0
    s = rng.dirichlet(np.ones(60))
    clipped = clip_outliers(P, s)
    centred = P - s @ P
    radius = np.linalg.norm(centred, axis=1)
    limit = _exemplar_cells.CLIP_FACTOR * np.median(radius)
    np.testing.assert_allclose(np.linalg.norm(clipped, axis=1), np.minimum(radius, limit))
    near = radius <= limit
    np.testing.assert_array_equal(clipped[near], centred[near])
    assert not near[:3].any()
    cosine = np.einsum("ij,ij->i", clipped, centred) / radius / np.linalg.norm(clipped, axis=1)
    np.testing.assert_allclose(cosine, 1.0)


def test_cells_equal_those_of_plain_greedy():
    P, rng = cloud()
    s = rng.dirichlet(np.ones(60))
    cells = exemplar_cells(P, s, 7, np.random.RandomState(0))
    clipped = clip_outliers(P, s)
    h = _exemplar_cells.BANDWIDTH * median_distance(clipped, np.random.RandomState(0))
    costs = 1.0 - np.exp(-cdist(clipped, clipped, "sqeuclidean") / (2 * h**2))
    current, selected = np.ones(60), []
    for _ in range(7):
        gains = s @ np.maximum(current[:, None] - costs, 0.0)
        selected.append(int(np.argmax(gains)))
        current = np.minimum(current, costs[:, selected[-1]])
    np.testing.assert_array_equal(cells.exemplars, selected)
    np.testing.assert_array_equal(cells.labels, costs[:, selected].argmin(axis=1))
    np.testing.assert_allclose(cells.costs, current, atol=1e-12)


def test_exemplars_of_a_subsample_cost_little_more(monkeypatch):
    P, rng = cloud(N=3000)
    for s in (np.full(3000, 1 / 3000), rng.dirichlet(np.ones(3000))):
        whole = exemplar_cells(P, s, 20, np.random.RandomState(0))
        with monkeypatch.context() as patch:
            patch.setattr(_exemplar_cells, "SUBSAMPLE", 300)
            part = exemplar_cells(P, s, 20, np.random.RandomState(0))
        assert not np.array_equal(part.exemplars, whole.exemplars)
        assert len(np.unique(part.exemplars)) == 20
        np.testing.assert_array_equal(part.labels[part.exemplars], np.arange(20))
        assert s @ part.costs < 1.15 * (s @ whole.costs)


def test_dense_region_is_represented():
    """Half of the samples nearly coincide, as gradients of confident predictions do."""
    rng = np.random.RandomState(0)
    X = rng.normal(size=(400, 8))
    X[:200] *= 1e-3
    for n in (20, 50, 100):
        in_dense_region = SkMMSelector(n, random_state=0).fit_transform(X) < 200
        assert n / 8 <= in_dense_region.sum() <= n / 2
        exemplars = SkMMSelector(n, rounding="exemplar", random_state=0).fit_transform(X) < 200
        assert exemplars.sum() <= 2


@pytest.mark.parametrize("n", [1, 2, 5, 50])
def test_moment_features_contain_both_moments(n):
    P, _ = cloud()
    values, vectors = spectrum(P)
    P = P @ vectors
    F = moment_features(P, values, n)
    alpha = ridge_of_dimension(values, 0.5 * min(n, 0.9 * 3))
    fraction = values / (values + alpha)
    assert fraction.sum() == pytest.approx(0.5 * min(n, 2.7))
    root = np.sqrt(fraction / fraction.sum())
    np.testing.assert_allclose(F[:, :3].mean(axis=0), root)  # the second moment is Λ
    np.testing.assert_allclose(F[:, 3:], root * P / np.sqrt(values))


@pytest.mark.parametrize(
    "values", [[1.0], [1.0, 1.0], [1e8, 1.0, 1e-8], np.geomspace(1, 1e-12, 50)]
)
@pytest.mark.parametrize("fraction", [1e-3, 0.1, 0.5, 0.9, 0.999])
def test_ridge_of_dimension(values, fraction):
    values = np.asarray(values)
    for scale in (1e-100, 1.0, 1e100):
        alpha = ridge_of_dimension(scale * values, fraction * len(values))
        reached = (scale * values / (scale * values + alpha)).sum()
        assert reached == pytest.approx(fraction * len(values), rel=1e-9)


def objective(F, target, cells, selected, centrality):
    gap = F[selected].mean(axis=0) - target
    return gap @ gap + centrality * cells.costs[selected].mean() / cells.costs.mean()


@pytest.mark.parametrize("centrality", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("seed", range(5))
def test_selection_is_locally_optimal(centrality, seed, monkeypatch):
    """No change in a single cell improves it, and it is among the best tenth of all selections."""
    monkeypatch.setattr(_matching, "SWEEPS", 100)
    rng = np.random.RandomState(seed)
    F, labels = rng.normal(size=(16, 3)), rng.permutation(np.repeat(np.arange(4), 4))
    costs = rng.uniform(size=16)
    cells = Cells(np.array([np.flatnonzero(labels == c)[0] for c in range(4)]), labels, costs)
    target = rng.normal(size=3) * 0.1
    selected = match_in_cells(F, target, cells, centrality, rng)
    np.testing.assert_array_equal(labels[selected], np.arange(4))
    value = objective(F, target, cells, selected, centrality)
    members = [np.flatnonzero(labels == c) for c in range(4)]
    values = {
        other: objective(F, target, cells, np.array(other), centrality)
        for other in itertools.product(*members)
    }
    neighbours = [v for other, v in values.items() if np.sum(other != selected) == 1]
    assert value <= min(neighbours) + 1e-12
    assert value <= np.quantile(list(values.values()), 0.1)


@pytest.mark.parametrize("batch_entries", [1, 240, 10**6])
@pytest.mark.parametrize("prefetch_entries", [(0, 10**6), (0, 60), (10**6, 10**6)])
def test_cells_are_updated_one_after_the_other(batch_entries, prefetch_entries, monkeypatch):
    """The result does not depend on what is computed in batches or in advance."""
    monkeypatch.setattr(_matching, "BATCH_ENTRIES", batch_entries)
    monkeypatch.setattr(_matching, "PREFETCH_ENTRIES", prefetch_entries)
    N, n, rho = 300, 20, 0.3
    rng = np.random.RandomState(0)
    P, values, costs = rng.normal(size=(N, 3)), np.array([1.0, 0.5, 0.2]), rng.uniform(size=N)
    labels = np.concatenate([np.arange(n), rng.randint(n, size=N - n)])
    cells, features = Cells(np.arange(n), labels, costs), MomentFeatures(P, values, n)
    F, target = features[:], rng.normal(size=6) * 0.1
    members = [np.flatnonzero(labels == c) for c in range(n)]
    rng = np.random.RandomState(1)
    uniform = rng.uniform(size=n)
    expected = np.array([own[int(uniform[c] * len(own))] for c, own in enumerate(members)])
    for _ in range(2):
        for c in rng.permutation(n):
            tried = [np.where(np.arange(n) == c, i, expected) for i in members[c]]
            found = [objective(F, target, cells, selected, rho) for selected in tried]
            expected = tried[int(np.argmin(found))]
    monkeypatch.setattr(_matching, "SWEEPS", 2)
    for given in (features, F):
        selected = match_in_cells(given, target, cells, rho, np.random.RandomState(1))
        np.testing.assert_array_equal(selected, expected)


def test_first_of_equal_rows_is_selected():
    P = np.repeat(np.random.RandomState(0).normal(size=(12, 2)), 3, axis=0)
    for seed in range(5):
        selected = SkMMSelector(6, random_state=seed).fit_transform(P)
        assert np.all(selected % 3 == 0)


def test_outliers_get_no_cells_of_their_own():
    """Of Gaussian data with 2 % outliers, at most 8 % of the selected samples are outliers."""
    rng = np.random.RandomState(0)
    X = rng.normal(size=(1000, 8))
    X[:20] *= 30.0
    far = SkMMSelector(100, random_state=0).fit_transform(X) < 20
    assert 1 <= far.sum() <= 8
    exemplars = SkMMSelector(100, rounding="exemplar", random_state=0).fit(X)
    assert exemplars.sample_weight_.sum() == pytest.approx(1000)


@pytest.mark.parametrize("count", [1, 3, 7, None])
def test_candidates_are_drawn_by_weight(count):
    """Each member of a cell is drawn as often as the points on its interval say."""
    rng = np.random.RandomState(0)
    labels = rng.permutation(np.repeat(np.arange(3), [1, 5, 30]))
    s = rng.uniform(0.5, 1.5, size=36)
    times = np.zeros(36)
    for _ in range(2000):
        candidates, starts = draw_candidates(labels, s, 3, count, rng)
        assert len(np.unique(candidates)) == len(candidates) == starts[-1]
        np.testing.assert_array_equal(labels[candidates], np.repeat(np.arange(3), np.diff(starts)))
        times[candidates] += 1
    mass = np.bincount(labels, weights=s)[labels]
    expected = np.minimum(1, s / mass * count) if count else np.ones(36)
    np.testing.assert_allclose(times / 2000, expected, atol=0.05)


def test_equal_weights_give_as_many_candidates_as_there_can_be():
    labels = np.random.RandomState(0).permutation(np.repeat(np.arange(4), [1, 4, 10, 200]))
    _, starts = draw_candidates(labels, np.ones(215), 4, 10, np.random.RandomState(1))
    np.testing.assert_array_equal(np.diff(starts), [1, 4, 10, 10])
