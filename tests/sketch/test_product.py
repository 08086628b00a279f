"""Product projections: variance, factors and the streams of signs behind them."""

from itertools import combinations, product

import numpy as np
import pytest

from sklearn_skmm.sketch import _projection
from sklearn_skmm.sketch._product import ProductProjection
from sklearn_skmm.sketch._projection import BLOCK_ROWS, BlockProjection
from tests.sketch._projections import (
    ACTIVATION,
    DELTA,
    GRADIENTS,
    assert_mean,
    assert_uniform,
    product_variance,
)


@pytest.mark.parametrize("A", GRADIENTS.values(), ids=GRADIENTS.keys())
def test_product_variance_equals_enumeration_of_all_signs(A):
    signs = (np.array(list(product([-1, 1], repeat=n))) for n in A.shape)
    q, p = signs
    z2 = np.square(q @ A @ p.T).ravel()
    assert z2.mean() == pytest.approx(np.sum(A**2))
    assert z2.var() == pytest.approx(product_variance(A), abs=1e-12)
    assert product_variance(A) <= 2 * np.sum(A**2) ** 2 + 6 * np.sum((A @ A.T) ** 2) + 1e-12


def test_product_variance_of_rank_one_is_between_zero_and_eight():
    A = GRADIENTS["rank one"]
    expected = (3 - 2 * np.sum(DELTA**4)) * (3 - 2 * np.sum(ACTIVATION**4)) - 1
    assert product_variance(A) == pytest.approx(expected)
    assert product_variance(np.full((100, 200), 1 / np.sqrt(20_000))) == pytest.approx(8, rel=0.02)
    assert product_variance(GRADIENTS["full rank"]) < 2 < product_variance(A) < 8


@pytest.mark.parametrize("terms", [1, 3])
@pytest.mark.parametrize("A", GRADIENTS.values(), ids=GRADIENTS.keys())
def test_product_sketch_has_the_stated_variance(A, terms):
    # The columns of Γ are independent, and each gives a sample of z = Σ_l q_lᵀAp_l / √L.
    m = 100_000
    projection = ProductProjection(*A.shape, m, (1,), (2,), terms)
    z = projection.apply(A.reshape(1, -1))[0] * np.sqrt(m)
    assert_mean(z**2, np.sum(A**2))
    assert_mean((z**2 - np.sum(A**2)) ** 2, product_variance(A, terms))


def test_factors_are_independent_signs_and_give_the_matrix():
    m = 90_000
    projection = ProductProjection(5, 3, m, (1, 2), (1, 3))
    Q, P = projection.row_factor(), projection.col_factor()
    assert (Q.shape, P.shape) == ((5, m), (3, m))
    bits = np.concatenate([Q, P]) > 0
    np.testing.assert_array_equal(np.abs(np.concatenate([Q, P])), 1)
    assert_uniform(2 ** np.arange(8) @ bits, 256)
    # Consecutive columns are independent, too, although they share words of the stream.
    assert_uniform(4 ** np.arange(5) @ (2 * bits[:5, ::2] + bits[:5, 1::2]), 1024)
    gamma = (Q[:, None] * P / 300).reshape(15, -1)
    np.testing.assert_allclose(projection.to_array(), gamma, rtol=1e-15)


def test_factors_are_the_same_on_every_machine_and_version():
    # The first bits of SeedSequence and Philox, whose streams NumPy guarantees not to change.
    Q = ProductProjection(3, 1, 8, (4, 5), (6,)).row_factor(np.int8)
    np.testing.assert_array_equal(np.packbits(Q > 0, axis=1)[:, 0], [0x1D, 0x62, 0x5C])


@pytest.mark.parametrize(("rows", "cols"), [(3, BLOCK_ROWS + 500), (BLOCK_ROWS + 500, 3)])
def test_factors_of_several_blocks(rows, cols):
    projection = ProductProjection(rows, cols, 5, (0,), (1,))
    Q, P = projection.row_factor(np.float32), projection.col_factor(np.float32)
    assert Q.dtype == P.dtype == np.float32
    gamma = (Q[:, None] * P).reshape(-1, 5) / np.sqrt(5)
    np.testing.assert_allclose(projection.to_array(), gamma, rtol=1e-6)
    longer = max(Q, P, key=len)
    assert not np.array_equal(longer[:500], longer[BLOCK_ROWS:])
    # A shorter factor is the start of a longer one, for lengths below and above a block.
    for n in (2, 100, BLOCK_ROWS + 1):
        shorter = ProductProjection(n, n, 5, (0,), (1,))
        np.testing.assert_array_equal(shorter.row_factor()[:rows], Q[:n])
        np.testing.assert_array_equal(shorter.col_factor()[:cols], P[:n])


def test_factors_are_cached_but_the_matrix_is_not(monkeypatch):
    projection = ProductProjection(20, 30, 4, (0,), (1,))
    projection.apply(np.ones((2, 600)))
    assert projection._cache == {}
    assert projection.row_factor() is projection.row_factor()
    assert projection.col_factor() is projection.col_factor()
    monkeypatch.setattr(_projection, "CACHE_BYTES", 20 * 4 * 8)
    projection = ProductProjection(20, 30, 4, (0,), (1,))
    assert projection.row_factor() is projection.row_factor()
    assert projection.col_factor() is not projection.col_factor()


def test_equal_streams_give_equal_factors_on_either_side():
    weight = ProductProjection(6, 4, 50, row_stream=(3, 0), col_stream=(3, 1))
    bias = ProductProjection(6, 1, 50, row_stream=(3, 0), col_stream=(4, 1))
    np.testing.assert_array_equal(bias.row_factor(), weight.row_factor())
    assert not np.array_equal(bias.col_factor()[0], weight.col_factor()[0])
    # A layer that stores its weight transposed.
    transposed = ProductProjection(4, 6, 50, row_stream=(3, 1), col_stream=(3, 0))
    np.testing.assert_array_equal(transposed.col_factor(), bias.row_factor())


def test_different_streams_give_different_factors():
    streams = [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 0, 0), (2**32,), (2**32, 0), (2**63, 5)]
    factors = [ProductProjection(3, 1, 64, stream, (9,)).row_factor() for stream in streams]
    for one, other in combinations(factors, 2):
        assert not np.array_equal(one, other)


def test_equal_row_and_column_streams_are_rejected():
    with pytest.raises(ValueError, match=r"'row_stream' and 'col_stream'.*must differ.*\(1, 2\)"):
        ProductProjection(3, 3, 4, (1, 2), (1, 2))


def test_linear_layer_is_sketched_without_forming_its_gradient():
    rng = np.random.RandomState(0)
    delta, a = rng.normal(size=(3, 7, 6)), rng.normal(size=(3, 7, 4))  # samples, positions, units
    weight = ProductProjection(6, 4, 10, (0,), (1,))
    bias = ProductProjection(6, 1, 10, (0,), (2,))
    gradients = np.einsum("nti,ntj->nij", delta, a).reshape(3, 24)
    G = np.concatenate([gradients, delta.sum(axis=1)], axis=1)
    terms = (delta @ weight.row_factor()) * (a @ weight.col_factor() + bias.col_factor()[0])
    np.testing.assert_allclose(
        BlockProjection([weight, bias]).apply(G), terms.sum(axis=1) / np.sqrt(10), rtol=1e-12
    )
