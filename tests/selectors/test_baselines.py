"""Selectors other than SkMM compared with loops and closed forms at small size."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, sparse
from scipy.spatial.distance import cdist, pdist
from scipy.stats import chi2
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

import sklearn_skmm as skmm
from sklearn_skmm.base import Reference
from sklearn_skmm.core._draws import inclusion_probabilities
from sklearn_skmm.selectors import _k_means
from tests.core.test_exemplars import METRICS, cost_matrix, gaussian, plain_greedy

REPEATS = 4000
equal, close = np.testing.assert_array_equal, np.testing.assert_allclose


def repeated_selections(selector, X):
    """Return `REPEATS` selections made by `_select`, without the rest of `fit`."""
    reference, n = Reference(X), selector.n_to_select
    rngs = map(np.random.RandomState, range(REPEATS))
    return [selector._select(X, n, reference, rng, lambda: False) for rng in rngs]


def first_least(values):
    return np.argmax(values <= values.min() * (1 + 1e-7))


@pytest.mark.parametrize("seed", range(5))
def test_herding_follows_its_definition(seed):
    X = gaussian(50, 4, seed) + 1.0
    w = mu = X.mean(axis=0)
    selected = []
    for _ in range(30):
        selected.append(max(set(range(50)) - set(selected), key=lambda i: X[i] @ w))
        w = w + mu - X[selected[-1]]
    equal(skmm.HerdingSelector(30).fit_transform(X), selected)


def test_herding_approaches_a_mean_far_from_zero():
    X = gaussian(2000, 5) + 20.0
    mu, selected, sizes = (
        X.mean(axis=0),
        skmm.HerdingSelector(320).fit_transform(X),
        [1, 20, 80, 320],
    )
    errors = [np.linalg.norm(X[selected[:n]].mean(axis=0) - mu) for n in sizes]
    assert all(after < before for before, after in pairwise(errors))
    # The sum of mu - x telescopes to w_n - w_0, and w_0 = mu; w stays bounded.
    assert max(n * error for n, error in zip(sizes, errors, strict=True)) < 1.1 * np.linalg.norm(mu)


@pytest.mark.parametrize("init", ["random", "center"])
@pytest.mark.parametrize("seed", range(4))
def test_k_center_is_farthest_first(init, seed):
    X = gaussian(60, 3, seed) + 10.0
    selector = skmm.KCenterSelector(12, init=init, random_state=seed).fit(X)
    D = cdist(X, X)
    selected = [selector.sample_indices_[0]]
    if init == "center":
        assert selected == [np.argmin(np.linalg.norm(X - X.mean(axis=0), axis=1))]
    while len(selected) < 12:
        selected.append(np.argmax(D[:, selected].min(axis=1)))
    equal(selector.sample_indices_, selected)
    assert selector.radius_ == pytest.approx(D[:, selected].min(axis=1).max(), rel=1e-9)


@pytest.mark.parametrize("init", ["random", "center"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_k_center_is_within_twice_the_optimum(init, n):
    for seed in range(8):
        X = gaussian(9, 2, seed)
        D = cdist(X, X)
        radius = skmm.KCenterSelector(n, init=init, random_state=seed).fit(X).radius_
        best = min(D[:, S].min(axis=1).max() for S in combinations(range(9), n))
        assert best * (1 - 1e-9) <= radius <= 2 * best


@pytest.mark.parametrize(("N", "d", "n"), [(40, 12, 12), (10, 30, 10), (300, 20, 15)])
def test_greedy_pivoting_is_pivoted_qr(N, d, n):
    X = gaussian(N, d) * np.logspace(0, -3, d)
    pivots = linalg.qr(X.T, mode="r", pivoting=True)[1][:n]
    for container in (X, sparse.csr_array(X)):
        equal(skmm.AdaptiveSelector(n, pivoting="greedy").fit_transform(container), pivots)


@pytest.mark.parametrize("block_size", [1, 8])
@pytest.mark.slow
def test_first_two_random_pivots_have_the_expected_distribution(block_size):
    X = gaussian(5, 3, 1) * np.array([3, 0.7, 0.3])
    probability = np.zeros((5, 5))
    for i in range(5):
        left = np.square(X - np.outer(X @ X[i], X[i]) / (X[i] @ X[i])).sum(axis=1)
        left[i] = 0.0
        probability[i] = X[i] @ X[i] / np.square(X).sum() * left / left.sum()
    observed = np.zeros((5, 5))
    # With four to select, the second may come from the first one's block or from a later one.
    for selection in repeated_selections(skmm.AdaptiveSelector(4, block_size=block_size), X):
        observed[tuple(selection.indices[:2])] += 1
    possible = ~np.eye(5, dtype=bool)
    assert observed[~possible].sum() == 0
    expected = REPEATS * probability[possible]
    assert np.sum((observed[possible] - expected) ** 2 / expected) < chi2.ppf(0.999, 19)


@pytest.mark.parametrize("params", [{"pivoting": "greedy"}, {"block_size": 1}, {"block_size": 8}])
def test_pivoting_restarts_beyond_the_rank(params):
    X = gaussian(20, 3) @ gaussian(3, 10, 1)
    selected = skmm.AdaptiveSelector(20, random_state=0, **params).fit_transform(X)
    equal(np.sort(selected), np.arange(20))
    for start in range(0, 18, 3):
        assert np.linalg.matrix_rank(X[selected[start : start + 3]]) == 3
        if "pivoting" in params:
            rest = np.setdiff1d(np.arange(20), selected[:start])
            pivots = linalg.qr(X[rest].T, mode="r", pivoting=True)[1][:3]
            equal(selected[start : start + 3], rest[pivots])


def skewed():
    X = gaussian(25, 4) * np.array([3, 1, 0.5, 0.1])
    X[[3, 7]] *= 20.0
    X[11] = 0.0
    return X


def hat_diagonal(selector, X):
    """Return the diagonal of the hat matrix and its trace, from dense formulas."""
    N, n = len(X), selector.n_to_select
    U, singular, _ = np.linalg.svd(X, full_matrices=False)
    values = singular[singular > 1e-10 * singular[0]] ** 2 / N
    n_kept = max(1, int(n / np.log(n + 1)))
    if isinstance(selector, skmm.TruncatedLeverageSelector):
        k = min(selector.n_components or n_kept, len(values))
        return np.diag(U[:, :k] @ U[:, :k].T), k
    alpha = values[n_kept:].sum() / n_kept if selector.alpha is None else selector.alpha
    hat = X @ np.linalg.pinv(X.T @ X + N * alpha * np.eye(X.shape[1])) @ X.T
    return np.diag(hat), np.sum(values / (values + alpha))


LEVERAGE = [
    skmm.TruncatedLeverageSelector(8, n_components=2),
    skmm.RidgeLeverageSelector(8, alpha=0.3),
    skmm.TruncatedLeverageSelector(8),
    skmm.TruncatedLeverageSelector(2),
    skmm.RidgeLeverageSelector(8),
    skmm.RidgeLeverageSelector(3),
]


@pytest.mark.parametrize("selector", LEVERAGE, ids=repr)
@pytest.mark.parametrize("kind", ["tall", "sparse", "wide", "deficient"])
def test_leverage_scores_are_the_hat_diagonal(selector, kind):
    X = skewed()
    if kind == "wide":
        X = np.hstack([X, gaussian(25, 40, 1)])
    elif kind == "deficient":
        X = X @ gaussian(4, 4, 1)[:, :2] @ gaussian(2, 6, 2)
    selector.fit(sparse.csr_array(X) if kind == "sparse" else X)
    expected, total = hat_diagonal(selector, X)
    close(selector.leverage_scores_, expected, rtol=1e-7, atol=1e-10)
    assert selector.leverage_scores_.sum() == pytest.approx(total)
    pi = selector.inclusion_probabilities_
    equal(pi, inclusion_probabilities(selector.leverage_scores_, selector.n_to_select))
    close(selector.sample_weight_ * pi[selector.sample_indices_], 1.0)


@pytest.mark.parametrize("selector", LEVERAGE[:2], ids=repr)
@pytest.mark.slow
def test_leverage_sampling_has_its_inclusion_probabilities(selector):
    X = skewed()
    selector.fit(X)
    pi, scores = selector.inclusion_probabilities_, selector.leverage_scores_
    certain, free = pi >= 1, (pi > 0) & (pi < 1)
    assert certain.any()
    selections = repeated_selections(selector, X)
    selected = np.concatenate([selection.indices for selection in selections])
    observed = np.bincount(selected, minlength=25) / REPEATS
    equal(observed[certain], 1)
    equal(observed[pi == 0], 0)
    z = (observed - pi)[free] / np.sqrt(pi * (1 - pi) / REPEATS)[free]
    # Items are negatively dependent, so this bound for independent items is conservative.
    assert np.square(z).sum() < chi2.ppf(0.999, free.sum())
    # By the last column, the weights sum to the number of samples that can be selected.
    features = np.column_stack([X, scores > 0])
    totals = np.array([s.sample_weight @ features[s.indices] for s in selections])
    error = totals.mean(axis=0) - features.sum(axis=0)
    assert np.all(np.abs(error) < 4 * totals.std(axis=0) / np.sqrt(REPEATS))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
@pytest.mark.slow
def test_inclusion_probabilities(data):
    score = st.one_of(st.just(0.0), st.floats(1e-12, 1e6))
    scores = np.array(data.draw(st.lists(score, min_size=1, max_size=30)))
    n = data.draw(st.integers(1, len(scores)))
    pi = inclusion_probabilities(scores, n)
    assert pi.sum() == pytest.approx(n, rel=1e-9)
    assert np.all((pi >= 0) & (pi <= 1))
    free = (pi < 1) & (scores > 0)
    if free.any():
        c = pi[free] / scores[free]
        close(c, c[0], rtol=1e-9)
        assert np.all(c[0] * scores[pi >= 1] >= 1 - 1e-9)
    elif np.any(pi < 1):  # every item with a positive score is certain
        assert np.ptp(pi[scores == 0]) == 0


@pytest.mark.parametrize("scores", [[1e6, 1e-308, 1e-308], [1e300, 1e-300, 1e-300]])
def test_inclusion_probabilities_of_scores_far_apart(scores):
    close(inclusion_probabilities(np.array(scores), 2), [1.0, 0.5, 0.5])
    close(inclusion_probabilities(np.array([1e300, 1e-100, 1e-300, 1e-300]), 3), [1, 1, 0.5, 0.5])


@pytest.mark.parametrize("metric", METRICS)
def test_facility_location_equals_plain_greedy(metric):
    X = gaussian(70, 3)
    selector = skmm.FacilityLocationSelector(9, metric=metric).fit(X)
    h = np.median(pdist(X)) / 2
    assert selector.bandwidth_ == pytest.approx(h if metric == "gaussian" else np.nan, nan_ok=True)
    C = cost_matrix(X, metric, h)
    equal(selector.sample_indices_, plain_greedy(C, 9, np.ones(70), metric)[0])
    assert selector.objective_ == pytest.approx(C[:, selector.sample_indices_].min(axis=1).mean())
    assert selector.sample_weight_.sum() == 70


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_facility_location_reaches_its_guaranteed_fraction_of_the_optimum(n):
    for seed in range(6):
        X = gaussian(9, 2, seed)
        C = cost_matrix(X, "gaussian", 1.0)
        saving = 1 - skmm.FacilityLocationSelector(n, bandwidth=1.0).fit(X).objective_
        best = max(1 - C[:, S].min(axis=1).mean() for S in combinations(range(9), n))
        assert (1 - 1 / np.e) * best <= saving <= best * (1 + 1e-9)


@pytest.mark.parametrize("metric", ["k-means", *METRICS])
def test_fewer_distinct_rows_than_samples_to_select(metric):
    X = gaussian(6, 2)[np.random.RandomState(1).randint(6, size=40)]
    k_means, facility = skmm.KMeansSelector(20, random_state=0), skmm.FacilityLocationSelector(20)
    selector = k_means if metric == "k-means" else facility.set_params(metric=metric)
    selected = selector.fit_transform(X)
    assert len(np.unique(selected)) == 20
    assert len(np.unique(X[selected], axis=0)) == 6  # no row is left out
    assert selector.sample_weight_.min() >= 1
    assert selector.sample_weight_.sum() == 40


def medoid(X, members):
    return members[first_least(cdist(X[members], X[members], "sqeuclidean").sum(axis=1))]


@pytest.mark.parametrize(
    ("N", "n", "max_iter"), [(80, 10, 300), (4000, 15, 300), (600, 12, 2), (30, 30, 300)]
)
def test_k_means_selects_the_nearest_sample_to_each_centre(monkeypatch, N, n, max_iter):
    fitted = []
    fit = KMeans.fit
    monkeypatch.setattr(
        _k_means.KMeans, "fit", lambda *args, **kw: fitted.append(args[0]) or fit(*args, **kw)
    )
    for seed in range(3):
        X = gaussian(N, 3, seed)
        selector = skmm.KMeansSelector(n, max_iter=max_iter, random_state=seed).fit(X)
        to_centres = cdist(X, fitted[-1].cluster_centers_)
        cells = [np.flatnonzero(np.argmin(to_centres, axis=1) == k) for k in range(n)]
        nearest = np.array([cell[first_least(to_centres[cell, k])] for k, cell in enumerate(cells)])
        order = np.argsort(nearest)
        equal(selector.sample_indices_, nearest[order])
        equal(selector.sample_weight_, np.array([len(cell) for cell in cells])[order])
        assert selector.inertia_ == pytest.approx(np.square(to_centres.min(axis=1)).sum())
        if max_iter == 300:
            equal(selector.sample_indices_, np.sort([medoid(X, cell) for cell in cells]))


CRITERIA = {
    "entropy": lambda p: -sum(q * np.log(q) for q in p),
    "margin": lambda p: sorted(p)[-2] - sorted(p)[-1],
    "least_confidence": lambda p: 1 - max(p),
}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_uncertainty_selects_the_least_certain_samples(criterion):
    X, y = gaussian(60, 3), np.arange(60) % 3
    X[:, 0] += y
    classifier = LogisticRegression()
    unfitted = skmm.UncertaintySelector(12, classifier, criterion=criterion).fit(X, y)
    stratified = skmm.UncertaintySelector(12, classifier, criterion=criterion, stratify=True)
    stratified.fit(X, y)
    with pytest.raises(ValueError, match="requires y"):
        stratified.fit(X)
    assert not hasattr(classifier, "coef_")
    classifier.fit(X, y)
    prefitted = skmm.UncertaintySelector(12, classifier, criterion=criterion).fit(X)
    expected = np.array([CRITERIA[criterion](p) for p in classifier.predict_proba(X)])
    for selector in (unfitted, prefitted):
        close(selector.uncertainties_, expected)
        equal(selector.sample_indices_, np.argsort(-expected)[:12])
    # The classifier has seen all classes; the least certain samples of each are selected.
    close(stratified.uncertainties_, expected)
    parts = [m[np.argsort(-expected[m])[:4]] for m in (np.flatnonzero(y == k) for k in range(3))]
    equal(stratified.sample_indices_, np.sort(np.concatenate(parts)))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_samples_of_a_single_class_are_equally_certain(criterion):
    selector = skmm.UncertaintySelector(4, GaussianNB(), criterion=criterion)
    selector.fit(gaussian(20, 3), np.zeros(20, dtype=int))
    equal(selector.uncertainties_, 0.0)
    equal(selector.sample_indices_, np.arange(4))


def test_prefitted_classifier_is_not_refitted():
    X, y = gaussian(60, 3), np.arange(60) % 2
    classifier = LogisticRegression().fit(gaussian(40, 3, 1), np.arange(40) % 3)
    expected = 1 - classifier.predict_proba(X).max(axis=1)
    selector = skmm.UncertaintySelector(5, classifier, criterion="least_confidence").fit(X, y)
    equal(selector.uncertainties_, expected)


def test_grad_norm_sorts_by_norm():
    X = gaussian(50, 4)
    X[30] = -X[7]  # ties are ordered by position
    norms = np.sqrt((X**2).sum(axis=1))
    selector = skmm.GradNormSelector(50).fit(X)
    close(selector.norms_, norms)
    equal(selector.sample_indices_, np.argsort(-norms, kind="stable"))
