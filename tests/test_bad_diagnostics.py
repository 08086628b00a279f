"""Input that make_gmm_regression and the diagnostics must reject."""

import numpy as np
import pytest

from sklearn_skmm import diagnostics
from sklearn_skmm.datasets import make_gmm_regression
from tests._rejection import BAD_X, N, X, assert_rejected

BAD_DATA_PARAMETERS = [
    *(("n_samples", v) for v in (0, -1, 1.5, "9", None)),
    *(("n_features", v) for v in (0, 1.5, None)),
    *(("n_clusters", v) for v in (0, 1.5, None)),
    *(("scale", v) for v in (-1.0, np.nan, np.inf, "1")),
    *(("noise", v) for v in (-1.0, np.nan, np.inf, "1")),
    ("random_state", "x"),
]


@pytest.mark.parametrize(("name", "value"), BAD_DATA_PARAMETERS)
def test_make_gmm_regression_rejects_bad_parameters(name, value):
    assert_rejected(
        lambda: make_gmm_regression(**{"n_samples": 50, "n_features": 9, name: value}),
        f"'{name}' parameter of make_gmm_regression must be .* Got {value!r}",
    )


@pytest.mark.parametrize("sizes", [{"n_clusters": 10}, {"n_samples": 8}])
def test_make_gmm_regression_rejects_too_many_clusters(sizes):
    assert_rejected(
        lambda: make_gmm_regression(**{"n_samples": 50, "n_features": 9, **sizes}), "n_clusters="
    )


DIAGNOSTICS_OF_INDICES = {
    "effective_c_S": diagnostics.effective_c_S,
    "variance_term": diagnostics.variance_term,
    "bias_term": diagnostics.bias_term,
    "v_optimality": lambda G, indices: diagnostics.v_optimality(G, indices, alpha=1.0),
    "excess_risk_bound": diagnostics.excess_risk_bound,
}
# name: (indices, message)
BAD_INDICES = {
    "floats": ([0.5], "indices must be .* dtype float64"),
    "None": (None, "indices must be"),
    "empty": ([], "non-empty"),
    "2-d": ([[0, 1]], r"shape \(1, 2\)"),
    "a short mask": (np.ones(5, dtype=bool), "mask of 24 entries"),
    "an empty mask": (np.zeros(N, dtype=bool), "non-empty"),
    "too large": ([24], "positions among the 24 rows"),
    "too negative": ([-25], "positions among the 24 rows"),
    "text": (["a"], "indices must be"),
    "scalar": (3, r"shape \(\)"),
}


@pytest.mark.parametrize("name", BAD_INDICES)
@pytest.mark.parametrize("function", DIAGNOSTICS_OF_INDICES)
def test_diagnostics_reject_bad_indices(function, name):
    value, match = BAD_INDICES[name]
    assert_rejected(lambda: DIAGNOSTICS_OF_INDICES[function](X, value), match)


@pytest.mark.parametrize(
    "name",
    [
        "None",
        "1-d",
        "3-d",
        "NaN",
        "infinity",
        "squares overflow",
        "subnormals",
        "complex",
        "masked",
        "no rows",
        "text",
        "dates",
    ],
)
@pytest.mark.parametrize("function", [*DIAGNOSTICS_OF_INDICES, "intrinsic_dimension"])
def test_diagnostics_reject_bad_gradients(function, name):
    bad, error, match = BAD_X[name]
    match = match.replace("X", "G")
    if function == "intrinsic_dimension":
        assert_rejected(lambda: diagnostics.intrinsic_dimension(bad), match, error=error)
    else:
        assert_rejected(lambda: DIAGNOSTICS_OF_INDICES[function](bad, [0]), match, error=error)


SCALAR_PARAMETERS = [
    (diagnostics.variance_term, "sigma"),
    (diagnostics.excess_risk_bound, "sigma"),
    (diagnostics.bias_term, "theta_norm"),
    (diagnostics.excess_risk_bound, "theta_norm"),
    (diagnostics.v_optimality, "alpha"),
]


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, "1", None, 1j])
@pytest.mark.parametrize(("function", "name"), SCALAR_PARAMETERS)
def test_diagnostics_reject_bad_scalars(function, name, value):
    error = ValueError if isinstance(value, float) else TypeError
    assert_rejected(
        lambda: function(X, [0, 1], **{name: value}), f"{name} must be .*, got ", error=error
    )


@pytest.mark.parametrize(
    ("basis", "match"),
    [
        (np.ones((1, 2)), "3 columns, as G has, got 2"),
        (np.ones(3), "2D array"),
        (np.full((1, 3), np.nan), "basis contains NaN"),
        ("all", "string"),
    ],
)
@pytest.mark.parametrize("function", [diagnostics.variance_term, diagnostics.bias_term])
def test_diagnostics_reject_a_bad_basis(function, basis, match):
    assert_rejected(lambda: function(X, [0, 1], basis=basis), match)


def test_zero_basis_explains_nothing():
    assert diagnostics.variance_term(X, [0, 1], basis=np.zeros((1, 3))) == 0.0
    total = 2.0 * np.square(X).sum() / N
    outside = diagnostics.bias_term(X, [0, 1], basis=np.zeros((1, 3)))
    assert outside == pytest.approx(total)
