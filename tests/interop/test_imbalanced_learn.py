"""Pipelines and samplers of imbalanced-learn."""

from dataclasses import fields
from functools import partial

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_skmm import CoresetEstimator, CoresetSampler, SkMMSelector, UniformSelector
from tests._classification import RecordingClassifier, pipeline

pytest.importorskip("imblearn")
from imblearn.base import is_sampler
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import make_pipeline as make_imbalanced_pipeline
from imblearn.utils._tags import InputTags, SamplerTags, Tags
from imblearn.utils.estimator_checks import estimator_checks_generator


def test_selector_can_be_the_last_step_of_a_pipeline(data):
    X, y = data
    scaled = StandardScaler().fit_transform(X)
    rows = SkMMSelector(40, random_state=0).fit_transform(scaled)
    pipe = make_imbalanced_pipeline(StandardScaler(), SkMMSelector(40, random_state=0))
    X_part, y_part = pipe.fit_resample(X, y)
    np.testing.assert_array_equal(X_part, scaled[rows])
    np.testing.assert_array_equal(y_part, y[rows])
    np.testing.assert_array_equal(pipe.fit_transform(X), rows)


def test_coreset_sampler_makes_a_selector_an_intermediate_step(data):
    X, y = data
    selector = SkMMSelector(40, random_state=0)
    # imbalanced-learn allows a step with both transform and fit_resample only at the end.
    with pytest.raises(TypeError, match="implements both"):
        make_imbalanced_pipeline(StandardScaler(), selector, LogisticRegression()).fit(X, y)
    pipe = make_imbalanced_pipeline(
        StandardScaler(), CoresetSampler(selector), LogisticRegression()
    )
    same = make_pipeline(StandardScaler(), CoresetEstimator(LogisticRegression(), selector))
    np.testing.assert_array_equal(
        cross_val_score(clone(pipe), X, y, cv=3), cross_val_score(same, X, y, cv=3)
    )
    pipe.fit(X, y)
    same.fit(X, y)
    np.testing.assert_array_equal(pipe[-1].coef_, same[-1].estimator_.coef_)
    np.testing.assert_array_equal(pipe[1].sample_indices_, same[-1].sample_indices_)
    np.testing.assert_array_equal(pipe.predict(X), same.predict(X))
    assert is_sampler(pipe[1])


def test_a_search_sets_the_parameters_of_the_selector_in_a_coreset_sampler(data):
    X, y = data
    pipe = make_imbalanced_pipeline(CoresetSampler(pipeline()), RecordingClassifier())
    grid = {
        "coresetsampler__selector__skmmselector__n_to_select": [5, 20],
        "coresetsampler__selector__gradientsketcher__m": [4],
    }
    search = GridSearchCV(pipe, grid, cv=2, scoring=lambda model, X, y: len(model[-1].X_))
    assert search.fit(X, y).cv_results_["mean_test_score"].tolist() == [5.0, 20.0]
    assert len(search.best_estimator_[-1].X_) == 20


def test_metadata_reaches_the_selector_in_a_coreset_sampler(data):
    X, y = data
    weight = np.random.RandomState(0).uniform(size=200)
    given = np.zeros(200, dtype=bool)
    given[[30, 7, 150]] = True
    selector = SkMMSelector(40, random_state=0)
    rows = clone(selector).fit_transform(X, sample_weight=weight, selected=given)
    rows = np.r_[7, 30, 150, rows]
    with sklearn.config_context(enable_metadata_routing=True):
        requests = clone(selector).set_fit_request(sample_weight=True, selected=True)
        # As an intermediate step and as the last, also around a pipeline.
        for inner in (requests, make_pipeline("passthrough", requests)):
            sampler = CoresetSampler(inner)
            last = RecordingClassifier().set_fit_request(sample_weight=False)
            pipe = make_imbalanced_pipeline(sampler, last)
            pipe.fit(X, y, sample_weight=weight, selected=given)
            np.testing.assert_array_equal(pipe[-1].X_, X[rows])
            np.testing.assert_array_equal(pipe[-1].y_, y[rows])
            pipe = make_imbalanced_pipeline("passthrough", sampler)
            found = pipe.fit_resample(X, y, sample_weight=weight, selected=given)
            np.testing.assert_array_equal(found[0], X[rows])
        with pytest.raises(UnsetMetadataPassedError, match="selected"):
            CoresetSampler(selector).fit_resample(X, y, selected=given)


class Tagged(CoresetSampler):
    """With the tags of imbalanced-learn, which its checks read."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        own = {f.name: getattr(tags.input_tags, f.name) for f in fields(tags.input_tags)}
        shared = {f.name: getattr(tags, f.name) for f in fields(tags)} | {
            "input_tags": InputTags(**own, dataframe=True),
            "sampler_tags": SamplerTags(sample_indices=True),
        }
        return Tags(**shared)


# Checks of samplers that balance classes. A coreset does not, and does not need any.
NOT_FOR_CORESETS = {
    "check_target_type": "continuous and multilabel targets are accepted",
    "check_samplers_one_label": "a single class is accepted",
    "check_samplers_fit": "there is no sampling_strategy_, which counts samples of classes",
}


SAMPLERS = [
    Tagged(SkMMSelector(20, random_state=0)),
    Tagged(UniformSelector(20, random_state=0)),
    Tagged(pipeline(20, m=2)),
]


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pair
        for sampler in SAMPLERS
        for pair in estimator_checks_generator(
            sampler, expected_failed_checks=NOT_FOR_CORESETS, mark="xfail"
        )
    ],
    ids=lambda part: part.func.__name__ if isinstance(part, partial) else None,
)
def test_coreset_sampler_passes_the_checks_of_samplers(estimator, check):
    check(estimator)


def test_samplers_work_before_and_inside_a_coreset_estimator(data):
    X, y = data
    few = np.r_[np.flatnonzero(y == 0)[:15], np.flatnonzero(y != 0)]
    X, y = X[few], y[few]
    over = RandomOverSampler(random_state=0)
    X_more, y_more = over.fit_resample(X, y)
    before = make_imbalanced_pipeline(over, CoresetEstimator(LogisticRegression(), pipeline()))
    expected = CoresetEstimator(LogisticRegression(), pipeline()).fit(X_more, y_more)
    np.testing.assert_array_equal(before.fit(X, y)[-1].sample_indices_, expected.sample_indices_)
    np.testing.assert_array_equal(before.predict(X), expected.predict(X))
    inside = CoresetEstimator(
        make_imbalanced_pipeline(over, RecordingClassifier()), UniformSelector(60, random_state=0)
    ).fit(X, y)
    rows = inside.sample_indices_
    np.testing.assert_array_equal(inside.estimator_[-1].X_, over.fit_resample(X[rows], y[rows])[0])
