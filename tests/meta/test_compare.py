"""Tests of compare_selectors: paired splits and seeds, reproducibility, form of the results."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from sklearn_skmm import (
    GradientSketcher,
    HerdingSelector,
    KMeansSelector,
    SkMMSelector,
    UniformSelector,
    compare_selectors,
)


@pytest.fixture
def data():
    return load_iris(return_X_y=True)


def run(data, **params):
    X, y = data
    params = {"n_to_select": [20, 40], "cv": 3, "n_repeats": 2, "random_state": 0, **params}
    selectors = {
        "uniform": UniformSelector(1),
        "k-means": KMeansSelector(1),
        "skmm": make_pipeline(GradientSketcher(m=3, random_state=0), SkMMSelector(1)),
    }
    return compare_selectors(selectors, LogisticRegression(max_iter=1000), X, y, **params)


def test_results_have_a_row_per_selector_size_split_and_seed(data):
    results = run(data)
    assert list(results.columns) == ["selector", "n", "split", "seed", "score", "seconds"]
    assert len(results) == 3 * 2 * 3 * 2
    assert results["score"].between(0, 1).all()
    assert (results["seconds"] > 0).all()
    # Paired: every selector has the same splits and seeds.
    keys = [
        set(map(tuple, g[["n", "split", "seed"]].values)) for _, g in results.groupby("selector")
    ]
    assert keys[0] == keys[1] == keys[2]


@pytest.mark.slow
def test_row_equals_the_direct_computation(data):
    X, y = data
    row = run(data).query("selector == 'k-means' and n == 20 and split == 1").iloc[0]
    train, test = list(StratifiedKFold(3).split(X, y))[1]
    indices = KMeansSelector(20, random_state=int(row["seed"])).fit_transform(X[train])
    model = LogisticRegression(max_iter=1000).fit(X[train][indices], y[train][indices])
    assert row["score"] == model.score(X[test], y[test])


def test_deterministic_selector_and_estimator_are_accepted(data):
    X, y = data
    model = KNeighborsClassifier(3)
    results = compare_selectors([HerdingSelector(1)], model, X, y, n_to_select=15, cv=3)
    for (_, row), (train, test) in zip(
        results.iterrows(), StratifiedKFold(3).split(X, y), strict=True
    ):
        indices = HerdingSelector(15).fit_transform(X[train])
        assert row["score"] == model.fit(X[train][indices], y[train][indices]).score(
            X[test], y[test]
        )


@pytest.mark.slow
def test_same_results_for_any_number_of_jobs(data):
    one, two = (run(data, n_jobs=n).drop(columns="seconds") for n in (None, 2))
    pd.testing.assert_frame_equal(one, two)


def test_names_fractions_scoring_and_data_frames(data):
    X, y = data
    frame = pd.DataFrame(X, columns=list("abcd"))
    results = compare_selectors(
        [UniformSelector(1), KMeansSelector(1)],
        LogisticRegression(max_iter=1000),
        frame,
        pd.Series(y),
        n_to_select=np.array([0.2]),
        cv=3,
        scoring="balanced_accuracy",
        random_state=0,
    )
    assert set(results["selector"]) == {"UniformSelector", "KMeansSelector"}
    assert set(results["n"]) == {0.2}
    with pytest.raises(ValueError, match=r"more than one \['UniformSelector'\]"):
        compare_selectors([UniformSelector(1)] * 2, LogisticRegression(), X, y, n_to_select=5)


def test_selectors_and_estimator_are_not_modified(data):
    selector, estimator = UniformSelector(7), LogisticRegression(max_iter=1000)
    compare_selectors([selector], estimator, *data, n_to_select=20, cv=2)
    assert selector.n_to_select == 7
    assert not hasattr(selector, "sample_indices_")
    assert not hasattr(estimator, "coef_")


@pytest.mark.slow
def test_progress_is_reported(data):
    class Counter:
        ended = 0

        def setup(self, estimator, context): ...
        def teardown(self, estimator, context): ...
        def on_fit_task_begin(self, estimator, context): ...
        def on_fit_task_end(self, estimator, context):
            self.ended += 1

    counter = Counter()
    run(data, callbacks=[counter])
    assert counter.ended == 3 * 2 * 3 * 2 + 1
