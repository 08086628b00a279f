"""The selectors other than SkMM, against loops and closed forms at small size."""

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
from sklearn_skmm import _exemplars, _k_means
from sklearn_skmm._rounding import inclusion_probabilities
from sklearn_skmm._selection import Reference

DRAWS = 4000
METRICS = ["gaussian", "euclidean", "sqeuclidean"]
PROBLEMS = {
    "plain": [(60, 20), (1200, 12)],
    "weights": [(60, 40), (513, 20)],
    "duplicates": [(61, 15), (600, 25)],
}
equal, close = np.testing.assert_array_equal, np.testing.assert_allclose


def gaussian(N, d, seed=0):
    return np.random.RandomState(seed).normal(size=(N, d))


def draws(selector, X):
    """Many selections, without what `fit` does around them."""
    reference, n = Reference(X), selector.n_to_select
    rngs = map(np.random.RandomState, range(DRAWS))
    return [selector._select(X, n, reference, rng, lambda: False) for rng in rngs]


def first_least(values):
    return np.argmax(values <= values.min() * (1 + 1e-7))


@pytest.mark.parametrize("seed", range(5))
def test_herding_is_its_definition(seed):
    X = gaussian(50, 4, seed) + 1.0
    w = mu = X.mean(axis=0)
    picks = []
    for _ in range(30):
        picks.append(max(set(range(50)) - set(picks), key=lambda i: X[i] @ w))
        w = w + mu - X[picks[-1]]
    equal(skmm.HerdingSelector(30).fit_transform(X), picks)


def test_herding_approaches_a_mean_far_from_zero():
    X = gaussian(2000, 5) + 20.0
    mu, picks, sizes = X.mean(axis=0), skmm.HerdingSelector(320).fit_transform(X), [1, 20, 80, 320]
    errors = [np.linalg.norm(X[picks[:n]].mean(axis=0) - mu) for n in sizes]
    assert all(after < before for before, after in pairwise(errors))
    # The sum of mu - x telescopes to w_n - w_0, and w_0 = mu; w stays bounded.
    assert max(n * error for n, error in zip(sizes, errors, strict=True)) < 1.1 * np.linalg.norm(mu)


@pytest.mark.parametrize("init", ["random", "center"])
@pytest.mark.parametrize("seed", range(4))
def test_k_center_is_farthest_first(init, seed):
    X = gaussian(60, 3, seed) + 10.0
    selector = skmm.KCenterSelector(12, init=init, random_state=seed).fit(X)
    D = cdist(X, X)
    picks = [selector.sample_indices_[0]]
    if init == "center":
        assert picks == [np.argmin(np.linalg.norm(X - X.mean(axis=0), axis=1))]
    while len(picks) < 12:
        picks.append(np.argmax(D[:, picks].min(axis=1)))
    equal(selector.sample_indices_, picks)
    assert selector.radius_ == pytest.approx(D[:, picks].min(axis=1).max(), rel=1e-9)


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
def test_first_two_random_pivots_have_their_law(block_size):
    X = gaussian(5, 3, 1) * np.array([3, 0.7, 0.3])
    law = np.zeros((5, 5))
    for i in range(5):
        left = np.square(X - np.outer(X @ X[i], X[i]) / (X[i] @ X[i])).sum(axis=1)
        left[i] = 0.0
        law[i] = X[i] @ X[i] / np.square(X).sum() * left / left.sum()
    observed = np.zeros((5, 5))
    # With four to go, the second pick may come from the block of the first or from a later one.
    for selection in draws(skmm.AdaptiveSelector(4, block_size=block_size), X):
        observed[tuple(selection.indices[:2])] += 1
    possible = ~np.eye(5, dtype=bool)
    assert observed[~possible].sum() == 0
    expected = DRAWS * law[possible]
    assert np.sum((observed[possible] - expected) ** 2 / expected) < chi2.ppf(0.999, 19)


@pytest.mark.parametrize("params", [{"pivoting": "greedy"}, {"block_size": 1}, {"block_size": 8}])
def test_pivoting_starts_afresh_past_the_rank(params):
    X = gaussian(20, 3) @ gaussian(3, 10, 1)
    picks = skmm.AdaptiveSelector(20, random_state=0, **params).fit_transform(X)
    equal(np.sort(picks), np.arange(20))
    for start in range(0, 18, 3):
        assert np.linalg.matrix_rank(X[picks[start : start + 3]]) == 3
        if "pivoting" in params:
            rest = np.setdiff1d(np.arange(20), picks[:start])
            pivots = linalg.qr(X[rest].T, mode="r", pivoting=True)[1][:3]
            equal(picks[start : start + 3], rest[pivots])


def skewed():
    X = gaussian(25, 4) * np.array([3, 1, 0.5, 0.1])
    X[[3, 7]] *= 20.0
    X[11] = 0.0
    return X


def hat_diagonal(selector, X):
    """The diagonal of the hat matrix and its trace, from dense formulas."""
    N, n = len(X), selector.n_to_select
    U, singular, _ = np.linalg.svd(X, full_matrices=False)
    values = singular[singular > 1e-10 * singular[0]] ** 2 / N
    keeps = max(1, int(n / np.log(n + 1)))
    if isinstance(selector, skmm.TruncatedLeverageSelector):
        k = min(selector.n_components or keeps, len(values))
        return np.diag(U[:, :k] @ U[:, :k].T), k
    alpha = values[keeps:].sum() / keeps if selector.alpha is None else selector.alpha
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
def test_leverage_sampling_honours_its_probabilities(selector):
    X = skewed()
    selector.fit(X)
    pi, scores = selector.inclusion_probabilities_, selector.leverage_scores_
    certain, free = pi >= 1, (pi > 0) & (pi < 1)
    assert certain.any()
    selections = draws(selector, X)
    picks = np.concatenate([selection.indices for selection in selections])
    observed = np.bincount(picks, minlength=25) / DRAWS
    equal(observed[certain], 1)
    equal(observed[pi == 0], 0)
    z = (observed - pi)[free] / np.sqrt(pi * (1 - pi) / DRAWS)[free]
    # Items are negatively dependent, so this bound for independent ones is on the safe side.
    assert np.square(z).sum() < chi2.ppf(0.999, free.sum())
    features = np.column_stack([X, scores > 0])  # the last one: weights sum to what can be drawn
    totals = np.array([s.sample_weight @ features[s.indices] for s in selections])
    error = totals.mean(axis=0) - features.sum(axis=0)
    assert np.all(np.abs(error) < 4 * totals.std(axis=0) / np.sqrt(DRAWS))


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
    elif np.any(pi < 1):  # every positive score is certain
        assert np.ptp(pi[scores == 0]) == 0


@pytest.mark.parametrize("scores", [[1e6, 1e-308, 1e-308], [1e300, 1e-300, 1e-300]])
def test_inclusion_probabilities_of_scores_far_apart(scores):
    close(inclusion_probabilities(np.array(scores), 2), [1.0, 0.5, 0.5])
    close(inclusion_probabilities(np.array([1e300, 1e-100, 1e-300, 1e-300]), 3), [1, 1, 0.5, 0.5])


def cost_matrix(X, metric, h):
    if metric == "gaussian":
        return -np.expm1(-cdist(X, X, "sqeuclidean") / (2 * h**2))
    return cdist(X, X, metric)


def plain_greedy(C, n, weight, metric):
    """On the whole matrix, ties by position. With no exemplar the cost is 1, or more than any."""
    baseline = 1.0 if metric == "gaussian" else C.max()
    current, picks = np.full(len(C), baseline), []
    while len(picks) < n:
        gains = weight @ np.maximum(current[:, None] - C, 0.0)
        gains[picks] = -1.0
        picks.append(int(np.argmax(gains >= gains.max() - 1e-12 * weight @ C.max(axis=1))))
        current = np.minimum(current, C[:, picks[-1]])
    return picks, weight @ current / weight.sum()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("size", [0, 1])
def test_exemplars_are_plain_greedy(metric, kind, size, monkeypatch):
    N, n = PROBLEMS[kind][size]
    rng = np.random.RandomState(N + n)
    X = rng.normal(size=(N, 3)) + 5.0
    if kind == "duplicates":
        X = X[rng.randint(N // 3, size=N)]
    weight = rng.gamma(1.0, size=N) if kind == "weights" else np.ones(N)
    C = cost_matrix(X, metric, 0.7)
    picks, value = plain_greedy(C, n, weight, metric)
    keywords = {"metric": metric, "bandwidth": 0.7, "weight": weight}
    result = _exemplars.greedy_exemplars(X, n, **keywords)
    equal(result.indices, picks)
    assert result.objective == pytest.approx(value, rel=1e-7)
    assert result.counts.sum() == pytest.approx(weight.sum())
    if kind != "duplicates":
        close(result.counts, np.bincount(np.argmin(C[:, picks], axis=1), weight, n))
    equal(_exemplars.greedy_exemplars(sparse.csr_array(X), n, **keywords).indices, picks)
    monkeypatch.setattr(_exemplars, "CACHE_BYTES", 3 * 8 * N)
    equal(_exemplars.greedy_exemplars(X, n, **keywords).indices, picks)


@pytest.mark.parametrize("metric", ["gaussian", "sqeuclidean"])
def test_no_error_within_the_bounds_changes_a_pick(metric, monkeypatch):
    """That of single precision is hardly ever as large as its bound."""

    class Blurred(_exemplars._Costs):
        def __init__(self, *args):
            super().__init__(*args)
            self.errors = self.errors + 0.01  # on top of that of single precision itself
            self.signs = np.random.RandomState(N).choice([-1.0, 1.0], size=N)

        def __call__(self, rows, columns, fast=False):
            block = super().__call__(rows, columns, fast)
            # All costs of one candidate too large, and all those of another too small.
            return block + 0.02 * self.signs[columns] if fast else block

        def errors_of(self, j, column):
            return self.errors + self.errors[j]

    monkeypatch.setattr(_exemplars, "_Costs", Blurred)
    for N in range(60, 66):
        X, weight = gaussian(N, 2, N), np.ones(N)
        picks, _ = plain_greedy(cost_matrix(X, metric, 1.0), 15, weight, metric)
        for budget in (_exemplars.CACHE_BYTES, 0):
            with monkeypatch.context() as patch:
                patch.setattr(_exemplars, "CACHE_BYTES", budget)
                equal(_exemplars.greedy_exemplars(X, 15, metric=metric).indices, picks)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_ties_of_the_first_exemplar_do_not_depend_on_the_unit(metric):
    # Mirrored, so that each but the middle has a twin, of which the first is to be taken.
    rows = gaussian(8, 2)
    X = np.concatenate([rows, -rows])
    picks = _exemplars.greedy_exemplars(X, 4, metric=metric).indices
    assert picks[0] in range(1, 8)
    for exponent in (-30, 30):
        scaled = _exemplars.greedy_exemplars(X * 2.0**exponent, 4, metric=metric)
        equal(scaled.indices, picks)


def test_exemplars_look_no_further_once_all_is_represented(monkeypatch):
    looked_at, get = [], _exemplars._Columns.get

    def count(self, wanted):
        looked_at.append(len(wanted))
        return get(self, wanted)

    monkeypatch.setattr(_exemplars._Columns, "get", count)
    X = np.repeat(gaussian(3, 2), 20, axis=0)
    # Not in single precision, which does not know what is nothing.
    picks = _exemplars.greedy_exemplars(X, 9, metric="euclidean").indices
    equal(np.sort(picks[:3] // 20), range(3))
    assert looked_at[-5:] == [1] * 5  # the picks' own


def test_exemplars_without_a_bandwidth_have_one():
    X = gaussian(30, 2)
    picks, value = plain_greedy(cost_matrix(X, "gaussian", 1.0), 5, np.ones(30), "gaussian")
    result = _exemplars.greedy_exemplars(X, 5)
    equal(result.indices, picks)
    assert result.objective == pytest.approx(value)


@pytest.mark.parametrize("metric", METRICS)
def test_facility_location(metric):
    X = gaussian(70, 3)
    selector = skmm.FacilityLocationSelector(9, metric=metric).fit(X)
    h = np.median(pdist(X)) / 2
    assert selector.bandwidth_ == pytest.approx(h if metric == "gaussian" else np.nan, nan_ok=True)
    C = cost_matrix(X, metric, h)
    equal(selector.sample_indices_, plain_greedy(C, 9, np.ones(70), metric)[0])
    assert selector.objective_ == pytest.approx(C[:, selector.sample_indices_].min(axis=1).mean())
    assert selector.sample_weight_.sum() == 70


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_facility_location_reaches_its_share_of_the_optimum(n):
    for seed in range(6):
        X = gaussian(9, 2, seed)
        C = cost_matrix(X, "gaussian", 1.0)
        saving = 1 - skmm.FacilityLocationSelector(n, bandwidth=1.0).fit(X).objective_
        best = max(1 - C[:, S].min(axis=1).mean() for S in combinations(range(9), n))
        assert (1 - 1 / np.e) * best <= saving <= best * (1 + 1e-9)


@pytest.mark.parametrize("metric", ["k-means", *METRICS])
def test_fewer_distinct_rows_than_picks(metric):
    X = gaussian(6, 2)[np.random.RandomState(1).randint(6, size=40)]
    k_means, facility = skmm.KMeansSelector(20, random_state=0), skmm.FacilityLocationSelector(20)
    selector = k_means if metric == "k-means" else facility.set_params(metric=metric)
    picks = selector.fit_transform(X)
    assert len(np.unique(picks)) == 20
    assert len(np.unique(X[picks], axis=0)) == 6  # no row is left out
    assert selector.sample_weight_.min() >= 1
    assert selector.sample_weight_.sum() == 40


def medoid(X, members):
    return members[first_least(cdist(X[members], X[members], "sqeuclidean").sum(axis=1))]


@pytest.mark.parametrize(
    ("N", "n", "max_iter"), [(80, 10, 300), (4000, 15, 300), (600, 12, 2), (30, 30, 300)]
)
def test_k_means_takes_the_nearest_to_each_centre(monkeypatch, N, n, max_iter):
    fitted = []
    fit = KMeans.fit
    monkeypatch.setattr(_k_means.KMeans, "fit", lambda *args: fitted.append(args[0]) or fit(*args))
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
def test_uncertainty(criterion):
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
    # The classifier has seen all classes; in each the least certain are taken.
    close(stratified.uncertainties_, expected)
    parts = [m[np.argsort(-expected[m])[:4]] for m in (np.flatnonzero(y == k) for k in range(3))]
    equal(stratified.sample_indices_, np.sort(np.concatenate(parts)))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_no_sample_of_a_single_class_is_less_certain(criterion):
    selector = skmm.UncertaintySelector(4, GaussianNB(), criterion=criterion)
    selector.fit(gaussian(20, 3), np.zeros(20, dtype=int))
    equal(selector.uncertainties_, 0.0)
    equal(selector.sample_indices_, np.arange(4))


def test_prefitted_classifier_is_used_as_it_is():
    X, y = gaussian(60, 3), np.arange(60) % 2
    classifier = LogisticRegression().fit(gaussian(40, 3, 1), np.arange(40) % 3)
    expected = 1 - classifier.predict_proba(X).max(axis=1)
    selector = skmm.UncertaintySelector(5, classifier, criterion="least_confidence").fit(X, y)
    equal(selector.uncertainties_, expected)


def test_grad_norm_is_an_argsort():
    X = gaussian(50, 4)
    X[30] = -X[7]  # ties go by position
    norms = np.sqrt((X**2).sum(axis=1))
    selector = skmm.GradNormSelector(50).fit(X)
    close(selector.norms_, norms)
    equal(selector.sample_indices_, np.argsort(-norms, kind="stable"))


@pytest.mark.parametrize("size", [5, 1000])
def test_median_distance_is_that_of_a_subsample(size):
    X = gaussian(size + 1, 3)
    drawn = X[np.random.RandomState(0).choice(size + 1, size, replace=False)]
    keywords = {} if size == 1000 else {"size": size}  # 1000 is the default
    value = _exemplars.median_distance(X, np.random.RandomState(0), **keywords)
    assert value == pytest.approx(np.median(pdist(drawn)), rel=1e-12)
    rng = np.random.RandomState(0)  # nothing to draw: the generator stays where it is
    value = _exemplars.median_distance(X[1:], rng, **keywords)
    assert value == pytest.approx(np.median(pdist(X[1:])), rel=1e-12)
    assert rng.uniform() == np.random.RandomState(0).uniform()


def test_median_distance_of_equal_rows():
    rng = np.random.RandomState(0)
    assert _exemplars.median_distance(np.ones((1, 2)), rng) == 1.0
    assert _exemplars.median_distance(np.ones((4, 2)), rng) == 1.0
    X = np.array([[0.0], [0.0], [0.0], [0.0], [5.0]])
    assert _exemplars.median_distance(X, rng) == pytest.approx(4 * 5 / 10)
    assert _exemplars.typical(np.array([])) == _exemplars.typical(np.zeros(3)) == 1.0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array, sparse.csr_matrix])
@pytest.mark.parametrize("h", [0.1, 0.7, 30.0])
def test_costs_and_their_bounds(metric, kind, h, monkeypatch):
    """Exact costs, and fast ones within their error, of all pairs and in blocks."""
    monkeypatch.setattr(_exemplars, "BLOCK", 16)
    N = 50
    X = gaussian(N, 3) * 0.3
    X[7], X[9] = X[8], 20.0
    C = cost_matrix(X, metric, h)
    costs = _exemplars._Costs(kind(X), metric, h)
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
        # No more than by the errors of both alone, but for the rounding of the cost itself.
        together = costs.errors + costs.errors[j]
        assert np.all(errors <= 1.1 * together + 2e-7)
        if metric == "gaussian" and h == 0.1:  # far apart, and sure to be
            assert np.all(errors[column == 1.0] <= 3e-7)
    # Blocks in the precision that was asked for, kept or not.
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
    close(_exemplars._Costs(X, "sqeuclidean", 3.0).errors, squares)
    close(_exemplars._Costs(X, "gaussian", 3.0).errors, squares / 18 + eps / 2)
    equal(_exemplars._Costs(X, "euclidean", 3.0).errors, 0.0)
    for scale, single in ((1e-9, False), (1e-2, True), (1e9, False)):
        for metric in ("gaussian", "sqeuclidean"):
            assert _exemplars._Costs(X * scale, metric, scale).single == single


def test_errors_of_a_candidate():
    """An exponent that is off by δ takes exp(-e) to at most exp(δ - e)."""
    eps = np.finfo(np.float32).eps
    X = gaussian(4, 2)
    column = np.array([0.0, 0.5, 0.9, 1.0], dtype=np.float32)
    costs = _exemplars._Costs(X, "gaussian", 1.0)
    costs.errors = np.array([0.1, 2.0, 30.0, 60.0])
    grown = np.expm1([0.2, 2.1, 30.1, 40.0])
    close(costs.errors_of(0, column), (1.0 + eps - column) * grown + eps, rtol=1e-9)
    costs = _exemplars._Costs(X, "sqeuclidean", 1.0)
    equal(costs.errors_of(1, column), costs.errors + costs.errors[1])
    equal(_exemplars._Costs(X, "euclidean", 1.0).errors_of(1, column), 0.0)


def test_short_rows_next_to_long_ones_stay_apart():
    # Twice: where few pairs are as near, and where most are.
    for n_long, n_short in ((30, 3), (1, 19)):
        long, short = gaussian(n_long, 2), 1e-8 * gaussian(n_short, 2, 1)
        X = np.concatenate([long, -long, short, -short])
        squared, few = _exemplars.squared_distances(X), X[2 * n_long :]
        close(squared[2 * n_long :, 2 * n_long :], cdist(few, few, "sqeuclidean"), rtol=1e-6)
        assert np.all(squared + np.eye(len(X)) > 0.0)


def test_what_is_rounding_is_zero():
    """Rows are as good as equal at eight units in the last place of their norms, not at more."""
    eps, half = np.finfo(float).eps, np.full(3, 0.5)
    units = np.array([7.5, 8.0, 8.5])
    squared = _exemplars._from_products(half - units * eps / 2, half, half)
    equal(squared, np.where(units > 8, units * eps, 0.0))


@pytest.mark.parametrize("copies", [1, 30])
def test_equal_rows_are_at_distance_zero_and_no_others(copies):
    X = gaussian(40, 3) + 1e4
    X[:copies] = X[-1]
    squared = _exemplars.squared_distances(X)
    same = (X[:, None] == X).all(axis=2)
    equal(squared == 0.0, same)
    close(squared, cdist(X, X, "sqeuclidean"), atol=1e-6)


def test_a_bound_of_no_gain_is_the_error_of_the_costs():
    X, weight = gaussian(30, 3), np.random.RandomState(0).gamma(1.0, size=30)
    costs = _exemplars._Costs(X, "sqeuclidean", 1.0)
    blur = costs.errors[::-1]
    errors = weight @ (blur[:, None] + costs.errors[:, None] + costs.errors)
    close(costs.gain_bounds(np.zeros(30), blur, weight), errors)


@pytest.mark.parametrize("metric", METRICS)
def test_costs_far_from_zero(metric):
    X = gaussian(30, 3) + np.array([1e8, -3e7, 0.0])
    costs = _exemplars._Costs(X, metric, 0.7)
    everything = np.arange(30)
    close(costs(everything, everything), cost_matrix(X, metric, 0.7), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_costs_are_never_negative(metric):
    X = np.repeat(gaussian(40, 30) * 1e3, 2, axis=0)
    costs = _exemplars._Costs(X, metric, 100.0)
    for fast in (False, True):
        block = costs(np.arange(0, 80, 2), np.arange(1, 80, 2), fast=fast)
        assert block.min() >= 0


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_kept_of_the_costs_fits_the_budget(metric, monkeypatch):
    monkeypatch.setattr(_exemplars, "BLOCK", 8)
    X = gaussian(16, 3)
    itemsize = 8 if metric == "euclidean" else 4
    triangle = 3 * 8 * 8 * itemsize  # three blocks
    for spare in (0, -1):
        monkeypatch.setattr(_exemplars, "CACHE_BYTES", triangle + spare)
        assert _exemplars._Costs(X, metric, 1.0).keeps_all == (spare == 0)
    for budget, capacity in ((3 * 16 * itemsize + 1, 3), (1, 1)):
        monkeypatch.setattr(_exemplars, "CACHE_BYTES", budget)
        costs = _exemplars._Costs(X, metric, 1.0)
        columns = _exemplars._Columns(costs)
        for wanted in ([4], [1, 2], [2, 4, 7, 9], [0, 9]):
            for j, column in zip(wanted, columns.get(np.array(wanted)), strict=True):
                close(column, costs(slice(None), [j])[:, 0], atol=1e-5)
                assert column.dtype == costs.dtype
            assert len(columns.kept) <= capacity
        assert len(columns.kept) == capacity


@pytest.mark.parametrize("metric", METRICS)
def test_exact_costs_are_caught_up_with_in_blocks(metric, monkeypatch):
    monkeypatch.setattr(_exemplars, "BLOCK", 3)
    X = gaussian(30, 2)
    X[12], X[5] = X[3], X[3]
    costs = _exemplars._Costs(X, metric, 0.7)
    nearest = _exemplars._Nearest(costs, np.full(30, np.inf))
    assert nearest.fast.dtype == costs.dtype
    picks = [3, 12, 8, 20, 5, 1, 9, 11]
    for due in (picks[:7], picks[7:]):
        for j in due:
            nearest.add(j, costs(slice(None), [j], fast=True)[:, 0])
        C = cost_matrix(X, metric, 0.7)[:, nearest.indices]
        close(nearest.exact(), C.min(axis=1), atol=1e-12)
        close(nearest.fast, C.min(axis=1), atol=1e-5)
        assert np.all(np.abs(nearest.fast - C.min(axis=1)) <= nearest.blur + 1e-12)
        equal(nearest.label, C.argmin(axis=1))  # of equal ones the first


def test_what_is_not_nearer_may_be_as_far_as_is_known():
    costs = _exemplars._Costs(np.zeros((4, 1)), "sqeuclidean", 1.0)
    nearest = _exemplars._Nearest(costs, np.array([2.0, 2.0, 2.0, 2.0]))
    for column, error in ([1.0, 3.0, 5.0, 2.0], 1.5), ([0.5, 1.5, 1.5, 2.0], 0.25):
        costs.errors = np.full(4, error / 2)
        nearest.add(0, np.array(column))
    # The first was found at 1 and may be 1.5 nearer, at -0.5: 1 below what it is now. The last may
    # be at 0.5 from before, and the others are as far off as the last column.
    equal(nearest.fast, [0.5, 1.5, 1.5, 2.0])
    equal(nearest.blur, [1.0, 0.25, 0.25, 1.5])


@pytest.mark.parametrize(("budget", "times"), [(_exemplars.CACHE_BYTES, 2), (0, 8)])
def test_exemplars_of_a_crowd_far_apart(budget, times, monkeypatch):
    """Many that cover but themselves, and tie: each is looked at a few times, not for each pick."""
    monkeypatch.setattr(_exemplars, "CACHE_BYTES", budget)
    columns, compute = [], _exemplars._Costs.__call__

    def count(self, rows, wanted, fast=False):
        if not isinstance(wanted, slice):
            columns.append(len(wanted))
        return compute(self, rows, wanted, fast)

    N, n = 400, 200
    X = gaussian(N, 8) * np.exp(2.0 * np.random.RandomState(1).normal(size=(N, 1)))
    h = _exemplars.median_distance(X, np.random.RandomState(0)) / 2
    picks, value = plain_greedy(cost_matrix(X, "gaussian", h), n, np.ones(N), "gaussian")
    monkeypatch.setattr(_exemplars._Costs, "__call__", count)
    result = _exemplars.greedy_exemplars(X, n, bandwidth=h)
    equal(result.indices, picks)
    assert result.objective == pytest.approx(value)
    assert sum(columns) <= times * N


@pytest.mark.parametrize("dtype", [float, np.float32])
def test_squared_distances(dtype):
    X = (gaussian(30, 3) + np.array([3e5, -3e5, 0.0])).astype(dtype)
    X[7] = X[4]
    squared = _exemplars.squared_distances(X)
    assert squared.dtype == float
    close(squared, cdist(X.astype(float), X.astype(float), "sqeuclidean"), rtol=1e-9, atol=1e-12)
    assert squared[4, 7] == squared[7, 4] == 0.0
    equal(squared.diagonal(), 0.0)


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix])
def test_squared_distances_of_sparse_rows(kind):
    X = gaussian(30, 3).astype(np.float32)
    X[X < 0.3] = 0.0
    squared = _exemplars.squared_distances(kind(X))
    assert type(squared) is np.ndarray
    assert squared.dtype == float
    close(squared, cdist(X.astype(float), X.astype(float), "sqeuclidean"), atol=1e-12)


@pytest.mark.parametrize("seed", [7, 14, 17, 25])
def test_exemplars_next_to_a_far_heavy_outlier(seed):
    """The error of the nearest exemplar's costs counts, too: with it the picks are greedy's."""
    rng = np.random.RandomState(seed)
    X, weight = rng.normal(size=(200, 5)), np.ones(200)
    X[0], weight[0] = [1e4, 0, 0, 0, 0], 300.0
    picks = _exemplars.greedy_exemplars(X, 20, metric="sqeuclidean", weight=weight).indices
    C = cdist(X, X, "sqeuclidean")
    current = C[:, picks[0]]
    tie = 2e-12 * (weight @ current)
    for j in picks[1:]:
        gains = weight @ np.maximum(current[:, None] - C, 0.0)
        assert gains[j] >= gains.max() - tie
        current = np.minimum(current, C[:, j])


@pytest.mark.parametrize("kind", ["plain", "weights", "duplicates"])
def test_greedy_of_few_is_plain_greedy(kind):
    calls = []
    for seed in range(4):
        X, weight = gaussian(40, 2, seed), np.full(40, 2.0)
        if kind == "duplicates":
            X = X[np.random.RandomState(seed).randint(15, size=40)]
        elif kind == "weights":
            weight = np.random.RandomState(seed).gamma(1.0, size=40)
        for n in (1, 12):
            squared = _exemplars.squared_distances(X)
            picks = _exemplars.greedy_of_few(
                squared, n, 0.7, weight, lambda: calls.append(0)
            ).indices
            equal(picks, plain_greedy(cost_matrix(X, "gaussian", 0.7), n, weight, "gaussian")[0])
            assert picks.dtype == int
    assert len(calls) == 4 * (1 + 12)
    # What is left when all distinct rows are taken is taken, too, each sample once.
    picks = _exemplars.greedy_of_few(_exemplars.squared_distances(X), 40, 0.7, weight).indices
    equal(np.sort(picks), np.arange(40))
