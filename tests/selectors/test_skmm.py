"""SkMMSelector: fitted attributes, moment matching and edge cases."""

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.exceptions import ConvergenceWarning

from sklearn_skmm import SkMMSelector, UniformSelector
from sklearn_skmm.core._matching import moment_features
from sklearn_skmm.core._moments import directional_energies, objective

ROUNDINGS = ["cells", "exemplar", "cube", "spread", "local_cube", "systematic", "choice"]


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


def test_infinite_centrality_selects_the_exemplars(X):
    cells = SkMMSelector(30, centrality=np.inf, random_state=0).fit(X)
    exemplar = SkMMSelector(30, rounding="exemplar", random_state=0).fit(X)
    np.testing.assert_array_equal(cells.sample_indices_, exemplar.sample_indices_)
    assert exemplar.sample_weight_.sum() == pytest.approx(300)
    assert cells.sample_weight_.tolist() == [10.0] * 30


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
        selector = SkMMSelector(40, max_iter=2, tol=1e-12, random_state=0).fit(X)
    assert selector.n_iter_ == 2


def test_stratified_weights_sum_to_one_in_each_stratum(X):
    y = np.arange(300) % 3
    selector = SkMMSelector(30, stratify=True, random_state=0).fit(X, y)
    for k in range(3):
        assert selector.weights_[y == k].sum() == pytest.approx(1)
        assert selector.weights_[y == k].max() <= 1 / 10 + 1e-12
    assert len(selector.dual_gap_) == len(selector.strata_) == 3
    assert np.bincount(y[selector.sample_indices_]).tolist() == [10, 10, 10]
