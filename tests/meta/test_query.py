"""SelectorQuery: labelled samples, candidates, utilities and kinds of input."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklearn_skmm import (
    GradientSketcher,
    KCenterSelector,
    SelectorQuery,
    SkMMSelector,
    UncertaintySelector,
    UniformSelector,
)
from tests._classification import classification_data, network, partly_labelled


@pytest.fixture
def data():
    return classification_data()


def test_query_treats_labelled_samples_as_selected(data):
    X, y = data
    selector = SkMMSelector(30, random_state=0)
    whole = selector.fit_transform(X)
    queried = SelectorQuery(selector).query(X, partly_labelled(y, whole[::3]), batch_size=20)
    # If the labelled samples belong to the larger coreset, its other samples are queried.
    np.testing.assert_array_equal(queried, np.setdiff1d(whole, whole[::3]))
    # With all labelled samples in the first of four equal clusters, the other three are queried.
    rng = np.random.RandomState(0)
    clusters = np.repeat(np.arange(4), 25)
    X = 10 * np.eye(4)[clusters] + rng.normal(scale=0.1, size=(100, 4))
    y = partly_labelled(clusters, range(3))
    queried = SelectorQuery(KCenterSelector(1, random_state=0)).query(X, y, batch_size=3)
    assert sorted(clusters[queried]) == [1, 2, 3]


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array, pd.DataFrame])
def test_query_selects_among_candidates(data, container):
    X, y = data
    given = partly_labelled(y, range(10))
    candidates = np.arange(50, 120, 2)
    strategy = SelectorQuery(SkMMSelector(1, random_state=0))
    queried, utilities = strategy.query(
        container(X), given, candidates=candidates, batch_size=5, return_utilities=True
    )
    assert len(set(queried.tolist())) == 5
    assert set(queried.tolist()) <= set(candidates.tolist())
    assert utilities.shape == (5, 200)
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(utilities[0])), candidates)
    for b in range(5):
        assert np.nanmax(utilities[b]) == utilities[b, queried[b]] == 1.0
        assert np.isnan(utilities[b, queried[:b]]).all()
    # Candidates can also be given as samples of their own.
    others = np.setdiff1d(np.arange(200), candidates)
    queried, utilities = strategy.query(
        container(X[others]), given[others], candidates=container(X[candidates]),
        batch_size=5, return_utilities=True,
    )  # fmt: skip
    assert len(set(queried.tolist())) == 5
    assert queried.max() < 35
    assert utilities.shape == (5, 35)
    assert np.count_nonzero(utilities[0] == 1) == 5


def test_a_selector_that_looks_at_nothing_queries_texts(data):
    _, y = data
    texts = [f"text {k}" for k in range(200)]
    strategy = SelectorQuery(UniformSelector(1, random_state=0))
    given = partly_labelled(y, range(60))
    queried = strategy.query(texts, given, batch_size=20)
    assert len(set(queried.tolist())) == 20
    assert queried.min() >= 60
    assert queried.mean() < 160  # neither the first nor the last of those that were selected
    np.testing.assert_array_equal(strategy.query(texts, given, batch_size=20), queried)
    with pytest.raises(ValueError, match=r"convert string to float|Expected 2D array"):
        SelectorQuery(KCenterSelector(1)).query(texts, given, batch_size=20)


def test_batch_is_limited_to_the_remaining_candidates(data):
    X, y = data
    strategy = SelectorQuery(UniformSelector(1, random_state=0))
    given = partly_labelled(y, range(190))
    with pytest.warns(UserWarning, match="batch_size=20 is larger than the number of candidates"):
        queried = strategy.query(X, given, batch_size=20)
    assert sorted(queried) == list(range(190, 200))
    with pytest.raises(ValueError, match="every sample is labelled"):
        strategy.query(X, y)


def test_query_accepts_frames_and_tensors(data):
    import polars as pl

    X, y = data
    given = partly_labelled(y, range(10))
    strategy = SelectorQuery(SkMMSelector(1, random_state=0))
    expected = strategy.query(X, given, batch_size=5)
    names = [f"x{i}" for i in range(12)]
    frames = [
        (pd.DataFrame(X, columns=names), pd.Series(given)),
        (pd.DataFrame(X, columns=names), pd.Series(given).astype("Int64")),
        (pl.DataFrame(X, schema=names), pl.Series(given)),
        (torch.as_tensor(X), torch.as_tensor(given)),
    ]
    for frame, labels in frames:
        np.testing.assert_array_equal(strategy.query(frame, labels, batch_size=5), expected)


def test_query_sketches_the_gradients_of_a_model(data):
    X, y = data
    images = X.astype(np.float32).reshape(200, 3, 2, 2)
    model = torch.nn.Sequential(torch.nn.Flatten(), network())
    pipe = make_pipeline(
        GradientSketcher(m=6, model=model, random_state=0), SkMMSelector(1, random_state=0)
    )
    given = partly_labelled(y, range(10))
    queried = SelectorQuery(pipe).query(images, given, batch_size=20)
    assert np.isnan(given[queried]).all()
    # A query on the sketch itself gives the same samples.
    sketch = clone(pipe[0]).fit_transform(images)
    expected = SelectorQuery(SkMMSelector(1, random_state=0)).query(sketch, given, batch_size=20)
    np.testing.assert_array_equal(queried, expected)


@pytest.mark.parametrize("missing", [np.nan, None, -1, "?"])
def test_query_supports_every_kind_of_missing_label(data, missing):
    X, _ = data
    names = np.array(["a", "b"] * 100, dtype=object)
    labels = np.arange(200, dtype=object) if missing == -1 else names
    labels[10:] = missing
    if missing in (-1, "?"):
        labels = np.array(labels.tolist())
    strategy = SelectorQuery(SkMMSelector(1, random_state=0), missing_label=missing)
    expected = SelectorQuery(SkMMSelector(1, random_state=0)).query(
        X, partly_labelled(np.zeros(200), range(10)), batch_size=5
    )
    np.testing.assert_array_equal(strategy.query(X, labels, batch_size=5), expected)


def test_query_rejects_selectors_that_require_labels(data):
    X, y = data
    with pytest.raises(ValueError, match="requires y to be passed"):
        SelectorQuery(UncertaintySelector(1, LogisticRegression())).query(X, partly_labelled(y))
    with pytest.raises(ValueError, match="stratify=True requires y"):
        SelectorQuery(SkMMSelector(1, stratify=True)).query(X, partly_labelled(y))
