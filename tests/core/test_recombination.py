"""Recombination: the moments are exact, with few samples."""

import numpy as np
import pytest

from sklearn_skmm import SkMMSelector
from sklearn_skmm.core._recombination import moment_columns, recombine, reduce_mean


@pytest.mark.parametrize("seed", range(30))
def test_a_reduction_keeps_sum_and_mean(seed):
    rng = np.random.RandomState(seed)
    q = rng.randint(1, 8)
    n, n_groups = q + rng.randint(1, 5), q + rng.randint(1, 30)
    points, mass = (
        rng.normal(size=(n_groups, q)) * 10.0 ** rng.randint(-6, 7, q),
        rng.rand(n_groups),
    )
    if seed % 3 == 0:
        points = points[rng.randint(3, size=n_groups)]  # equal points
    if seed % 3 == 1:
        points = np.round(points / np.abs(points).max(axis=0))  # many ties
    mean = mass @ points / mass.sum()
    new = reduce_mean(points - mean, mass, n)
    assert np.all(new >= 0)
    assert np.count_nonzero(new) <= n
    assert new.sum() == pytest.approx(mass.sum(), rel=1e-11)
    np.testing.assert_allclose(
        new @ points / mass.sum(), mean, atol=1e-10 * np.abs(points).max(axis=0).max()
    )


@pytest.mark.parametrize("kind", ["normal", "ties", "equal", "decaying"])
@pytest.mark.parametrize(("N", "k", "n"), [(1, 1, 1), (40, 2, 5), (300, 4, 9), (3000, 3, 30)])
def test_moments_are_exact(kind, N, k, n):
    rng = np.random.RandomState(N)
    P = {
        "normal": lambda: rng.normal(size=(N, k)),
        "ties": lambda: rng.randint(2, size=(N, k)).astype(float),
        "equal": lambda: np.ones((N, k)),
        "decaying": lambda: rng.normal(size=(N, k)) * 10.0 ** -np.arange(k),
    }[kind]()
    s = rng.dirichlet(np.full(N, 5.0))
    first, second = moment_columns(k, n)
    one = np.column_stack([P, np.ones(N)])
    F = one[:, first] * one[:, second]
    positions, weights = recombine(lambda rows: F[rows], s, n, np.random.RandomState(0))
    assert len(np.unique(positions)) == n
    assert np.all(weights > 0)
    np.testing.assert_allclose(weights @ F[positions], s @ F, rtol=1e-9, atol=1e-12)


def test_columns_are_those_of_all_second_moments():
    first, second = moment_columns(4, 100)
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == sorted(
        (i, j) for i in range(4) for j in range(5) if j >= i
    )
    assert len(moment_columns(4, 6)[0]) == 5


@pytest.mark.parametrize("weighted", [False, True])
def test_the_selector_matches_all_second_moments(weighted):
    rng = np.random.RandomState(0)
    X = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 6)) + 1  # rank 5 with the offset
    w = rng.uniform(0, 3, size=500) if weighted else np.ones(500)
    selector = SkMMSelector(30, rounding="recombine", random_state=0)
    selector.fit(X, sample_weight=w if weighted else None)
    S, u = X[selector.sample_indices_], selector.sample_weight_
    assert u.sum() == pytest.approx(w.sum())
    np.testing.assert_allclose(S.T @ (u[:, None] * S), X.T @ (w[:, None] * X), rtol=1e-8)
    np.testing.assert_allclose(u @ S, w @ X, rtol=1e-8)


def test_few_samples_match_the_leading_directions():
    X = np.random.RandomState(0).normal(size=(300, 5)) * [5, 3, 1, 0.5, 0.1]
    selector = SkMMSelector(4, rounding="recombine", random_state=0).fit(X)
    V, u = selector.components_.T, selector.sample_weight_ / 300
    first = u @ X[selector.sample_indices_] @ V - X.mean(axis=0) @ V
    np.testing.assert_allclose(first[:3], 0, atol=1e-12)
    assert abs(first[4]) > 1e-6


def test_given_samples_are_refused():
    X = np.random.RandomState(0).normal(size=(30, 2))
    with pytest.raises(ValueError, match="rounding='recombine' does not support selected"):
        SkMMSelector(5, rounding="recombine").fit(X, selected=[1])
