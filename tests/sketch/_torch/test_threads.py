"""Threads that share a model: the sketches of one job, and the model as it was."""

import copy
import os
import pickle
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_skmm import GradientSketcher, SkMMSelector, UniformSelector, compare_selectors
from sklearn_skmm.sketch._torch import _model_state
from sklearn_skmm.sketch._torch._shared import ProcessSetting

X = np.random.RandomState(0).normal(size=(12, 5)).astype(np.float32)
SECONDS = 20  # after which a thread that waits is taken to wait forever


class Slow(nn.Module):
    """A layer that lets other threads run in the middle of its model."""

    def forward(self, x):
        time.sleep(0.001)
        return x


class Body(nn.Module):
    def __init__(self, act=None):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), Slow(), nn.BatchNorm1d(8), nn.Linear(8, 3))
        self.act = act

    def forward(self, x):
        if self.act is not None:
            self.act()
        return self.layers(x)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Body().train()
    model.layers[2].eval()
    model.layers[0].weight.grad = torch.ones(8, 5)
    return model


def sketch(model, seed=0, **params):
    params = {"m": 4, "batch_size": 3, "random_state": seed, **params}
    return GradientSketcher(model=model, **params).fit_transform(X)


def state(model):
    """What fit must leave as it was; tensors by identity."""
    return [
        (
            module.training,
            {name: (id(p), type(p), id(p.grad)) for name, p in module._parameters.items()},
            {name: id(b) for name, b in module._buffers.items()},
            len(module._forward_hooks),
            sorted(vars(module)),
        )
        for module in model.modules()
    ]


def in_threads(*functions):
    """Call the functions at the same time, and return their results or exceptions."""
    barrier = threading.Barrier(len(functions))

    def call(function):
        barrier.wait(SECONDS)
        try:
            return function()
        except BaseException as error:
            return error

    with ThreadPoolExecutor(len(functions)) as executor:
        return [future.result() for future in [executor.submit(call, f) for f in functions]]


def assert_all_equal(found, wanted):
    for one, want in zip(found, wanted, strict=True):
        if isinstance(one, BaseException):
            raise one
        np.testing.assert_array_equal(one, want)


PARAMS = [{}, {"layers": [-1]}, {"dtype": "float64"}, {"sketch": "product"}]


@pytest.mark.slow
def test_sketches_in_threads_are_those_of_one_job(model):
    jobs = [lambda s=s, p=p: sketch(model, s, **p) for s in range(2) for p in PARAMS]
    wanted, before = [job() for job in jobs], state(model)
    for _ in range(3):
        assert_all_equal(in_threads(*jobs), wanted)
        assert state(model) == before


@pytest.mark.slow
def test_wrappers_and_models_with_common_modules_take_turns(model):
    others = [
        nn.DataParallel(model),
        nn.Sequential(model, nn.Linear(3, 2)),
        model.layers,
        nn.Sequential(model.layers[0], nn.Linear(8, 2)),
    ]
    jobs = [lambda one=one: sketch(one) for one in [model, *others]] * 2
    wanted, before = [job() for job in jobs], [state(one) for one in others]
    for _ in range(3):
        assert_all_equal(in_threads(*jobs), wanted)
        assert [state(one) for one in others] == before


@pytest.mark.slow
def test_searches_and_comparisons_in_threads(model):
    rows = np.repeat(X, 4, axis=0)
    y = np.arange(48) % 2
    pipe = make_pipeline(
        GradientSketcher(4, model=model, batch_size=8, random_state=0),
        SkMMSelector(5, random_state=0),
    )
    others = make_pipeline(clone(pipe[0]), UniformSelector(5, random_state=0))
    grid = GridSearchCV(pipe, {"gradientsketcher__random_state": [0, 1]}, cv=2)

    def scores(n_jobs):
        with joblib.parallel_config("threading", n_jobs=n_jobs):
            table = compare_selectors(
                {"a": pipe, "b": others},
                LogisticRegression(),
                rows,
                y,
                n_to_select=[5],
                cv=2,
                random_state=0,
            )
            return [
                grid.fit(rows).cv_results_["mean_test_score"],
                *(v for k, v in table.items() if k in ("selector", "score")),
            ]

    wanted, before = scores(1), state(model)
    assert_all_equal(scores(4), wanted)
    assert state(model) == before


def test_dask_sketches_two_models_at_the_same_time():
    da = pytest.importorskip("dask.array")
    barrier = threading.Barrier(2)
    lazy = []
    for _ in range(2):
        one = Body()
        sketcher = GradientSketcher(4, model=one, random_state=0).fit(X)
        one.act = lambda: barrier.wait(SECONDS)
        lazy.append(sketcher.transform(da.from_array(X, chunks=-1)))
    together = da.concatenate(lazy).compute(scheduler="threads", num_workers=2)
    assert together.shape == (24, 4)


def test_dask_threads_and_other_threads_take_turns(model):
    da = pytest.importorskip("dask.array")
    sketcher = GradientSketcher(4, model=model, batch_size=3, random_state=0).fit(X)
    wanted, before = sketcher.transform(X), state(model)

    def by_dask():
        lazy = sketcher.transform(da.from_array(X, chunks=(3, 5)))
        return lazy.compute(scheduler="threads", num_workers=4)

    jobs = [by_dask, lambda: sketcher.transform(X)] * 2
    assert_all_equal(in_threads(*jobs), [wanted] * 4)
    assert state(model) == before


def test_models_without_common_modules_do_not_wait():
    barrier = threading.Barrier(2)
    models = [Body(lambda: barrier.wait(SECONDS)) for _ in range(2)]
    for result in in_threads(*(lambda one=one: sketch(one) for one in models)):
        assert result.shape == (12, 4)


@pytest.mark.parametrize("where", ["loss", "forward"])
def test_a_model_may_be_sketched_while_it_is_sketched(model, where):
    wanted, before = sketch(model), state(model)
    within, local = [], threading.local()

    def again():
        if not getattr(local, "busy", False):
            local.busy = True
            try:
                within.append(sketch(model))
            finally:
                local.busy = False

    def loss(output, target):
        again()
        return output[0] - target

    if where == "forward":
        model.act = again
        params = {"layers": [-1]}
    else:
        params = {"loss": loss}
    before = state(model)

    def outer():
        return GradientSketcher(4, model=model, random_state=0, **params).fit_transform(X, X[:, 0])

    reference = outer()
    assert len(within) > 1
    assert_all_equal(in_threads(outer, outer), [reference, reference])
    assert_all_equal(within, [wanted] * len(within))
    assert state(model) == before


def test_models_that_are_used_within_each_other_do_not_wait_forever():
    inner = [Body(), Body()]
    barrier, local = threading.Barrier(2), threading.local()

    def loss(output, target, other):
        if not hasattr(local, "began"):
            local.began = barrier.wait(SECONDS)
        sketch(other)
        return output[0]

    def job(one, other):
        def with_other(output, target):
            return loss(output, target, other)

        sketcher = GradientSketcher(4, model=one, loss=with_other, random_state=0)
        return sketcher.fit_transform(X[:3], X[:3, 0])

    results = in_threads(lambda: job(*inner), lambda: job(*inner[::-1]))
    errors = [result for result in results if isinstance(result, BaseException)]
    assert len(errors) == 1
    with pytest.raises(RuntimeError, match="wait for each other"):
        raise errors[0]
    assert sketch(inner[0]).shape == (12, 4)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_in_one_thread_leaves_the_others_alone(model, error):
    wanted, before = sketch(model), state(model)
    failing = threading.local()

    def act():
        if getattr(failing, "calls", None) is not None:
            failing.calls += 1
            if failing.calls > 4:
                raise error

    model.act = act

    def fail():
        failing.calls = 0
        try:
            sketch(model)
        finally:
            failing.calls = None

    results = in_threads(*[fail, lambda: sketch(model)] * 3)
    assert [type(result) for result in results[::2]] == [error] * 3
    assert_all_equal(results[1::2], [wanted] * 3)
    assert state(model) == before


@pytest.mark.parametrize("cached", [False, True])
def test_between_batches_the_model_is_free(model, cached, tmp_path):
    # In one thread with another generator, and in another thread while the consumer waits for it.
    wanted = sketch(model)
    sketcher = GradientSketcher(
        4, model=model, batch_size=3, random_state=0, cache_dir=tmp_path if cached else None
    ).fit(X)
    samples = sketcher._gradients().open(X, sketcher, reset=False)
    first, second = sketcher._sketched(samples, None), sketcher._sketched(samples, None)
    parts = []
    for one, two in zip(first, second, strict=True):
        parts.append(one)
        np.testing.assert_array_equal(one, two)
        [other] = in_threads(lambda: sketch(model))
        np.testing.assert_array_equal(other, wanted)
    np.testing.assert_array_equal(np.concatenate(parts), wanted)


@pytest.fixture
def busy_model(model):
    """A model that another thread uses, until the event is set."""
    began, go_on = threading.Event(), threading.Event()

    def act():
        if threading.current_thread() is user:
            began.set()
            assert go_on.wait(SECONDS)

    user = threading.Thread(target=lambda: sketch(model))
    before = state(model)
    model.act = act
    user.start()
    assert began.wait(SECONDS)
    yield model, before
    go_on.set()
    user.join(SECONDS)
    assert state(model) == before


def test_reading_is_free_while_a_model_is_used(busy_model):
    model, _ = busy_model
    sketcher = GradientSketcher(4, model=model, random_state=0)
    assert clone(sketcher).get_params()["model"] is model
    assert "GradientSketcher" in repr(sketcher)
    rows = GradientSketcher(4, random_state=0).fit_transform(X)
    assert len(SkMMSelector(3, random_state=0).fit(rows).transform(rows)) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_gets_the_model_as_it_was(busy_model):
    model, before = busy_model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            same = state(model) == before
            model.act = None
            code = 0 if same and np.isfinite(sketch(model)).all() else 2
        finally:
            os._exit(code)
    end = time.monotonic() + SECONDS
    found, status = os.waitpid(child, os.WNOHANG)
    while not found and time.monotonic() < end:
        time.sleep(0.01)
        found, status = os.waitpid(child, os.WNOHANG)
    if not found:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert found
    assert os.waitstatus_to_exitcode(status) == 0


def test_locks_are_neither_in_models_nor_in_sketchers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2))
    fitted = GradientSketcher(4, model=model, random_state=0).fit(X)
    wanted = fitted.transform(X)
    for copied in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted)), fitted):
        assert_all_equal(in_threads(*[lambda c=copied: c.transform(X)] * 3), [wanted] * 3)
    assert state(pickle.loads(pickle.dumps(model)))[0][-1] == state(nn.Sequential())[0][-1]


def overlap(first, second):
    """Enter the first context, then the second in another thread, and leave them in that order."""
    with ThreadPoolExecutor(1) as executor:
        first.__enter__()
        executor.submit(second.__enter__).result()
        first.__exit__(None, None, None)
        yield
        executor.submit(second.__exit__, None, None, None).result()


def test_settings_of_the_process_end_with_the_last_thread():
    cudnn = torch.backends.cudnn
    enabled = cudnn.enabled
    for _ in overlap(_model_state._without_cudnn(), _model_state._without_cudnn()):
        assert not cudnn.enabled
    assert cudnn.enabled == enabled
    calls = []

    class Setting:
        def __enter__(self):
            calls.append("enter")

        def __exit__(self, *_):
            calls.append("exit")

    setting = ProcessSetting(Setting)
    with pytest.raises(ZeroDivisionError), setting(), setting():
        1 / 0  # noqa: B018
    for _ in overlap(setting(), setting()):
        assert calls == ["enter", "exit", "enter"]
    assert calls == ["enter", "exit", "enter", "exit"]
