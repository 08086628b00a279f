"""The plan of a sketch, and the models that planning rejects."""

import copy

import numpy as np
import pytest
from torch import nn
from torch.nn import functional as F

from sklearn_skmm import GradientSketcher
from sklearn_skmm.sketch._torch import _engine
from tests.sketch._torch._models import M, Net, build, norm, numbers
from tests.sketch._torch._reference import check_against_loop, loop_gradients, weighted
from tests.sketch._torch._zoo import ZOO


def test_auto_uses_product_projections_for_wide_layers():
    make = lambda: nn.Sequential(nn.Linear(700, 600), nn.ReLU(), nn.Linear(600, 3))  # noqa: E731
    assert check_against_loop(make, numbers(700)) == {}
    plan = GradientSketcher(M, model=build(make), random_state=0).fit(numbers(700)).sketch_plan_
    assert [(row.layer, row.method, row.r) for row in plan] == [
        ("0", "product", 420_600),
        ("2", "gaussian", 1803),
    ]


@pytest.mark.parametrize("name", ["embedding of positions", "samples second", "tokens in rows"])
def test_plan_made_from_one_sample_holds_for_more(name, monkeypatch):
    make, X, _ = ZOO[name]
    G, y = loop_gradients(build(make), X)
    sketcher = GradientSketcher(M, model=build(make), loss=weighted, random_state=0).fit(X[:1])
    # `fit` has confirmed every parameter, so autograd is not needed
    monkeypatch.setattr(_engine, "parameters_confirmed_by_autograd", None)
    expected = G @ sketcher.projection_.to_array()
    np.testing.assert_allclose(sketcher.transform(X, y), expected, rtol=1e-9, atol=1e-14)


def test_newly_initialised_adapters_use_hooks(monkeypatch):
    model = Net(
        lambda self, x: self.base(x) + self.up(self.down(x)),
        base=nn.Linear(4, 3).requires_grad_(False),
        down=nn.Linear(4, 2, bias=False),
        up=nn.Linear(2, 3, bias=False),
    ).double()
    nn.init.zeros_(model.up.weight)
    X = numbers(4)
    sketcher = GradientSketcher(M, model=model, loss=weighted, random_state=0).fit(X)
    assert {row.source for row in sketcher.sketch_plan_} == {"hooks"}
    monkeypatch.setattr(_engine, "parameters_confirmed_by_autograd", None)
    for _ in range(2):
        G, y = loop_gradients(copy.deepcopy(model), X)
        expected = G @ sketcher.projection_.to_array()
        np.testing.assert_allclose(sketcher.transform(X, y), expected, rtol=1e-9, atol=1e-14)
        nn.init.ones_(model.up.weight)
    assert G[:, :8].any()


@pytest.mark.parametrize(
    ("make", "X", "message"),
    [
        (norm(lambda: nn.BatchNorm1d(4, track_running_stats=False)), numbers(4), r"batch.*\['1'\]"),
        (
            lambda: nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3, track_running_stats=False)),
            numbers(2, 3)[:1],
            r"batch.*\['1'\]",
        ),
        (norm(lambda: Net(lambda _, x: x - x.mean(0))), numbers(4), "the batch or on chance"),
        (norm(lambda: Net(lambda _, x: F.dropout(x))), numbers(4)[:1], "the batch or on chance"),
        (norm(lambda: Net(lambda _, x: x.mean())), numbers(4), r"Got shape \(\) for 2"),
        (norm(lambda: Net(lambda _, x: x.squeeze()), 4, 1), numbers(4), r"\(1,\) for one .* \(\)"),
        (norm(lambda: Net(lambda _, x: x.detach())), numbers(4), "do not depend on the chosen"),
        (norm(lambda: Net(lambda _, x: x.log())), numbers(4), "finite outputs"),
        (lambda: nn.Flatten(), numbers(4), "has no parameters"),
    ],
)
def test_unsupported_models_are_rejected(make, X, message):
    with pytest.raises(ValueError, match=message):
        GradientSketcher(M, model=build(make), random_state=0).fit_transform(X)
