"""GradientSketcher, compared with a loop of backward passes over the samples."""

import copy
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from torch import nn

from sklearn_skmm import GradientSketcher
from sklearn_skmm.sketch._projection import GaussianProjection


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Dropout(0.5), nn.Linear(7, 3)
    ).double()
    with torch.no_grad():
        model[1].running_mean.normal_()
    return model


@pytest.fixture
def data():
    rng = np.random.RandomState(0)
    return rng.normal(size=(23, 5)), rng.randint(3, size=23)


def loop(model, X, losses, parameters):
    """Return the per-sample gradients, from one backward pass per sample."""
    model = copy.deepcopy(model).eval()
    named = dict(model.named_parameters())
    rows = []
    for i, x in enumerate(torch.from_numpy(X)):
        model.zero_grad()
        losses(model(x[None]), i).backward()
        rows.append(torch.cat([named[p].grad.flatten() for p in parameters]).numpy())
    return np.array(rows)


NAMES = ["0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"]


@pytest.mark.parametrize(
    ("layers", "parameters"),
    [
        (None, NAMES),
        ([-1], NAMES[4:]),
        (-1, NAMES[4:]),
        ([-2, -1], NAMES[2:]),
        ([0, 2], NAMES[:2] + NAMES[4:]),
        ("0", NAMES[:2]),
        (["4", "0"], NAMES[:2] + NAMES[4:]),
    ],
)
@pytest.mark.parametrize("target", ["label", "predicted"])
def test_cross_entropy_gradients_match_a_loop(model, data, layers, parameters, target):
    X, y = data
    labels = torch.from_numpy(y)

    def losses(output, i):
        label = labels[i][None] if target == "label" else output.argmax(dim=1)
        return nn.functional.cross_entropy(output, label)

    G = loop(model, X, losses, parameters)
    sketcher = GradientSketcher(
        m=11, model=model, layers=layers, target=target, batch_size=8, random_state=0
    )
    sketch = sketcher.fit_transform(X, y)
    assert sketcher.n_parameters_ == G.shape[1]
    gamma = sketcher.projection_.to_array()
    np.testing.assert_allclose(sketch, G @ gamma, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(sketcher.transform(X, y), sketch, rtol=1e-12)


def test_squared_error_output_and_callable_losses_match_a_loop(data):
    X, _ = data
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    y = np.random.RandomState(1).normal(size=23)
    names = ["0.weight", "0.bias", "2.weight", "2.bias"]
    params = {"m": 6, "model": model, "random_state": 0}
    gamma = GradientSketcher(**params).fit(X).projection_.to_array()
    residuals = torch.from_numpy(y)
    expected = loop(model, X, lambda f, i: (f - residuals[i]).square().sum(), names) @ gamma
    by_name = GradientSketcher(loss="squared_error", target="label", **params).fit_transform(X, y)
    np.testing.assert_allclose(by_name, expected, rtol=1e-9)

    def loss(output, target):
        assert output.shape == (1,)
        return (output - target) ** 2

    np.testing.assert_allclose(
        GradientSketcher(loss=loss, **params).fit_transform(X, y), expected, rtol=1e-9
    )
    jacobian = loop(model, X, lambda f, i: f.sum(), names) @ gamma
    np.testing.assert_allclose(
        GradientSketcher(loss="squared_error", **params).fit_transform(X), jacobian, rtol=1e-9
    )


def test_sketch_does_not_depend_on_the_batch_size(model, data):
    X, _ = data
    sketches = [
        GradientSketcher(m=4, model=model, batch_size=b, random_state=0).fit_transform(X)
        for b in (1, 5, 23, 1000)
    ]
    for sketch in sketches[1:]:
        np.testing.assert_allclose(sketch, sketches[0], rtol=1e-10, atol=1e-13)


def test_model_is_unchanged_after_success_and_error(model, data):
    X, y = data
    model.train()
    model[3].eval()
    nn.functional.cross_entropy(model(torch.from_numpy(X)), torch.from_numpy(y)).backward()
    model[4].weight.requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    sketcher = GradientSketcher(m=4, model=model, random_state=0)
    sketcher.fit_transform(X, y)
    with pytest.raises(ValueError, match="not finite"):
        GradientSketcher(model=model, loss=lambda f, _: f.sum() * torch.nan).fit_transform(X, y)
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    for name, p in model.named_parameters():
        assert torch.equal(p.grad, grads[name])
        assert p.requires_grad == (name != "4.weight")
        assert p.device.type == "cpu"


def test_clone_shares_the_model_and_works(model, data):
    sketcher = GradientSketcher(m=4, model=model, random_state=0).set_output(transform="pandas")
    copy_ = clone(sketcher)
    assert copy_.model is model
    frame = copy_.fit_transform(data[0])
    assert list(frame.columns) == [f"gradientsketcher{i}" for i in range(4)]
    np.testing.assert_array_equal(frame.to_numpy(), sketcher.fit_transform(data[0]).to_numpy())


def test_images_in_single_and_double_precision(data):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    X = np.random.RandomState(0).normal(size=(6, 1, 4, 4))
    single = GradientSketcher(m=5, model=model, random_state=0).fit_transform(X)
    double = GradientSketcher(m=5, model=model, dtype="float64", random_state=0).fit_transform(X)
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    np.testing.assert_allclose(single, double, rtol=1e-3, atol=1e-5)
    assert next(model.parameters()).dtype == torch.float32


def test_tokens_stay_integers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2))
    tokens = np.random.RandomState(0).randint(10, size=(8, 3))
    assert GradientSketcher(m=5, model=model, random_state=0).fit_transform(tokens).shape == (8, 5)


def test_rows_are_the_gradients_without_a_model():
    rng = np.random.RandomState(0)
    X = sparse.csr_array(rng.normal(size=(30, 10_000)) * (rng.uniform(size=(30, 10_000)) < 0.01))
    sketcher = GradientSketcher(m=20, sketch="gaussian", random_state=0).fit(X)
    gamma = GaussianProjection(10_000, 20, sketcher.projection_.seed).to_array()
    np.testing.assert_allclose(sketcher.transform(X), X @ gamma, rtol=1e-10)
    np.testing.assert_allclose(sketcher.transform(X.toarray()), X @ gamma, rtol=1e-10)
    assert GradientSketcher(m=50).fit_transform(rng.normal(size=(4, 3))).shape == (4, 50)


def test_input_of_a_model_may_be_a_frame(model, data):
    frame = pd.DataFrame(data[0], columns=list("abcde"))
    sketcher = GradientSketcher(m=4, model=model, random_state=0).fit(frame)
    assert list(sketcher.feature_names_in_) == list("abcde")
    np.testing.assert_array_equal(
        sketcher.transform(frame),
        GradientSketcher(m=4, model=model, random_state=0).fit_transform(data[0]),
    )


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"m": 0}, ValueError, "'m' parameter"),
        ({"model": "resnet"}, TypeError, "'model' parameter .* 'resnet'"),
        ({"layers": ["head"]}, ValueError, "'layers' parameter names 'head'"),
        ({"layers": [5]}, ValueError, "position 5, but the model has 3 layers"),
        ({"layers": ["2"]}, ValueError, "selects no parameters"),
        ({"loss": "hinge"}, ValueError, "'loss' parameter"),
        ({"target": "label"}, ValueError, "requires y"),
        ({"target": "predicted", "loss": "squared_error"}, ValueError, "cross_entropy"),
        ({"loss": lambda output, target: output, "target": "label"}, ValueError, "requires y"),
        ({"dtype": "float16"}, ValueError, "'dtype' parameter"),
    ],
)
def test_invalid_parameters_are_rejected_and_change_nothing(model, data, params, error, message):
    sketcher = GradientSketcher(m=4, model=model, random_state=0).fit(data[0])
    before = dict(vars(sketcher))
    sketcher.set_params(**params)
    with pytest.raises(error, match=message):
        sketcher.fit_transform(data[0])
    after = dict(vars(sketcher))
    assert all(before[name] is after[name] for name in before if name not in params)
    assert before.keys() == after.keys()


def test_broken_submodule_is_not_reported_as_missing_torch(model, data, monkeypatch):
    monkeypatch.delattr("sklearn_skmm.sketch._torch", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn_skmm.sketch._torch", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        GradientSketcher(4, model=model).fit(data[0])
    assert caught.value.name == "sklearn_skmm.sketch._torch"
