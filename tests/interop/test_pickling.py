"""Caching with joblib, and copies by pickle and cloudpickle."""

import pickle

import joblib
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from sklearn_skmm import CoresetEstimator, GradientSketcher, SkMMSelector
from tests._classification import network, pipeline


def test_memory_caches_the_sketch_until_the_model_changes(data, tmp_path, monkeypatch):
    X, _ = data
    images = X.astype(np.float32)
    calls = []
    plain = GradientSketcher._sketched

    def counted(self, X, *args):
        calls.append(self.m)
        return plain(self, X, *args)

    monkeypatch.setattr(GradientSketcher, "_sketched", counted)
    memory = joblib.Memory(tmp_path, verbose=0)
    model = network()

    def cached(c_S):
        sketcher = GradientSketcher(m=6, model=model, random_state=0)
        selector = SkMMSelector(40, c_S=c_S, random_state=0)
        return Pipeline([("sketch", sketcher), ("select", selector)], memory=memory)

    first = cached(0.999).fit_transform(images)
    np.testing.assert_array_equal(cached(0.999).fit_transform(images), first)
    cached(0.8).fit(images)
    assert calls == [6]
    # An in-place change of the model's weights invalidates the cache.
    with torch.no_grad():
        model[0].weight.mul_(2)
    cached(0.999).fit(images)
    assert calls == [6, 6]


def test_fitted_estimators_can_be_pickled(data):
    import cloudpickle

    X, y = data
    images = X.astype(np.float32)
    sketcher = GradientSketcher(
        m=6,
        model=network(),
        loss=lambda output, target: torch.nn.functional.cross_entropy(output, target),
        random_state=0,
    ).fit(images)
    restored = cloudpickle.loads(cloudpickle.dumps(sketcher))
    np.testing.assert_array_equal(restored.transform(images, y), sketcher.transform(images, y))
    model = CoresetEstimator(LogisticRegression(), pipeline()).fit(X, y)
    for pickler in (pickle, cloudpickle):
        copy = pickler.loads(pickler.dumps(model))
        np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
        np.testing.assert_array_equal(copy.selector_.transform(X), model.sample_indices_)
