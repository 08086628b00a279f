"""The same samples in every kind of container that a model accepts."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils import data as td

from sklearn_skmm.sketch._torch._batches import Batch

N = 11
RNG = np.random.RandomState(0)
TOKENS = RNG.randint(100, size=(N, 4))
MASK = RNG.randint(2, size=(N, 4))
VALUES = RNG.normal(size=(N, 3)).astype(np.float32)
LABELS = RNG.randint(5, size=N)
OTHER = LABELS + 10


def forward(input_ids, attention_mask=None, *, values=None, labels=None):
    raise AssertionError("looking at a model does not call it")


class Rows(td.Dataset):
    """A map-style data set with `row(i)` at position i."""

    def __init__(self, row, n=N):
        self.row = row
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if not 0 <= i < self.n:
            raise IndexError(i)
        return self.row(i)


class Stream(td.IterableDataset):
    """A data set that can only be iterated over; `start` returns a new iterable each time."""

    def __init__(self, start):
        self.start = start

    def __iter__(self):
        return iter(self.start())


def torch_set(*arrays):
    return td.TensorDataset(*map(torch.from_numpy, arrays))


def row(i):
    inputs = {"input_ids": TOKENS[i], "attention_mask": MASK[i], "values": VALUES[i]}
    return {**inputs, "text": "word", "label": LABELS[i]}


def stream():
    return map(row, range(N))


def columns():
    rows = [row(i) for i in range(N)]
    return {key: [np.asarray(r[key]).tolist() for r in rows] for key in rows[0]}


def hugging_face():
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    return datasets.Dataset.from_dict(columns())


def encoding(**entries):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    return transformers.BatchEncoding(entries)


def skorch_set():
    skorch = pytest.importorskip("skorch.dataset", reason="skorch is not installed")
    inputs = {"input_ids": TOKENS, "attention_mask": MASK, "values": VALUES}
    return skorch.Dataset(inputs, LABELS)


def read_only():
    frozen = TOKENS.copy()
    frozen.flags.writeable = False
    return frozen


def transformed():
    """Return a data set whose transform gives other columns than those it stores."""

    def tensors(rows):
        return {
            name[4:]: list(map(torch.tensor, rows[name])) for name in rows if "text" not in name
        }

    X = hugging_face()
    return X.rename_columns({name: f"raw_{name}" for name in X.column_names}).with_transform(
        tensors
    )


# Containers of the first input only, of two inputs and labels, and of all inputs by name.
FIRST = {
    "array": lambda: TOKENS,
    "array from the back": lambda: TOKENS[::-1, ::-1].copy()[::-1, ::-1],
    "big-endian array": lambda: TOKENS.astype(">i8"),
    "read-only array": read_only,
    "object array": lambda: TOKENS.astype(object),
    "list": TOKENS.tolist,
    "list of arrays": lambda: list(TOKENS),
    "frame": lambda: pd.DataFrame(TOKENS, columns=list("abcd")),
    "tensor": lambda: torch.from_numpy(TOKENS),
    "torch data set of tensors": lambda: Rows(lambda i: torch.from_numpy(TOKENS)[i]),
    "torch data set of arrays": lambda: Rows(lambda i: TOKENS[i]),
    "torch data set of 1-tuples": lambda: torch_set(TOKENS),
    "stream of tensors": lambda: Stream(lambda: torch.from_numpy(TOKENS)),
}

TUPLES = {
    "torch data set": lambda: torch_set(TOKENS, MASK, LABELS),
    "stream": lambda: Stream(lambda: zip(TOKENS, MASK, LABELS, strict=True)),
    "DataLoader": lambda: td.DataLoader(torch_set(TOKENS, MASK, LABELS), batch_size=4),
    "DataLoader of a stream": lambda: td.DataLoader(
        Stream(lambda: zip(TOKENS, MASK, LABELS, strict=True)), batch_size=4
    ),
    "DataLoader that drops nothing": lambda: td.DataLoader(
        torch_set(TOKENS, MASK, LABELS), batch_size=N, drop_last=True
    ),
}

NAMED = {
    "mapping": lambda: {
        "input_ids": TOKENS,
        "attention_mask": torch.from_numpy(MASK),
        "values": pd.DataFrame(VALUES),
        "text": ["word"] * N,
        "label_ids": pd.Series(LABELS),
    },
    "BatchEncoding": lambda: encoding(
        input_ids=TOKENS.tolist(), attention_mask=MASK, values=VALUES, labels=LABELS.tolist()
    ),
    "torch data set of mappings": lambda: Rows(row),
    "torch data set of mappings and labels": lambda: Rows(
        lambda i: ({**row(i), "label": -1}, LABELS[i])
    ),
    "stream of mappings": lambda: Stream(stream),
    "DataLoader of mappings": lambda: td.DataLoader(Rows(row), batch_size=4),
    "skorch data set": skorch_set,
    "datasets.Dataset": hugging_face,
    "datasets.Dataset in torch format": lambda: hugging_face().with_format("torch"),
    "datasets.Dataset with a transform": transformed,
    "datasets.Dataset in a DataLoader": lambda: td.DataLoader(
        hugging_face().with_format("torch"), batch_size=4
    ),
    "datasets.IterableDataset": lambda: hugging_face().to_iterable_dataset(num_shards=2),
}

ALL = FIRST | TUPLES | NAMED
STREAMS = {kind for kind in ALL if "stream" in kind or "Iterable" in kind}
INPUTS = {"input_ids": TOKENS, "attention_mask": MASK, "values": VALUES}


def concatenate(batches):
    """Return the tensors of all batches by name, after checking the sizes of the batches."""
    whole = {}
    batches = list(batches)
    for batch in batches:
        assert isinstance(batch, Batch)
        named = dict(zip(INPUTS, batch.args, strict=False)) | batch.kwargs
        named |= {} if batch.labels is None else {"labels": batch.labels}
        for name, tensor in named.items():
            assert len(tensor) == batch.size
            assert not tensor.requires_grad
            whole.setdefault(name, []).append(tensor)
    return {name: torch.cat(parts).numpy() for name, parts in whole.items()}


def assert_same_tensors(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def expected_tensors(kind):
    if kind in FIRST:
        return {"input_ids": TOKENS}
    if kind in TUPLES:
        return {"input_ids": TOKENS, "attention_mask": MASK, "labels": LABELS}
    return {**INPUTS, "labels": LABELS}
