"""Iterating over batches: order, lengths, labels and memory."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils import data as td

from sklearn_skmm.sketch._torch import _datasets
from sklearn_skmm.sketch._torch._batches import Batch, to_device
from sklearn_skmm.sketch._torch._datasets import open_batches
from tests.sketch._torch._data_sets import (
    ALL,
    LABELS,
    MASK,
    OTHER,
    STREAMS,
    TOKENS,
    VALUES,
    N,
    Rows,
    Stream,
    assert_same_tensors,
    concatenate,
    expected_tensors,
    forward,
    row,
    stream,
    torch_set,
)


@pytest.mark.parametrize("kind", ALL)
def test_y_replaces_labels_of_the_data_set(kind):
    for y in (OTHER, OTHER.tolist(), torch.from_numpy(OTHER), pd.Series(OTHER)):
        batches = open_batches(ALL[kind](), y, 4, forward)
        assert_same_tensors(concatenate(batches), {**expected_tensors(kind), "labels": OTHER})


@pytest.mark.parametrize("k", [2, 4, 7, 100])
@pytest.mark.parametrize("kind", ALL)
def test_first_leaves_later_iterations_unchanged(kind, k):
    batches = open_batches(ALL[kind](), OTHER, 4, forward)
    whole = {**expected_tensors(kind), "labels": OTHER}
    start = {name: array[:k] for name, array in whole.items()}
    assert_same_tensors(concatenate([batches.first(k)]), start)
    running = iter(batches)
    before = next(running)
    assert_same_tensors(concatenate([batches.first(k)]), start)
    assert_same_tensors(concatenate([before, *running]), whole)
    assert_same_tensors(concatenate(batches), whole)


@pytest.mark.slow
def test_loader_with_worker_processes():
    loader = td.DataLoader(
        torch_set(TOKENS, MASK, LABELS), 4, num_workers=1, multiprocessing_context="spawn"
    )
    batches = open_batches(loader, None, 1, forward)
    assert_same_tensors(
        concatenate([batches.first(2)]), {n: a[:2] for n, a in expected_tensors("stream").items()}
    )


def test_models_may_change_their_inputs_in_place():
    arrays = {"input_ids": TOKENS.copy(), "values": torch.from_numpy(VALUES.copy())}
    y = OTHER.copy()
    for X in (*arrays.values(), arrays):
        for batch in open_batches(X, y, 4, forward):
            for tensor in (*batch.args, *batch.kwargs.values(), batch.labels):
                tensor.zero_()
    np.testing.assert_array_equal(arrays["input_ids"], TOKENS)
    np.testing.assert_array_equal(arrays["values"], VALUES)
    np.testing.assert_array_equal(y, OTHER)


def test_memory_maps_are_read_batch_by_batch(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", VALUES)
    X = np.load(tmp_path / "x.npy", mmap_mode="r")
    slices = []
    copy = _datasets.copy_to_tensor
    monkeypatch.setattr(_datasets, "copy_to_tensor", lambda a: slices.append(a) or copy(a))
    assert_same_tensors(concatenate(open_batches(X, None, 4, forward)), {"input_ids": VALUES})
    assert [len(array) for array in slices] == [4, 4, 3]
    assert all(np.shares_memory(array, X) for array in slices)


def test_global_random_state_is_unchanged():
    state = torch.get_rng_state()
    for X in (torch_set(TOKENS), Stream(stream)):
        batches = open_batches(X, None, 4, forward)
        batches.first(2)
        list(batches)
    assert torch.equal(torch.get_rng_state(), state)


def test_collate_fn_may_pad_batches_differently():
    def pad(samples):
        width = max(len(sample) for sample in samples)
        return {"input_ids": np.array([s + [0] * (width - len(s)) for s in samples])}

    loader = td.DataLoader(Rows(lambda i: [1] * (1 + i // 4)), batch_size=2, collate_fn=pad)
    batches = open_batches(loader, LABELS, 1, forward)
    assert [batch.kwargs["input_ids"].shape[1] for batch in batches] == [1, 1, 2, 2, 3, 3]
    assert batches.first(3).kwargs["input_ids"].shape == (3, 1)
    assert batches.first(100).size == 4


def test_streams_must_restart_in_the_same_order():
    once = iter(torch.from_numpy(TOKENS))
    rest = iter(torch.from_numpy(TOKENS))
    order = np.random.RandomState(0)
    for start in (
        lambda: once,
        lambda: (tokens for tokens in rest),
        lambda: torch.from_numpy(order.permutation(TOKENS)),
    ):
        batches = open_batches(Stream(start), None, 4, forward)
        with pytest.raises(ValueError, match=r"'X' parameter.*same order.*first batch differs"):
            list(batches)
    # Missing values equal themselves, and a stream must not end early.
    missing = torch.full((N, 1), torch.nan)
    lengths = iter([N, N, N, N - 2])
    batches = open_batches(Stream(lambda: missing[: next(lengths)]), None, 4, forward)
    assert sum(batch.size for batch in batches) == N
    assert batches.first(2).size == 2
    with pytest.raises(ValueError, match=rf"inconsistent numbers of samples: \[{N}, {N - 2}\]"):
        list(batches)


@pytest.mark.parametrize("n", [N - 1, N + 1, 1])
@pytest.mark.parametrize("kind", ALL)
def test_labels_of_another_length_are_rejected(kind, n):
    X = ALL[kind]()
    message = rf"Found input variables with inconsistent numbers of samples: \[\d+, {n}\]"
    if kind in STREAMS:
        batches = open_batches(X, np.zeros(n), 4, forward)
        with pytest.raises(ValueError, match=message):
            list(batches)
    else:
        with pytest.raises(ValueError, match=message):
            open_batches(X, np.zeros(n), 4, forward)


def test_streams_longer_than_the_labels_are_rejected():
    batches = open_batches(Stream(lambda: map(float, range(100))), OTHER, 4, forward)
    found = []
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[12, 11\]"):
        found.extend(batches)
    assert [batch.labels.tolist() for batch in found] == [OTHER[:4].tolist(), OTHER[4:8].tolist()]


def test_first_reads_no_more_than_it_needs():
    read = []
    batches = open_batches(Rows(lambda i: read.append(i) or TOKENS[i]), None, 4, forward)
    batches.first(4)
    assert read == [0, 1, 2, 3]


def test_loader_that_gives_fewer_samples_than_it_has_is_rejected():
    loader = td.DataLoader(Rows(lambda i: TOKENS[i]), 4, collate_fn=lambda rows: np.stack(rows[:3]))
    batches = open_batches(loader, None, 4, forward)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[11, 9\]"):
        list(batches)


@pytest.mark.parametrize(
    "X",
    [
        np.zeros((0, 3)),
        [],
        torch.zeros(0, 3),
        {"input_ids": TOKENS[:0]},
        Rows(row, n=0),
        Stream(list),
        td.DataLoader(Rows(row, n=0)),
    ],
    ids=lambda X: type(X).__name__,
)
def test_empty_data_sets_are_rejected(X):
    with pytest.raises(ValueError, match=r"0 sample\(s\) while a minimum of 1 is required"):
        open_batches(X, None, 4, forward)


def test_to_device_casts_only_floating_tensors():
    batch = Batch(
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.bool)),
        {"ids": torch.zeros(2, 4, dtype=torch.int32)},
        torch.zeros(2, dtype=torch.float64),
        2,
    )
    moved = to_device(batch, "meta", torch.float16)
    tensors = (*moved.args, moved.kwargs["ids"], moved.labels)
    assert all(tensor.device.type == "meta" for tensor in tensors)
    types = [tensor.dtype for tensor in tensors]
    assert types == [torch.float16, torch.bool, torch.int32, torch.float16]
    assert [tensor.shape for tensor in tensors] == [(2, 3), (2,), (2, 4), (2,)]
    assert moved.size == 2
    moved = to_device(batch._replace(labels=None), torch.device("meta"), None)
    assert [tensor.dtype for tensor in moved.args] == [torch.float32, torch.bool]
    assert moved.labels is None
    assert batch.args[0].device.type == "cpu"
