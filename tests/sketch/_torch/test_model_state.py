"""The model is unchanged afterwards; wrapped and compiled models, precision and devices."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sklearn_skmm import GradientSketcher
from tests.sketch._torch._models import M, Net, build, model_state, norm, numbers
from tests.sketch._torch._reference import check_against_loop
from tests.sketch._torch._zoo import ZOO


def fails_at_last(self, x):
    if (x == 4).any():
        raise RuntimeError("a token too many")
    return self.c(self.b(self.a(x).mean(1)))


class Merging(nn.Linear):
    """A layer whose weights change when its mode is switched, as in loralib."""

    def train(self, mode=True):
        super().train(mode)
        with torch.no_grad():
            self.weight += 1
        return self


@pytest.mark.parametrize("tokens_", [[[0, 1], [2, 3], [1, 1]], [[0, 1], [2, 3], [1, 4]]])
def test_model_state_is_restored(tokens_):
    torch.manual_seed(0)
    model = Net(
        fails_at_last,
        a=nn.Embedding(5, 3, max_norm=0.1),
        b=nn.BatchNorm1d(3),
        c=nn.Sequential(Merging(3, 3), nn.Dropout(), nn.Linear(3, 2)),
    )
    model.b.eval()
    model.c[2].bias.requires_grad_(False)
    model.c(torch.ones(2, 3)).sum().backward()
    before = model_state(model)
    sketcher = GradientSketcher(M, model=model, batch_size=1, random_state=0)
    if tokens_[-1] == [1, 4]:
        with pytest.raises(RuntimeError, match="a token too many"):
            sketcher.fit_transform(tokens_)
    else:
        assert sketcher.fit_transform(tokens_).shape == (3, M)
        with torch.no_grad():  # also where the caller has switched gradients off
            sketcher.fit_transform(tokens_)
    torch.testing.assert_close(model_state(model), before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_wrapped_models_give_the_same_sketch(wrap):
    model = build(norm(nn.Tanh))
    expected = GradientSketcher(M, model=model, random_state=0).fit_transform(numbers(4))
    sketch = GradientSketcher(M, model=wrap(model), random_state=0).fit_transform(numbers(4))
    np.testing.assert_array_equal(sketch, expected)


def compiled_in_place():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    model[0].compile(backend="eager")
    return model


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="needs torch 2.6")
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(torch.compile(nn.Linear(4, 4), backend="eager"), nn.Linear(4, 3)),
        compiled_in_place,
    ],
)
def test_compiled_layers_match_a_loop_over_samples(make):
    assert check_against_loop(make, numbers(4)) == {}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("wrap", [lambda m: m, nn.Sequential])
def test_scripted_models_are_rejected(wrap):
    model = wrap(torch.jit.script(nn.Linear(4, 3)))
    with pytest.raises(TypeError, match="not scripted"):
        GradientSketcher(M, model=model).fit(numbers(4))


def cast(self, x):
    self.a.to(x.dtype)
    return self.a(x) * self.p


def replaced(self, x):
    self.a.weight.data = self.a.weight.data * 1
    return self.a(x) * self.p


def copied(self, x):
    self.kept = 2 * self.p
    return copy.deepcopy(self.a)(x) + self.a(x) * self.p


@pytest.mark.parametrize("call", [cast, replaced, copied])
def test_models_may_replace_data_in_their_forward_pass(call):
    # Inside torch.func, replacing the data of tensors can end the process.
    make = lambda: Net(call, a=nn.Linear(4, 3), p=nn.Parameter(torch.rand(3)))  # noqa: E731
    slow = check_against_loop(make, numbers(4))
    assert slow[""] == ("torch.func" if call is copied else "loop")
    model = build(make)
    GradientSketcher(M, model=model, random_state=0).fit_transform(numbers(4))
    copy.deepcopy(model.a)
    assert isinstance(getattr(model, "kept", None), torch.Tensor) == (call is copied)
    repr(vars(model))


def checkpointed(reentrant):
    return lambda: Net(
        lambda self, x: self.b(checkpoint(lambda h: self.a(h).tanh(), x, use_reentrant=reentrant)),
        a=nn.Linear(4, 4),
        b=nn.Linear(4, 3),
    )


@pytest.mark.filterwarnings("ignore:.torch.cpu.amp.autocast:FutureWarning")  # from torch 2.4 itself
def test_activation_checkpointing():
    assert check_against_loop(checkpointed(False), numbers(4)) == {}


@pytest.mark.parametrize("first", [True, False])
def test_reentrant_checkpoints_are_rejected(first):
    model = checkpointed(True)() if first else nn.Sequential(nn.Linear(4, 4), checkpointed(True)())
    with pytest.raises(ValueError, match=r"must not use .* use_reentrant=True"):
        GradientSketcher(M, model=model).fit(numbers(4).astype("float32"))


class Counting(nn.Module):
    """A layer with a bare parameter, which counts its calls."""

    def __init__(self):
        super().__init__()
        self.p, self.a = nn.Parameter(torch.rand(4)), nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return self.a(x * self.p).tanh()


def tied_layers():
    layers = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    layers[2].weight = layers[0].weight
    return layers


# What is computed again in the backward pass.
RECOMPUTED = {
    "layers": (norm(lambda: nn.BatchNorm1d(4)), {}),
    "bare parameter and buffer": (Counting, {"a": "loop"}),
    "tied": (tied_layers, {}),
    "one row for all": (
        lambda: Net(
            lambda self, x: self.a(x).tanh() * self.b(torch.arange(1)),
            a=nn.Linear(4, 4),
            b=nn.Embedding(2, 4),
        ),
        {"a.b": "loop"},
    ),
    "recurrent": (
        lambda: Net(lambda self, x: self.a(x[:, None])[0][:, 0], a=nn.GRU(4, 4, batch_first=True)),
        {"a.a": "loop"},
    ),
    "frozen in part": (lambda: norm(nn.Tanh)().requires_grad_(False).append(nn.Linear(4, 4)), {}),
}


@pytest.mark.parametrize("name", RECOMPUTED)
def test_checkpoints_compute_in_the_precision_of_the_sketch(name):
    make, sources = RECOMPUTED[name]

    def model(run):
        return build(
            lambda: Net(lambda self, x: self.b(run(self.a, x.tanh())), a=make(), b=nn.Linear(4, 3)),
            torch.float32,
        )

    with_checkpoints = model(lambda part, x: checkpoint(part, x, use_reentrant=False))
    before = model_state(with_checkpoints)
    params = {"m": M, "dtype": "float64", "batch_size": 4, "random_state": 0}
    for layers in None, "a", "b":
        sketcher = GradientSketcher(model=with_checkpoints, layers=layers, **params)
        sketch = sketcher.fit_transform(numbers(4))
        assert sketch.dtype == np.float64
        torch.testing.assert_close(model_state(with_checkpoints), before, rtol=0, atol=0)
        plain = GradientSketcher(model=model(lambda part, x: part(x)), layers=layers, **params)
        expected = plain.fit_transform(numbers(4))
        np.testing.assert_allclose(sketch, expected, rtol=1e-12, atol=1e-14)
        if layers is None:
            found = {r.layer: r.source for r in sketcher.sketch_plan_ if r.source != "hooks"}
            assert found == sources


def test_failed_recomputation_restores_the_model():
    def part(x):
        if torch._C._current_graph_task_id() != -1:  # in the backward pass
            raise RuntimeError("out of order")
        return model.a(x)

    model = Net(
        lambda self, x: self.b(checkpoint(lambda h: part(h).tanh(), x, use_reentrant=False)),
        a=nn.Linear(4, 4),
        b=nn.Linear(4, 3),
    )
    before = model_state(model)
    with pytest.raises(RuntimeError, match="out of order"):
        GradientSketcher(M, model=model, dtype="float64").fit(numbers(4))
    torch.testing.assert_close(model_state(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_to_single(dtype):
    make = lambda: nn.Sequential(  # noqa: E731
        nn.Conv1d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4), nn.LayerNorm(4)
    )
    model = build(make, dtype)
    X, params = numbers(2, 6), {"m": M, "target": "label", "random_state": 0}
    half = GradientSketcher(model=model, **params)
    single = GradientSketcher(model=copy.deepcopy(model).float(), **params)
    sketch, expected = (
        half.fit_transform(X, [0, 1, 2, 3, 0]),
        single.fit_transform(X, [0, 1, 2, 3, 0]),
    )
    assert half.sketch_plan_ == single.sketch_plan_
    assert sketch.dtype == np.float32
    tolerance = 4 * torch.finfo(dtype).eps
    np.testing.assert_allclose(sketch, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_mixed_precision_keeps_the_dtype_of_each_parameter():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).to(torch.bfloat16)
    model[1].register_forward_pre_hook(lambda _, args: args[0].float())
    model[1].float()
    X = numbers(4).astype("float32")
    sketch = GradientSketcher(M, model=model, layers="1", random_state=0).fit_transform(X)
    model[1]._forward_pre_hooks.clear()
    single = GradientSketcher(M, model=model, layers="1", dtype="float32", random_state=0)
    assert sketch.dtype == np.float32
    np.testing.assert_allclose(sketch, single.fit_transform(X), rtol=0, atol=0.02)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_all_device_options_are_the_cpu_without_a_gpu():
    model = build(norm(nn.Tanh))
    sketches = [
        GradientSketcher(M, model=model, device=device, random_state=0).fit_transform(numbers(4))
        for device in (None, "auto", "cpu")
    ]
    assert sketches[0].tobytes() == sketches[1].tobytes() == sketches[2].tobytes()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize(
    "name", ["conv2d", "wide linear", "tied embedding with bias", "gru", "transformer", "wide norm"]
)
def test_gpu_gives_the_same_sketch_as_the_cpu(name, device):
    make, X, _ = ZOO[name]
    model = build(make, torch.float32)
    params = {"m": M, "model": model, "random_state": 0}
    expected = GradientSketcher(**params).fit_transform(X)
    sketch = GradientSketcher(**params, device=device).fit_transform(X)
    assert next(model.parameters()).device.type == "cpu"
    np.testing.assert_allclose(sketch, expected, rtol=0, atol=5e-3 * np.abs(expected).max())


def five_layers():
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), *(nn.Linear(4, 4) for _ in range(4)))


def offloaded(how):
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate")
    model = build(five_layers, torch.float32)
    if how == "all layers":
        return accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    names = {"0": "cpu", "1": "cpu", "2": "cpu", "3": "cpu", "4": "cpu", "5": "cpu"}
    if how == "one layer":
        accelerate.hooks.attach_align_device_hook(
            model[3],
            execution_device=torch.device("cpu"),
            offload=True,
            weights_map=dict(model[3].state_dict()),
        )
        return model
    return accelerate.dispatch_model(model, names, main_device="cpu", force_hooks=True)


@pytest.mark.parametrize(
    ("how", "named"),
    [("all layers", "'0', '2', '3' and 2 more layers are"), ("one layer", "of '3' are")],
)
def test_offloaded_models_are_rejected(how, named):
    model = offloaded(how)
    X = numbers(4).astype("float32")
    output = model(torch.from_numpy(X))
    with pytest.raises(ValueError, match=f"(?s)weights in memory.*{named}.*without device_map"):
        GradientSketcher(M, model=model, layers="2").fit(X)
    torch.testing.assert_close(model(torch.from_numpy(X)), output)


def test_models_that_were_never_loaded_are_rejected():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="'0', '1' are offloaded, or were never loaded"):
        GradientSketcher(M, model=model).fit(numbers(4))


def test_dispatched_models_with_all_weights_in_memory():
    X = numbers(4).astype("float32")
    model = offloaded("none")
    assert any(hasattr(module, "_hf_hook") for module in model.modules())
    expected = GradientSketcher(M, model=build(five_layers, torch.float32), random_state=0)
    sketch = GradientSketcher(M, model=model, random_state=0).fit_transform(X)
    np.testing.assert_array_equal(sketch, expected.fit_transform(X))
