"""Tests of compare_selectors: paired splits and seeds, reproducibility, form of the results."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning
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


class Failing(LogisticRegression):
    """Fails in `fit` or in `score` on a coreset that is small."""

    def __init__(self, where="fit", below=30):
        super().__init__(max_iter=1000)
        self.where, self.below = where, below

    def fit(self, X, y):
        self.small_ = len(X) < self.below
        if self.where == "fit" and self.small_:
            raise RuntimeError("too small to fit")
        return super().fit(X, y)

    def score(self, X, y):
        if self.where == "score" and self.small_:
            raise RuntimeError("too small to score")
        return super().score(X, y)


class FailingSelector(UniformSelector):
    """Fails in the selection."""

    def _select(self, X, n, reference, rng, step):
        if n < 30:
            raise RuntimeError("too small to select")
        return super()._select(X, n, reference, rng, step)


FAILURES = {
    "select": (FailingSelector(1), LogisticRegression(max_iter=1000), FitFailedWarning),
    "fit": (UniformSelector(1), Failing("fit"), FitFailedWarning),
    "score": (UniformSelector(1), Failing("score"), UserWarning),
}


@pytest.mark.parametrize(
    ("where", "error_score"), [("select", np.nan), ("fit", -1.0), ("fit", np.nan), ("score", 0)]
)
def test_a_failure_costs_its_rows_only(data, where, error_score):
    selector, estimator, category = FAILURES[where]
    options = {"n_to_select": [20, 40], "cv": 3, "random_state": 0, "error_score": error_score}
    with pytest.warns(category, match=f"(?s)3 .* failed out of .* 6.*too small to {where}") as seen:
        results = compare_selectors({"one": selector}, estimator, *data, **options)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    small, large = (results.query("n == @n") for n in (20, 40))
    np.testing.assert_array_equal(small["score"], [error_score] * 3)
    usual = compare_selectors(
        {"one": UniformSelector(1)}, LogisticRegression(max_iter=1000), *data, **options
    )
    np.testing.assert_array_equal(large["score"], usual.query("n == 40")["score"])
    assert list(results.columns) == list(usual.columns)
    assert small["seconds"].isna().all() == (where == "select")
    assert (large["seconds"] > 0).all()


@pytest.mark.parametrize("where", FAILURES)
def test_failures_raise_if_all_do_or_if_asked(data, where):
    selector, estimator, _ = FAILURES[where]
    options = {"n_to_select": [20], "cv": 3, "random_state": 0}
    with pytest.raises(RuntimeError, match=f"too small to {where}"):
        compare_selectors([selector], estimator, *data, **options, error_score="raise")
    if where == "score":
        with pytest.warns(UserWarning, match="3 scores failed out of a total of 3"):
            assert compare_selectors([selector], estimator, *data, **options)["score"].isna().all()
    else:
        with pytest.raises(ValueError, match=f"(?s)All the 3 fits failed.*too small to {where}"):
            compare_selectors([selector], estimator, *data, **options)
    with pytest.raises(ValueError, match="'error_score' parameter of compare_selectors must be"):
        compare_selectors([selector], estimator, *data, **options, error_score="nan")
