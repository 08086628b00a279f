"""Active learning with scikit-activeml."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import euclidean_distances

from sklearn_skmm import GradientSketcher, SelectorQuery, SkMMSelector, UniformSelector
from tests._classification import partly_labelled, pipeline


def test_query_loop_selects_only_unlabelled_samples(data):
    from skactiveml.classifier import SklearnClassifier

    X, y = data
    strategy = SelectorQuery(pipeline(1))
    given = partly_labelled(y)
    model = SklearnClassifier(LogisticRegression(), classes=[0, 1, 2])
    # Without labels, a query returns what the selector returns.
    np.testing.assert_array_equal(
        strategy.query(X, given, batch_size=20), pipeline(20).fit_transform(X)
    )
    for labelled in (0, 20, 40):
        queried = strategy.query(X, given, batch_size=20)
        assert np.isnan(given[queried]).all()
        given[queried] = y[queried]
        rows = np.flatnonzero(~np.isnan(given))
        assert len(rows) == labelled + 20
        plain = LogisticRegression().fit(X[rows], y[rows])
        np.testing.assert_array_equal(model.fit(X, given).predict(X), plain.predict(X))
    # Three rounds cover the samples almost as well as one selection of the same size, and better
    # than rounds that ignore each other's samples.
    one = pipeline(60).fit_transform(X)
    apart = []
    for _ in range(3):
        left = np.setdiff1d(np.arange(200), apart)
        apart.extend(left[pipeline(20).fit_transform(X[left])])
    sketch = GradientSketcher(m=6, random_state=0).fit_transform(X)
    near = [
        np.square(euclidean_distances(sketch, sketch[chosen]).min(axis=1)).mean()
        for chosen in (one, rows, apart)
    ]
    assert near[1] < 1.15 * near[0]
    assert near[1] < near[2]


def test_wrappers_accept_selector_query(data):
    from skactiveml.base import SingleAnnotatorPoolQueryStrategy
    from skactiveml.pool import SubSamplingWrapper
    from skactiveml.pool.multiannotator import SingleAnnotatorWrapper

    X, y = data
    given = partly_labelled(y, range(10))
    strategy = SelectorQuery(SkMMSelector(1, random_state=0))
    for one in (strategy, clone(strategy), pickle.loads(pickle.dumps(strategy))):
        assert isinstance(one, SingleAnnotatorPoolQueryStrategy)
    for exclude in (False, True):
        queried, utilities = SubSamplingWrapper(
            strategy, max_candidates=30, exclude_non_subsample=exclude, random_state=0
        ).query(X, given, batch_size=5, return_utilities=True)
        assert len(set(queried.tolist())) == 5
        assert np.isnan(given[queried]).all()
        assert np.count_nonzero(np.isfinite(utilities[0])) == 30
    pairs = SingleAnnotatorWrapper(strategy, random_state=0).query(
        X, np.full((200, 3), np.nan), batch_size=5, n_annotators_per_sample=1
    )
    np.testing.assert_array_equal(
        np.sort(pairs[:, 0]), SkMMSelector(5, random_state=0).fit_transform(X)
    )


@pytest.mark.slow
def test_unpickled_selector_query_is_a_query_strategy(run_python, tmp_path):
    with open(tmp_path / "strategy.pkl", "wb") as file:
        pickle.dump(SelectorQuery(UniformSelector(1)), file)
    code = """
        import pickle, sys
        with open(sys.argv[1], "rb") as file:
            strategy = pickle.load(file)
        from skactiveml.base import SingleAnnotatorPoolQueryStrategy
        print(isinstance(strategy, SingleAnnotatorPoolQueryStrategy))
    """
    assert run_python(code, str(tmp_path / "strategy.pkl")) == "True"
