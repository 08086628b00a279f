"""`GradientSketcher(cache_dir=...)`: resumed runs, and caches that are rejected."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_skmm import GradientSketcher
from sklearn_skmm.sketch._torch import _cached_sketch, _engine


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


@pytest.fixture
def data():
    rng = np.random.RandomState(0)
    return rng.normal(size=(40, 5)).astype(np.float32), rng.randint(3, size=40)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(_cached_sketch, "CACHED_ROWS", 10)


def files(directory):
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def sketcher(model, directory, **params):
    defaults = {"m": 4, "model": model, "batch_size": 5, "random_state": 0}
    return GradientSketcher(**{**defaults, **params}, cache_dir=directory)


def test_sketch_is_the_same_with_and_without_the_cache(model, data, tmp_path, monkeypatch):
    X, y = data
    plain = sketcher(model, None, target="label").fit_transform(X, y)
    first = sketcher(model, tmp_path, target="label").fit_transform(X, y)
    np.testing.assert_array_equal(first, plain)
    assert len(files(tmp_path)) == 1 + 4
    # With all blocks in the cache nothing is computed, and with one missing only that block.
    calls = []
    engine = _engine.Engine
    sketch = engine.sketch
    monkeypatch.setattr(engine, "sketch", lambda *args: calls.append(1) or sketch(*args))
    again = sketcher(model, tmp_path, target="label").fit(X)
    np.testing.assert_array_equal(again.transform(X, y), plain)
    assert not calls
    before = files(tmp_path)
    sorted(tmp_path.glob("block-*"))[2].unlink()
    np.testing.assert_array_equal(again.transform(X, y), plain)
    assert len(calls) == 2
    assert files(tmp_path) == before


def test_sampled_classes_depend_only_on_the_position(model, data, tmp_path):
    X, _ = data
    run = sketcher(model, tmp_path, target="sampled").fit(X)
    whole = run.transform(X)
    sorted(tmp_path.glob("block-*"))[2].unlink()
    np.testing.assert_array_equal(run.transform(X), whole)


@pytest.mark.parametrize(
    ("params", "differs"),
    [
        ({"m": 5}, "m"),
        ({"random_state": 1}, "seed"),
        ({"target": "predicted"}, "target"),
        ({"layers": [-1]}, "parameters"),
        ({"sketch": "product"}, "parameters"),
        ({"dtype": "float64"}, "dtype"),
        ({"loss": lambda f, y: (f - y).sum(), "target": "label"}, "loss"),
    ],
)
def test_cache_of_another_sketch_is_rejected(model, data, tmp_path, params, differs):
    X, y = data
    sketcher(model, tmp_path).fit_transform(X, y)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=f"cache_dir.*(?s:.*){differs}"):
        sketcher(model, tmp_path, **params).fit_transform(X, y)
    assert files(tmp_path) == before


def test_other_weights_and_other_data_are_rejected(model, data, tmp_path):
    X, y = data
    run = sketcher(model, tmp_path, target="label").fit(X)
    run.transform(X, y)
    before = files(tmp_path)
    for X_other, y_other in ((X[::-1], y), (X, (y + 1) % 3)):
        with pytest.raises(ValueError, match="cache_dir"):
            run.transform(X_other, y_other)
    with torch.no_grad():
        model[0].bias[0] += 1e-3
    with pytest.raises(ValueError, match="model"):
        run.transform(X, y)
    assert files(tmp_path) == before


@pytest.mark.parametrize("params", [{"random_state": None}, {"model": None}])
def test_cache_that_could_never_be_reused_is_rejected(model, data, tmp_path, params):
    with pytest.raises(ValueError, match="'cache_dir' parameter needs"):
        sketcher(**{"model": model, "directory": tmp_path / "new", **params}).fit(data[0])
    assert not (tmp_path / "new").exists()


def test_non_finite_gradients_leave_no_block(data, tmp_path):
    X, y = data

    def loss(output, target):
        return output.sum() * (torch.inf if target == 2 else 1.0)

    torch.manual_seed(0)
    run = sketcher(nn.Linear(5, 3), tmp_path, loss=loss)
    with pytest.raises(ValueError, match="not finite"):
        run.fit_transform(X, np.sort(y))
    complete = int(np.sum(np.sort(y) < 2)) // 10
    assert len(list(tmp_path.glob("block-*"))) == complete
