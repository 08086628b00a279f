"""Units, offsets, condition and rank of the data: the same picks, or an error that says why.

`picks` also checks what every fit has to keep: distinct positions, a score that is a share, and
`transform` of the data of `fit` giving the selection of `fit`.
"""

import functools
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

import sklearn_skmm
from sklearn_skmm import GradientSketcher, diagnostics
from tests._selectors import UNREADING, make, selector_classes

N = 10
ROUNDINGS = ["cells", "exemplar", "cube", "spread", "local_cube", "systematic", "choice"]
# Every selector, and every way that one of them goes about it.
VARIANTS = {
    **{cls.__name__: (cls, {}) for cls in selector_classes()},
    **{
        f"SkMMSelector-{init}-{rounding}": (
            sklearn_skmm.SkMMSelector,
            {"init": init, "rounding": rounding, "max_iter": 50},
        )
        for init, rounding in [
            *(("uniform", rounding) for rounding in ROUNDINGS),
            *(("vertex", rounding) for rounding in ("cells", "cube", "choice")),
        ]
    },
    "AdaptiveSelector-greedy": (sklearn_skmm.AdaptiveSelector, {"pivoting": "greedy"}),
    "KCenterSelector-center": (sklearn_skmm.KCenterSelector, {"init": "center"}),
    "FacilityLocationSelector-euclidean": (
        sklearn_skmm.FacilityLocationSelector,
        {"metric": "euclidean"},
    ),
    "FacilityLocationSelector-sqeuclidean": (
        sklearn_skmm.FacilityLocationSelector,
        {"metric": "sqeuclidean"},
    ),
    "VOptimalSelector-greedy": (sklearn_skmm.VOptimalSelector, {"init": "greedy"}),
}
# The regularised classifier inside depends on the unit of the features.
HAS_A_SCALE = {"UncertaintySelector"}
# What is not a power of two rounds each entry. A solver that is stopped early on its way from a
# random vertex carries that into the draw.
ROUNDING_DECIDES = {f"SkMMSelector-vertex-{rounding}" for rounding in ROUNDINGS}

RNG = np.random.RandomState(0)
# Exact in single precision.
X = (RNG.normal(size=(60, 6)) * [5, 3, 2, 1, 0.5, 0.1]).astype(np.float32).astype(np.float64)
Y = np.arange(60) % 2


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(params=[name for name in VARIANTS if name not in UNREADING])
def reading(request):
    """Those that look at the values."""
    return request.param


def fitted(variant, X):
    cls, params = VARIANTS[variant]
    with warnings.catch_warnings():
        # Few iterations are enough here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make(cls, N, **params).fit(X, Y)


def picks(variant, X):
    selector = fitted(variant, X)
    indices = selector.sample_indices_
    assert len(np.unique(indices)) == N
    assert indices.min() >= 0
    assert indices.max() < len(Y)
    assert np.all(selector.sample_weight_ > 0)
    assert np.isfinite(selector.sample_weight_).all()
    assert 0.0 <= selector.score(X) <= 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        np.testing.assert_array_equal(selector.transform(X), indices)
    return indices


@functools.cache
def usual(variant, dtype=np.float64):
    return picks(variant, X.astype(dtype))


@pytest.mark.parametrize("exponent", [500, -500, 60])
def test_powers_of_two_change_no_pick(variant, exponent):
    scaled = picks(variant, X * 2.0**exponent)
    if variant not in HAS_A_SCALE:
        np.testing.assert_array_equal(scaled, usual(variant))


@pytest.mark.parametrize("exponent", [110, -60])
def test_powers_of_two_change_no_pick_in_single_precision(variant, exponent):
    single = X.astype(np.float32)
    scaled = single * np.float32(2.0**exponent)
    assert scaled.dtype == np.float32
    scaled = picks(variant, scaled)
    if variant not in HAS_A_SCALE:
        np.testing.assert_array_equal(scaled, usual(variant, np.float32))


def test_powers_of_two_change_no_pick_of_sparse_rows(variant):
    rows = sparse.csr_array(np.where(np.abs(X) < 0.5, 0.0, X))
    scaled = picks(variant, rows * 2.0**-200)
    if variant not in HAS_A_SCALE:
        np.testing.assert_array_equal(scaled, picks(variant, rows))


@pytest.mark.parametrize("unit", [1e150, 1e-150])
def test_any_unit_will_do(variant, unit):
    scaled = picks(variant, X * unit)
    if variant not in HAS_A_SCALE | ROUNDING_DECIDES:
        np.testing.assert_array_equal(scaled, usual(variant))


@pytest.mark.parametrize("unit", [1e18, 1e-18])
def test_any_unit_will_do_in_single_precision(variant, unit):
    scaled = picks(variant, (X * unit).astype(np.float32))
    if variant not in HAS_A_SCALE | ROUNDING_DECIDES:
        np.testing.assert_array_equal(scaled, usual(variant))


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_where_squares_are_out_of_range_the_error_says_so(reading, container):
    """AdaptiveSelector once looped forever there."""
    selector = fitted(reading, X)
    before = selector.sample_indices_
    for unit in (1e200, 1e300, 1e-200, 1e-310):
        rows = container(X * unit)
        with pytest.raises(ValueError, match=r"largest entry of X is .*e[+-].* Multiply X by a "):
            selector.fit(rows, Y)
        assert selector.sample_indices_ is before
        for method in (selector.transform, selector.score):
            with pytest.raises(ValueError, match="largest entry of X"):
                method(rows)


def test_the_largest_floats_are_told_from_infinity(reading):
    cls, params = VARIANTS[reading]
    largest = np.where(X > 0, 1.0, -1.0) * np.finfo(float).max
    with pytest.raises(ValueError, match=r"largest entry of X is 1\.79769e\+308"):
        make(cls, N, **params).fit(largest, Y)


def test_another_pool_may_be_shorter_but_not_longer_by_far(reading):
    selector = fitted(reading, X * 1e-100)
    with pytest.raises(ValueError, match=r"mean squared norm of the rows of X is .* that in fit"):
        selector.transform(X * 1e100)
    selector = fitted(reading, X * 1e100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert len(np.unique(selector.transform(X * 1e-100))) == N
    assert 0.0 <= selector.score(X * 1e-100) <= 1.0


def test_far_from_the_origin(variant):
    """Rounded to 2⁻¹⁰, which such an offset leaves exact."""
    picks(variant, np.round(X * 1024) / 1024 + 1e8)


@pytest.mark.parametrize(
    "name", ["KMeansSelector", "KCenterSelector", "FacilityLocationSelector-sqeuclidean"]
)
def test_offsets_do_not_matter_to_distances(name):
    rows = np.round(X * 1024) / 1024
    np.testing.assert_array_equal(picks(name, rows + 2.0**20), picks(name, rows))


@pytest.mark.parametrize("condition", [1e8, 1e15])
def test_ill_conditioned(variant, condition):
    left, _, right = np.linalg.svd(X, full_matrices=False)
    rows = (left * np.geomspace(1.0, 1.0 / condition, 6)) @ right
    picks(variant, rows)


DEGENERATE = {
    "rank one": np.outer(RNG.normal(size=60), RNG.normal(size=6)),
    "one column": X[:, :1],
    "identical rows": np.tile(X[0], (60, 1)),
    "three distinct rows": X[np.arange(60) % 3],
    "all but one zero": np.where(np.arange(60)[:, None] == 17, X, 0.0),
    "constant columns": np.where([True, False] * 3, X, 1.0),
    "zero columns": np.where([True, False] * 3, X, 0.0),
    "zero": np.zeros((60, 6)),
    "negative zero": np.full((60, 6), -0.0),
    "two hundred decades": X * np.geomspace(1e-100, 1e100, 60)[:, None],
    "two hundred decades of columns": X * np.geomspace(1e-100, 1e100, 6),
    "subnormals beside ones": np.where([True, False] * 3, np.sign(X) * 5e-324, X),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_pools(variant, name):
    rows = DEGENERATE[name]
    if variant == "UncertaintySelector" and "decades" in name:
        pytest.skip("the classifier inside does not converge")
    indices = picks(variant, rows)
    # Draws that honour 1 / N may miss what has all of the moment.
    draws = {"UniformSelector", *HAS_A_SCALE, *(v for v in VARIANTS if v.startswith("SkMM"))}
    if name == "all but one zero" and variant not in draws:
        assert 17 in indices


@pytest.mark.parametrize("n", [1, 59, 60])
def test_more_picks_than_distinct_rows(variant, n):
    cls, params = VARIANTS[variant]
    params = {**params, "c_S": 2.0} if cls is sklearn_skmm.SkMMSelector else params
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        selector = make(cls, n, **params).fit(X[np.arange(60) % 4], Y)
    assert len(np.unique(selector.sample_indices_)) == n


# Diagnostics and the sketch

S = [0, 3, 5, 8, 9, 11, 12, 20]
DIAGNOSTICS = {
    # name: the function and the power of the unit in its value
    "intrinsic_dimension": (lambda G, unit: diagnostics.intrinsic_dimension(G), 0),
    "effective_c_S": (lambda G, unit: diagnostics.effective_c_S(G, S), 0),
    "variance_term": (lambda G, unit: diagnostics.variance_term(G, S), 0),
    "bias_term": (lambda G, unit: diagnostics.bias_term(G, S[:2]), 2),
    "v_optimality": (lambda G, unit: diagnostics.v_optimality(G, S, alpha=unit**2), 0),
    "excess_risk_bound": (
        lambda G, unit: diagnostics.excess_risk_bound(G, S, sigma=unit, theta_norm=1.0),
        2,
    ),
}


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_diagnostics_in_any_unit(name):
    function, power = DIAGNOSTICS[name]
    expected = function(X, 1.0)
    for unit in (2.0**60, 2.0**-60, 1e140, 1e-140):
        assert function(X * unit, unit) / unit**power == pytest.approx(expected, rel=1e-8)
    for unit in (1e200, 1e-200):
        with pytest.raises(ValueError, match="largest entry of G is"):
            function(X * unit, 1.0)


@pytest.mark.parametrize("kind", ["gaussian", "sparse_sign"])
def test_sketches_are_linear_in_the_unit(kind):
    expected = GradientSketcher(4, sketch=kind, random_state=0).fit_transform(X)
    for exponent in (900, 500, -500, -900):
        scaled = GradientSketcher(4, sketch=kind, random_state=0).fit_transform(X * 2.0**exponent)
        np.testing.assert_array_equal(scaled, expected * 2.0**exponent)


@pytest.mark.parametrize("kind", ["gaussian", "sparse_sign"])
def test_sketches_that_overflow_are_refused(kind):
    sketcher = GradientSketcher(4, sketch=kind, random_state=0)
    with pytest.raises(ValueError, match=r"gradients of .* samples are not finite"):
        sketcher.fit_transform(np.full((3, 40), 1.7e308))
    assert not hasattr(sketcher, "projection_")


def test_k_center_picks_no_sample_twice_in_large_units():
    """What was picked once counted as at distance -1, which among long rows was a tie."""
    rows = np.array([[1e7], [1e7], [1e7], [-1e7]])
    picks = make(sklearn_skmm.KCenterSelector, 4).fit_transform(rows)
    assert sorted(picks) == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("init", ["uniform", "vertex"])
@pytest.mark.parametrize("rounding", ["cells", "exemplar", "spread", "cube", "systematic"])
def test_a_stratum_of_the_pool_far_longer_than_in_fit(dtype, init, rounding):
    """Fourth powers of its rows in units of the target are beyond single precision."""
    X = np.random.RandomState(0).normal(size=(12, 3))
    X[6:] *= 1e11
    y = np.repeat([0, 1], 6)
    selector = sklearn_skmm.SkMMSelector(
        4, c_S=1.5, init=init, rounding=rounding, stratify=True, random_state=0
    ).fit(X.astype(dtype), y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        picks = selector.transform(X[::-1].astype(dtype), y)
    assert len(np.unique(picks)) == 4
    np.testing.assert_array_equal(np.bincount(y[picks]), [2, 2])
