"""Tests of CoresetEstimator, and of grid searches over a selector with and without labels."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import make_classification
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from sklearn_skmm import CoresetEstimator, GradientSketcher, SkMMSelector, UniformSelector
from sklearn_skmm.sketch._projection import GaussianProjection


@pytest.fixture
def data():
    return make_classification(200, 12, n_informative=6, n_classes=3, random_state=0)


def pipeline(**params):
    return make_pipeline(
        GradientSketcher(m=6, random_state=0), SkMMSelector(40, random_state=0, **params)
    )


def test_equals_the_estimator_fitted_on_the_coreset(data):
    X, y = data
    model = CoresetEstimator(LogisticRegression(), pipeline()).fit(X, y)
    rows = pipeline().fit_transform(X)
    plain = LogisticRegression().fit(X[rows], y[rows])
    np.testing.assert_array_equal(model.sample_indices_, rows)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        np.testing.assert_array_equal(getattr(model, method)(X), getattr(plain, method)(X))
    assert model.score(X, y) == plain.score(X, y)
    np.testing.assert_array_equal(model.classes_, [0, 1, 2])


def test_kind_and_methods_follow_the_estimator():
    selector = UniformSelector(10)
    assert is_classifier(CoresetEstimator(LogisticRegression(), selector))
    assert is_regressor(CoresetEstimator(Ridge(), selector))
    assert not hasattr(CoresetEstimator(Ridge(), selector), "predict_proba")
    assert not hasattr(CoresetEstimator(LinearSVC(), selector), "predict_proba")
    assert hasattr(CoresetEstimator(LinearSVC(), selector), "decision_function")


def test_sample_weight(data):
    X, y = data
    selector = UniformSelector(30, stratify=True, random_state=0)
    model = CoresetEstimator(Ridge(), selector, use_sample_weight=True).fit(X, y)
    fitted = UniformSelector(30, stratify=True, random_state=0).fit(X, y)
    rows, weight = fitted.sample_indices_, fitted.sample_weight_
    expected = Ridge().fit(X[rows], y[rows], sample_weight=weight)
    np.testing.assert_array_equal(model.estimator_.coef_, expected.coef_)
    given = np.random.RandomState(0).uniform(size=200)
    model.fit(X, y, sample_weight=given)
    expected = Ridge().fit(X[rows], y[rows], sample_weight=weight * given[rows])
    np.testing.assert_array_equal(model.estimator_.coef_, expected.coef_)
    with pytest.raises(TypeError, match="accepts sample_weight, but KNeighborsClassifier does not"):
        CoresetEstimator(KNeighborsClassifier(), selector, use_sample_weight=True).fit(X, y)


def test_metadata_is_routed_and_restricted_to_the_coreset(data):
    X, y = data
    given = np.random.RandomState(0).uniform(size=200)
    rows = UniformSelector(30, random_state=0).fit_transform(X)
    with sklearn.config_context(enable_metadata_routing=True):
        inner = LinearRegression().set_fit_request(sample_weight=True)
        inner.set_score_request(sample_weight=True)
        selector = UniformSelector(30, random_state=0).set_fit_request(sample_weight=False)
        model = CoresetEstimator(inner, selector)
        model.fit(X, y, sample_weight=given)
        expected = LinearRegression().fit(X[rows], y[rows], sample_weight=given[rows])
        np.testing.assert_array_equal(model.estimator_.coef_, expected.coef_)
        assert model.score(X, y, sample_weight=given) == expected.score(X, y, sample_weight=given)
        search = GridSearchCV(model, {"selector__n_to_select": [20, 40]}, cv=2)
        assert search.fit(X, y, sample_weight=given).best_params_


def test_failed_fit_changes_nothing(data):
    X, y = data
    model = CoresetEstimator(LogisticRegression(), UniformSelector(30, random_state=0)).fit(X, y)
    before = dict(vars(model))
    with pytest.raises(ValueError, match="classes"):
        model.fit(X, np.zeros(200))
    assert before == dict(vars(model))
    with pytest.raises(TypeError, match="'selector' parameter of CoresetEstimator must be"):
        CoresetEstimator(Ridge(), StandardScaler()).fit(X, y)


def test_indices_outside_of_the_data_raise(data):
    """A selector that ignores X may return such indices."""
    X, y = data
    constant = FunctionTransformer(lambda X: np.array([3, 200]))
    model = CoresetEstimator(Ridge(), constant)
    with pytest.raises(ValueError, match="outside of X"):
        model.fit(X, y)
    assert not hasattr(model, "estimator_")
    assert model.fit(np.tile(X, (2, 1)), np.tile(y, 2)).sample_indices_.tolist() == [3, 200]


def test_data_frames_and_string_labels(data):
    X, y = data
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(12)])
    labels = pd.Series(np.array(["a", "b", "c"])[y])
    model = CoresetEstimator(LogisticRegression(), pipeline()).fit(frame, labels)
    assert list(model.classes_) == ["a", "b", "c"]
    assert list(model.feature_names_in_) == list(frame.columns)
    assert set(model.predict(frame)) <= {"a", "b", "c"}


def test_search_without_labels(data):
    search = GridSearchCV(pipeline(), {"skmmselector__c_S": [0.8, 0.9, 0.999]}, cv=3).fit(data[0])
    scores = search.cv_results_["mean_test_score"]
    assert np.all((scores > 0) & (scores < 1))
    assert search.best_estimator_.transform(data[0]).shape == (40,)
    assert search.best_score_ == scores.max()


@pytest.mark.slow
def test_search_with_labels(data):
    X, y = data
    search = GridSearchCV(
        CoresetEstimator(LogisticRegression(), pipeline()),
        {
            "selector__skmmselector__c_S": [0.9, 0.999],
            "selector__gradientsketcher__m": [4, 8],
        },
        cv=3,
    ).fit(X, y)
    assert set(search.best_params_) == {
        "selector__skmmselector__c_S",
        "selector__gradientsketcher__m",
    }
    assert search.score(X, y) > 0.5
    assert search.best_estimator_.sample_indices_.shape == (40,)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.slow
def test_pipeline_memory_sketches_once_per_split_and_m(data, tmp_path, monkeypatch, labels):
    X, y = data
    calls = []
    plain = GaussianProjection.apply

    def counted(self, G):
        calls.append((self.m, G.shape[0]))
        return plain(self, G)

    monkeypatch.setattr(GaussianProjection, "apply", counted)
    pipe = make_pipeline(
        GradientSketcher(m=4, random_state=0),
        SkMMSelector(40, random_state=0),
        memory=str(tmp_path),
    )
    grid = {"skmmselector__c_S": [0.8, 0.9, 0.999], "gradientsketcher__m": [4, 8]}
    if labels:
        pipe = CoresetEstimator(LogisticRegression(), pipe)
        grid = {f"selector__{name}": values for name, values in grid.items()}
    # Splits of different sizes distinguish fitting from scoring.
    splits = [(np.arange(s, 200), np.arange(s)) for s in (40, 50, 60)]
    GridSearchCV(pipe, grid, cv=splits, refit=False).fit(X, y)
    for m in (4, 8):
        for train, _ in splits:
            assert calls.count((m, len(train))) == 1


def test_progress_is_propagated(data, capsys):
    pytest.importorskip("rich", reason="scikit-learn's ProgressBar needs rich")
    from sklearn.callback import ProgressBar

    X, y = data
    model = CoresetEstimator(LogisticRegression(), pipeline())
    plain = clone(model).fit(X, y)
    assert not capsys.readouterr().out
    model.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, y)
    shown = capsys.readouterr().out
    assert "CoresetEstimator" in shown
    assert "SkMMSelector" in shown
    np.testing.assert_array_equal(model.sample_indices_, plain.sample_indices_)
