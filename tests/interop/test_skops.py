"""Saving with skops, pickle, cloudpickle and joblib: the same selection afterwards."""

import io
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_skmm import (
    CoresetEstimator,
    GradientSketcher,
    KMeansSelector,
    SelectorQuery,
    SkMMSelector,
    UniformSelector,
)
from tests._selectors import make
from tests.test_numerical_range import VARIANTS

skops = pytest.importorskip("skops.io", reason="skops is in the extra 'interop'")

X = np.random.RandomState(0).normal(size=(60, 5))
Y = np.arange(60) % 2
POOLS = {
    "array": X,
    "single": X.astype(np.float32),
    "frame": pd.DataFrame(X, columns=list("abcde")),
    "sparse": sparse.csr_array(np.where(X > 0, X, 0.0)),
}


def with_skops(estimator):
    dumped = skops.dumps(estimator)
    return skops.loads(dumped, trusted=skops.get_untrusted_types(data=dumped))


def with_joblib(estimator):
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    return joblib.load(file)


def with_pickle(estimator):
    return pickle.loads(pickle.dumps(estimator))


def with_cloudpickle(estimator):
    import cloudpickle

    return cloudpickle.loads(cloudpickle.dumps(estimator))


SAVERS = [with_skops, with_joblib, with_pickle, with_cloudpickle]


@pytest.fixture(params=SAVERS)
def saved(request):
    return request.param


def quietly(function, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return function(*args)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_selector(variant):
    cls, params = VARIANTS[variant]
    for stratify, pool in zip([True, False] * 2, POOLS.values(), strict=True):
        selector = quietly(make(cls, 10, **params, stratify=stratify).fit, pool, Y)
        other = pool.iloc[::2] if hasattr(pool, "iloc") else pool[::2]
        expected = quietly(selector.transform, other, Y[::2])
        for saver in SAVERS:
            restored = saver(selector)
            np.testing.assert_array_equal(restored.sample_indices_, selector.sample_indices_)
            np.testing.assert_array_equal(quietly(restored.transform, other, Y[::2]), expected)
            assert restored.score(pool) == selector.score(pool)
            assert repr(restored) == repr(selector)
        # It can be fitted again.
        refitted = quietly(with_skops(selector).fit, pool, Y)
        np.testing.assert_array_equal(refitted.sample_indices_, selector.sample_indices_)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_stratum_without_a_selected_sample(variant):
    cls, params = VARIANTS[variant]
    strata = np.repeat([0, 1, 2], [40, 15, 5])
    selector = quietly(make(cls, 2, **params, stratify=True).fit, X, strata)
    few = np.flatnonzero(strata > 0)
    expected = quietly(selector.transform, X[few], strata[few])
    for saver in SAVERS:
        restored = saver(selector)
        np.testing.assert_array_equal(quietly(restored.transform, X[few], strata[few]), expected)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_training_data_is_saved(variant):
    cls, params = VARIANTS[variant]
    pool = np.random.RandomState(0).normal(size=(500, 40))
    selector = quietly(make(cls, 5, **params).fit, pool, np.arange(500) % 2)
    assert len(pickle.dumps(selector)) < pool.nbytes / 2


@pytest.mark.slow
@pytest.mark.parametrize("sketch", ["auto", "gaussian", "sparse_sign"])
@pytest.mark.parametrize("pool", ["array", "single", "frame", "sparse"])
def test_sketchers_without_a_model(sketch, pool, saved):
    sketcher = GradientSketcher(3, sketch=sketch, random_state=0).fit(POOLS[pool])
    expected = sketcher.transform(POOLS[pool])
    np.testing.assert_array_equal(saved(sketcher).transform(POOLS[pool]), expected)


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(GradientSketcher(3, random_state=0), SkMMSelector(10, random_state=0)),
        make_pipeline(StandardScaler(), KMeansSelector(10, random_state=0)),
        CoresetEstimator(
            LogisticRegression(),
            make_pipeline(GradientSketcher(3, random_state=0), SkMMSelector(10, random_state=0)),
        ),
        CoresetEstimator(
            Ridge(), KMeansSelector(10, stratify=True, random_state=0), use_sample_weight=True
        ),
        make_pipeline(
            StandardScaler(),
            CoresetEstimator(LogisticRegression(), UniformSelector(9, random_state=0)),
        ),
    ],
    ids=range(5),
)
def test_pipelines_and_coreset_estimators(estimator, saved):
    estimator.fit(X, Y)
    restored = saved(estimator)
    method = "predict" if hasattr(estimator, "predict") else "transform"
    np.testing.assert_array_equal(getattr(restored, method)(X), getattr(estimator, method)(X))
    assert restored.score(X, Y) == estimator.score(X, Y)


def test_queries(saved):
    strategy = SelectorQuery(SkMMSelector(1, random_state=0))
    given = np.where(np.arange(60) < 5, 0.0, np.nan)
    expected = strategy.query(X, given, batch_size=4)
    restored = saved(strategy)
    np.testing.assert_array_equal(restored.query(X, given, batch_size=4), expected)
    np.testing.assert_array_equal(
        restored.selector_.sample_indices_, strategy.selector_.sample_indices_
    )
