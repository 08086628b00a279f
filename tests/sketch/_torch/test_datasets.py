"""Conversion of every kind of data set to batches of tensors, and what is rejected."""

import inspect
import operator

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch import nn
from torch.utils import data as td

from sklearn_skmm.sketch._torch._datasets import open_batches
from tests.sketch._torch._data_sets import (
    ALL,
    INPUTS,
    LABELS,
    MASK,
    NAMED,
    OTHER,
    STREAMS,
    TOKENS,
    VALUES,
    N,
    Rows,
    Stream,
    assert_same_tensors,
    columns,
    concatenate,
    encoding,
    expected_tensors,
    forward,
    hugging_face,
    row,
    stream,
    torch_set,
)


@pytest.mark.parametrize("batch_size", [1, 4, N, 100])
@pytest.mark.parametrize("kind", ALL)
def test_every_kind_gives_the_same_tensors(kind, batch_size):
    X = ALL[kind]()
    batches = open_batches(X, None, batch_size, forward)
    own = X.batch_size if isinstance(X, td.DataLoader) else batch_size
    assert [batch.size for batch in batches] == [min(own, N - i) for i in range(0, N, own)]
    assert_same_tensors(concatenate(batches), expected_tensors(kind))
    assert batches.n_samples == (None if kind in STREAMS else N)
    assert all((kind in NAMED) == (not batch.args) for batch in batches)


def test_tensors_keep_their_dtype_without_gradients():
    X = nn.Parameter(torch.zeros(3, 2, dtype=torch.bfloat16))
    (batch,) = open_batches({"values": X, "input_ids": [True, False, True]}, X, 3, forward)
    assert batch.kwargs["values"].dtype == torch.bfloat16
    assert batch.kwargs["input_ids"].dtype == torch.bool
    assert not any(t.requires_grad for t in (batch.kwargs["values"], batch.labels))
    (batch,) = open_batches(np.zeros(3, np.float16), np.zeros((3, 2)), 3, forward)
    assert batch.args[0].dtype == torch.float16
    assert batch.labels.shape == (3, 2)


def test_models_that_accept_any_keyword_get_all_but_text_and_labels():
    def everything(**kwargs): ...

    def named(text, **kwargs): ...

    for X in (Rows(lambda i: {**row(i), "labels": OTHER[i]}), {**columns(), "labels": OTHER}):
        (batch,) = open_batches(X, None, N, everything)
        assert list(batch.kwargs) == list(INPUTS)
        np.testing.assert_array_equal(batch.labels, OTHER)
    X = {"values": VALUES, "label": np.array(["a", "b"] + ["c"] * (N - 2))}
    (batch,) = open_batches(X, None, N, everything)
    assert list(batch.kwargs) == ["values"]
    assert batch.labels is None
    # A callable without a signature is assumed to accept any keyword, too.
    (batch,) = open_batches({"values": VALUES}, None, N, operator.itemgetter)
    assert list(batch.kwargs) == ["values"]


def test_text_labels_are_ignored():
    loader = td.DataLoader(Rows(lambda i: (TOKENS[i], f"name {i}")), batch_size=4)
    batches = list(open_batches(loader, None, 4, forward))
    np.testing.assert_array_equal(np.concatenate([b.args[0] for b in batches]), TOKENS)
    assert {len(b.args) for b in batches} == {1}
    assert {b.labels for b in batches} == {None}


def test_hugging_face_stream_without_features():
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")

    def everything(**kwargs): ...

    rows = [{"values": VALUES[i], "text": "a", "label": int(LABELS[i])} for i in range(N)]
    X = datasets.IterableDataset.from_generator(lambda: iter(rows))
    assert X.features is None
    batches = list(open_batches(X, None, 4, everything))
    assert [list(b.kwargs) for b in batches] == [["values"]] * len(batches)
    np.testing.assert_array_equal(np.concatenate([b.kwargs["values"] for b in batches]), VALUES)
    np.testing.assert_array_equal(np.concatenate([b.labels for b in batches]), LABELS)


def test_unusable_hugging_face_columns_are_rejected_or_left_out():
    X = hugging_face().add_column("ragged", [[0] * i for i in range(N)])

    def everything(**kwargs): ...

    with pytest.raises(
        ValueError, match=r"X\['ragged'\].*" r'shape.*padding="max_length".*collate_fn'
    ):
        list(open_batches(X, None, 4, everything))
    for whole in (X.remove_columns("ragged"), X.to_iterable_dataset().remove_columns("ragged")):
        (batch,) = open_batches(whole, None, N, everything)
        assert list(batch.kwargs) == list(INPUTS)
    X = X.with_format("torch", columns=["values", "ragged", "text", "label"])
    (batch,) = open_batches(X, None, N, forward)
    assert list(batch.kwargs) == ["values"]
    np.testing.assert_array_equal(batch.labels, LABELS)
    X = X.remove_columns("label").add_column("label", ["zero"] * N)
    (batch,) = open_batches(X, None, N, forward)
    assert batch.labels is None


class Backwards(td.SequentialSampler):
    def __iter__(self):
        return reversed(range(N))


def loader(X=None, **params):
    return td.DataLoader(Rows(lambda i: TOKENS[i]) if X is None else X, **params)


SAMPLES = range(N)
LOADERS = {
    "batch_size is None": lambda: loader(batch_size=None),
    "sampler is a RandomSampler": lambda: loader(shuffle=True),
    "sampler is a SubsetRandomSampler": lambda: loader(sampler=td.SubsetRandomSampler([1, 2])),
    "sampler is a Backwards": lambda: loader(sampler=Backwards(SAMPLES)),
    "sampler is a list": lambda: loader(sampler=[3, 1]),
    "batch_sampler is a list": lambda: loader(batch_sampler=[[3, 1]]),
    "sampler is a WeightedRandomSampler": lambda: loader(
        batch_sampler=td.BatchSampler(td.WeightedRandomSampler([1.0] * N, N), 4, False)
    ),
    "drop_last=True drops": lambda: loader(batch_size=4, drop_last=True),
    "drop_last=True drops the last samples": lambda: loader(
        batch_sampler=td.BatchSampler(td.SequentialSampler(SAMPLES), 4, True)
    ),
    "in_order is False": lambda: loader(num_workers=1, in_order=False),
    "IterableDataset does not allow num_workers": lambda: loader(Stream(stream), num_workers=1),
    "IterableDataset does not allow .*drop_last": lambda: loader(Stream(stream), drop_last=True),
}


@pytest.mark.parametrize("reason", LOADERS)
def test_loaders_that_change_the_order_or_drop_samples_are_rejected(reason):
    if "in_order" in reason and "in_order" not in inspect.signature(td.DataLoader).parameters:
        pytest.skip("needs torch 2.6")
    with pytest.raises(ValueError, match=f"DataLoader as the 'X' parameter.*order.*{reason}"):
        open_batches(LOADERS[reason](), None, 4, forward)


def dataset_dict():
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    return datasets.DatasetDict(train=hugging_face(), test=hugging_face())


class NoLength(td.Dataset):
    def __getitem__(self, i):
        return TOKENS[i]


TYPES = {
    "array-like of numbers.*'generator'.*read only once": lambda: (x for x in TOKENS),
    "array-like of numbers.*'map'.*read only once": lambda: map(str, TOKENS),
    "array-like of numbers.*'tuple'": lambda: (TOKENS, MASK),
    "array-like of numbers.*'str'": lambda: "a text",
    "array-like of numbers.*'NoneType'": lambda: None,
    "array-like of numbers.*'csr_array'": lambda: sparse.csr_array(TOKENS),
    "with __len__.*'NoLength'": NoLength,
    "Sparse data was passed for X": lambda: torch.eye(3).to_sparse(),
    "X must contain numbers.*<U": lambda: ["a text", "another"],
    "X must contain numbers.*object": lambda: [row(0), row(1)],
    "X must contain numbers.*datetime": lambda: np.zeros(3, "datetime64[s]"),
    "X must contain numbers.*U": lambda: pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    "input_ids must contain numbers": lambda: {"input_ids": ["a", "b"]},
    r"data sets \['train', 'test'\]": dataset_dict,
    r"data sets \['a'\]": lambda: {"a": torch_set(TOKENS)},
    "input 0 is of type tuple": lambda: Rows(lambda i: ("a text", 1)),
    "input 1 is of type dict": lambda: Rows(lambda i: (TOKENS[i], {"mask": MASK[i]}, 1)),
    "labels is of type dict": lambda: Rows(lambda i: (TOKENS[i], {"mask": MASK[i]})),
    "input_ids is of type dict": lambda: Rows(lambda i: {"input_ids": {"a": 1}}),
    "input 0 is of type dict_keys": lambda: loader(
        collate_fn=lambda rows: dict(enumerate(rows)).keys()
    ),
    "input 0 is of type NoneType": lambda: loader(collate_fn=lambda rows: None),
    "input 0 is of type set": lambda: loader(collate_fn=lambda rows: {1}),
}


@pytest.mark.parametrize("message", TYPES)
def test_inputs_of_wrong_type_are_rejected(message):
    with pytest.raises(TypeError, match=message):
        list(open_batches(TYPES[message](), None, 4, forward))


RAGGED = [[1, 2], [3]]
VALUE_ERRORS = {
    r"X has rows of unequal.*padding=\"max_length\".*collate_fn": lambda: RAGGED,
    r"input_ids has rows of unequal.*padding": lambda: encoding(input_ids=RAGGED),
    r"X has samples of unequal shape.*padding": lambda: Rows(lambda i: torch.zeros(i)),
    r"keys \['a', 'label'\] of X .* \['attention_mask', 'input_ids', 'values'\]": lambda: {
        "a": [1],
        "label": [1],
    },
    r"None of the keys \[\] of X": dict,
    r"None of the keys \['text'\]": lambda: hugging_face().select_columns("text"),
    r"numbers of samples: \[11, 10, 10\] in \['input_ids', 'values', 'labels'\]": lambda: {
        "input_ids": TOKENS,
        "values": VALUES[1:],
        "label": LABELS[1:],
    },
    r"numbers of samples: \[4, 3\] in \['input 0', 'labels'\]": lambda: loader(
        batch_size=4, collate_fn=lambda rows: (np.stack(rows), np.stack(rows[1:]))
    ),
    "input 0 is a scalar": lambda: np.array(3.0),
    "values is a scalar": lambda: {"input_ids": TOKENS, "values": 1.0},
}


@pytest.mark.parametrize("message", VALUE_ERRORS)
def test_inputs_with_wrong_values_are_rejected(message):
    with pytest.raises(ValueError, match=message):
        list(open_batches(VALUE_ERRORS[message](), None, 4, forward))


def test_invalid_labels_are_rejected():
    cases = {
        "y must contain numbers": ["a"] * N,
        "y is a scalar": 3,
        "y has rows of unequal length": [[0], [1, 2]] + [[0]] * (N - 2),
    }
    for message, y in cases.items():
        with pytest.raises((TypeError, ValueError), match=message):
            open_batches(TOKENS, y, 4, forward)
