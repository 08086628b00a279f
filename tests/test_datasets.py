"""Tests of make_gmm_regression, the paper's synthetic task."""

import numpy as np
import pytest

from sklearn_skmm.datasets import make_gmm_regression


def test_seed_zero_is_the_documented_task():
    data = make_gmm_regression(random_state=0)
    assert data.X.shape == (2000, 2400)
    np.testing.assert_array_equal(np.bincount(data.clusters), [82, 69, 389, 76, 406, 251, 427, 300])


def test_latent_parameters_explain_the_data():
    data = make_gmm_regression(3000, 40, n_clusters=5, scale=2.0, noise=0.3, random_state=3)
    np.testing.assert_allclose(data.y, (data.centers @ data.theta)[data.clusters])
    residual = data.X - data.centers[data.clusters]
    assert data.noise_std.max() <= 0.3
    for k in range(5):
        rows = residual[data.clusters == k]
        assert np.sqrt(np.square(rows).mean()) == pytest.approx(data.noise_std[k], rel=0.05)
    assert set(np.unique(data.centers)) <= {0.0, *(2.0 * np.arange(1, 6))}
    assert np.count_nonzero(data.theta) == 5


@pytest.mark.parametrize("seed", range(30))
def test_no_cluster_is_empty_and_a_seed_repeats_the_data(seed):
    data = make_gmm_regression(30, 12, random_state=seed)
    assert np.bincount(data.clusters, minlength=8).min() >= 1
    again = make_gmm_regression(30, 12, random_state=seed)
    np.testing.assert_array_equal(data.X, again.X)


def test_random_state_instances_and_bad_sizes():
    one = make_gmm_regression(50, 10, random_state=np.random.RandomState(0))
    other = make_gmm_regression(50, 10, random_state=np.random.RandomState(0))
    np.testing.assert_array_equal(one.X, other.X)
    with pytest.raises(ValueError, match="n_clusters=8 must be at most n_features=5"):
        make_gmm_regression(50, 5)
    with pytest.raises(ValueError, match="'noise' parameter"):
        make_gmm_regression(noise=-1.0)
