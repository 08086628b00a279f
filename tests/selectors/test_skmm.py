"""SkMMSelector: fitted attributes, moment matching and edge cases."""

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.exceptions import ConvergenceWarning

from sklearn_skmm import SkMMSelector, UniformSelector
from sklearn_skmm.core._matching import moment_features
from sklearn_skmm.core._moments import directional_energies, objective
from tests._selectors import ROUNDINGS


@pytest.fixture
def X():
    rng = np.random.RandomState(0)
    return (
        rng.normal(size=(300, 10)) * np.exp(rng.normal(size=10))
        + (rng.randint(3, size=300) * 4)[:, None]
    )


@pytest.mark.parametrize("c_S", [0.5, 0.999, 1.5])
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("init", ["uniform", pytest.param("vertex", marks=pytest.mark.slow)])
def test_attributes(X, c_S, rounding, init):
    selector = SkMMSelector(
        40, c_S=c_S, rounding=rounding, init=init, max_iter=20_000, random_state=0
    ).fit(X)
    s = selector.weights_
    assert s.shape == (300,)
    assert s.min() >= 0
    assert s.max() <= 1 / 40 + 1e-15
    assert s.sum() == pytest.approx(1, abs=1e-12)
    assert np.all(s[selector.sample_indices_] > 0)
    A = directional_energies(X, selector.components_.T)
    value = objective(A, s, selector.eigenvalues_, c_S)
    scale = np.square(selector.eigenvalues_ / c_S).sum()
    assert selector.objective_ == pytest.approx(value, abs=1e-12 * scale)
    assert 0 <= selector.dual_gap_ <= max(1e-7 * scale, 1e-3 * selector.objective_)
    assert selector.n_iter_ >= 1
    np.testing.assert_allclose(
        (selector.components_.T * selector.eigenvalues_) @ selector.components_, X.T @ X / 300
    )


PAPER = {"init": "vertex", "rounding": "choice"}
MATCHING = [PAPER, {"rounding": "cube"}, {"rounding": "local_cube"}, {"centrality": 0}]


@pytest.mark.parametrize("params", MATCHING)
@pytest.mark.slow
def test_coreset_matches_moments_better_than_random_sampling(X, params):
    """Compare mean shortfalls over seeds, per direction and relative to the moments of all of X."""
    V = SkMMSelector(40).fit(X).components_.T
    A = directional_energies(X, V)
    target = A.mean(axis=0)

    def shortfall(cls, **params):
        errors = []
        for seed in range(30):
            rows = cls(40, random_state=seed, **params).fit_transform(X)
            errors.append(np.square(np.maximum(0, 1 - A[rows].mean(axis=0) / target)).sum())
        return np.mean(errors)

    assert shortfall(SkMMSelector, **params) < 0.8 * shortfall(UniformSelector)


@pytest.mark.slow
def test_default_centrality_lies_between_exemplars_and_pure_matching(X):
    """More centrality covers better and matches worse; all cover better than random sampling."""
    selector = SkMMSelector(40).fit(X)
    features = moment_features(X @ selector.components_.T, selector.eigenvalues_, 40)

    def mean_errors(cls, **params):
        mismatch, distance = [], []
        for seed in range(10):
            rows = cls(40, random_state=seed, **params).fit_transform(X)
            gap = features[rows].mean(axis=0) - features.mean(axis=0)
            mismatch.append(gap @ gap)
            distance.append(cdist(X, X[rows]).min(axis=1).mean())
        return np.mean(mismatch), np.mean(distance)

    free, default, exemplars = (
        mean_errors(SkMMSelector, centrality=rho) for rho in (0.0, 0.3, np.inf)
    )
    uniform = mean_errors(UniformSelector)
    assert free[0] < default[0] < exemplars[0]
    assert exemplars[1] < default[1] < free[1] < uniform[1]


def test_infinite_centrality_selects_the_central_samples(X):
    params = {"centrality": np.inf, "n_candidates": None}
    selector = SkMMSelector(30, **params, random_state=0).fit(X)
    for c, i in enumerate(selector.sample_indices_):
        own = np.flatnonzero(selector.labels_ == c)
        distances = np.linalg.norm(X[own] - X[own].mean(axis=0), axis=1)
        assert i == own[distances.argmin()]


@pytest.mark.parametrize("rounding", ["cells", "exemplar"])
@pytest.mark.parametrize("c_S", [0.3, 1.0])
def test_labels_say_what_each_sample_stands_for(X, rounding, c_S):
    selector = SkMMSelector(30, c_S=c_S, rounding=rounding, random_state=0).fit(X)
    labels, n = selector.labels_, 30
    np.testing.assert_array_equal(labels[selector.sample_indices_], np.arange(n))
    np.testing.assert_array_equal(labels < 0, selector.weights_ == 0)
    kept = labels >= 0
    mass = np.bincount(labels[kept], weights=selector.weights_[kept] / selector.weights_.sum())
    np.testing.assert_allclose(selector.sample_weight_, 300 * mass)
    if c_S == 1.0:
        np.testing.assert_array_equal(selector.sample_weight_, np.bincount(labels))
    assert selector.sample_weight_.sum() == pytest.approx(300)


@pytest.mark.parametrize("balance", [1.0, 1.5, 4.0, np.inf])
@pytest.mark.parametrize("c_S", [0.3, 1.0])
def test_balance_bounds_what_equal_weights_lose(X, balance, c_S):
    """The second moment of the weighted coreset is at most balance times the unweighted one's."""
    n = 20
    selector = SkMMSelector(n, c_S=c_S, balance=balance, random_state=0).fit(X)
    mass = selector.sample_weight_ / 300
    kappa = n * mass.max()
    coreset = X[selector.sample_indices_]
    weighted, plain = (coreset.T * mass) @ coreset, coreset.T @ coreset / n
    assert np.linalg.eigvalsh(kappa * plain - weighted).min() >= -1e-10
    values = np.random.RandomState(0).exponential(size=n)
    assert mass @ values <= kappa * values.mean() + 1e-12
    if c_S == 1.0:  # all weights are equal
        counts = np.bincount(selector.labels_)
        assert counts.min() >= np.floor(15 / balance)
        assert counts.max() <= np.ceil(15 * balance)
        lowest = n * mass.min()
        assert mass @ values >= lowest * values.mean() - 1e-12
    elif balance < np.inf:
        slack = 2 * n * selector.weights_.max()
        assert kappa <= balance + slack


@pytest.mark.parametrize("rounding", ["cells", "exemplar"])
def test_labels_of_strata_are_put_together(X, rounding):
    y = np.arange(300) % 3 == 0
    selector = SkMMSelector(30, rounding=rounding, stratify=True, random_state=0).fit(X, y)
    indices, labels = selector.sample_indices_, selector.labels_
    np.testing.assert_array_equal(labels[indices], np.arange(30))
    np.testing.assert_array_equal(y[indices][labels], y)
    np.testing.assert_allclose(np.bincount(labels), selector.sample_weight_)


@pytest.mark.parametrize("balance", [0.5, -1, np.nan, "a", None])
def test_balance_is_validated(X, balance):
    with pytest.raises(ValueError, match=r"The 'balance' parameter of SkMMSelector must be"):
        SkMMSelector(30, balance=balance).fit(X)


def test_separated_clusters_have_cells_of_their_own():
    """A start with two clusters in one cell is mended, although its mass is in the bounds."""
    for seed in range(20):
        rng = np.random.RandomState(seed)
        sizes = [80, 70, 390, 75, 400, 250, 430, 300]
        centres = 20 * rng.normal(size=(8, 12))
        X = np.repeat(centres, sizes, axis=0) + 0.05 * rng.normal(size=(sum(sizes), 12))
        selected = SkMMSelector(24, balance=3.0, random_state=seed).fit_transform(X)
        clusters = np.repeat(np.arange(8), sizes)
        assert set(clusters[selected]) == set(range(8))


def test_c_S_below_n_over_N_raises(X):
    with pytest.raises(
        ValueError, match=r"'c_S' .* at least n / N = 200 / 300 .* Got 0\.5 instead"
    ):
        SkMMSelector(200, c_S=0.5).fit(X)
    with pytest.raises(ValueError, match=r"'c_S' parameter"):
        SkMMSelector(10, c_S=0.0).fit(X)


def test_extreme_sizes(X):
    np.testing.assert_array_equal(SkMMSelector(300).fit_transform(X), np.arange(300))
    assert SkMMSelector(1, random_state=0).fit_transform(X).shape == (1,)
    assert SkMMSelector(299, c_S=0.999, random_state=0).fit_transform(X).shape == (299,)
    assert SkMMSelector(1).fit_transform(X[:1]).tolist() == [0]


def test_fewer_samples_than_features():
    X = np.random.RandomState(0).normal(size=(12, 500))
    selector = SkMMSelector(5, random_state=0).fit(X)
    assert selector.eigenvalues_.shape == (12,)
    other = SkMMSelector(5, random_state=0).fit(sparse.csr_array(X))
    np.testing.assert_array_equal(other.sample_indices_, selector.sample_indices_)


def test_rank_deficient_and_duplicate_rows():
    rng = np.random.RandomState(0)
    low = rng.normal(size=(80, 2)) @ rng.normal(size=(2, 9))
    assert SkMMSelector(10, random_state=0).fit(low).eigenvalues_.shape == (2,)
    duplicates = np.repeat(rng.normal(size=(5, 3)), 20, axis=0)
    assert len(set(SkMMSelector(30, random_state=0).fit_transform(duplicates).tolist())) == 30
    for rows in (np.zeros((20, 3)), np.full((20, 3), 7.0)):
        selector = SkMMSelector(4, random_state=0).fit(rows)
        assert len(set(selector.sample_indices_.tolist())) == 4
        assert np.isfinite([selector.objective_, selector.dual_gap_]).all()


def test_running_out_of_iterations_warns(X):
    with pytest.warns(ConvergenceWarning, match="after 2 iterations with a duality gap"):
        selector = SkMMSelector(40, c_S=0.9, max_iter=2, tol=1e-12, random_state=0).fit(X)
    assert selector.n_iter_ == 2


def test_stratified_weights_sum_to_one_in_each_stratum(X):
    y = np.arange(300) % 3
    selector = SkMMSelector(30, stratify=True, random_state=0).fit(X, y)
    for k in range(3):
        assert selector.weights_[y == k].sum() == pytest.approx(1)
        assert selector.weights_[y == k].max() <= 1 / 10 + 1e-12
    assert len(selector.dual_gap_) == len(selector.strata_) == 3
    assert np.bincount(y[selector.sample_indices_]).tolist() == [10, 10, 10]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stratify", [False, True])
def test_transform_repeats_fit_without_a_tolerance(dtype, stratify):
    """Uniform weights are optimal up to rounding, whether or not the data are known."""
    for seed in range(20):
        X = np.random.RandomState(seed).normal(size=(40, 5)).astype(dtype)
        y = np.arange(40) % 2
        selector = SkMMSelector(6, tol=0.0, stratify=stratify, random_state=seed).fit(X, y)
        np.testing.assert_array_equal(selector.transform(X, y), selector.sample_indices_)
        assert np.ravel(selector.objective_).tolist() == [0.0] * (1 + stratify)
