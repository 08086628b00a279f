"""Checks of the theory: inclusion probabilities, unbiased totals, certificates, bounds on the risk.

Certificates and bounds always hold, so their tests pass with any seed. Tests of random selections
are calibrated: with another seed, each of the two comparisons below (of inclusion counts and of
totals) would fail a correct implementation once in a million times (`FALSE_ALARM`), counting
everything that it compares together. Fixed seeds make the tests repeatable.

`examples/benchmarks/promises.py` checks more selections, seeds and sizes.
"""

import sys
from itertools import combinations
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from scipy import linalg, stats
from scipy.spatial.distance import cdist
from sklearn.linear_model import Ridge

import sklearn_skmm as skmm
from sklearn_skmm import diagnostics
from sklearn_skmm.core import _balanced, _draws
from sklearn_skmm.core._balanced import cube, local_cube
from sklearn_skmm.core._draws import choice, inclusion_probabilities, spread, systematic
from sklearn_skmm.selectors import _skmm
from tests.selectors.test_v_optimal import optimum

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"
with mock.patch.object(sys, "path", [str(BENCHMARKS), *sys.path]):
    from _small_pools import relaxed_minimum, small_pool

pytestmark = pytest.mark.slow

FALSE_ALARM = 1e-6
SEEDS = 96  # small pools, eight of each kind with each c_S


def assert_included(counts, repeats, pi):
    """Compare selection counts with inclusion probabilities.

    Each count is binomial. The tails are exact, with a Bonferroni correction over the items.
    """
    pi = np.where(pi > 1 - 1e-9, 1.0, pi)  # certain, up to rounding
    np.testing.assert_array_equal(counts[pi == 0], 0)
    np.testing.assert_array_equal(counts[pi == 1], repeats)
    free = (pi > 0) & (pi < 1)
    distribution = stats.binom(repeats, pi[free])
    tail = np.minimum(distribution.cdf(counts[free]), distribution.sf(counts[free] - 1))
    assert 2 * tail.min() > FALSE_ALARM / free.sum()


def assert_unbiased(totals, truth):
    """Compare the means of the totals with the true totals.

    The means are normal; for four of them, the limit is 5.2 standard errors.
    """
    totals = np.asarray(totals)
    error, scale = totals.mean(axis=0) - truth, totals.std(axis=0) / np.sqrt(len(totals))
    limit = stats.norm.isf(FALSE_ALARM / 2 / len(truth))
    assert np.all(np.abs(error) <= limit * scale + 1e-9 * np.abs(truth))


def skewed_pool(N=60):
    """Return a pool with rows of very different norms, four columns to total, and three classes."""
    rng = np.random.RandomState(0)
    X = rng.normal(size=(N, 6)) * [3, 1, 1, 0.5, 0.5, 0.2] * rng.lognormal(0, 0.5, size=(N, 1))
    y = X @ rng.normal(size=6) + rng.standard_t(4, size=N)
    return X, np.column_stack([np.ones(N), X[:, 0], y, y**2]), np.arange(N) % 3


# The roundings, from weights to samples, for kinds of weights that take different code paths.


def weights(kind, rng, N=40, n=8):
    scores = {
        "even": np.ones(N),
        "decades": 10.0 ** rng.uniform(-2, 1, size=N),
        "few": rng.gamma(1.0, size=N) * (rng.uniform(size=N) < 0.4),
    }[kind]
    return inclusion_probabilities(scores, n) / n


ROUNDINGS = {
    "systematic": lambda s, n, A, X, rng: systematic(s, n, rng),
    "spread": lambda s, n, A, X, rng: spread(s, n, X, rng),
    "cube": lambda s, n, A, X, rng: cube(s, n, A, rng),
    "local_cube": local_cube,
}
POSITIONS = {
    "distinct rows": lambda rng, N: rng.normal(size=(N, 3)),
    "equal rows": lambda rng, N: rng.normal(size=(N // 3, 3))[rng.randint(N // 3, size=N)],
    "collinear": lambda rng, N: np.outer(rng.normal(size=N), [1.0, 2.0, 0.0]),
}
REPEATS = {"systematic": 5000, "spread": 1000, "cube": 500, "local_cube": 500}


def assert_fair_rounding(rounding, s, n, X, repeats):
    """Check the inclusion probability of each item, and totals over all items.

    Counts detect a large error in a single item. Totals detect small errors in many items: those
    with large weights, on one side of X, or first in it.
    """
    rng, pi = np.random.RandomState(0), n * s
    indices = np.array([rounding(s, n, np.square(X), X, rng) for _ in range(repeats)])
    assert_included(np.bincount(indices.ravel(), minlength=len(s)), repeats, pi)
    columns = np.column_stack([pi, np.arange(len(s)), X])
    assert_unbiased(columns[indices].sum(axis=1), pi @ columns)


@pytest.mark.parametrize(
    ("rounding", "kind", "positions"),
    [
        *(
            (name, kind, "distinct rows")
            for name in ROUNDINGS
            for kind in ("even", "few", "decades")
        ),
        # Systematic rounding reads no rows, and the cube only their squares.
        *((name, "decades", "equal rows") for name in ("spread", "local_cube")),
        *((name, "decades", "collinear") for name in ("spread", "cube", "local_cube")),
    ],
)
def test_rounding_selects_with_probability_n_s(rounding, kind, positions):
    rng = np.random.RandomState(1)
    X, s = POSITIONS[positions](rng, 40), weights(kind, rng)
    assert_fair_rounding(ROUNDINGS[rounding], s, 8, X, REPEATS[rounding])


@pytest.mark.parametrize("rounding", ["spread", "cube", "local_cube"])
def test_rounding_in_parts_selects_with_probability_n_s(rounding, monkeypatch):
    monkeypatch.setattr(_draws, "MAX_EXACT", 30)
    monkeypatch.setattr(_draws, "MAX_CELL", 10)
    monkeypatch.setattr(_balanced, "BATCH", 32)  # two groups of items at a time
    monkeypatch.setattr(_balanced, "REFRESH", 2)
    rng = np.random.RandomState(2)
    X, s = rng.normal(size=(60, 3)), weights("decades", rng, 60, 12)
    assert_fair_rounding(ROUNDINGS[rounding], s, 12, X, 300)


BIASED = {
    "choice": lambda s, n, A, X, rng: choice(s, n, rng),
    "a tenth closer to even": lambda s, n, A, X, rng: systematic(0.9 * s + 0.1 / 40, n, rng),
}


@pytest.mark.parametrize("repeats", sorted(set(REPEATS.values())))
@pytest.mark.parametrize("rounding", BIASED)
def test_inclusion_test_detects_a_biased_rounding(rounding, repeats):
    s = weights("decades", np.random.RandomState(1))
    X = np.random.RandomState(2).normal(size=(40, 3))
    with pytest.raises(AssertionError):
        assert_fair_rounding(BIASED[rounding], s, 8, X, repeats)


# The selectors.


def selections(selector, X, classes, repeats):
    for seed in range(repeats):
        yield selector.set_params(random_state=seed).fit(X, classes)


def repeat_first_result(function):
    """Return a function that returns the result of its first call in every call."""
    results = []

    def first(*args, **kwargs):
        if not results:
            results.append(function(*args, **kwargs))
        return results[0]

    return first


@pytest.mark.parametrize(
    "selector",
    [
        skmm.UniformSelector(12),
        skmm.UniformSelector(14, stratify=True),
        skmm.RidgeLeverageSelector(14, alpha=0.1, stratify=True),
        skmm.TruncatedLeverageSelector(14, n_components=5, stratify=True),
    ],
    ids=repr,
)
def test_totals_weighted_by_sample_weight_are_unbiased(selector):
    X, columns, classes = skewed_pool()
    counts, totals, repeats = np.zeros(len(X)), [], 500
    for fitted in selections(selector, X, classes, repeats):
        counts[fitted.sample_indices_] += 1
        totals.append(fitted.sample_weight_ @ columns[fitted.sample_indices_])
    assert_unbiased(totals, columns.sum(axis=0))
    pi = getattr(fitted, "inclusion_probabilities_", None)
    if pi is None:  # uniform: 5, 5 and 4 of the three classes of 20
        pi = np.array([0.25, 0.25, 0.2])[classes] if fitted.stratify else np.full(60, 0.2)
    assert pi.sum() == pytest.approx(fitted.n_to_select)
    assert_included(counts, repeats, pi)


@pytest.mark.parametrize(
    ("rounding", "dtype"), [*((name, np.float32) for name in ROUNDINGS), ("spread", np.float64)]
)
def test_skmm_selects_with_probability_n_s(rounding, dtype, monkeypatch):
    """Totals weighted by 1 / (n·s) are unbiased too, over the samples with a positive weight."""
    X, columns, classes = skewed_pool()
    X = X.astype(dtype)
    selector = skmm.SkMMSelector(12, c_S=0.6, rounding=rounding)
    # From uniform weights, the solver's result does not depend on the seed, so it runs once.
    monkeypatch.setattr(_skmm, "solve", repeat_first_result(_skmm.solve))
    counts, totals, repeats = np.zeros(len(X)), [], 500
    for fitted in selections(selector, X, classes, repeats):
        indices, pi = fitted.sample_indices_, 12.0 * fitted.weights_
        counts[indices] += 1
        totals.append(columns[indices].T @ (1 / pi[indices]))
    assert pi.min() < 1e-6  # some are never or almost never selected
    has_weight = pi > 1e-6
    assert counts[~has_weight].sum() == 0
    assert_included(counts, repeats, pi)
    assert_unbiased(totals, columns[has_weight].sum(axis=0))


def test_totals_test_detects_wrong_weights():
    X, columns, classes = skewed_pool()
    selector = skmm.RidgeLeverageSelector(12, alpha=0.1)
    fits = selections(selector, X, classes, 400)
    totals = [60 / 12 * columns[fitted.sample_indices_].sum(axis=0) for fitted in fits]
    with pytest.raises(AssertionError):
        assert_unbiased(totals, columns.sum(axis=0))


# Certificates, compared with all subsets of small pools.


def small_pools(size=9):
    return (small_pool(seed, size) for seed in range(SEEDS))


def subsets(X, n):
    """Return all subsets of size n, one per row."""
    return np.array(list(combinations(range(len(X)), n)))


@pytest.mark.filterwarnings("ignore:The solver stopped:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n", [2, 5])
def test_duality_gap_bounds_the_distance_to_the_minimum(n):
    relative_gaps = {1: [], 5: [], 50: []}
    for seed, X in enumerate(small_pools()):
        c_S, minimum = (0.6, 0.8, 0.999)[seed % 3], None
        for max_iter, ratios in relative_gaps.items():
            selector = skmm.SkMMSelector(
                n, c_S=c_S, init="vertex", max_iter=max_iter, tol=1e-9, random_state=seed
            ).fit(X)
            eigenvalues = selector.eigenvalues_
            if minimum is None:
                A = np.square(X @ selector.components_.T)
                minimum = relaxed_minimum(A, eigenvalues, n, c_S)
            unit = np.square(eigenvalues / c_S).sum()
            above = selector.objective_ - minimum
            assert -1e-9 * unit <= above <= selector.dual_gap_ + 1e-12 * unit
            ratios.append(selector.dual_gap_ / selector.objective_ if selector.objective_ else 0.0)
    # The gap is also useful: it proves more than that the objective is non-negative.
    assert np.min(relative_gaps[5]) < 0.1
    assert np.min(relative_gaps[50]) < 0.1


@pytest.mark.parametrize("n", [2, 5])
def test_no_subset_is_below_the_lower_bound_of_v_optimality(n):
    for X in small_pools():
        selector = skmm.VOptimalSelector(n).fit(X)
        best = optimum(X, n, selector.alpha_)
        assert selector.lower_bound_ <= best * (1 + 1e-9)
        assert best <= selector.objective_ * (1 + 1e-9)
        assert selector.objective_ * (1 - selector.gap_) <= best * (1 + 1e-9)
        # The bound of a poor selection holds too, where the objective itself gives no tight bound.
        first = skmm.VOptimalSelector(n, init=np.arange(n), max_iter=0, alpha=selector.alpha_)
        assert first.fit(X).lower_bound_ <= best * (1 + 1e-9)


@pytest.mark.parametrize("metric", ["gaussian", "euclidean", "sqeuclidean"])
@pytest.mark.parametrize("n", [2, 4])
def test_facility_location_keeps_its_guarantee_in_every_metric(n, metric):
    """Greedy saves at least 1 − 1/e of what the best exemplars save.

    The saving is relative to the cost of leaving every sample to its worst exemplar.
    """
    for X in small_pools():
        C = cdist(X, X, "euclidean" if metric == "euclidean" else "sqeuclidean")
        before = C.max(axis=1)
        if metric == "gaussian":
            C, before = -np.expm1(-C / 2), np.ones(len(X))
        best = most_saved(C, before, n)
        selector = skmm.FacilityLocationSelector(n, metric=metric, bandwidth=1.0).fit(X)
        saved = before.sum() - len(X) * selector.objective_
        assert (1 - 1 / np.e) * best <= saved <= best * (1 + 1e-9)


def most_saved(C, before, n):
    """Return what the best n exemplars save."""
    return before.sum() - C[:, subsets(C, n)].min(axis=2).sum(axis=0).min()


def test_greedy_guarantee_is_nearly_tight_for_two_exemplars():
    """1 − (1 − 1/n)ⁿ is 3/4 for n = 2, and greedy reaches 0.7504 if it starts in the middle."""
    # Two clusters, and between them the sample that is closest to all together. Greedy starts with
    # it, so only one cluster gets an exemplar of its own.
    X = np.concatenate([np.full(50, -1.0), np.full(50, 1.0), [0.0]])[:, None]
    C = -np.expm1(-np.square(X - X.T) / (2 * 0.9**2))
    selector = skmm.FacilityLocationSelector(2, bandwidth=0.9).fit(X)
    best = most_saved(C, np.ones(len(X)), 2)
    ratio = len(X) * (1 - selector.objective_) / best
    assert selector.sample_indices_[0] == 100
    assert 0.75 <= ratio < 0.9


# The bound on the excess risk.


def low_dimensional_gradients(kind, rng, N=300, r=60):
    """Return gradients with few important directions: decaying, in clusters or with heavy tails."""
    if kind == "clusters":
        return rng.normal(size=(6, r))[rng.randint(6, size=N)] + 0.02 * rng.normal(size=(N, r))
    G = rng.normal(size=(N, r)) * np.sqrt(np.maximum(0.2 ** np.arange(r), 1e-6))
    return G * np.exp(rng.normal(size=(N, 1))) if kind == "heavy tails" else G


class Regression:
    """Ridge regression on the coreset, for a linear model with noise and ‖θ*‖ = 1."""

    def __init__(self, G, indices, sigma, alpha=None):
        n = len(indices)
        self.alpha = sigma**2 / n if alpha is None else alpha
        self.moment, moment_S = G.T @ G / len(G), G[indices].T @ G[indices] / n
        inverse = linalg.inv(moment_S + self.alpha * np.eye(G.shape[1]))
        self.loss = self.alpha**2 * inverse @ self.moment @ inverse
        self.variance = sigma**2 / n * np.trace(self.moment @ inverse @ moment_S @ inverse)

    def expected_risk(self, theta):
        return self.variance + theta @ self.loss @ theta

    def worst_risk(self):
        return self.variance + linalg.eigvalsh(self.loss)[-1]


@pytest.mark.parametrize("kind", ["decaying", "clusters", "heavy tails"])
def test_expected_risk_is_within_the_bound(kind):
    """The bound holds for the worst θ*, whatever the coreset, its size and the noise."""
    ratios = []
    for seed in range(24):
        rng = np.random.RandomState(seed)
        G, n = low_dimensional_gradients(kind, rng), (2, 8, 80)[seed % 3]
        for cls in (skmm.UniformSelector, skmm.SkMMSelector):
            indices = cls(n, random_state=seed).fit_transform(G)
            for sigma in 10 ** rng.uniform(-2, 0, size=3):
                bound = diagnostics.excess_risk_bound(G, indices, sigma=sigma)
                ratios.append(Regression(G, indices, sigma).worst_risk() / bound)
    assert np.max(ratios) <= 1 + 1e-9
    assert np.max(ratios) > 0.5  # half the bound would not hold


def test_bound_without_noise_is_twice_the_risk_of_a_missing_direction():
    """The coreset misses a single direction, and θ* points along it."""
    G = np.diag([3.0, 2.0, 1.0])
    indices, sigma = [0, 1], 1e-5
    risk = Regression(G, indices, sigma).worst_risk()
    assert risk == pytest.approx(1 / 3)
    assert diagnostics.excess_risk_bound(G, indices, sigma=sigma) == pytest.approx(2 * risk)


def test_bound_without_bias_is_the_risk_of_least_squares():
    G = np.random.RandomState(0).normal(size=(200, 4))
    indices, sigma = np.arange(20), 1e-3
    risk = Regression(G, indices, sigma).worst_risk()
    assert diagnostics.excess_risk_bound(G, indices, sigma=sigma) == pytest.approx(risk, rel=1e-3)


def test_bound_does_not_hold_for_every_subspace_of_the_span():
    """The two terms of another subspace can add up to far less than the risk of every ridge.

    The subspace is across the eigenvectors of Σ_S. The coreset has two samples, one of them with a
    small norm; all other samples are halfway between.
    """
    noise = 0.01
    G = np.vstack([[np.sqrt(2), 0], [0, np.sqrt(2) * noise], np.full((4000, 2), np.sqrt(0.5))])
    indices, sigma, across = [0, 1], np.sqrt(2 * noise), [[1.0, 1.0]]
    ridges = np.logspace(-10, 4, 400)
    risk = min(Regression(G, indices, sigma, a).expected_risk(np.array([0, 1])) for a in ridges)
    terms = diagnostics.variance_term(G, indices, sigma=sigma, basis=across)
    terms += diagnostics.bias_term(G, indices, basis=across)
    assert terms < 0.1 * risk
    assert risk <= diagnostics.excess_risk_bound(G, indices, sigma=sigma)


@pytest.mark.parametrize("n", [10, 40])
def test_expected_risk_is_the_mean_risk_of_ridge_over_the_noise(n):
    """The tests of the bound are therefore about scikit-learn's Ridge."""
    rng = np.random.RandomState(0)
    G, sigma, repeats = low_dimensional_gradients("decaying", rng), 0.1, 20_000
    indices = skmm.SkMMSelector(n, random_state=0).fit_transform(G)
    theta = rng.normal(size=G.shape[1])
    theta /= np.linalg.norm(theta)
    Y = (G[indices] @ theta)[:, None] + sigma * rng.normal(size=(n, repeats))
    errors = Ridge(alpha=sigma**2, fit_intercept=False).fit(G[indices], Y).coef_ - theta
    regression = Regression(G, indices, sigma)
    risks = np.einsum("ij,jk,ik->i", errors, regression.moment, errors)
    assert_unbiased(risks[:, None], np.array([regression.expected_risk(theta)]))


def test_theorem_on_sketches_bounds_the_risk():
    """The theorem's unspecified constant is set to one, and m is as large as it requires.

    The theorem may fail for one Γ in ten. Here it holds for all, by a wide margin.
    """
    n, m, seeds, ratios = 100, 80, 50, []
    for seed in range(seeds):
        rng = np.random.RandomState(seed)
        G, sigma = (
            low_dimensional_gradients("decaying", rng, N=400, r=120),
            10 ** rng.uniform(-2, 0),
        )
        sketch = skmm.GradientSketcher(m=m, random_state=seed).fit_transform(G)
        trace, rank = np.square(G).sum() / len(G), diagnostics.intrinsic_dimension(G)
        for cls in (skmm.SkMMSelector, skmm.UniformSelector):
            indices = cls(n, random_state=seed).fit_transform(sketch)
            least = linalg.eigvalsh(G[indices] @ G[indices].T / n)[-int(np.ceil(1.1 * rank))]
            if m < max(11 * rank, np.sqrt(trace / least)):
                continue  # the premise does not hold
            c_S = diagnostics.effective_c_S(sketch, indices)
            bound = c_S / n * (sigma**2 * m + trace)
            assert np.isfinite(bound)
            ratios.append(Regression(G, indices, sigma).worst_risk() / bound)
    assert len(ratios) > 0.8 * 2 * seeds
    assert np.max(ratios) <= 1
    assert np.max(ratios) > 1e-4  # but by less than four decades
