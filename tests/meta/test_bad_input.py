"""Input that compare_selectors, CoresetEstimator and SelectorQuery must reject."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

import sklearn_skmm as skmm
from tests._rejection import N, X, Y, assert_rejected

# name: (call, error, message)
BAD_COMPARISONS = {
    "two of a name": (
        lambda: skmm.compare_selectors([skmm.UniformSelector(1)] * 2, Ridge(), X, Y, n_to_select=5),
        ValueError,
        r"more than one \['UniformSelector'\]",
    ),
    "y short": (
        lambda: skmm.compare_selectors(
            [skmm.UniformSelector(1)], Ridge(), X, Y[:-1], n_to_select=5
        ),
        ValueError,
        "inconsistent numbers of samples",
    ),
    "too many": (
        lambda: skmm.compare_selectors([skmm.UniformSelector(1)], Ridge(), X, Y, n_to_select=99),
        ValueError,
        "n_to_select=99",
    ),
    "zero": (
        lambda: skmm.compare_selectors([skmm.UniformSelector(1)], Ridge(), X, Y, n_to_select=0),
        ValueError,
        "'n_to_select' parameter",
    ),
    "NaN": (
        lambda: skmm.compare_selectors(
            [skmm.UniformSelector(1)], Ridge(), X * np.nan, Y, n_to_select=5
        ),
        ValueError,
        "X contains NaN",
    ),
    "score": (
        lambda: skmm.compare_selectors(
            [skmm.UniformSelector(1)], Ridge(), X, Y, n_to_select=5, scoring="best"
        ),
        ValueError,
        "'scoring' parameter",
    ),
    "cv": (
        lambda: skmm.compare_selectors(
            [skmm.UniformSelector(1)], Ridge(), X, Y, n_to_select=5, cv=99
        ),
        ValueError,
        "n_splits=99",
    ),
}


@pytest.mark.parametrize("name", BAD_COMPARISONS)
def test_compare_selectors_rejects_bad_input(name):
    call, error, match = BAD_COMPARISONS[name]
    assert_rejected(call, match, error=error)


def coreset_estimator(selector=None, estimator=None, **params):
    selector = skmm.UniformSelector(8, random_state=0) if selector is None else selector
    return skmm.CoresetEstimator(Ridge() if estimator is None else estimator, selector, **params)


# name: (parameters, X, y, error, message)
BAD_CORESET_ESTIMATORS = {
    "selector None": ({"selector": None}, X, Y, ValueError, "'selector' parameter"),
    "selector a scaler": (
        {"selector": make_pipeline(skmm.GradientSketcher(2))},
        X,
        Y,
        TypeError,
        "'selector' parameter of CoresetEstimator must be",
    ),
    "estimator text": ({"estimator": "ridge"}, X, Y, ValueError, "'estimator' parameter"),
    "weights of none": (
        {
            "estimator": KNeighborsClassifier(),
            "use_sample_weight": True,
        },
        X,
        Y,
        TypeError,
        "use_sample_weight=True .* KNeighborsClassifier",
    ),
    "weights": ({"use_sample_weight": "yes"}, X, Y, ValueError, "'use_sample_weight' parameter"),
    "y short": ({}, X, Y[:-1], ValueError, "inconsistent"),
    "y NaN": ({}, X, np.full(N, np.nan), ValueError, "y contains NaN"),
    "X NaN": ({}, X * np.nan, Y, ValueError, "X contains NaN"),
    "too many": ({"selector": skmm.UniformSelector(99)}, X, Y, ValueError, "n_to_select=99"),
}


@pytest.mark.parametrize("name", BAD_CORESET_ESTIMATORS)
def test_coreset_estimator_rejects_bad_input(name):
    params, rows, y, error, match = BAD_CORESET_ESTIMATORS[name]
    meta = coreset_estimator().fit(X, Y).set_params(**params)
    assert_rejected(lambda: meta.fit(rows, y), match, meta, error=error)


def test_unfitted_coreset_estimator_raises_not_fitted_error():
    meta = coreset_estimator()
    assert_rejected(lambda: meta.predict(X), "not fitted yet", meta, error=NotFittedError)


# The samples of class 0 are labelled.
Y_PART = np.where(Y, np.nan, 0.0)
# name: (call, error, message)
BAD_QUERIES = {
    "nothing to query": (lambda s: s.query(X, np.zeros(N)), ValueError, "no candidate"),
    "labelled": (
        lambda s: s.query(X, Y_PART, candidates=[0, 1]),
        ValueError,
        r"labelled \[0\] instead",
    ),
    "floats": (lambda s: s.query(X, Y_PART, candidates=[0.5]), TypeError, "integer positions"),
    "outside": (lambda s: s.query(X, Y_PART, candidates=[1, 99]), ValueError, "between 0 and 23"),
    "batch zero": (
        lambda s: s.query(X, Y_PART, batch_size=0),
        ValueError,
        "batch_size == 0, must be >= 1",
    ),
    "batch text": (lambda s: s.query(X, Y_PART, batch_size="1"), TypeError, "batch_size"),
    "y short": (lambda s: s.query(X, Y_PART[:-1]), ValueError, "inconsistent"),
    "X NaN": (lambda s: s.query(X * np.nan, Y_PART), ValueError, "X contains NaN"),
}


@pytest.mark.parametrize("name", BAD_QUERIES)
def test_query_rejects_bad_input(name):
    call, error, match = BAD_QUERIES[name]
    strategy = skmm.SelectorQuery(skmm.KCenterSelector(1, random_state=0))
    assert_rejected(lambda: call(strategy), match, strategy, error=error)
