"""Roundings honour what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from sklearn_skmm._moments import project_capped_simplex
from sklearn_skmm._rounding import ROUNDINGS, choice, systematic

DRAWS = 5000


def weights(N=40, n=10, seed=0):
    rng = np.random.RandomState(seed)
    return project_capped_simplex(rng.gamma(0.7, size=N) / N * 1.5, 1 / n)


def frequencies(rounding, s, n):
    rng = np.random.RandomState(0)
    picks = np.concatenate([rounding(s, n, rng) for _ in range(DRAWS)])
    return np.bincount(picks, minlength=len(s)) / DRAWS


def chi_squared(observed, pi):
    """Sum of squared standardised deviations over the items that are not certain."""
    random = (pi > 1e-9) & (pi < 1 - 1e-9)
    z = (observed - pi)[random] / np.sqrt(pi * (1 - pi) / DRAWS)[random]
    return np.square(z).sum(), random.sum()


def test_systematic_includes_with_probability_n_s():
    s = weights()
    observed = frequencies(systematic, s, 10)
    statistic, df = chi_squared(observed, 10 * s)
    # Items are negatively dependent, so this bound for independent ones is on the safe side.
    assert statistic < chi2.ppf(0.999, df)
    np.testing.assert_array_equal(observed[s == 0], 0)
    np.testing.assert_array_equal(observed[s >= 0.1 - 1e-12], 1)


def test_choice_does_not():
    statistic, df = chi_squared(frequencies(choice, weights(), 10), 10 * weights())
    assert statistic > 5 * chi2.ppf(0.999, df)


@pytest.mark.parametrize("name", sorted(ROUNDINGS))
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_n_distinct_items_from_the_support(name, data):
    N = data.draw(st.integers(1, 40))
    n = data.draw(st.integers(1, N))
    seed = data.draw(st.integers(0, 2**31 - 1))
    rng = np.random.RandomState(seed)
    s = project_capped_simplex(rng.normal(size=N) * rng.choice([1e-6, 0.1, 10]), 1 / n)
    picks = ROUNDINGS[name](s, n, rng)
    assert picks.shape == (n,)
    assert len(np.unique(picks)) == n
    assert np.all(np.diff(picks) > 0)
    assert np.all(s[picks] > 0)


def test_a_vertex_is_taken_as_it_is():
    s = np.zeros(9)
    s[[1, 4, 8]] = 1 / 3
    for rounding in ROUNDINGS.values():
        for seed in range(50):
            np.testing.assert_array_equal(rounding(s, 3, np.random.RandomState(seed)), [1, 4, 8])
