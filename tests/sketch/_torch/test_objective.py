"""Objectives to differentiate, compared with the same scalar written by hand."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklearn_skmm import GradientSketcher
from sklearn_skmm.sketch._torch._objective import Objective, output_of
from tests.sketch._torch._models import M, N, Net, build, numbers, tokens
from tests.sketch._torch._reference import loop_gradients

K = 3
LOGITS = torch.tensor([[0.0, 1.0, -1.0, 0.5]], dtype=torch.float64)


def table(n_outputs=K):
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, n_outputs))


def text(n_outputs=K):
    return Net(
        lambda self, input_ids, attention_mask=None: self.head(self.embedding(input_ids).tanh()),
        embedding=nn.Embedding(8, 4),
        head=nn.Linear(4, n_outputs),
    )


def channels():
    return nn.Sequential(nn.Conv1d(2, K, 2), nn.Tanh())


def image():
    return nn.Sequential(nn.Conv2d(2, K, 2), nn.Tanh())


def check(make, X, scalar, y=None, **params):
    """Compare a sketch with the gradients of scalar(output, i) from a loop over the samples."""
    G, _ = loop_gradients(build(make), X, scalar, y=range(N))
    sketcher = GradientSketcher(M, model=build(make), batch_size=2, random_state=0, **params)
    sketch = sketcher.fit_transform(X, y)
    expected = G @ sketcher.projection_.to_array()
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(sketch, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8", "bool", "list", "column"])
def test_class_labels_of_any_dtype_and_container(dtype):
    y = np.array([0, 1, 1, 0, 1])
    given = {"list": y.tolist(), "column": y[:, None]}
    check(
        table,
        numbers(4),
        lambda f, i: F.cross_entropy(f, torch.tensor(y[i])),
        given[dtype] if dtype in given else y.astype(dtype),
        target="label",
    )


def test_uint8_labels_are_not_mistaken_for_ignored_ones():
    y = np.array([156, 0, 1, 2, 3], dtype="uint8")  # 156 is -100 in eight bits
    check(
        lambda: table(200),
        numbers(4),
        lambda f, i: F.cross_entropy(f, torch.tensor(y[i]).long()),
        y,
        target="label",
    )


@pytest.mark.parametrize(
    ("make", "X", "shape", "classes"),
    [
        (text, tokens(8, 4), (4,), -1),
        (channels, numbers(2, 6), (5,), 0),
        (image, numbers(2, 3, 5), (2, 4), 0),
    ],
)
def test_labels_of_tokens_and_pixels(make, X, shape, classes):
    y = np.random.RandomState(0).randint(K, size=(N, *shape))
    y[0, 0] = y[1] = -100

    def scalar(f, i):
        label = torch.tensor(y[i]).flatten()
        values = F.cross_entropy(f.movedim(classes, -1).reshape(-1, K), label, reduction="none")
        return values.sum() / max(int((label >= 0).sum()), 1)

    check(make, X, scalar, y, target="label")


@pytest.mark.parametrize(
    ("y", "params", "message"),
    [
        ([0, 1, 2, 3, 0], {}, "from 0 to 2, one for each .* Got values from 0 to 3"),
        ([0, 1, 2, -1, 0], {}, "Got values from -1 to 2"),
        ([0.0, 1, 2, 1, 0], {}, "integer class positions .* Got dtype float"),
        ([[0, 1, 0]] * N, {}, "3 labels for each sample, but the model has outputs at 1 positions"),
        (None, {}, "requires y to be passed"),
        ([0, 1, 2, 1], {}, "inconsistent numbers of samples"),
        ([0, 1, 2, 1, 0], {"model": table(1)}, "needs a model with an output for each class"),
        ([0, 1, 2, 1, 0], {"loss": "squared_error"}, r"shape \(5,\) for outputs of shape \(5, 3\)"),
        (None, {"loss": "squared_error"}, "requires y to be passed"),
        (None, {"loss": lambda f, y: f.sum()}, "requires y to be passed"),
        ([0] * N, {"loss": lambda f, y: f}, r"one value per sample. Got shape \(3,\)"),
        ([0] * N, {"loss": lambda f, y: 1.0}, r"one value per sample. Got shape 1\.0"),
    ],
)
def test_invalid_targets_are_rejected(y, params, message):
    params = {"model": table(), "target": "label"} | params
    with pytest.raises(ValueError, match=message):
        GradientSketcher(M, random_state=0, **params).fit_transform(numbers(4), y)


@pytest.mark.parametrize(("make", "X"), [(table, numbers(4)), (text, tokens(8, 4))])
def test_predicted_classes(make, X):
    check(make, X, lambda f, _: F.cross_entropy(f, f.argmax(-1)), target="predicted")


def sampled_classes(target, size, seeds, start=0):
    """Return the classes sampled for samples with the same logits, of shape (seeds, size)."""
    output = LOGITS.expand(size, -1)
    targets = [Objective("cross_entropy", target, s).targets(output, None, start) for s in seeds]
    return torch.stack(targets)[:, :, 0].numpy()


@pytest.mark.parametrize(("size", "seeds"), [(1, 4000), (4000, 1), (20, 200)])
@pytest.mark.parametrize("target", ["sampled", "random"])
@pytest.mark.slow
def test_sampled_classes_have_the_intended_distribution(target, size, seeds):
    p = LOGITS.softmax(-1)[0].numpy() if target == "sampled" else np.full(4, 0.25)
    counts = np.bincount(sampled_classes(target, size, range(seeds)).ravel(), minlength=4)
    chi2 = ((counts - 4000 * p) ** 2 / (4000 * p)).sum()
    assert chi2 < 16.3  # the 99.9 % quantile of χ² with three degrees of freedom


@pytest.mark.parametrize("target", ["sampled", "random"])
def test_sampled_classes_do_not_depend_on_the_batches(target):
    whole = sampled_classes(target, 50, [0])[0]
    parts = [
        sampled_classes(target, size, [0], start)[0] for start, size in ((0, 1), (1, 30), (31, 19))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len(np.unique(whole)) == 4
    assert (sampled_classes(target, 50, [1])[0] != whole).any()
    X = np.vstack([range(4), tokens(8, 4)])
    params = {"m": M, "model": build(text), "target": target, "random_state": 3}
    expected = GradientSketcher(**params).fit_transform(X)
    for size in (1, 2):
        sketch = GradientSketcher(batch_size=size, **params).fit_transform(X)
        np.testing.assert_allclose(sketch, expected, rtol=1e-9, atol=1e-14)
    # Of all combinations of classes at four tokens, only the sampled one gives this sketch.
    G = {
        classes: loop_gradients(
            build(text), X[:1], lambda f, _, c=classes: F.cross_entropy(f, torch.tensor(c)), y=[0]
        )[0]
        for classes in product(range(K), repeat=4)
    }
    gamma = GradientSketcher(**params).fit(X).projection_.to_array()
    found = [c for c, g in G.items() if np.allclose(g @ gamma, expected[:1], rtol=1e-9)]
    assert len(found) == 1


@pytest.mark.parametrize(
    ("make", "X", "classes"),
    [
        (lambda: nn.Sequential(table(1), nn.Flatten(0)), numbers(4), None),
        (lambda: table(1), numbers(4), -1),
        (table, numbers(4), -1),
        (text, tokens(8, 4), -1),
        (image, numbers(2, 3, 5), 0),
    ],
)
def test_outputs_are_combined_by_one_vector_of_signs(make, X, classes):
    sketcher = GradientSketcher(M, model=build(make), batch_size=2, random_state=0)
    sketch = sketcher.fit_transform(X)
    gamma = sketcher.projection_.to_array()
    matches = []
    with torch.no_grad():
        output = build(make)(torch.as_tensor(X))
    n_outputs = 1 if classes is None else output.shape[1:][classes]
    for signs in product([1.0, -1.0], repeat=n_outputs):
        z = torch.tensor(signs, dtype=torch.float64) / n_outputs**0.5

        def scalar(f, _, z=z):
            f = f.reshape(1) if classes is None else f.movedim(classes, -1)
            return (f @ z).mean()

        expected = loop_gradients(build(make), X, scalar, y=range(N))[0] @ gamma
        if np.allclose(sketch, expected, rtol=1e-9, atol=1e-12):
            matches.append(signs)
    assert len(matches) == 1
    assert n_outputs > 1 or matches == [(1.0,)]  # a single output is not multiplied by a sign


def test_inner_products_are_those_of_the_jacobian_in_expectation():
    # Unit vectors as outputs show the vector z/√K of each seed; E zzᵀ/K = I/K.
    unit = torch.eye(4, dtype=torch.float64)
    z = np.stack([Objective("cross_entropy", "output", s)(unit, None).numpy() for s in range(4000)])
    np.testing.assert_allclose(z.T @ z / len(z), np.eye(4) / 4, atol=4 / 4 / len(z) ** 0.5)
    assert len(np.unique(z, axis=0)) == 16


@pytest.mark.parametrize(
    ("make", "X", "shape"),
    [
        (lambda: nn.Sequential(table(1), nn.Flatten(0)), numbers(4), ()),
        (lambda: table(1), numbers(4), ()),
        (lambda: table(1), numbers(4), (1,)),
        (table, numbers(4), (K,)),
    ],
)
def test_squared_error(make, X, shape):
    y = np.random.RandomState(1).normal(size=(N, *shape)).astype("float32")
    check(
        make,
        X,
        lambda f, i: (f - torch.tensor(y[i])).square().sum(),
        y,
        loss="squared_error",
        target="label",
    )
    integers = np.round(9 * y).astype(int)
    check(
        make,
        X,
        lambda f, i: (f - torch.tensor(integers[i])).square().sum(),
        integers,
        loss="squared_error",
        target="label",
    )


def test_squared_error_of_tokens():
    y = np.random.RandomState(1).normal(size=(N, 4, K))
    X = {"input_ids": tokens(8, 4), "attention_mask": np.tri(N, 4, dtype=int)}

    def scalar(f, i):
        squares = (f - torch.tensor(y[i])).square().sum(-1)
        return squares[: i + 1].mean()

    check(text, X, scalar, y, loss="squared_error", target="label")


def branching(output, target):
    """A loss that branches on a value, which torch.func cannot trace."""
    scale = 2 if output.sum().item() > 0 else 3
    return scale * F.mse_loss(output[0], target)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_callable_losses(dtype):
    make = lambda: nn.Sequential(  # noqa: E731
        Net(lambda self, x: x * self.p, p=nn.Parameter(torch.rand(4))), table()
    )
    y = numbers()
    G, _ = loop_gradients(build(make, dtype), numbers(4), branching, torch.as_tensor(y).to(dtype))
    sketcher = GradientSketcher(M, model=build(make, dtype), loss=branching, random_state=0)
    sketch = sketcher.fit_transform(numbers(4), y)
    assert sketcher.sketch_plan_[0].source == "torch.func"
    expected = G @ sketcher.projection_.to_array()
    np.testing.assert_allclose(sketch, expected, rtol=1e-9 if dtype == torch.float64 else 1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_callable_losses_get_one_sample_at_a_time(dtype):
    y = 257 + np.arange(N * 2.0).reshape(N, 2)

    def loss(output, target):
        assert output.shape == (4, K)
        assert output.dtype == target.dtype == torch.promote_types(dtype, torch.float32)
        seen.append(target.tolist())
        return output.sum()[None]

    seen = []
    model = build(text, dtype)
    GradientSketcher(M, model=model, loss=loss, random_state=0).fit_transform(tokens(8, 4), y)
    assert seen == y.tolist()


def test_constant_loss_has_zero_gradients():
    sketcher = GradientSketcher(M, model=table(), loss=lambda f, y: torch.zeros(()))
    assert not sketcher.fit_transform(numbers(4), [0] * N).any()


@pytest.mark.parametrize("kind", ["int64", "bool", "float32"])
@pytest.mark.parametrize("target", ["output", "predicted", "label"])
def test_masked_tokens_are_ignored(target, kind):
    mask = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]])
    X = {"input_ids": tokens(8, 4), "attention_mask": mask.astype(kind)}
    y = np.random.RandomState(0).randint(2, size=(N, 4))
    y[0, 0] = -100

    def scalar(f, i):
        label = torch.tensor(y[i]) if target == "label" else f.argmax(-1)
        kept = torch.tensor(mask[i] == 1) & (label >= 0)
        if target == "output":  # the model has one output per token
            return f[kept, 0].sum() / max(int(kept.sum()), 1)
        values = F.cross_entropy(f, label, reduction="none", ignore_index=-100)
        return values[kept].sum() / max(int(kept.sum()), 1)

    check(lambda: text(1 if target == "output" else K), X, scalar, y, target=target)


def test_token_mask_is_ignored_for_outputs_without_tokens():
    X = {"input_ids": tokens(8, 4), "attention_mask": np.zeros((N, 4), dtype=int)}
    make = lambda: Net(  # noqa: E731
        lambda self, input_ids, attention_mask: self.text(input_ids).mean(1), text=text(1)
    )
    check(make, X, lambda f, _: f[0])


def test_output_of_finds_the_outputs_in_what_models_return():
    output = torch.ones(2)
    for result in (
        output,
        (output, None),
        [output],
        (output, (output, output)),
        {"loss": None, "logits": output},
        SimpleNamespace(logits=output),
        SimpleNamespace(logits=None, last_hidden_state=output),
    ):
        assert output_of(result) is output
    for result in (None, {}, (), {"loss": output}, ("a",), SimpleNamespace(logits=None)):
        with pytest.raises(TypeError, match="must return a tensor, a tuple that starts with one"):
            output_of(result)
