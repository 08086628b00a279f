"""SelectorQuery: labelled samples, candidates, utilities and kinds of input."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_skmm import (
    GradientSketcher,
    KCenterSelector,
    SelectorQuery,
    SkMMSelector,
    UncertaintySelector,
    UniformSelector,
)
from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.data import take
from tests._classification import classification_data, network, partly_labelled, pipeline


@pytest.fixture
def data():
    return classification_data()


def test_query_passes_labelled_samples_to_the_selector(data):
    X, y = data
    rows = np.arange(0, 200, 7)
    strategy = SelectorQuery(SkMMSelector(1, random_state=0))
    queried = strategy.query(X, partly_labelled(y, rows), batch_size=20)
    expected = SkMMSelector(20, random_state=0).fit_transform(X, selected=rows)
    np.testing.assert_array_equal(queried, expected)
    # With all labelled samples in the first of four equal clusters, the other three are queried.
    rng = np.random.RandomState(0)
    clusters = np.repeat(np.arange(4), 25)
    X = 10 * np.eye(4)[clusters] + rng.normal(scale=0.1, size=(100, 4))
    y = partly_labelled(clusters, range(3))
    for selector in (KCenterSelector(1, random_state=0), SkMMSelector(1, random_state=0)):
        queried = SelectorQuery(selector).query(X, y, batch_size=3)
        assert sorted(clusters[queried]) == [1, 2, 3]


def test_samples_that_are_no_candidates_count_as_population(data):
    # Two thirds of the population are in a direction in which there are few candidates.
    rng = np.random.RandomState(0)
    X = rng.normal(scale=0.1, size=(300, 2))
    X[:200, 0] += 3.0
    X[200:, 1] += 3.0
    candidates = np.r_[:20, 200:300]
    given = partly_labelled(np.zeros(300), [250, 251])
    strategy = SelectorQuery(SkMMSelector(1, random_state=0))
    free = np.setdiff1d(candidates, [250, 251])
    queried = strategy.query(X, given, candidates=free, batch_size=10)
    assert set(queried.tolist()) <= set(free.tolist())
    assert np.count_nonzero(queried < 200) == 8  # of 12 with the labelled ones
    # Without the others, the first direction has a sixth of the population.
    alone = strategy.query(X[candidates], given[candidates], batch_size=10)
    assert np.count_nonzero(alone < 20) <= 3


class WordModel(torch.nn.Module):
    """A model of two token columns, which it takes as keywords."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.words = torch.nn.Embedding(12, 4)
            self.head = torch.nn.Linear(4, 3)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(-1)
        return self.head((self.words(input_ids) * mask).sum(1) / mask.sum(1))


def tokens():
    ids = np.random.RandomState(0).randint(12, size=(60, 5))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def text_frame():
    rng = np.random.RandomState(0)
    words = np.array(["ash", "birch", "cedar", "elm", "fir"])
    texts = [" ".join(words[rng.randint(5, size=4)]) for _ in range(60)]
    return pd.DataFrame({"text": texts, "height": rng.uniform(size=60)}, index=np.repeat("a", 60))


def frame_pipeline():
    columns = make_column_transformer((TfidfVectorizer(), "text"), (StandardScaler(), ["height"]))
    return make_pipeline(columns, SkMMSelector(1, random_state=0))


def model_pipeline(model, **params):
    sketcher = GradientSketcher(m=6, model=model, random_state=0, **params)
    return make_pipeline(sketcher, SkMMSelector(1, random_state=0))


def data_set():
    datasets = pytest.importorskip("datasets")
    rows = {name: values.tolist() for name, values in tokens().items()}
    return datasets.Dataset.from_dict({**rows, "text": ["a text"] * 60})


def images():
    return np.random.RandomState(0).normal(size=(60, 3, 2, 2)).astype(np.float32)


def image_network():
    return torch.nn.Sequential(torch.nn.Flatten(), network())


# name: (samples, take some of them, pipeline)
CONTAINERS = {
    "list": (lambda: images().reshape(60, 12).tolist(), None, lambda: pipeline(1)),
    "array": (images, None, lambda: model_pipeline(image_network())),
    "tensor": (lambda: torch.as_tensor(images()), None, lambda: model_pipeline(image_network())),
    "csr": (lambda: sparse.csr_array(images().reshape(60, 12)), None, lambda: pipeline(1)),
    "frame": (text_frame, None, frame_pipeline),
    "dict of arrays": (
        tokens,
        lambda X, rows: {name: values[rows] for name, values in X.items()},
        lambda: model_pipeline(WordModel()),
    ),
    "dict of tensors": (
        lambda: {name: torch.as_tensor(values) for name, values in tokens().items()},
        lambda X, rows: {name: values[rows] for name, values in X.items()},
        lambda: model_pipeline(WordModel()),
    ),
    "Hugging Face": (
        data_set, lambda X, rows: X.select(rows), lambda: model_pipeline(WordModel())
    ),
    "unread": (
        data_set,
        lambda X, rows: X.select(rows),
        lambda: make_pipeline("passthrough", UniformSelector(1, random_state=0)),
    ),
    "torch": (
        lambda: torch.utils.data.TensorDataset(torch.as_tensor(images())),
        torch.utils.data.Subset,
        lambda: model_pipeline(image_network()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_query_accepts_what_the_first_step_accepts(name):
    make, take_some, make_pipe = CONTAINERS[name]
    take_some = take_some or take
    X, pipe = make(), make_pipe()
    given = partly_labelled(np.zeros(60), range(0, 30, 3))
    candidates = np.arange(31, 60)
    others = np.setdiff1d(np.arange(60), candidates)
    strategy, plain = SelectorQuery(pipe), SelectorQuery(clone(pipe[-1]))
    features = clone(pipe[:-1]).fit_transform(X)
    for among in (None, candidates):
        queried = strategy.query(X, given, among, batch_size=9)
        np.testing.assert_array_equal(queried, plain.query(features, given, among, batch_size=9))
        assert np.isnan(given[queried]).all()
        assert strategy.selector_[-1].n_samples_seen_ == 60
        assert len(strategy.selector_.transform(X)) == 9  # fitted, all steps
    # Candidates that are samples: the features of both, in this order.
    both = clone(pipe[:-1]).fit_transform(take_some(X, np.r_[others, candidates]))
    expected = plain.query(
        both, np.r_[given[others], given[candidates]], np.arange(31, 60), batch_size=9
    )
    queried = strategy.query(
        take_some(X, others), given[others], take_some(X, candidates), batch_size=9
    )
    np.testing.assert_array_equal(queried, expected - 31)


def test_query_finds_the_wrong_number_of_labels_in_any_container():
    for name in ("dict of arrays", "torch", "list"):
        make, _, make_pipe = CONTAINERS[name]
        strategy = SelectorQuery(make_pipe())
        for labels in (np.full(59, np.nan), partly_labelled(np.zeros(61), [3])):
            with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[60, (59|61)"):
                strategy.query(make(), labels)
            assert not hasattr(strategy, "selector_")


def test_query_of_a_loader_takes_positions_only():
    loader = torch.utils.data.DataLoader(CONTAINERS["torch"][0](), batch_size=7)
    strategy = SelectorQuery(model_pipeline(image_network()))
    given = partly_labelled(np.zeros(60), range(10))
    expected = strategy.query(images(), given, np.arange(20, 40), batch_size=5)
    queried = strategy.query(loader, given, np.arange(20, 40), batch_size=5)
    np.testing.assert_array_equal(queried, expected)
    with pytest.raises(TypeError, match="positions in X if X is a DataLoader"):
        strategy.query(loader, given, images()[:3], batch_size=2)


@pytest.mark.parametrize("name", ["frame", "dict of arrays", "Hugging Face"])
def test_query_refuses_candidates_in_another_container(name):
    make, _, make_pipe = CONTAINERS[name]
    X = make()
    strategy = SelectorQuery(make_pipe())
    with pytest.raises(TypeError, match=f"container of X, a {type(X).__name__}. Got a ndarray"):
        strategy.query(X, np.full(60, np.nan), np.zeros((3, 5)), batch_size=2)


def test_candidates_in_a_frame_are_matched_by_column(data):
    X, y = data
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(12)])
    given = partly_labelled(y, range(10))[:150]
    strategy = SelectorQuery(SkMMSelector(1, random_state=0))
    expected = strategy.query(X[:150], given, X[150:], batch_size=5)
    mixed = frame.iloc[150:, ::-1].assign(more=1.0)
    queried = strategy.query(frame[:150], given, mixed, batch_size=5)
    np.testing.assert_array_equal(queried, expected)
    with pytest.raises(KeyError, match="x3"):
        strategy.query(frame[:150], given, mixed.drop(columns="x3"))


def test_nested_and_cached_pipelines(data, tmp_path, monkeypatch):
    X, y = data
    given = partly_labelled(y, range(10))
    inner = make_pipeline(
        GradientSketcher(m=6, random_state=0), "passthrough", SkMMSelector(1, random_state=0)
    )
    features = clone(inner[:-1]).fit_transform(StandardScaler().fit_transform(X))
    expected = SelectorQuery(inner[-1]).query(features, given, batch_size=9)
    outer = make_pipeline(StandardScaler(), inner, memory=str(tmp_path))
    strategy = SelectorQuery(outer)
    fits, fit_transform = [], StandardScaler.fit_transform
    monkeypatch.setattr(
        StandardScaler, "fit_transform", lambda *args: fits.append(1) or fit_transform(*args)
    )
    for _ in range(2):
        np.testing.assert_array_equal(strategy.query(X, given, batch_size=9), expected)
        assert len(strategy.selector_.transform(X)) == 9
        assert len(fits) == 1
    np.testing.assert_array_equal(
        SelectorQuery(make_pipeline(inner[-1])).query(features, given, batch_size=9), expected
    )


@pytest.mark.parametrize(
    "container", [np.asarray, sparse.csr_array, sparse.dok_matrix, pd.DataFrame, pl.DataFrame]
)
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
    np.testing.assert_array_equal(strategy.query(texts, given, batch_size=20), queried)
    queried = strategy.query(texts[:60], given[:60], texts[60:], batch_size=20)
    assert len(set(queried.tolist())) == 20
    assert queried.max() < 140
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
    with pytest.raises(ValueError, match="selects by class requires y"):
        SelectorQuery(SkMMSelector(1, stratify=True)).query(X, partly_labelled(y))


def test_query_refuses_selectors_that_support_no_given_samples(data):
    X, y = data

    class FirstSelector(BaseSelector):
        def __init__(self, n_to_select, *, stratify=False):
            self.n_to_select = n_to_select
            self.stratify = stratify

        def _select(self, X, n, reference, rng, step):
            return Selection(np.arange(n))

    strategy = SelectorQuery(FirstSelector(1))
    assert strategy.query(X, partly_labelled(y)).tolist() == [0]
    assert strategy.query(X, partly_labelled(y), [7, 5]).tolist() == [5]
    with pytest.raises(ValueError, match="FirstSelector does not support selected"):
        strategy.query(X, partly_labelled(y, [3]))


NONE_AT_3 = np.array([0, 1, 2, None] * 50, dtype=object)


@pytest.mark.parametrize(
    ("missing", "labels", "found"),
    [
        (np.nan, NONE_AT_3, "None"),
        (-1, NONE_AT_3, "None"),
        ("?", NONE_AT_3, "None"),
        (-1, [0.0, 1.0, 2.0, np.nan] * 50, "NaN"),
        (None, [0.0, 1.0, 2.0, np.nan] * 50, "NaN"),
        (None, np.array([0, None, 2, np.nan] * 50, dtype=object), "NaN"),
        (np.nan, [0, 1, 2, -1] * 50, "-1"),
        (np.nan, [-1.0] * 200, "-1"),
        (np.nan, [-1, 0] * 100, "-1"),
    ],
)
def test_a_missing_label_that_is_not_the_parameter_raises(data, missing, labels, found):
    X, _ = data
    strategy = SelectorQuery(SkMMSelector(1, random_state=0), missing_label=missing)
    for candidates in (None, X[:5]):
        with pytest.raises(ValueError, match=f"y contains {found}, but the 'missing_label'"):
            strategy.query(X, labels, candidates)


@pytest.mark.parametrize(
    ("missing", "labels"),
    [
        (np.nan, [-1, 1]),
        (np.nan, [-1, 0, 1, 1]),
        (np.nan, [-1, -2, 0, 7]),
        (np.nan, [-1.0, 0.5, 2.0, 2.0]),
        (np.nan, [-1.0, 0.0, 7.0, np.nan]),
        (None, [-1, 0, 7, 7]),
    ],
)
def test_minus_one_may_be_a_class(data, missing, labels):
    X, _ = data
    labels = labels * (8 // len(labels))
    strategy = SelectorQuery(UniformSelector(1, random_state=0), missing_label=missing)
    assert len(strategy.query(X[:8], labels, X[8:], batch_size=3)) == 3
    if np.isfinite(labels).all():
        with pytest.raises(ValueError, match=f"No label in y is the missing_label, {missing}"):
            strategy.query(X[:8], labels)
