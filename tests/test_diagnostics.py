"""Each diagnostic is compared with its formula on small dense data."""

import numpy as np
import pytest
from scipy import linalg

from sklearn_skmm import diagnostics as d

N, R, SMALL = 40, 6, 12


@pytest.fixture
def G():
    return np.random.RandomState(0).normal(size=(N, R)) * np.array([4, 3, 2, 1, 0.5, 0.1])


@pytest.fixture
def S():
    return np.random.RandomState(1).choice(N, SMALL, replace=False)


def moments(G, S):
    return G.T @ G / N, G[S].T @ G[S] / len(S)


def test_intrinsic_dimension(G):
    values = np.sort(linalg.eigvalsh(G.T @ G / N))[::-1]
    expected = next(t for t in range(R + 1) if values[t:].sum() <= values.sum() / N)
    assert d.intrinsic_dimension(G) == expected
    assert d.intrinsic_dimension(G * 1e-100) == expected
    assert d.intrinsic_dimension(np.zeros((3, 2))) == 0


def test_effective_c_S(G, S):
    moment, moment_S = moments(G, S)
    c = d.effective_c_S(G, S)
    assert c == pytest.approx(linalg.eigh(moment, moment_S, eigvals_only=True)[-1])
    # c is feasible, and no smaller constant is.
    assert linalg.eigvalsh(c * moment_S - moment)[0] > -1e-9
    assert linalg.eigvalsh(0.999 * c * moment_S - moment)[0] < 0
    assert c >= SMALL / N
    assert d.effective_c_S(G, S[:3]) == np.inf
    assert d.effective_c_S(G, np.arange(N)) == pytest.approx(1.0)


def test_effective_c_S_ignores_directions_without_data(G, S):
    padded = np.hstack([G, np.zeros((N, 2))])
    assert d.effective_c_S(padded, S) == pytest.approx(d.effective_c_S(G, S))


@pytest.mark.parametrize("size", [2, SMALL])
def test_variance_and_bias(G, S, size):
    S = S[:size]
    moment, moment_S = moments(G, S)
    basis = np.random.RandomState(2).normal(size=(3, R))
    P = basis.T @ linalg.pinv(basis.T)
    variance = 0.3**2 / size * np.trace(moment @ linalg.pinv(P @ moment_S @ P, rtol=1e-10))
    assert d.variance_term(G, S, sigma=0.3, basis=basis) == pytest.approx(variance)
    bias = 2 * np.trace(moment @ (np.eye(R) - P)) * 1.5**2
    assert d.bias_term(G, S, theta_norm=1.5, basis=basis) == pytest.approx(bias)
    whole = np.trace(moment @ linalg.pinv(moment_S, rtol=1e-10)) / size
    assert d.variance_term(G, S) == pytest.approx(whole)
    span = linalg.orth(G[S].T)
    outside = np.trace(moment @ (np.eye(R) - span @ span.T))
    assert d.bias_term(G, S) == pytest.approx(2 * outside, abs=1e-10)


@pytest.mark.parametrize("size", [2, SMALL])
def test_v_optimality(G, S, size):
    moment, moment_S = moments(G, S[:size])
    expected = np.trace(moment @ linalg.inv(moment_S + 0.2 * np.eye(R)))
    assert d.v_optimality(G, S[:size], alpha=0.2) == pytest.approx(expected)


@pytest.mark.parametrize("size", [2, SMALL])
def test_risk_bound_is_that_of_the_best_subspace(G, S, size):
    S = S[:size]
    _, moment_S = moments(G, S)
    vectors = linalg.eigh(moment_S)[1]
    vectors = vectors[:, ::-1][:, : min(size, R)]
    candidates = [d.bias_term(G, S, basis=np.zeros((1, R)))]
    for t in range(1, vectors.shape[1] + 1):
        basis = vectors[:, :t].T
        candidates.append(
            d.variance_term(G, S, sigma=0.5, basis=basis) + d.bias_term(G, S, basis=basis)
        )
    assert d.excess_risk_bound(G, S, sigma=0.5) == pytest.approx(min(candidates))


def test_masks_and_bad_indices(G, S):
    mask = np.isin(np.arange(N), S)
    assert d.effective_c_S(G, mask) == pytest.approx(d.effective_c_S(G, np.sort(S)))
    for bad in ([], [0.5], [[0]], [N], [-N - 1]):
        with pytest.raises(ValueError, match="indices must be"):
            d.variance_term(G, bad)
    with pytest.raises(ValueError, match="alpha must be positive, got 0"):
        d.v_optimality(G, S, alpha=0)
    with pytest.raises(ValueError, match="basis must have 6 columns"):
        d.bias_term(G, S, basis=np.eye(3))
