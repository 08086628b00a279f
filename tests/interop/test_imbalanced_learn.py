"""Pipelines and samplers of imbalanced-learn."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_skmm import CoresetEstimator, SkMMSelector, UniformSelector
from tests._classification import RecordingClassifier, pipeline


def test_selector_can_be_the_last_step_of_a_pipeline(data):
    import imblearn.pipeline

    X, y = data
    scaled = StandardScaler().fit_transform(X)
    rows = SkMMSelector(40, random_state=0).fit_transform(scaled)
    pipe = imblearn.pipeline.make_pipeline(StandardScaler(), SkMMSelector(40, random_state=0))
    X_part, y_part = pipe.fit_resample(X, y)
    np.testing.assert_array_equal(X_part, scaled[rows])
    np.testing.assert_array_equal(y_part, y[rows])
    np.testing.assert_array_equal(pipe.fit_transform(X), rows)


def test_function_sampler_makes_a_selector_an_intermediate_step(data):
    from imblearn import FunctionSampler
    from imblearn.pipeline import make_pipeline as make_imbalanced_pipeline

    X, y = data
    selector = SkMMSelector(40, random_state=0)
    # imbalanced-learn allows a step with both transform and fit_resample only at the end.
    with pytest.raises(TypeError, match="implements both"):
        make_imbalanced_pipeline(StandardScaler(), selector, LogisticRegression()).fit(X, y)
    sampler = FunctionSampler(func=selector.fit_resample, validate=False)
    pipe = make_imbalanced_pipeline(StandardScaler(), sampler, LogisticRegression())
    same = make_pipeline(StandardScaler(), CoresetEstimator(LogisticRegression(), selector))
    np.testing.assert_array_equal(
        cross_val_score(clone(pipe), X, y, cv=3), cross_val_score(same, X, y, cv=3)
    )
    pipe.fit(X, y)
    same.fit(X, y)
    np.testing.assert_array_equal(pipe[-1].coef_, same[-1].estimator_.coef_)
    np.testing.assert_array_equal(selector.sample_indices_, same[-1].sample_indices_)
    np.testing.assert_array_equal(pipe.predict(X), same.predict(X))


def test_samplers_work_before_and_inside_a_coreset_estimator(data):
    from imblearn.over_sampling import RandomOverSampler
    from imblearn.pipeline import make_pipeline as make_imbalanced_pipeline

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
