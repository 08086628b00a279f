"""Searches, metadata routing and callbacks of scikit-learn."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, GroupKFold, HalvingGridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_skmm import CoresetEstimator, SkMMSelector, UniformSelector
from tests._classification import RecordingClassifier, pipeline


@pytest.mark.slow
def test_halving_search_tunes_c_S_and_m(data):
    X, y = data
    search = HalvingGridSearchCV(
        CoresetEstimator(LogisticRegression(max_iter=1000), pipeline(0.5)),
        {
            "selector__skmmselector__c_S": [0.7, 0.999],
            "selector__gradientsketcher__m": [4, 12],
        },
        cv=3,
        factor=2,
        min_resources=50,
        random_state=0,
    ).fit(X, y)
    assert search.n_resources_ == [50, 100, 200]
    assert search.n_candidates_ == [4, 2, 1]
    best = search.best_estimator_
    assert best.sample_indices_.shape == (100,)
    alone = clone(best).fit(X, y)
    np.testing.assert_array_equal(alone.sample_indices_, best.sample_indices_)
    np.testing.assert_array_equal(alone.predict(X), search.predict(X))


@pytest.mark.slow
def test_halving_search_can_use_the_coreset_size_as_resource(data):
    X, y = data
    search = HalvingGridSearchCV(
        CoresetEstimator(LogisticRegression(max_iter=1000), pipeline()),
        {"selector__skmmselector__c_S": [0.7, 0.999], "selector__gradientsketcher__m": [4, 12]},
        resource="selector__skmmselector__n_to_select",
        min_resources=20,
        max_resources=80,
        factor=2,
        cv=3,
        random_state=0,
    ).fit(X, y)
    assert search.n_resources_ == [20, 40, 80]
    assert search.best_estimator_.sample_indices_.shape == (80,)


def test_groups_and_sample_weight_are_routed(data):
    X, y = data
    weight = np.random.RandomState(0).uniform(size=200)
    groups = np.arange(200) % 10
    with sklearn.config_context(enable_metadata_routing=True):
        selector = pipeline()
        selector[-1].set_fit_request(sample_weight=False, groups=False)
        model = CoresetEstimator(
            RecordingClassifier()
            .set_fit_request(sample_weight=True)
            .set_score_request(sample_weight=True),
            selector,
            use_sample_weight=True,
        )
        pipe = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model)
        search = GridSearchCV(
            pipe,
            {"coresetestimator__selector__skmmselector__n_to_select": [20, 40]},
            cv=GroupKFold(n_splits=5),
            refit=True,
        ).fit(X, y, sample_weight=weight, groups=groups)
        found = search.best_estimator_[-1]
        scaled = StandardScaler().fit_transform(X)
        selector = clone(found.selector).fit(scaled)
        rows = selector[-1].sample_indices_
        np.testing.assert_array_equal(found.estimator_.X_, scaled[rows])
        np.testing.assert_array_equal(
            found.estimator_.sample_weight_, weight[rows] * selector[-1].sample_weight_
        )
        scores = search.cv_results_["split0_test_score"]
        train, test = next(GroupKFold(n_splits=5).split(X, y, groups))
        expected = [
            accuracy_score(
                y[test],
                clone(pipe)
                .set_params(**params)
                .fit(X[train], y[train], sample_weight=weight[train])
                .predict(X[test]),
                sample_weight=weight[test],
            )
            for params in search.cv_results_["params"]
        ]
        np.testing.assert_allclose(scores, expected)


def test_sample_weight_without_a_request_is_rejected(data):
    X, y = data
    with sklearn.config_context(enable_metadata_routing=True):
        model = CoresetEstimator(LogisticRegression(), SkMMSelector(40))
        with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="sample_weight"):
            model.fit(X, y, sample_weight=np.ones(200))


def test_callbacks_of_a_search_reach_the_selector(data, capsys):
    from sklearn.callback import ProgressBar

    X, y = data
    model = CoresetEstimator(LogisticRegression(), UniformSelector(40, random_state=0))
    grid = {"selector__n_to_select": [20, 40]}
    search = GridSearchCV(model, grid, cv=2)
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, y)
    shown = capsys.readouterr().out
    for name in ("GridSearchCV", "CoresetEstimator", "UniformSelector"):
        assert name in shown
    plain = GridSearchCV(model, grid, cv=2).fit(X, y)
    np.testing.assert_array_equal(
        search.best_estimator_.sample_indices_, plain.best_estimator_.sample_indices_
    )
