"""Units, offsets, condition and rank of the data: the same selection, or an error that explains.

`check_selection` also checks every fit: distinct indices, a score between 0 and 1, and the same
selection by `transform` of the training data.
"""

import functools
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

import sklearn_skmm
from sklearn_skmm import GradientSketcher, diagnostics
from tests._selectors import ROUNDINGS, UNREADING, make, selector_classes

N = 10
# Every selector, and variants of some with other options.
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
    "FacilityLocationSelector-cosine": (
        sklearn_skmm.FacilityLocationSelector,
        {"metric": "cosine"},
    ),
    "KCenterSelector-cosine": (sklearn_skmm.KCenterSelector, {"metric": "cosine"}),
    "VOptimalSelector-greedy": (sklearn_skmm.VOptimalSelector, {"init": "greedy"}),
}
# The selector's regularised classifier depends on the unit of the features.
SCALE_DEPENDENT = {"UncertaintySelector"}
# Scaling by anything but a power of two rounds each entry. If the solver starts at a random vertex
# and stops early, this changes the random selection.
ROUNDING_DEPENDENT = {f"SkMMSelector-vertex-{rounding}" for rounding in ROUNDINGS}

RNG = np.random.RandomState(0)
# Exact in single precision.
X = (RNG.normal(size=(60, 6)) * [5, 3, 2, 1, 0.5, 0.1]).astype(np.float32).astype(np.float64)
Y = np.arange(60) % 2


# In the quick run, each selector with its defaults, and two of the ten variants of SkMM.
QUICK = {*(name for name in VARIANTS if "-" not in name)}
QUICK |= {"SkMMSelector-uniform-cube", "SkMMSelector-vertex-choice"}
PARAMS = [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK), id=name) for name in VARIANTS
]


@pytest.fixture(params=PARAMS)
def variant(request):
    return request.param


@pytest.fixture(params=[param for param in PARAMS if param.id not in UNREADING])
def reading(request):
    """Those that look at the values."""
    return request.param


def fitted(variant, X):
    cls, params = VARIANTS[variant]
    with warnings.catch_warnings():
        # Few iterations are enough here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make(cls, N, **params).fit(X, Y)


def check_selection(variant, X):
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
def unscaled_selection(variant, dtype=np.float64):
    return check_selection(variant, X.astype(dtype))


@pytest.mark.parametrize("exponent", [500, -500, 60])
def test_powers_of_two_do_not_change_the_selection(variant, exponent):
    scaled = check_selection(variant, X * 2.0**exponent)
    if variant not in SCALE_DEPENDENT:
        np.testing.assert_array_equal(scaled, unscaled_selection(variant))


@pytest.mark.parametrize("exponent", [110, -60])
def test_powers_of_two_do_not_change_the_selection_in_single_precision(variant, exponent):
    single = X.astype(np.float32)
    scaled = single * np.float32(2.0**exponent)
    assert scaled.dtype == np.float32
    scaled = check_selection(variant, scaled)
    if variant not in SCALE_DEPENDENT:
        np.testing.assert_array_equal(scaled, unscaled_selection(variant, np.float32))


def test_powers_of_two_do_not_change_the_selection_of_sparse_rows(variant):
    rows = sparse.csr_array(np.where(np.abs(X) < 0.5, 0.0, X))
    scaled = check_selection(variant, rows * 2.0**-200)
    if variant not in SCALE_DEPENDENT:
        np.testing.assert_array_equal(scaled, check_selection(variant, rows))


@pytest.mark.parametrize("unit", [1e150, 1e-150])
def test_unit_does_not_change_the_selection(variant, unit):
    scaled = check_selection(variant, X * unit)
    if variant not in SCALE_DEPENDENT | ROUNDING_DEPENDENT:
        np.testing.assert_array_equal(scaled, unscaled_selection(variant))


@pytest.mark.parametrize("unit", [1e18, 1e-18])
def test_unit_does_not_change_the_selection_in_single_precision(variant, unit):
    scaled = check_selection(variant, (X * unit).astype(np.float32))
    if variant not in SCALE_DEPENDENT | ROUNDING_DEPENDENT:
        np.testing.assert_array_equal(scaled, unscaled_selection(variant))


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_error_if_squares_are_out_of_range(reading, container):
    """AdaptiveSelector once looped forever on such data."""
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


def test_largest_floats_are_not_reported_as_infinite(reading):
    cls, params = VARIANTS[reading]
    largest = np.where(X > 0, 1.0, -1.0) * np.finfo(float).max
    with pytest.raises(ValueError, match=r"largest entry of X is 1\.79769e\+308"):
        make(cls, N, **params).fit(largest, Y)


def test_another_pool_may_have_much_smaller_but_not_much_larger_norms(reading):
    selector = fitted(reading, X * 1e-100)
    with pytest.raises(ValueError, match=r"mean squared norm of the rows of X is .* that in fit"):
        selector.transform(X * 1e100)
    selector = fitted(reading, X * 1e100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert len(np.unique(selector.transform(X * 1e-100))) == N
    assert -1.0 <= selector.score(X * 1e-100) <= 1.0


def test_pool_far_from_the_origin(variant):
    """Entries are rounded to 2⁻¹⁰, so that adding the offset is exact."""
    check_selection(variant, np.round(X * 1024) / 1024 + 1e8)


@pytest.mark.parametrize(
    "name", ["KMeansSelector", "KCenterSelector", "FacilityLocationSelector-sqeuclidean"]
)
def test_offsets_do_not_change_selections_by_distance(name):
    rows = np.round(X * 1024) / 1024
    np.testing.assert_array_equal(
        check_selection(name, rows + 2.0**20), check_selection(name, rows)
    )


@pytest.mark.parametrize("condition", [1e8, 1e15])
def test_ill_conditioned_pools(variant, condition):
    left, _, right = np.linalg.svd(X, full_matrices=False)
    rows = (left * np.geomspace(1.0, 1.0 / condition, 6)) @ right
    check_selection(variant, rows)


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
        pytest.skip("its classifier does not converge")
    indices = check_selection(variant, rows)
    # Selections with weights of 1 / N may miss the only sample that contributes to the moment.
    may_miss_it = {
        "UniformSelector",
        *SCALE_DEPENDENT,
        *(v for v in VARIANTS if v.startswith("SkMM")),
    }
    if name == "all but one zero" and variant not in may_miss_it:
        assert 17 in indices


@pytest.mark.parametrize("n", [1, 59, 60])
def test_more_samples_than_distinct_rows(variant, n):
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
def test_sketches_that_overflow_raise(kind):
    sketcher = GradientSketcher(4, sketch=kind, random_state=0)
    with pytest.raises(ValueError, match=r"gradients of .* samples are not finite"):
        sketcher.fit_transform(np.full((3, 40), 1.7e308))
    assert not hasattr(sketcher, "projection_")


def test_k_center_selects_no_sample_twice_in_large_units():
    """Selected samples were marked by a distance of -1, a tie among rows of large norm."""
    rows = np.array([[1e7], [1e7], [1e7], [-1e7]])
    indices = make(sklearn_skmm.KCenterSelector, 4).fit_transform(rows)
    assert sorted(indices) == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("init", ["uniform", "vertex"])
@pytest.mark.parametrize("rounding", ["cells", "exemplar", "spread", "cube", "systematic"])
def test_stratum_with_much_larger_norms_than_in_fit(dtype, init, rounding):
    """Fourth powers of its rows, in units of the target, overflow in single precision."""
    X = np.random.RandomState(0).normal(size=(12, 3))
    X[6:] *= 1e11
    y = np.repeat([0, 1], 6)
    selector = sklearn_skmm.SkMMSelector(
        4, c_S=1.5, init=init, rounding=rounding, stratify=True, random_state=0
    ).fit(X.astype(dtype), y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        indices = selector.transform(X[::-1].astype(dtype), y)
    assert len(np.unique(indices)) == 4
    np.testing.assert_array_equal(np.bincount(y[indices]), [2, 2])
