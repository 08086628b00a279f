"""Parameters that selectors must reject, and extreme values that they must accept."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge

import sklearn_skmm as skmm
from tests._rejection import SELECTORS, X, Y, assert_rejected, fitted, quietly
from tests._selectors import make

BAD_EVERYWHERE = [
    *(("n_to_select", v) for v in (0, -1, 0.0, 1.5, 10.0, np.nan, np.inf, "10", None, [5], 5 + 0j)),
    *(("stratify", v) for v in ("yes", None, 2, [True])),
]
BAD_SEEDS = [("random_state", v) for v in ("seed", -1, 2**32, 1.5, [1])]
BAD_PARAMETERS = [
    *(
        (name, *bad)
        for name, cls in SELECTORS.items()
        for bad in BAD_EVERYWHERE
        # None is for those with a budget.
        if not (bad == ("n_to_select", None) and "budget" in make(cls).get_params())
    ),
    *(
        (name, *bad)
        for name, cls in SELECTORS.items()
        for bad in BAD_SEEDS
        if "random_state" in make(cls).get_params()
    ),
    *(("SkMMSelector", "c_S", v) for v in (0, -1.0, np.nan, np.inf, "1", None)),
    *(("SkMMSelector", "init", v) for v in ("zero", None, 0, [0, 1])),
    *(("SkMMSelector", "rounding", v) for v in ("round", None, 0, ["cells"])),
    *(("SkMMSelector", "centrality", v) for v in (-0.1, np.nan, "0", None)),
    *(("SkMMSelector", "n_candidates", v) for v in (0, 1.5, "all")),
    *(("SkMMSelector", "max_iter", v) for v in (0, -1, 1.5, np.inf, None)),
    *(("SkMMSelector", "tol", v) for v in (-1e-9, np.nan, np.inf, None)),
    *(("VOptimalSelector", "alpha", v) for v in (0, -1.0, np.nan, np.inf, "1")),
    *(("VOptimalSelector", "init", v) for v in ("random", None, 3)),
    *(("VOptimalSelector", "max_iter", v) for v in (-1, 0.5, None)),
    *(("VOptimalSelector", "tol", v) for v in (-1.0, np.nan, np.inf)),
    *(("FacilityLocationSelector", "metric", v) for v in ("manhattan", None, 2)),
    *(("FacilityLocationSelector", "bandwidth", v) for v in (0, -1.0, np.nan, np.inf, "1")),
    *(("KMeansSelector", "n_init", v) for v in (0, 1.5, "auto", None)),
    *(("KMeansSelector", "max_iter", v) for v in (0, -1, 1.5)),
    *(("KCenterSelector", "metric", v) for v in ("manhattan", None, 2)),
    *(("KCenterSelector", "init", v) for v in ("first", None, 0)),
    *(("AdaptiveSelector", "pivoting", v) for v in ("full", None)),
    *(("AdaptiveSelector", "block_size", v) for v in (0, 1.5, None)),
    *(("RidgeLeverageSelector", "alpha", v) for v in (-1.0, np.nan, np.inf, "1")),
    *(("TruncatedLeverageSelector", "n_components", v) for v in (0, -1, 1.5, "all")),
    *(("UncertaintySelector", "criterion", v) for v in ("variance", None)),
    *(("UncertaintySelector", "estimator", v) for v in (None, "logistic", Ridge())),
]


@pytest.mark.parametrize(("cls", "name", "value"), BAD_PARAMETERS)
def test_fit_rejects_bad_parameters(cls, name, value):
    selector = fitted(cls)
    selector.set_params(**{name: value})
    match = rf"The '{name}' parameter of {cls} must be .* Got {value!r}"
    match = match.replace("(", r"\(").replace(")", r"\)").replace("[", r"\[").replace("]", r"\]")
    if name == "random_state" and value in (-1, 2**32):
        match = "random_state|Seed"
    assert_rejected(lambda: selector.fit(X, Y), match.replace("+", r"\+"), selector)
    unfitted = make(SELECTORS[cls], 5).set_params(**{name: value})
    assert_rejected(lambda: unfitted.fit(X, Y), match.replace("+", r"\+"), unfitted)


@pytest.mark.parametrize("cls", SELECTORS)
def test_n_to_select_must_not_exceed_n_samples(cls):
    selector = fitted(cls)
    match = "n_to_select=25 must be at most .* n_samples=24"
    assert_rejected(lambda: selector.set_params(n_to_select=25).fit(X, Y), match, clone(selector))
    selector = fitted(cls)
    assert_rejected(lambda: selector.transform(X[:4]), "n_to_select=5 .* n_samples=4", selector)


@pytest.mark.parametrize("cls", SELECTORS)
def test_selection_from_a_single_sample(cls):
    if cls == "UncertaintySelector":
        assert_rejected(lambda: make(SELECTORS[cls], 1).fit(X[:1], Y[:1]), "2 classes|class")
        return
    assert quietly(
        make(SELECTORS[cls], 1, **({"c_S": 2.0} if cls == "SkMMSelector" else {})).fit, X[:1], Y[:1]
    ).sample_indices_.tolist() == [0]


# name: (init, message)
BAD_INITIAL_POSITIONS = {
    "repeated": ([0, 0], "distinct positions"),
    "empty": ([], r"non-empty 1-d array of integer positions.*shape \(0,\)"),
    "2-d": ([[1]], r"1-d array of integer positions\. Got an array of shape \(1, 1\)"),
    "floats": ([0.5], r"integer positions\. Got .* dtype float64"),
    "too large": ([99], "positions from 0 to 23.* 99"),
    "negative": ([-1], "positions from 0 to 23.* -1"),
    "text": (["a"], "integer positions"),
    "too many": (list(range(6)), r"at most n=5 positions\. Got 6"),
    "NaN": ([np.nan], "integer positions.*dtype float64"),
}


@pytest.mark.parametrize("name", BAD_INITIAL_POSITIONS)
def test_v_optimal_rejects_bad_initial_positions(name):
    value, match = BAD_INITIAL_POSITIONS[name]
    selector = skmm.VOptimalSelector(5).fit(X).set_params(init=value)
    assert_rejected(lambda: selector.fit(X), match, selector)


@pytest.mark.parametrize("c_S", [1e-320, 1e-3, 5 / 25])
def test_skmm_rejects_a_c_S_that_no_coreset_reaches(c_S):
    selector = skmm.SkMMSelector(5, random_state=0).fit(X).set_params(c_S=c_S)
    assert_rejected(
        lambda: selector.fit(X),
        f"'c_S' parameter of SkMMSelector must be at least .*{c_S}",
        selector,
    )


@pytest.mark.parametrize("bandwidth", [1e-320, 1e-200, 1e-30, 1e30, 1e200, 1e308])
def test_facility_location_accepts_extreme_bandwidths(bandwidth):
    selector = skmm.FacilityLocationSelector(5, bandwidth=bandwidth).fit(X)
    assert len(np.unique(selector.sample_indices_)) == 5
    assert selector.bandwidth_ == bandwidth


@pytest.mark.parametrize("alpha", [0, 1e-320, 1e308])
def test_ridge_leverage_accepts_extreme_alpha(alpha):
    selector = skmm.RidgeLeverageSelector(5, alpha=alpha, random_state=0).fit(X)
    assert selector.inclusion_probabilities_.sum() == pytest.approx(5)


class BadProbabilities(LogisticRegression):
    """A classifier whose predict_proba returns NaN or an array of the wrong shape."""

    def __init__(self, kind=None):
        super().__init__()
        self.kind = kind

    def predict_proba(self, X):
        proba = super().predict_proba(X)
        return {
            "NaN": np.where(proba > 0.5, np.nan, proba),
            "short": proba[:-1],
            "1-d": proba[:, 0],
        }[self.kind]


@pytest.mark.parametrize("criterion", ["entropy", "margin", "least_confidence"])
@pytest.mark.parametrize("kind", ["NaN", "short", "1-d"])
def test_uncertainty_rejects_bad_probabilities(kind, criterion):
    selector = skmm.UncertaintySelector(5, LogisticRegression(), criterion=criterion).fit(X, Y)
    selector.set_params(estimator=BadProbabilities(kind))
    assert_rejected(lambda: selector.fit(X, Y), "predict_proba", selector)
