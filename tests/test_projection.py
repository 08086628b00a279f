"""One Γ, however it is applied."""

import pickle

import numpy as np
import pytest
from scipy import sparse

from sklearn_skmm import _projection
from sklearn_skmm._projection import BLOCK_ROWS, GaussianProjection


def test_application_equals_the_explicit_matrix():
    r = BLOCK_ROWS + 100
    projection = GaussianProjection(r, 7, seed=3)
    gamma = projection.to_array()
    assert gamma.shape == (r, 7)
    G = np.random.RandomState(0).normal(size=(5, r))
    np.testing.assert_allclose(projection.apply(G), G @ gamma, rtol=1e-12)
    np.testing.assert_allclose(projection.apply(sparse.csr_array(G)), G @ gamma, rtol=1e-12)


def test_same_matrix_without_the_cache(monkeypatch):
    gamma = GaussianProjection(300, 5, seed=1).to_array()
    monkeypatch.setattr(_projection, "CACHE_BYTES", 0)
    projection = GaussianProjection(300, 5, seed=1)
    np.testing.assert_array_equal(projection.to_array(), gamma)
    assert projection._cache == {}


def test_dtype_is_kept_and_every_dtype_sees_the_same_matrix():
    projection = GaussianProjection(50, 4, seed=0)
    G = np.random.RandomState(0).normal(size=(3, 50))
    single = projection.apply(G.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, projection.apply(G), rtol=1e-4, atol=1e-5)


def test_entries_are_standard_normal_over_root_m():
    gamma = GaussianProjection(20_000, 16, seed=0).to_array()
    assert gamma.var() * 16 == pytest.approx(1, abs=0.02)
    assert abs(gamma.mean()) < 0.002
    assert np.abs(np.corrcoef(gamma.T) - np.eye(16)).max() < 0.04
    assert not np.array_equal(gamma[:10], GaussianProjection(20_000, 16, seed=1).to_array()[:10])


def test_squared_norms_are_preserved_with_spread_root_two_over_m():
    m = 128
    g = np.random.RandomState(0).normal(size=(1, 200))
    ratios = [
        np.square(GaussianProjection(200, m, seed).apply(g)).sum() / np.square(g).sum()
        for seed in range(400)
    ]
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)
    assert np.std(ratios) == pytest.approx(np.sqrt(2 / m), rel=0.15)


def test_pickle_is_small_and_faithful():
    projection = GaussianProjection(5000, 32, seed=0)
    gamma = projection.to_array()
    data = pickle.dumps(projection)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data).to_array(), gamma)
