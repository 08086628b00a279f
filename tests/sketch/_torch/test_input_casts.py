"""Integer, Boolean and half-precision inputs of models."""

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_skmm import GradientSketcher
from tests.sketch._torch._models import M, N, Net, build, conv, model_state

COUNTS = np.random.RandomState(0).randint(9, size=(N, 5))
IMAGES = np.random.RandomState(0).randint(256, size=(N, 2, 5, 5)).astype(np.uint8)


def linear():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))


def embedding():
    return nn.Sequential(nn.Embedding(9, 3), nn.Tanh(), nn.Flatten(), nn.Linear(15, 2))


def two_inputs(self, input_ids, pixels, mask):
    h = torch.where(mask[..., None], self.a(input_ids), 0.5)
    return h.mean(1) * self.b(pixels)


def sketch(model, X, **params):
    params = {"batch_size": 4, "random_state": 0} | params
    sketcher = GradientSketcher(M, model=model, **params).fit(X)
    return sketcher.transform(X)


# name: (model, inputs, the same in the dtypes that the model takes)
CASES = {
    "int64": (linear, COUNTS, COUNTS.astype("float32")),
    "int32 tensor": (linear, torch.from_numpy(COUNTS).int(), COUNTS.astype("float32")),
    "bool": (linear, COUNTS > 4, (COUNTS > 4).astype("float32")),
    "bfloat16": (linear, torch.from_numpy(COUNTS).bfloat16(), COUNTS.astype("float32")),
    "float16": (linear, COUNTS.astype("float16"), COUNTS.astype("float32")),
    "requires a gradient": (
        linear,
        torch.from_numpy(COUNTS).float().requires_grad_(),
        COUNTS.astype("float32"),
    ),
    "images": (conv(nn.Conv2d, 2, 3, 2), IMAGES, IMAGES.astype("float32")),
    "images in a data set": (
        conv(nn.Conv2d, 2, 3, 2),
        torch.utils.data.TensorDataset(torch.from_numpy(IMAGES)),
        IMAGES.astype("float32"),
    ),
    "norm": (
        lambda: nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 2)),
        COUNTS,
        COUNTS.astype("float32"),
    ),
    "recurrent": (
        lambda: nn.GRU(5, 3, batch_first=True),
        COUNTS[:, None],
        COUNTS[:, None].astype("float32"),
    ),
    "tokens": (embedding, COUNTS.astype("int32"), COUNTS),
    "tokens of one byte": (embedding, COUNTS.astype("uint8"), COUNTS),
    "tokens of two bytes": (embedding, COUNTS.astype("int16"), COUNTS),
    "tokens, counts and a mask": (
        lambda: Net(two_inputs, a=nn.Embedding(9, 3), b=nn.Linear(5, 3)),
        {"input_ids": COUNTS.astype("uint8"), "pixels": COUNTS, "mask": COUNTS > 2},
        {"input_ids": COUNTS, "pixels": COUNTS.astype("float32"), "mask": COUNTS > 2},
    ),
    # What a model does with integers itself stays as it is.
    "division": (
        lambda: Net(lambda self, x: self.a(x // 2 + x / 4), a=linear()),
        COUNTS,
        COUNTS,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_inputs_are_cast_where_the_model_fails_otherwise(name):
    make, X, expected = CASES[name]
    model = build(make, torch.float32)
    before = model_state(model)
    np.testing.assert_array_equal(sketch(model, X), sketch(model, expected))
    torch.testing.assert_close(model_state(model), before, rtol=0, atol=0)


def test_integers_are_cast_to_the_precision_of_the_computation():
    model = build(linear, torch.float32)
    np.testing.assert_array_equal(
        sketch(model, COUNTS, dtype="float64"),
        sketch(model, COUNTS.astype("float64"), dtype="float64"),
    )
    half = build(linear, torch.bfloat16)
    np.testing.assert_array_equal(sketch(half, COUNTS), sketch(half, COUNTS.astype("float32")))


def test_integers_that_the_model_takes_stay_integers():
    seen = []
    make = lambda: Net(lambda self, x: self.a(seen.append(x) or x / 9), a=linear())  # noqa: E731
    model = build(make, torch.float32)
    sketch(model, COUNTS)
    assert {x.dtype for x in seen} == {torch.int64}


def test_errors_that_no_cast_removes():
    model = build(linear, torch.float32)
    with pytest.raises(TypeError, match=r"'input 0': 'int64'.* float32.* cannot be multiplied"):
        sketch(model, COUNTS[:, :3])
    calls = []
    model = Net(lambda self, x: calls.append(x) or self.a(x)[5], a=embedding())
    with pytest.raises(IndexError):  # not about dtypes, so that no cast is tried
        sketch(model, COUNTS)
    assert len(calls) == 1


def test_labels_of_any_integer_dtype():
    model, labels = build(linear, torch.float32), COUNTS[:, 0] % 2
    expected = GradientSketcher(M, model=model, target="label", random_state=0)
    expected = expected.fit_transform(COUNTS, labels)
    for dtype in np.uint8, np.int16, bool:
        found = GradientSketcher(M, model=model, target="label", random_state=0)
        np.testing.assert_array_equal(found.fit_transform(COUNTS, labels.astype(dtype)), expected)
