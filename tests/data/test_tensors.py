"""Torch tensors as rows: dtypes that NumPy lacks, gradients, and tensors without values."""

import numpy as np
import pytest

from sklearn_skmm import (
    CoresetEstimator,
    GradientSketcher,
    KMeansSelector,
    SkMMSelector,
    UniformSelector,
)
from tests._selectors import make, selector_classes

torch = pytest.importorskip("torch")

X = torch.from_numpy(np.random.RandomState(0).normal(size=(40, 5)).astype(np.float32))
Y = np.arange(40) % 2
NUMBERS = {
    "bfloat16": (X.bfloat16(), X.bfloat16().float().numpy()),
    "requires a gradient": (X.clone().requires_grad_(), X.numpy()),
    "bfloat16 that requires a gradient": (
        X.bfloat16().requires_grad_(),
        X.bfloat16().float().numpy(),
    ),
    "list": ([*X.bfloat16().requires_grad_()], X.bfloat16().float().numpy()),
    "float16": (X.half(), X.half().numpy()),
    "uint8": ((10 * X.abs()).byte(), (10 * X.abs()).byte().numpy().astype(float)),
    "int64": ((10 * X).long(), (10 * X).long().numpy().astype(float)),
    "bool": (X > 0, (X > 0).numpy().astype(float)),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_tensors_of_every_dtype_are_rows_of_numbers(name):
    tensor, array = NUMBERS[name]
    for selector in SkMMSelector(5, random_state=0), KMeansSelector(5, random_state=0):
        rows = selector.fit_transform(array.astype(np.float64))
        np.testing.assert_array_equal(selector.fit_transform(tensor), rows)
        np.testing.assert_array_equal(selector.transform(tensor), rows)
        assert np.isfinite(selector.score(tensor))
    sketcher = GradientSketcher(4, random_state=0)
    expected = sketcher.fit_transform(array.astype(np.float64))
    np.testing.assert_allclose(sketcher.fit_transform(tensor), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cls", selector_classes())
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16])
def test_arrays_of_other_dtypes_are_cast(cls, dtype):
    array = (8 * X.abs().numpy()).astype(dtype)
    expected = make(cls, 10).fit(array.astype(np.float64), Y)
    found = make(cls, 10).fit(array, Y)
    np.testing.assert_array_equal(found.sample_indices_, expected.sample_indices_)


def test_selected_rows_of_a_bfloat16_tensor_keep_their_dtype():
    selector = UniformSelector(6, random_state=0, stratify=True)
    rows, labels = selector.fit_resample(X.bfloat16(), torch.from_numpy(Y))
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows, X.bfloat16()[selector.sample_indices_])
    assert torch.equal(labels, torch.from_numpy(Y)[selector.sample_indices_])


# name: (tensor, error, message)
WITHOUT_VALUES = {
    "meta": (X.to("meta"), ValueError, "meta device"),
    "sparse": (X.to_sparse(), TypeError, "torch.sparse_coo.* to_dense"),
    "nested": (
        torch.nested.nested_tensor([torch.ones(5), torch.ones(4)], layout=torch.jagged),
        ValueError,
        "X has rows of unequal length",
    ),
}


@pytest.mark.parametrize("name", WITHOUT_VALUES)
def test_tensors_without_values_are_rejected(name):
    tensor, error, match = WITHOUT_VALUES[name]
    model = torch.nn.Linear(5, 2)
    for estimator in (  # UniformSelector reads no values, and takes these tensors
        SkMMSelector(5),
        GradientSketcher(4),
        GradientSketcher(4, model=model),
    ):
        with pytest.raises(error, match=match):
            estimator.fit(tensor)
    with pytest.raises(error, match=match):
        CoresetEstimator(KMeansSelector(2), SkMMSelector(5)).fit(tensor, Y[: tensor.size(0)])


def test_labels_on_the_meta_device_are_rejected():
    with pytest.raises(ValueError, match=r"y must hold numbers.* meta device"):
        UniformSelector(6, stratify=True).fit(X, torch.from_numpy(Y).to("meta"))
