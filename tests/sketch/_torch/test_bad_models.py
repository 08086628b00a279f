"""Models, parameters and inputs that GradientSketcher must reject."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge

import sklearn_skmm as skmm
from tests._rejection import MASKED_X, N, X, Y, assert_rejected

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402


class ReadOnceDataset(torch.utils.data.IterableDataset):
    """A data set that can be read only once."""

    def __init__(self):
        self.rows = iter(torch.from_numpy(X))

    def __iter__(self):
        return self.rows


def network(dtype=torch.float64, outputs=2):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, outputs))
    model = model.to(dtype)
    model[2].eval()  # its mode, unlike that of the other modules, must be kept
    model[0].bias.requires_grad_(False)
    return model


def filled(name, value):
    model = network()
    with torch.no_grad():
        dict(model.named_parameters())[name].fill_(value)
    return model


class Mixing(nn.Module):
    """A model whose output for a sample depends on the other samples in the batch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2).double()

    def forward(self, x):
        return self.layer(x - x.mean(0))


class Returning(nn.Module):
    """A model that returns a function of the output of its layer."""

    def __init__(self, what):
        super().__init__()
        self.layer = nn.Linear(3, 2).double()
        self.what = what

    def forward(self, x):
        return self.what(self.layer(x))


def shuffled_loader():
    return torch.utils.data.DataLoader(torch.from_numpy(X), batch_size=4, shuffle=True)


def raise_error(output):
    raise RuntimeError("out of order")


# name: (parameters, X, y, error, message)
BAD_MODELS = {
    "a string": ({"model": "resnet"}, X, None, TypeError, "'model' parameter must be .*'resnet'"),
    "a class": ({"model": nn.Linear}, X, None, TypeError, "'model' parameter must be"),
    "an estimator": ({"model": Ridge()}, X, None, TypeError, "'model' parameter must be"),
    "no parameters": ({"model": nn.ReLU()}, X, None, ValueError, "has no parameters"),
    "integers": (
        {"model": nn.Sequential(nn.Flatten(), network()), "layers": ["head"]},
        X,
        None,
        ValueError,
        "'layers' parameter names 'head'",
    ),
    "mixes samples": ({"model": Mixing()}, X, None, ValueError, "treat each sample independently"),
    "returns None": ({"model": Returning(lambda f: None)}, X, None, TypeError, "return a tensor"),
    "returns text": ({"model": Returning(lambda f: "a")}, X, None, TypeError, "return a tensor"),
    "returns NaN": ({"model": filled("3.weight", np.nan)}, X, None, ValueError, "not finite"),
    "returns infinity": ({"model": filled("0.weight", 1e308)}, X * 1e3, None, ValueError, "finit"),
    "fails": ({"model": Returning(raise_error)}, X, None, RuntimeError, "out of order"),
    "layer position": ({"layers": [9]}, X, None, ValueError, "position 9"),
    "layer negative": ({"layers": -9}, X, None, ValueError, "position -9"),
    "layer empty": ({"layers": []}, X, None, ValueError, r"selects no parameters.* Got \[\]"),
    "layer float": ({"layers": 1.5}, X, None, ValueError, "'layers' parameter .* Got 1.5"),
    "layer without parameters": ({"layers": "1"}, X, None, ValueError, "selects no .* Got '1'"),
    "m zero": ({"m": 0}, X, None, ValueError, "'m' parameter .* Got 0"),
    "m float": ({"m": 1.5}, X, None, ValueError, "'m' parameter .* Got 1.5"),
    "m None": ({"m": None}, X, None, ValueError, "'m' parameter .* Got None"),
    "loss unknown": ({"loss": "hinge"}, X, None, ValueError, "'loss' parameter .* Got 'hinge'"),
    "loss None": ({"loss": None}, X, None, ValueError, "'loss' parameter .* Got None"),
    "loss a vector": ({"loss": lambda f, t: f}, X, Y, ValueError, "one value per sample"),
    "loss a float": ({"loss": lambda f, t: 1.0}, X, Y, ValueError, "one value per sample"),
    "loss None of it": ({"loss": lambda f, t: None}, X, Y, ValueError, "one value per sample"),
    "loss NaN": ({"loss": lambda f, t: f.sum() * np.nan}, X, Y, ValueError, "not finite"),
    "loss fails": ({"loss": lambda f, t: raise_error(f)}, X, Y, RuntimeError, "out of order"),
    "loss without y": ({"loss": lambda f, t: f.sum()}, X, None, ValueError, "requires y"),
    "target unknown": ({"target": "true"}, X, None, ValueError, "'target' parameter .* 'true'"),
    "target label, no y": ({"target": "label"}, X, None, ValueError, "requires y"),
    "target and loss": (
        {"target": "sampled", "loss": "squared_error"},
        X,
        None,
        ValueError,
        "'target' parameter can be 'sampled' only with .*Got loss='squared_error'",
    ),
    "one class": (
        {"target": "predicted", "model": network(outputs=1)},
        X,
        None,
        ValueError,
        "needs a model with an output for each class",
    ),
    "y float": ({"target": "label"}, X, Y + 0.5, ValueError, "integer class positions"),
    "y too large": ({"target": "label"}, X, Y + 1, ValueError, "from 0 to 1, .* from 1 to 2"),
    "y negative": ({"target": "label"}, X, Y - 1, ValueError, "from 0 to 1, .* from -1 to 0"),
    "y short": ({"target": "label"}, X, Y[:-1], ValueError, "inconsistent numbers of samples"),
    "y text": ({"target": "label"}, X, ["a"] * N, TypeError, "y must contain numbers"),
    "y ragged": ({"target": "label"}, X, [[0], [1, 2]] * (N // 2), ValueError, "unequal length"),
    "y of another shape": (
        {"target": "label", "loss": "squared_error"},
        X,
        np.zeros((N, 3)),
        ValueError,
        "y has targets of shape",
    ),
    "y NaN": (
        {"target": "label", "loss": "squared_error"},
        X,
        np.full((N, 2), np.nan),
        ValueError,
        "not finite",
    ),
    "sketch unknown": ({"sketch": "fft"}, X, None, ValueError, "'sketch' parameter .* 'fft'"),
    "batch_size zero": ({"batch_size": 0}, X, None, ValueError, "'batch_size' parameter .* Got 0"),
    "batch_size float": ({"batch_size": 2.5}, X, None, ValueError, "'batch_size' .* Got 2.5"),
    "dtype": ({"dtype": "float16"}, X, None, ValueError, "'dtype' parameter .* 'float16'"),
    "device unknown": ({"device": "abacus"}, X, None, RuntimeError, "abacus"),
    "device meta": ({"device": "meta"}, X, None, (ValueError, RuntimeError), "meta"),
    "random_state": ({"random_state": "x"}, X, None, ValueError, "'random_state' .* Got 'x'"),
    "cache_dir number": ({"cache_dir": 3}, X, None, ValueError, "'cache_dir' parameter .* Got 3"),
    "cache_dir unseeded": (
        {"cache_dir": "cache", "random_state": None},
        X,
        None,
        ValueError,
        "'cache_dir' parameter needs .* random_state=None",
    ),
    "X None": ({}, None, None, TypeError, "NoneType"),
    "X NaN": ({}, np.full((N, 3), np.nan), None, ValueError, "X contains NaN"),
    "X infinity": ({}, np.full((N, 3), np.inf), None, ValueError, "X contains infinity"),
    "X a tensor of NaN": ({}, torch.full((N, 3), torch.nan), None, ValueError, "not finite"),
    "X empty": ({}, X[:0], None, ValueError, r"0 sample\(s\)"),
    "X text": ({}, [["a"] * 3] * N, None, ValueError, "string"),
    "X complex": ({}, X + 1j, None, ValueError, "Complex data"),
    "X sparse": ({}, sparse.csr_array(X), None, TypeError, "csr_array"),
    "X masked": ({}, MASKED_X, None, ValueError, "masked"),
    "X of other columns": ({}, X[:, :2], None, RuntimeError, "shapes cannot be multiplied"),
    "X ragged": ({}, [[1.0], [1.0, 2.0]], None, ValueError, "inhomogeneous|unequal"),
    "X a generator": ({}, (row for row in X), None, TypeError, "generator"),
    "X a number": ({}, 3, None, TypeError, "int"),
    "X an empty dict": ({}, {}, None, ValueError, "None of the keys"),
    "X shuffled": ({}, shuffled_loader(), None, ValueError, "order.*RandomSampler"),
    "X exhausted": (
        {},
        torch.utils.data.DataLoader(ReadOnceDataset(), 4),
        None,
        ValueError,
        "every time",
    ),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_sketcher_rejects_bad_models_parameters_and_inputs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params, rows, y, error, match = BAD_MODELS[name]
    model = params.get("model", network())
    params = {"m": 4, "model": model, "random_state": 0, "batch_size": 5, **params}
    sketcher = skmm.GradientSketcher(**params)
    watched = [sketcher, *([model] if isinstance(model, nn.Module) else []), tmp_path]
    assert_rejected(lambda: sketcher.fit_transform(rows, y), match, *watched, error=error)
    assert not [attribute for attribute in vars(sketcher) if attribute.endswith("_")]


@pytest.mark.parametrize("name", ["returns NaN", "loss a vector", "y short", "y too large"])
def test_failed_fit_leaves_no_block_in_the_cache(name, tmp_path):
    params, rows, y, error, match = BAD_MODELS[name]
    model = params.get("model", network())
    params = {"m": 4, "model": model, "random_state": 0, "batch_size": 5, **params}
    sketcher = skmm.GradientSketcher(**params, cache_dir=tmp_path / "cache")
    assert_rejected(lambda: sketcher.fit_transform(rows, y), match, sketcher, model, error=error)
    # Neither a block nor a temporary file is left.
    assert {path.name for path in (tmp_path / "cache").glob("*")} <= {"manifest.json"}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_MODELS)
def test_failed_fit_keeps_the_previous_fit(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params, rows, y, error, match = BAD_MODELS[name]
    if name in ("X a generator", "X exhausted"):
        pytest.skip("can be read only once, which another test does")
    model = network()
    sketcher = skmm.GradientSketcher(4, model=model, random_state=0, batch_size=5).fit(X)
    expected = sketcher.transform(X)
    kept = sketcher.get_params(deep=False)
    sketcher.set_params(**params)
    assert_rejected(lambda: sketcher.fit_transform(rows, y), match, sketcher, model, error=error)
    sketcher.set_params(**kept)
    np.testing.assert_array_equal(sketcher.transform(X), expected)


def test_sketcher_rejects_a_model_on_the_meta_device():
    model = network().to("meta")
    sketcher = skmm.GradientSketcher(4, model=model, random_state=0)
    assert_rejected(
        lambda: sketcher.fit_transform(X),
        "meta",
        sketcher,
        model,
        error=(ValueError, RuntimeError, NotImplementedError),
    )
