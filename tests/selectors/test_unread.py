"""Selectors that do not look at the values of X pass it on, whatever it holds."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import get_tags

from sklearn_skmm import CoresetEstimator, SkMMSelector, UncertaintySelector, UniformSelector
from sklearn_skmm.data import take
from tests._rejection import BAD_X, NEED_NOT_BE_READ
from tests._selectors import UNREADING

N = 40
RNG = np.random.RandomState(0)
X = RNG.normal(size=(N, 3)).astype(np.float32)
Y = np.arange(N) % 2
FRAME = pd.DataFrame(X, columns=list("abc"))
MIXED = FRAME.assign(city=RNG.choice(["x", "y"], N))
TEXT = [" ".join(RNG.choice(["cat", "dog", "sun"], 5)) for _ in range(N)]
SPARSE = {
    f"{kind}_{of}": getattr(sparse, f"{kind}_{of}")(X)
    for kind in ("csr", "csc", "coo", "bsr", "dia", "dok", "lil")
    for of in ("array", "matrix")
}
# Pools of every kind, of as many samples.
POOLS = {
    "double": X.astype(np.float64),
    "single": X,
    "integers": (10 * X).astype(int),
    "gaps": np.where(X > 1, np.nan, X),
    "infinity": np.where(X > 1, np.inf, X),
    "frame": FRAME,
    "mixed frame": MIXED,
    "gaps in a frame": MIXED.where(FRAME["a"] > 0),
    "nullable frame": FRAME.convert_dtypes(),
    "polars": pl.from_pandas(MIXED),
    "texts": TEXT,
    "array of texts": np.array(TEXT),
    "objects": np.array(TEXT, dtype=object),
    "series of texts": pd.Series(TEXT),
    "table of objects": MIXED.to_numpy(),
    "token lists": [text.split()[: 1 + k % 4] for k, text in enumerate(TEXT)],
    "dicts": [{"a": float(a)} for a in X[:, 0]],
    "images": np.zeros((N, 3, 4, 4), dtype=np.float32),
    "tensor": torch.as_tensor(X),
    "tensor with gradients": torch.as_tensor(X).requires_grad_(),
    "half tensor": torch.as_tensor(X).bfloat16(),
    "tensor of images": torch.zeros(N, 3, 4, 4),
    **SPARSE,
}


class Witness(ClassifierMixin, BaseEstimator):
    """Keeps what it is given, and is least certain about the first samples."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.seen_ = [X]
        return self

    def predict_proba(self, X):
        self.seen_.append(X)
        p = np.linspace(0.5, 0.9, len(X) if not hasattr(X, "shape") else X.shape[0])
        return np.c_[p, 1 - p]


def same(a, b):
    """Whether two pools are of one kind and equal."""
    if type(a) is not type(b):
        return False
    if sparse.issparse(a):
        return (a != b).nnz == 0
    if isinstance(a, pd.DataFrame | pd.Series | pl.DataFrame):
        return a.equals(b)
    if isinstance(a, np.ndarray | torch.Tensor):
        return a.dtype == b.dtype and np.array_equal(
            np.array(a.tolist(), dtype=object), np.array(b.tolist(), dtype=object)
        )
    return a == b


def selectors(**params):
    return [
        UniformSelector(5, random_state=0, **params),
        UncertaintySelector(5, Witness(), **params),
    ]


def test_the_selectors_here_are_all():
    assert {type(selector).__name__ for selector in selectors()} == UNREADING


@pytest.mark.parametrize("kind", POOLS)
def test_any_pool_is_selected_from(kind):
    pool = POOLS[kind]
    for stratify in (False, True):
        for selector in selectors(stratify=stratify):
            expected = type(selector)(**selector.get_params()).fit_transform(POOLS["double"], Y)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                indices = selector.fit_transform(pool, Y)
                np.testing.assert_array_equal(selector.transform(pool, Y), indices)
                if stratify or isinstance(selector, UniformSelector):
                    np.testing.assert_array_equal(indices, expected)
                rows, labels = selector.fit_resample(pool, Y)
            np.testing.assert_array_equal(labels, Y[indices])
            assert (rows.shape[0] if hasattr(rows, "shape") else len(rows)) == 5
            assert selector.get_support().sum() == 5
            restored = pickle.loads(pickle.dumps(selector))
            np.testing.assert_array_equal(restored.transform(pool, Y), indices)


@pytest.mark.parametrize("kind", POOLS)
def test_the_classifier_gets_what_was_passed(kind):
    pool = POOLS[kind]
    fitted = Witness().fit(X, Y)
    for estimator in (Witness(), fitted):
        selector = UncertaintySelector(5, estimator).fit(pool, Y)
        classifier = selector._references[0].whole.learn("classifier", None)
        assert classifier.seen_[-1] is pool
        assert estimator is not fitted or classifier is fitted
        np.testing.assert_array_equal(selector.transform(pool), np.arange(5))


@pytest.mark.parametrize(
    ("kind", "estimator"),
    [
        (
            "frame",
            make_pipeline(
                make_column_transformer((StandardScaler(), ["b", "a"])), LogisticRegression()
            ),
        ),
        (
            "mixed frame",
            make_pipeline(
                make_column_transformer((StandardScaler(), ["a"]), (OneHotEncoder(), ["city"])),
                LogisticRegression(),
            ),
        ),
        ("gaps", HistGradientBoostingClassifier(max_iter=2)),
        ("texts", make_pipeline(TfidfVectorizer(), LogisticRegression())),
        ("series of texts", make_pipeline(TfidfVectorizer(), LogisticRegression())),
        ("dicts", make_pipeline(DictVectorizer(), LogisticRegression())),
        ("coo_array", LogisticRegression()),
        ("dia_matrix", LogisticRegression()),
    ],
)
@pytest.mark.parametrize("prefit", [False, True])
def test_real_classifiers(kind, estimator, prefit):
    pool = POOLS[kind]
    if prefit:
        estimator.fit(pool, Y)
    selector = UncertaintySelector(5, estimator).fit(pool, Y)
    proba = estimator.fit(pool, Y).predict_proba(pool)
    entropies = -np.sum(proba * np.log(proba), axis=1)
    np.testing.assert_allclose(selector.uncertainties_, entropies)
    np.testing.assert_array_equal(selector.transform(pool), selector.sample_indices_)


def test_columns_are_for_the_classifier_to_judge():
    named = make_pipeline(
        make_column_transformer((StandardScaler(), ["a", "b"])), LogisticRegression()
    )
    selector = UncertaintySelector(5, named).fit(FRAME, Y)
    assert selector.feature_names_in_.tolist() == list("abc")
    more = MIXED[["city", "c", "b", "a"]].drop(columns="city")
    np.testing.assert_array_equal(selector.transform(more.assign(d=1.0)), selector.transform(FRAME))
    with pytest.raises(ValueError, match=r"columns are missing: \{'b'\}"):
        selector.transform(FRAME[["a", "c"]])
    uniform = UniformSelector(5).fit(MIXED)
    with pytest.raises(ValueError, match="feature names should match"):
        uniform.transform(FRAME)


@pytest.mark.parametrize("name", sorted(NEED_NOT_BE_READ - {"3-d"}))
def test_uniform_selects_and_score_refuses(name):
    bad = BAD_X[name][0]
    selector = UniformSelector(5, random_state=0)
    np.testing.assert_array_equal(
        selector.fit_transform(bad),
        UniformSelector(5, random_state=0).fit_transform(np.ones((24, 2))),
    )
    with pytest.raises(ValueError, match=BAD_X[name][2]):
        selector.score(bad)


def test_score_is_there_again_after_a_fit_on_numbers():
    selector = UniformSelector(5, random_state=0).fit(TEXT)
    with pytest.raises(ValueError, match=r"UniformSelector\.score needs rows .*got list of shape"):
        selector.score(X)
    with pytest.raises(ValueError, match="which X of fit did not have: Input X contains NaN"):
        selector.fit(POOLS["gaps"]).score(X)
    assert 0 < selector.fit(X).score(X) < 1


def test_pickles_hold_no_data():
    marked = [f"secret {k}" for k in range(N)]
    for selector in selectors(stratify=True):
        # Two samples of 40 strata: 38 get none.
        selector.set_params(n_to_select=2).fit(marked, np.arange(N))
        if isinstance(selector, UncertaintySelector):
            selector._references[0].whole.learn("classifier", None).seen_.clear()
        assert b"secret" not in pickle.dumps(selector)


def test_tags_say_what_is_accepted():
    tags = get_tags(UniformSelector(5)).input_tags
    assert tags.allow_nan
    assert tags.string
    assert tags.sparse
    for estimator in (LogisticRegression(), HistGradientBoostingClassifier(), TfidfVectorizer()):
        assert (
            get_tags(UncertaintySelector(5, estimator)).input_tags == get_tags(estimator).input_tags
        )
    gaps = HistGradientBoostingClassifier()
    assert get_tags(CoresetEstimator(gaps, UniformSelector(5))).input_tags.allow_nan
    assert not get_tags(CoresetEstimator(gaps, SkMMSelector(5))).input_tags.allow_nan


def test_a_coreset_of_texts_and_of_gaps():
    for kind, estimator in (
        ("texts", make_pipeline(TfidfVectorizer(), LogisticRegression())),
        ("gaps", HistGradientBoostingClassifier(max_iter=2)),
    ):
        model = CoresetEstimator(estimator, UniformSelector(20, stratify=True, random_state=0))
        assert model.fit(POOLS[kind], Y).predict(POOLS[kind]).shape == (N,)


def test_dask_arrays_are_not_gathered_by_those_who_read_nothing():
    da = pytest.importorskip("dask.array")
    lazy = da.from_array(X, chunks=(7, 2))
    selector = UniformSelector(5, random_state=0).fit(lazy)
    reference = UniformSelector(5, random_state=0).fit(X)
    np.testing.assert_array_equal(selector.sample_indices_, reference.sample_indices_)
    assert not hasattr(selector, "gathered_")
    assert selector.score(X) == pytest.approx(reference.score(X), rel=1e-12)
    np.testing.assert_array_equal(selector._coreset, X[selector.sample_indices_])

    def never(block):
        raise AssertionError("computed")

    unreadable = da.map_blocks(never, lazy, dtype=X.dtype, meta=np.empty((0, 0), X.dtype))
    np.testing.assert_array_equal(selector.transform(unreadable), selector.sample_indices_)
    gaps = UniformSelector(5, random_state=0).fit(da.where(lazy > 1, np.nan, lazy))
    with pytest.raises(ValueError, match="did not have: Input X contains NaN"):
        gaps.score(X)
    texts = UniformSelector(5, random_state=0).fit(da.from_array(np.array(TEXT)[:, None]))
    np.testing.assert_array_equal(texts.sample_indices_, selector.sample_indices_)
    classifier = LogisticRegression().fit(X, Y)
    assert UncertaintySelector(5, classifier).fit(lazy).gathered_ == "memory"


@pytest.mark.parametrize(
    "kind", ["texts", "series of texts", "mixed frame", "coo_matrix", "dicts", "images"]
)
def test_weights_and_given_samples_of_any_pool(kind):
    weight, given = np.arange(N) % 3.0, np.arange(N) % 8 == 1
    selector = UniformSelector(6, random_state=0).fit(
        POOLS[kind], sample_weight=weight, selected=given
    )
    expected = UniformSelector(6, random_state=0).fit(X, sample_weight=weight, selected=given)
    np.testing.assert_array_equal(selector.sample_indices_, expected.sample_indices_)
    np.testing.assert_array_equal(selector.given_weight_, expected.given_weight_)
    assert not (given | (weight == 0))[selector.sample_indices_].any()
    rows, _ = selector.fit_resample(POOLS[kind], sample_weight=weight, selected=given)
    assert same(rows, take(POOLS[kind], expected.sample_indices_))
    classifier = Witness().fit(X, Y)
    indices = UncertaintySelector(6, classifier).fit_transform(POOLS[kind], selected=given)
    np.testing.assert_array_equal(indices, np.flatnonzero(~given)[:6])


def test_weights_and_given_samples_of_lazy_arrays():
    da = pytest.importorskip("dask.array")
    weight, given = np.arange(N) % 3.0, np.arange(N) % 8 == 1
    expected = UniformSelector(6, random_state=0).fit(X, sample_weight=weight, selected=given)
    lazy = da.from_array(X, chunks=(7, 2))
    lazily = {"sample_weight": da.from_array(weight), "selected": da.from_array(given)}
    for optional in ({"sample_weight": weight, "selected": np.flatnonzero(given)}, lazily):
        selector = UniformSelector(6, random_state=0).fit(lazy, **optional)
        np.testing.assert_array_equal(selector.sample_indices_, expected.sample_indices_)
        np.testing.assert_array_equal(selector.given_weight_, expected.given_weight_)
        assert selector.score(X) == pytest.approx(expected.score(X), rel=1e-12)
        assert not hasattr(selector, "gathered_")
