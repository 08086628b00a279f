"""Batches whose samples use the model differently, and the choice of parameters."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklearn_skmm import GradientSketcher
from tests.sketch._torch._models import Doubling, M, N, Net, build, numbers, shared_module
from tests.sketch._torch._reference import check_against_loop, loop_gradients, weighted
from tests.sketch._torch._zoo import ZOO


def test_sketch_does_not_depend_on_the_batch_size():
    make, X, _ = ZOO["transformer"]
    _, y = loop_gradients(build(make), X)
    whole = GradientSketcher(M, model=build(make), loss=weighted, random_state=0).fit(X, y)
    expected = whole.transform(X, y)
    for size in (1, 2, 3, N, 1000):
        sketcher = whole.set_params(batch_size=size)
        np.testing.assert_allclose(sketcher.transform(X, y), expected, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(whole.transform(X[2:3], y[2:3]), expected[2:3], rtol=1e-9)


def by_sign(self, x):
    """Send each sample to one of two experts, by the sign of its first entry."""
    first = x[:, 0] > 0
    out = x.new_zeros(len(x), 3)
    out[first] = self.a(x[first]).tanh()
    out[~first] = self.b(x[~first]).tanh()
    return out


def by_size(self, x):
    """Use a layer's weights without calling the layer if a sample is large."""
    return F.linear(x, self.a.weight, self.a.bias) if x.abs().max() > 3 else self.a(x)


SIGNS = {"++-+-": [1, 1, -1, 1, -1], "+-++-": [1, -1, 1, 1, -1], "++++-": [1, 1, 1, 1, -1]}


@pytest.mark.parametrize("size", [2, 4, 5])
@pytest.mark.parametrize("signs", SIGNS)
def test_later_samples_may_use_the_model_differently(signs, size):
    X = np.abs(numbers(4)) * np.array(SIGNS[signs])[:, None]
    slow = check_against_loop(
        lambda: Net(by_sign, a=nn.Linear(4, 3), b=nn.Linear(4, 3)), X, batch_size=size
    )
    assert slow == {}
    # The first samples have zero gradients, which do not show that the rule is wrong.
    check_against_loop(
        lambda: nn.Sequential(nn.ReLU(), Doubling(4, 3, bias=False)), -X, batch_size=size
    )
    X[3] *= 10
    check_against_loop(lambda: Net(by_size, a=nn.Linear(4, 3)), X, batch_size=size)


def where_positive(self, x):
    rows = x[:, 0] > 0
    out = x.new_zeros(len(x), 3)
    if rows.any():  # otherwise the output does not depend on the parameters
        out[rows] = self.a(x[rows]).tanh()
    return out


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("signs", SIGNS)
def test_samples_whose_output_has_no_gradient(signs, size):
    signs = np.array(SIGNS[signs])[:, None]
    X = np.abs(numbers(4))
    G, y = loop_gradients(build(lambda: Net(where_positive, a=nn.Linear(4, 3))), X)
    model = build(lambda: Net(where_positive, a=nn.Linear(4, 3)))
    sketcher = GradientSketcher(M, model=model, loss=weighted, batch_size=size, random_state=0)
    sketch = sketcher.fit_transform(X * signs, y.detach())
    # Samples with a positive first entry have the gradients above, the others have none.
    G = np.where(signs > 0, G, 0.0)
    np.testing.assert_allclose(sketch, G @ sketcher.projection_.to_array(), atol=1e-12)


def test_non_finite_gradients_are_rejected():
    X = numbers(4)
    X[3] = np.nan
    with pytest.raises(ValueError, match="of 1 samples are not finite, the first at position 3"):
        GradientSketcher(M, model=nn.Linear(4, 2), random_state=0).fit_transform(torch.tensor(X))


def test_quantized_weights_are_not_differentiated():
    model = Net(
        lambda self, x: self.a(x * self.q),
        q=nn.Parameter(torch.arange(4, dtype=torch.int8), requires_grad=False),
        a=nn.Linear(4, 3).requires_grad_(False),
    )
    sketcher = GradientSketcher(M, model=model, dtype="float64", random_state=0)
    assert sketcher.fit_transform(numbers(4)).any()
    assert sketcher.n_parameters_ == 15


def test_complex_parameters_are_rejected():
    model = Net(lambda self, x: (x * self.p).abs(), p=nn.Parameter(torch.ones(4) * 1j))
    with pytest.raises(ValueError, match=r"real floating numbers, but \['p'\]"):
        GradientSketcher(M, model=model).fit(numbers(4))


def test_layers_can_be_given_by_any_of_their_names_and_positions():
    model = build(shared_module)
    for layers in ("2", ["0"], np.int64(-1), [np.int64(0)]):
        sketcher = GradientSketcher(M, model=model, layers=layers, random_state=0)
        assert sketcher.fit(numbers(4)).n_parameters_ == 20
