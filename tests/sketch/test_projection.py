"""Random projections: entries, application to dense and sparse gradients, memory."""

import pickle
import tracemalloc
from itertools import combinations, product

import numpy as np
import pytest
from scipy import sparse

from sklearn_skmm.sketch import _projection
from sklearn_skmm.sketch._product import ProductProjection
from sklearn_skmm.sketch._projection import (
    BLOCK_ROWS,
    BlockProjection,
    GaussianProjection,
    SparseSignProjection,
    projection_for,
)
from tests.sketch._projections import (
    GRADIENTS,
    KINDS,
    assert_mean,
    assert_uniform,
    leaves,
    make_projection,
    product_variance,
)


@pytest.mark.parametrize("container", [np.asarray, "csr", "csc", "bsr"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", KINDS)
def test_apply_equals_multiplying_by_the_explicit_matrix(kind, dtype, container):
    r = 2 * BLOCK_ROWS + 100
    projection = make_projection(kind, r, 7, seed=3)
    gamma = projection.to_array()
    assert (projection.r, projection.m) == gamma.shape == (r, 7)
    # Some columns are empty, among them a whole block, and others are nearly empty or full.
    G = np.random.RandomState(0).normal(size=(5, r)).astype(dtype)
    G[:, 1 : BLOCK_ROWS + 10] = 0
    G[1:, -50:] = 0
    if isinstance(container, str):
        applied = projection.apply(sparse.csr_array(G).asformat(container))
    else:
        applied = projection.apply(G)
    assert type(applied) is np.ndarray
    assert applied.dtype == dtype
    rtol = 1e-11 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(applied, G.astype(float) @ gamma, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("kind", KINDS)
def test_apply_to_full_and_empty_sparse_gradients(kind):
    projection = make_projection(kind, 20, 3, seed=0)
    G = sparse.csr_array(np.random.RandomState(0).normal(size=(30, 20)))
    np.testing.assert_allclose(projection.apply(G), G @ projection.to_array(), rtol=1e-12)
    empty = projection.apply(sparse.csr_array((4, 20)))
    np.testing.assert_array_equal(empty, np.zeros((4, 3)))


@pytest.mark.parametrize("kind", KINDS)
def test_matrix_is_the_same_in_every_dtype(kind):
    projection = make_projection(kind, BLOCK_ROWS + 6, 4, seed=0)
    single = projection.to_array(np.float32)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, projection.to_array().astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_matrix_is_the_same_without_the_cache(kind, monkeypatch):
    r = BLOCK_ROWS + 50
    G = np.random.RandomState(0).normal(size=(3, r))
    cached = make_projection(kind, r, 5, seed=1)
    gamma, sketch = cached.to_array(), cached.apply(G)
    monkeypatch.setattr(_projection, "CACHE_BYTES", 0)
    projection = make_projection(kind, r, 5, seed=1)
    np.testing.assert_array_equal(projection.to_array(), gamma)
    np.testing.assert_array_equal(projection.apply(G), sketch)
    assert all(part._cache == {} for part in leaves(projection))


@pytest.mark.parametrize("kind", ["gaussian", "sparse_sign"])
def test_blocks_are_kept_if_all_of_them_fit_into_the_cache(kind, monkeypatch):
    projection = make_projection(kind, 2 * BLOCK_ROWS, 4, seed=0)
    assert projection.block(1, np.float64) is projection.block(1, np.float64)
    assert projection.block(1, np.float64) is not projection.block(1, np.float32)
    numbers = {"gaussian": 2 * BLOCK_ROWS * 4, "sparse_sign": 2 * BLOCK_ROWS * 4 * 2}[kind]
    for dtype in (np.float64, np.float32):
        size = numbers * np.dtype(dtype).itemsize
        for limit, kept in [(size, True), (size - 1, False)]:
            monkeypatch.setattr(_projection, "CACHE_BYTES", limit)
            fresh = make_projection(kind, 2 * BLOCK_ROWS, 4, seed=0)
            assert (fresh.block(0, dtype) is fresh.block(0, dtype)) == kept


@pytest.mark.parametrize(("kind", "m"), [("gaussian", 20), ("sparse_sign", 20), ("sparse_sign", 5)])
def test_rows_have_the_stated_number_of_entries(kind, m):
    projection = projection_for(kind, 9, m, seed=0)
    np.testing.assert_array_equal(
        np.count_nonzero(projection.to_array(), axis=1), projection.per_row
    )


@pytest.mark.parametrize("kind", ["gaussian", "sparse_sign", "product"])
def test_blocks_do_not_depend_on_the_order_of_requests(kind):
    forwards, backwards = (make_projection(kind, 3 * BLOCK_ROWS - 2, 3, seed=0) for _ in range(2))
    for k in (2, 0, 1):
        backwards.block(k, np.float64)
    np.testing.assert_array_equal(forwards.to_array(), backwards.to_array())


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_and_blocks_give_different_matrices(kind):
    gamma = make_projection(kind, 2 * BLOCK_ROWS, 5, seed=0).to_array()
    assert not np.array_equal(
        gamma[:50], make_projection(kind, 2 * BLOCK_ROWS, 5, seed=1).to_array()[:50]
    )
    assert not np.array_equal(gamma[:50], gamma[BLOCK_ROWS : BLOCK_ROWS + 50])


def test_gaussian_entries_are_those_of_the_recorded_results():
    gamma = GaussianProjection(BLOCK_ROWS + 3, 4, seed=7).to_array()
    for k, rows in enumerate([BLOCK_ROWS, 3]):
        stream = np.random.Generator(np.random.Philox(key=[7, k]))
        expected = stream.standard_normal((rows, 4)) / 2
        np.testing.assert_array_equal(gamma[k * BLOCK_ROWS :][:rows], expected)


def test_gaussian_entries_are_standard_normal_over_root_m():
    gamma = GaussianProjection(20_000, 16, seed=0).to_array()
    assert gamma.var() * 16 == pytest.approx(1, abs=0.02)
    assert abs(gamma.mean()) < 0.002
    assert np.abs(np.corrcoef(gamma.T) - np.eye(16)).max() < 0.04


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_entries_have_mean_zero_and_gamma_is_isotropic(kind):
    gammas = np.array([make_projection(kind, 8, 3, seed).to_array() for seed in range(1500)])
    assert_mean(gammas, 0)
    assert_mean(gammas**2, 1 / 3)  # every column has the same variance
    assert_mean(gammas @ gammas.transpose(0, 2, 1), np.eye(8))


@pytest.mark.parametrize(
    ("kind", "m", "nnz"),
    [("gaussian", 12, 0), ("sparse_sign", 12, 4), ("sparse_sign", 12, 5), ("product", 12, 0)],
)
@pytest.mark.slow
def test_squared_norms_are_preserved_with_the_known_variance(kind, m, nnz):
    A = GRADIENTS["rank one"]
    g = A.reshape(1, -1)
    if kind == "gaussian":
        draw, variance = lambda seed: GaussianProjection(16, m, seed), 2 / m
    elif kind == "sparse_sign":
        draw, variance = lambda seed: SparseSignProjection(16, m, seed, nnz), 2 / m
        variance *= 1 - np.sum(g**4)
    else:
        draw = lambda seed: ProductProjection(4, 4, m, (seed, 0), (seed, 1))  # noqa: E731
        variance = product_variance(A) / m
        assert variance < 8 / m
    norms = np.array([np.sum(draw(seed).apply(g) ** 2) for seed in range(3000)])
    assert_mean(norms, 1)
    assert_mean((norms - 1) ** 2, variance)
    assert np.std(norms) == pytest.approx(np.sqrt(variance), rel=0.1)


@pytest.mark.parametrize(("m", "nnz", "s"), [(13, 8, 8), (16, 8, 8), (5, 8, 5), (64, 1, 1)])
def test_sparse_sign_rows_have_s_distinct_entries_of_equal_size(m, nnz, s):
    r = BLOCK_ROWS + 1000
    projection = SparseSignProjection(r, m, seed=0, nnz=nnz)
    for (k, rows), dtype in product(enumerate([BLOCK_ROWS, 1000]), [np.float32, np.float64]):
        block = projection.block(k, dtype)
        assert isinstance(block, sparse.csr_array)
        assert block.shape == (rows, m)
        assert block.dtype == dtype
        assert block.has_canonical_format
    gamma = projection.to_array()
    np.testing.assert_array_equal(np.count_nonzero(gamma, axis=1), s)
    np.testing.assert_allclose(np.abs(gamma[gamma != 0]), 1 / np.sqrt(s), rtol=1e-15)
    # Entries are spread evenly over the columns, whether or not s divides m.
    assert_mean(gamma != 0, s / m)


def test_sparse_sign_default_has_eight_entries():
    assert np.count_nonzero(projection_for("sparse_sign", 1, 100, seed=0).to_array()) == 8


def test_sparse_sign_rows_are_uniform_and_independent():
    # In two consecutive rows, all combinations of 3 sets of positions and 4 pairs of signs
    # are equally frequent.
    gamma = SparseSignProjection(40_000, 3, seed=0, nnz=2).to_array()
    sets = {pair: i for i, pair in enumerate(combinations(range(3), 2))}
    codes = []
    for row in gamma:
        i, j = np.flatnonzero(row)
        codes.append(4 * sets[i, j] + 2 * (row[i] > 0) + (row[j] > 0))
    assert_uniform(np.array(codes).reshape(-1, 2) @ [12, 1], 144)


def test_block_projection_stacks_its_parts():
    parts = [
        make_projection("gaussian", 6, 4, 0),
        make_projection("block", 12, 4, 1),
        make_projection("product", 4, 4, 2),
    ]
    projection = BlockProjection(parts)
    assert list(projection.parts) == parts
    assert (projection.r, projection.m) == (22, 4)
    stacked = np.concatenate([part.to_array() for part in parts])
    np.testing.assert_array_equal(projection.to_array(), stacked)
    G = np.random.RandomState(0).normal(size=(3, 22))
    np.testing.assert_allclose(projection.apply(G), G @ stacked, rtol=1e-12)


@pytest.mark.parametrize("ms", [[], [3, 4]])
def test_block_projection_rejects_parts_with_different_m(ms):
    with pytest.raises(ValueError, match="same m"):
        BlockProjection([GaussianProjection(5, m, seed=0) for m in ms])


@pytest.mark.parametrize("kind", KINDS)
def test_wide_sparse_gradients_need_little_memory_and_few_blocks(kind, monkeypatch):
    r, m = 10**7, 8
    projection = make_projection(kind, r, m, seed=0)
    rng = np.random.RandomState(0)
    columns = np.sort(np.concatenate([[0, r - 1], rng.randint(r, size=18)]))
    G = sparse.csr_array((rng.normal(size=20), columns, [0, 9, 9, 20]), shape=(3, r))
    drawn = []
    for cls in (GaussianProjection, SparseSignProjection, ProductProjection):

        def counted(self, k, plain=cls._draw):
            drawn.append((self, k))
            return plain(self, k)

        monkeypatch.setattr(cls, "_draw", counted)
    # The expected sketch, from the rows of Γ that match these columns.
    expected, needed = np.zeros((3, m)), set()
    parts = leaves(projection)
    starts = np.cumsum([0] + [part.r for part in parts])
    for i, j, value in zip(*sparse.find(G), strict=True):
        at = np.searchsorted(starts, j, side="right") - 1
        k, row = (int(x) for x in divmod(j - starts[at], BLOCK_ROWS))
        block = parts[at].block(k, np.float64)[[row]]
        expected[i] += value * (block.toarray() if sparse.issparse(block) else block)[0]
        needed.add((parts[at], k))
    for part in parts:
        part._cache.clear()
    drawn.clear()
    tracemalloc.start()
    sketch = projection.apply(G)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(sketch, expected, rtol=1e-10)
    assert len(drawn) == len(needed)
    assert set(drawn) == needed
    # A few blocks and the cache need far less than the 80 MB of a vector of r doubles.
    assert peak < 12 * 2**20


@pytest.mark.parametrize("kind", KINDS)
def test_pickle_is_small_and_gives_the_same_matrix(kind):
    projection = make_projection(kind, 5000, 32, seed=0)
    gamma = projection.to_array()
    for part in leaves(projection):
        if isinstance(part, ProductProjection):
            part.row_factor()
        assert part._cache
    data = pickle.dumps(projection)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert all(part._cache == {} for part in leaves(copy))
    np.testing.assert_array_equal(copy.to_array(), gamma)


@pytest.mark.parametrize("kind", KINDS)
def test_repr_has_kind_and_shape(kind):
    projection = make_projection(kind, 20, 3, seed=0)
    assert repr(projection) == f"{type(projection).__name__}(kind={kind!r}, r=20, m=3)"


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("kind", KINDS)
def test_wrong_number_of_columns_is_rejected(kind, container):
    projection = make_projection(kind, 20, 3, seed=0)
    for n_columns in (18, 22):
        with pytest.raises(ValueError, match=f"{n_columns} columns, but .*r=20"):
            projection.apply(container(np.ones((2, n_columns))))


def test_projection_for_builds_each_kind_and_rejects_others():
    assert type(projection_for("gaussian", 5, 3, seed=2)) is GaussianProjection
    assert type(projection_for("sparse_sign", 5, 3, seed=2)) is SparseSignProjection
    for kind in ("gaussian", "sparse_sign"):
        projection = projection_for(kind, 5, 3, seed=2)
        assert (projection.r, projection.m, projection.seed) == (5, 3, 2)
    message = (
        r"The 'kind' parameter of projection_for must be a str among "
        r"\{'gaussian', 'sparse_sign'\}\. Got 'srht' instead\."
    )
    with pytest.raises(ValueError, match=message):
        projection_for("srht", 5, 3, seed=2)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_sparse_sign_blocks_are_applied_in_groups(container, monkeypatch):
    together, vstack = [], sparse.vstack

    def count(blocks, *args):
        together.append(len(blocks))
        return vstack(blocks, *args)

    projection = make_projection("sparse_sign", 3 * BLOCK_ROWS - 5, 6, seed=0)
    G = np.random.RandomState(0).normal(size=(2, 3 * BLOCK_ROWS - 5))
    monkeypatch.setattr(sparse, "vstack", count)
    for n, groups in ((1, [1, 1, 1]), (2, [2, 1])):
        monkeypatch.setattr(_projection, "APPLIED_BLOCKS", n)
        together.clear()
        np.testing.assert_allclose(projection.apply(container(G)), G @ projection.to_array())
        assert together == groups
