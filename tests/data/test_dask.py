"""Dask arrays give the results of NumPy arrays, lazily, and survive workers that are killed."""

import errno
import os
import pickle
import signal
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_skmm import CoresetEstimator, GradientSketcher, HerdingSelector, SkMMSelector
from sklearn_skmm.data import _dask
from tests._selectors import make, selector_classes

dask = pytest.importorskip("dask", reason="Dask is an extra")
da = pytest.importorskip("dask.array", reason="Dask is an extra")

N = 103
# Chunks along both axes; of one row; of the whole; of uneven sizes.
CHUNKS = [(20, 3), (1, 5), (N, 5), ((40, 1, 60, 2), (1, 4))]


@pytest.fixture
def data():
    rng = np.random.RandomState(0)
    return rng.normal(size=(N, 5)), rng.randint(3, size=N)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)).double()


@pytest.fixture
def counted():
    """Return a function that makes a Dask array and counts how often each chunk of rows is read."""

    def make_counted(X, rows, **options):
        reads = Counter()

        def read(block, block_info):
            reads[block_info[0]["chunk-location"][0]] += 1
            return block

        whole = da.from_array(X, chunks=(rows, *X.shape[1:]))
        return whole.map_blocks(read, dtype=X.dtype, meta=np.empty((0,) * X.ndim, X.dtype)), reads

    return make_counted


def assert_close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=1e-10, atol=1e-12)


# Sketching


@pytest.mark.parametrize("with_model", [False, True])
def test_sketch_is_lazy(data, model, counted, with_model):
    X, reads = counted(data[0], 10)
    sketcher = GradientSketcher(4, model=model if with_model else None, random_state=0).fit(X)
    assert reads == {0: 1}  # `fit` reads two samples
    sketch = sketcher.transform(X)
    assert isinstance(sketch, da.Array)
    assert sketch.chunks == (X.chunks[0], (4,))
    assert reads == {0: 1}
    values = sketch.compute()
    assert reads == {0: 2} | dict.fromkeys(range(1, 11), 1)
    assert (values.shape, values.dtype) == ((N, 4), sketch.dtype)
    assert isinstance(sketcher.fit_transform(X), da.Array)
    assert reads[1] == 1


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("sketch", ["gaussian", "sparse_sign"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_sketches_of_rows_equal_those_of_numpy_arrays(data, chunks, sketch, dtype):
    X = (10 * data[0]).astype(dtype)
    sketcher = GradientSketcher(6, sketch=sketch, random_state=0)
    expected = sketcher.fit_transform(X)
    lazy = GradientSketcher(6, sketch=sketch, random_state=0).fit_transform(
        da.from_array(X, chunks=chunks)
    )
    assert lazy.dtype == lazy.compute().dtype == expected.dtype
    # A sum that nearly cancels keeps the rounding errors of its terms.
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    atol = rtol * np.abs(expected).max()
    np.testing.assert_allclose(lazy.compute(), expected, rtol=rtol, atol=atol)
    # Γ is the same whichever container was fitted.
    assert_close(sketcher.transform(da.from_array(X, chunks=chunks)).compute(), lazy.compute())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sketch_has_the_requested_dtype(data, dtype):
    for X in (data[0].astype(np.float32), data[0]):
        sketcher = GradientSketcher(6, dtype=dtype, random_state=0).fit(X)
        lazy = sketcher.transform(da.from_array(X, chunks=(20, 5)))
        assert lazy.dtype == lazy.compute().dtype == np.dtype(dtype)
        np.testing.assert_allclose(lazy.compute(), sketcher.transform(X), rtol=1e-5)


def test_sparse_chunks(data):
    X = np.where(np.abs(data[0]) > 1, data[0], 0)
    lazy = da.from_array(X, chunks=(20, 5)).map_blocks(sparse.csr_array)
    sketcher = GradientSketcher(6, random_state=0)
    assert_close(sketcher.fit_transform(lazy).compute(), sketcher.fit_transform(X))


@pytest.mark.parametrize("target", ["output", "label", "predicted", "sampled", "random"])
@pytest.mark.slow
def test_sketches_of_models_equal_those_of_numpy_arrays(data, model, target):
    X, y = data
    sketcher = GradientSketcher(6, model=model, target=target, batch_size=8, random_state=0)
    expected = sketcher.fit_transform(X, y)
    labels = [y, y.tolist(), *(da.from_array(y, chunks=rows) for rows in (33, 50))]
    for chunks, given in zip(CHUNKS, labels, strict=True):
        X = da.from_array(data[0], chunks=chunks)
        assert_close(sketcher.fit_transform(X, given).compute(), expected)
    # Random numbers belong to the positions in the input of `transform`.
    part = sketcher.transform(X[50:], y[50:]).compute()
    assert_close(part, sketcher.transform(data[0][50:], y[50:]))


def test_images_float32_and_labels_of_several_columns(model):
    rng = np.random.RandomState(0)
    X = rng.normal(size=(20, 2, 6, 6)).astype(np.float32)
    y = rng.normal(size=(20, 3)).astype(np.float32)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    params = {"loss": "squared_error", "target": "label", "random_state": 0}
    sketcher = GradientSketcher(6, model=model, **params)
    expected = sketcher.fit_transform(X, y)
    lazy = sketcher.transform(da.from_array(X, chunks=(7, 1, 2, 6)), y)
    assert lazy.dtype == lazy.compute().dtype == expected.dtype == np.float32
    np.testing.assert_allclose(lazy.compute(), expected, rtol=1e-4, atol=1e-5)
    doubled = sketcher.set_params(dtype="float64").fit_transform(da.from_array(X, chunks=7), y)
    assert doubled.dtype == doubled.compute().dtype == np.float64


def test_threads_do_not_interfere_in_the_model(data, model):
    model.train()
    sketcher = GradientSketcher(6, model=model, batch_size=2, random_state=0)
    expected = sketcher.fit_transform(data[0])
    lazy = sketcher.transform(da.from_array(data[0], chunks=(2, 5)))
    for _ in range(5):
        assert_close(lazy.compute(scheduler="threads", num_workers=8), expected)
    assert all(module.training for module in model.modules())


def test_empty_chunks(data, model):
    X = da.from_array(data[0], chunks=(20, 5))
    X = X[X[:, 0] > 1.5]
    X.compute_chunk_sizes()
    assert 0 in X.chunks[0]
    for sketcher in (GradientSketcher(6), GradientSketcher(6, model=model)):
        sketcher.set_params(random_state=0)
        if X.chunks[0][0]:
            sketcher.fit(X)
        assert_close(sketcher.fit(data[0]).transform(X).compute(), sketcher.transform(X.compute()))
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        sketcher.transform(X[:0])


def test_non_finite_values_raise_when_computed(data, model):
    X = data[0].copy()
    X[57, 2] = np.nan
    X = da.from_array(X, chunks=(20, 5))
    for sketcher in (GradientSketcher(6), GradientSketcher(6, model=model)):
        lazy = sketcher.fit_transform(X)
        with pytest.raises(ValueError, match="NaN"):
            lazy.compute()
    y = data[1].astype(float)
    y[57] = np.nan
    model = nn.Linear(5, 1).double()
    sketcher = GradientSketcher(6, model=model, loss="squared_error", target="label")
    lazy = sketcher.fit_transform(da.from_array(data[0], chunks=(20, 5)), y)
    with pytest.raises(ValueError, match="1 samples are not finite, the first at position 57"):
        lazy.compute()


def test_wrong_shapes_raise_before_anything_is_computed(data, model, counted, tmp_path):
    X, reads = counted(data[0], 10)
    labelled = GradientSketcher(6, model=model, target="label").fit(X)
    reads.clear()
    with pytest.raises(ValueError, match="expecting 5 features"):
        GradientSketcher(6).fit(data[0]).transform(X[:, :3])
    with pytest.raises(ValueError, match="requires y to be passed"):
        labelled.transform(X)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[103, 102\]"):
        labelled.transform(X, data[1][1:])
    unknown = X[X[:, 0] > 0]
    for estimator in (labelled, GradientSketcher(6), SkMMSelector(5)):
        with pytest.raises(ValueError, match="compute_chunk_sizes"):
            estimator.fit(unknown)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        labelled.transform(unknown, data[1])
    assert not reads
    cached = GradientSketcher(6, model=model, cache_dir=tmp_path / "cache", random_state=0)
    with pytest.raises(ValueError, match="cache_dir"):
        cached.fit_transform(X)
    assert not vars(cached).keys() & {"projection_", "_seed"}


def test_lazy_sketch_keeps_the_parameters_it_was_made_with(data, model):
    X = da.from_array(data[0], chunks=(20, 5))
    sketcher = GradientSketcher(6, model=model, random_state=0)
    expected = sketcher.fit_transform(data[0])
    lazy = sketcher.fit_transform(X)
    sketcher.set_params(m=3, layers=[-1], random_state=1).fit(data[0])
    assert_close(lazy.compute(), expected)


def test_model_is_in_the_graph_once(data):
    model = nn.Sequential(nn.Linear(5, 20_000), nn.Linear(20_000, 1))
    n_bytes = sum(p.nbytes for p in model.parameters())
    X = da.from_array(data[0].astype(np.float32), chunks=(10, 5))
    sketcher = GradientSketcher(2, model=model, layers=[-1], sketch="product", random_state=0)
    sketch = sketcher.fit_transform(X)
    (optimized,) = dask.optimize(sketch)
    sizes = [len(pickle.dumps(task)) for task in dict(optimized.__dask_graph__()).values()]
    assert len(sizes) > 11
    assert sorted(size > n_bytes / 10 for size in sizes)[-2:] == [False, True]


# Selecting


@pytest.mark.parametrize("cls", selector_classes())
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.slow
def test_selectors_accept_dask_arrays(data, counted, cls, dtype):
    X, y = (10 * data[0]).astype(dtype), data[1]
    expected = make(cls, 12).fit(X, y)
    lazy, reads = counted(X, 30)
    selector = make(cls, 12)
    np.testing.assert_array_equal(selector.fit_transform(lazy, y), expected.sample_indices_)
    assert reads == dict.fromkeys(range(4), 1)
    np.testing.assert_array_equal(selector.transform(lazy), expected.transform(X))
    assert selector.score(lazy) == expected.score(X)
    rows, labels = selector.fit_resample(lazy, da.from_array(y, chunks=50))
    assert isinstance(rows, da.Array)
    assert isinstance(labels, da.Array)
    np.testing.assert_array_equal(rows.compute(), X[expected.sample_indices_])
    np.testing.assert_array_equal(labels.compute(), y[expected.sample_indices_])


def test_strata_pipelines_and_estimators_accept_dask_arrays(data, model):
    X, y = data
    lazy, labels = da.from_array(X, chunks=(20, 5)), da.from_array(y, chunks=17)
    stratified = SkMMSelector(12, stratify=True, random_state=0)
    expected = stratified.fit_transform(X, y)
    np.testing.assert_array_equal(stratified.fit_transform(lazy, labels), expected)
    pipe = make_pipeline(
        GradientSketcher(6, model=model, random_state=0), SkMMSelector(12, random_state=0)
    )
    expected = pipe.fit_transform(X)
    np.testing.assert_array_equal(pipe.fit_transform(lazy), expected)
    fitted = CoresetEstimator(Ridge(), pipe).fit(lazy, y)
    np.testing.assert_array_equal(fitted.sample_indices_, expected)
    np.testing.assert_allclose(fitted.predict(X), fitted.estimator_.predict(X))


def test_array_beyond_memory_is_read_from_a_file(data, counted, monkeypatch, tmp_path):
    X, reads = counted(data[0].astype(np.float32), 10)
    kept = SkMMSelector(5, random_state=0).fit(X)
    assert kept.gathered_ == "memory"
    monkeypatch.setattr(_dask, "available_memory", lambda: 0)
    for part in (1, 4 * 5 * 25, 2**28):  # one chunk at a time, two, all
        monkeypatch.setattr(_dask, "PART", part)
        reads.clear()
        filed = SkMMSelector(5, random_state=0)
        with dask.config.set(temporary_directory=str(tmp_path)):
            np.testing.assert_array_equal(filed.fit_transform(X), kept.sample_indices_)
        assert filed.gathered_ == "file"
        assert set(reads.values()) == {1}
        assert len(reads) == X.numblocks[0]
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(filed.transform(X), kept.sample_indices_)
    assert pickle.loads(pickle.dumps(filed)).score(data[0]) == kept.score(data[0])
    uneven = da.from_array(data[0], chunks=((1, N - 3, 2), 2))
    selector = HerdingSelector(5).fit(uneven)
    np.testing.assert_array_equal(
        selector.sample_indices_, HerdingSelector(5).fit_transform(data[0])
    )


def test_array_beyond_memory_and_disk_raises(data, counted, monkeypatch):
    X, reads = counted(data[0].astype(np.float32), 10)
    selector = HerdingSelector(5)  # works in float64
    for enough in (2 * 8 * 5 * N, None):
        monkeypatch.setattr(_dask, "available_memory", lambda enough=enough: enough)
        assert selector.fit(X).gathered_ == "memory"
    monkeypatch.setattr(_dask, "available_memory", lambda: 2 * 8 * 5 * N - 1)
    assert selector.fit(X).gathered_ == "file"
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=8 * 5 * N - 1))
    reads.clear()
    before = dict(vars(selector))
    with pytest.raises(ValueError, match=r"Dask array of 0\.0 MiB.*smaller m"):
        selector.fit(X)
    assert not reads
    assert vars(selector) == before
    monkeypatch.undo()
    huge = da.zeros((10**12, 64), chunks=(10**9, 64))
    with pytest.raises(ValueError, match="488,281,250"):
        selector.fit(huge)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_full_disk_raises_and_leaves_no_attributes(data, monkeypatch, tmp_path):
    monkeypatch.setattr(_dask, "available_memory", lambda: 0)
    selector = SkMMSelector(5, random_state=0)
    X = da.from_array(data[0], chunks=(10, 5))
    with dask.config.set(temporary_directory=str(tmp_path)):
        with monkeypatch.context() as patch, open("/dev/full", "wb", 0) as full:
            patch.setattr(_dask.tempfile, "TemporaryFile", lambda **params: full)
            with pytest.raises(OSError, match=rf"'{tmp_path}': No space.*temporary-dir") as caught:
                selector.fit(X)
        assert caught.value.errno == errno.ENOSPC
        assert not [name for name in vars(selector) if name.endswith("_")]
        np.testing.assert_array_equal(selector.fit_transform(X), selector.fit_transform(data[0]))


def test_errors_of_chunks_are_not_reported_as_errors_of_the_disk(data, monkeypatch):
    def lost(block):
        raise OSError(errno.EIO, "the chunk is lost")

    monkeypatch.setattr(_dask, "available_memory", lambda: 0)
    X = da.from_array(data[0], chunks=(10, 5)).map_blocks(lost, dtype=float, meta=data[0][:0])
    with pytest.raises(OSError, match=r"^\[Errno 5\] the chunk is lost$"):
        SkMMSelector(5).fit(X)


# On a cluster


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed", reason="distributed is an extra")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = list(client.run(os.getpid).values())
        yield client
        pids += client.run(os.getpid).values()
    deadline = time.monotonic() + 10
    while alive := [pid for pid in pids if os.path.exists(f"/proc/{pid}")]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


class Slow:
    """Return a block of rows after a delay, and record which process was given which chunk."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, block, block_info):
        k = block_info[0]["chunk-location"][0]
        (self.folder / f"{os.getpid()}-{k}-{time.monotonic_ns()}").touch()
        time.sleep(0.2)
        return block

    def calls(self):
        """Return a pair of process and chunk for each call."""
        return [tuple(map(int, path.name.split("-")[:2])) for path in self.folder.iterdir()]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["output", "label", "sampled"])
def test_processes_compute_the_same_sketch(client, data, model, target):
    X, y = data
    sketcher = GradientSketcher(6, model=model, target=target, random_state=0)
    expected = sketcher.fit_transform(X, y)
    lazy = sketcher.fit_transform(da.from_array(X, chunks=(10, 3)), da.from_array(y, chunks=40))
    assert_close(lazy.compute(scheduler=client), expected)
    # The selector also uses the cluster, the default scheduler while a client exists.
    selector = SkMMSelector(12, random_state=0)
    assert len(np.intersect1d(selector.fit_transform(lazy), selector.fit_transform(expected))) == 12


@pytest.mark.slow
def test_killed_worker_does_not_change_the_sketch(client, data, model, tmp_path):
    X = data[0]
    sketcher = GradientSketcher(6, model=model, target="sampled", random_state=0)
    expected = sketcher.fit_transform(X)
    slow = Slow(tmp_path)
    chunks = da.from_array(X, chunks=(10, 5)).map_blocks(slow, dtype=X.dtype, meta=X[:0])
    future = client.compute(sketcher.fit(X).transform(chunks))
    victim = next(iter(client.run(os.getpid).values()))
    deadline = time.monotonic() + 30
    # One of the victim's blocks is finished and may be lost with it; the next never finishes.
    while sum(pid == victim for pid, _ in slow.calls()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not future.done()
    os.kill(victim, signal.SIGKILL)
    assert_close(future.result(timeout=30), expected)
    calls = slow.calls()
    assert {k for _, k in calls} == set(range(11))
    again = [k for k, n in Counter(k for _, k in calls).items() if n > 1]
    # At least the block that it was computing: a finished one may have been passed on before.
    assert {k for pid, k in calls if pid == victim} & set(again)


LIMIT = 2**29  # bytes per worker, nearly half of which are used from the start


def make_allocating(folder, times, n_bytes=LIMIT):
    """Return a function that allocates more memory than its worker may, or than there is.

    It does so the first `times` times it gets chunk 1. As a local function it is pickled by value:
    workers that looked it up in this module would import torch each time they start.
    """

    def allocate(block, block_info):
        if block_info[0]["chunk-location"][0] == 1 and len(list(folder.iterdir())) < times:
            (folder / str(time.monotonic_ns())).touch()
            taken = np.ones(n_bytes, np.uint8)
            time.sleep(60)  # the nanny checks ten times a second
            del taken
        return block

    return allocate


@pytest.mark.slow
def test_worker_out_of_memory_is_replaced(data, tmp_path):
    """Another takes its place; if that cannot help, an error is raised and nothing is changed."""
    distributed = pytest.importorskip("distributed", reason="distributed is an extra")
    X = data[0]
    pipe = make_pipeline(GradientSketcher(4, random_state=0), SkMMSelector(12, random_state=0))
    expected = pipe.fit_transform(X)

    def state(estimator):
        return {name: value for name, value in vars(estimator).items() if "callback" not in name}

    def chunks_that_allocate(name, *args):
        (tmp_path / name).mkdir()
        function = make_allocating(tmp_path / name, *args)
        lazy = da.from_array(X, chunks=(40, 5))
        return lazy.map_blocks(function, dtype=X.dtype, meta=X[:0])

    def calls(name):
        return len(list((tmp_path / name).iterdir()))

    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(n_workers=1, memory_limit=LIMIT, **options) as cluster,
        distributed.Client(cluster),
    ):
        once = chunks_that_allocate("once", 1)
        np.testing.assert_array_equal(pipe.fit_transform(once), expected)
        assert calls("once") == 1
        cluster.scheduler.allowed_failures = 0
        failures = [(chunks_that_allocate("always", 99), distributed.KilledWorker)]
        failures.append((chunks_that_allocate("more than there is", 99, 2**60), MemoryError))
        for lazy, error in failures:
            pipe.fit(X[::-1])
            before = state(pipe[-1])
            with pytest.raises(error):
                pipe.fit(lazy)
            after = state(pipe[-1])
            assert after.keys() == before.keys()
            assert all(after[name] is before[name] for name in before)
            np.testing.assert_array_equal(pipe.fit_transform(once), expected)
        assert calls("always") == 1
