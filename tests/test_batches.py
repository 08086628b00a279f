"""Whatever holds the samples, a model gets the same tensors."""

import inspect
import operator

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch import nn
from torch.utils import data as td

from sklearn_skmm.sketch._torch import _datasets
from sklearn_skmm.sketch._torch._batches import Batch, to_device
from sklearn_skmm.sketch._torch._datasets import open_batches

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
    """A map-style data set of what `row` makes of a position."""

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
    """A data set that can only be iterated over, from a new iterator every time."""

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
    """A data set whose own columns are not those that it gives."""

    def tensors(rows):
        return {
            name[4:]: list(map(torch.tensor, rows[name])) for name in rows if "text" not in name
        }

    X = hugging_face()
    return X.rename_columns({name: f"raw_{name}" for name in X.column_names}).with_transform(
        tensors
    )


# By what they hold of the data: the first input only, two inputs and labels, all by name.
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


def concatenated(batches):
    """All samples by name, from every batch, after checking what it says of its size."""
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


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def expected_of(kind):
    if kind in FIRST:
        return {"input_ids": TOKENS}
    if kind in TUPLES:
        return {"input_ids": TOKENS, "attention_mask": MASK, "labels": LABELS}
    return {**INPUTS, "labels": LABELS}


@pytest.mark.parametrize("batch_size", [1, 4, N, 100])
@pytest.mark.parametrize("kind", ALL)
def test_every_kind_gives_the_same_tensors(kind, batch_size):
    X = ALL[kind]()
    batches = open_batches(X, None, batch_size, forward)
    own = X.batch_size if isinstance(X, td.DataLoader) else batch_size
    assert [batch.size for batch in batches] == [min(own, N - i) for i in range(0, N, own)]
    assert_same(concatenated(batches), expected_of(kind))
    assert batches.n_samples == (None if kind in STREAMS else N)
    assert all((kind in NAMED) == (not batch.args) for batch in batches)


@pytest.mark.parametrize("kind", ALL)
def test_given_labels_win(kind):
    for y in (OTHER, OTHER.tolist(), torch.from_numpy(OTHER), pd.Series(OTHER)):
        batches = open_batches(ALL[kind](), y, 4, forward)
        assert_same(concatenated(batches), {**expected_of(kind), "labels": OTHER})


@pytest.mark.parametrize("k", [2, 4, 7, 100])
@pytest.mark.parametrize("kind", ALL)
def test_first_takes_nothing_away(kind, k):
    batches = open_batches(ALL[kind](), OTHER, 4, forward)
    whole = {**expected_of(kind), "labels": OTHER}
    start = {name: array[:k] for name, array in whole.items()}
    assert_same(concatenated([batches.first(k)]), start)
    running = iter(batches)
    before = next(running)
    assert_same(concatenated([batches.first(k)]), start)
    assert_same(concatenated([before, *running]), whole)
    assert_same(concatenated(batches), whole)


@pytest.mark.slow
def test_workers_of_a_loader_are_used():
    loader = td.DataLoader(
        torch_set(TOKENS, MASK, LABELS), 4, num_workers=1, multiprocessing_context="spawn"
    )
    batches = open_batches(loader, None, 1, forward)
    assert_same(
        concatenated([batches.first(2)]), {n: a[:2] for n, a in expected_of("stream").items()}
    )


def test_types_and_gradients():
    X = nn.Parameter(torch.zeros(3, 2, dtype=torch.bfloat16))
    (batch,) = open_batches({"values": X, "input_ids": [True, False, True]}, X, 3, forward)
    assert batch.kwargs["values"].dtype == torch.bfloat16
    assert batch.kwargs["input_ids"].dtype == torch.bool
    assert not any(t.requires_grad for t in (batch.kwargs["values"], batch.labels))
    (batch,) = open_batches(np.zeros(3, np.float16), np.zeros((3, 2)), 3, forward)
    assert batch.args[0].dtype == torch.float16
    assert batch.labels.shape == (3, 2)


def test_models_may_work_in_place():
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
    assert_same(concatenated(open_batches(X, None, 4, forward)), {"input_ids": VALUES})
    assert [len(array) for array in slices] == [4, 4, 3]
    assert all(np.shares_memory(array, X) for array in slices)


def test_global_random_state_is_left_alone():
    state = torch.get_rng_state()
    for X in (torch_set(TOKENS), Stream(stream)):
        batches = open_batches(X, None, 4, forward)
        batches.first(2)
        list(batches)
    assert torch.equal(torch.get_rng_state(), state)


def test_models_that_take_everything_get_it_except_text_and_labels():
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
    # What cannot be looked into takes everything too.
    (batch,) = open_batches({"values": VALUES}, None, N, operator.itemgetter)
    assert list(batch.kwargs) == ["values"]


def test_labels_that_are_text_are_none():
    loader = td.DataLoader(Rows(lambda i: (TOKENS[i], f"name {i}")), batch_size=4)
    batches = list(open_batches(loader, None, 4, forward))
    np.testing.assert_array_equal(np.concatenate([b.args[0] for b in batches]), TOKENS)
    assert {len(b.args) for b in batches} == {1}
    assert {b.labels for b in batches} == {None}


def test_hugging_face_stream_of_unknown_columns():
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")

    def everything(**kwargs): ...

    rows = [{"values": VALUES[i], "text": "a", "label": int(LABELS[i])} for i in range(N)]
    X = datasets.IterableDataset.from_generator(lambda: iter(rows))
    assert X.features is None
    batches = list(open_batches(X, None, 4, everything))
    assert [list(b.kwargs) for b in batches] == [["values"]] * len(batches)
    np.testing.assert_array_equal(np.concatenate([b.kwargs["values"] for b in batches]), VALUES)
    np.testing.assert_array_equal(np.concatenate([b.labels for b in batches]), LABELS)


def test_hugging_face_columns_that_no_model_can_use():
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


def test_collate_fn_may_pad_batches_differently():
    def pad(samples):
        width = max(len(sample) for sample in samples)
        return {"input_ids": np.array([s + [0] * (width - len(s)) for s in samples])}

    loader = td.DataLoader(Rows(lambda i: [1] * (1 + i // 4)), batch_size=2, collate_fn=pad)
    batches = open_batches(loader, LABELS, 1, forward)
    assert [batch.kwargs["input_ids"].shape[1] for batch in batches] == [1, 1, 2, 2, 3, 3]
    assert batches.first(3).kwargs["input_ids"].shape == (3, 1)
    assert batches.first(100).size == 4


def test_streams_have_to_start_over():
    once = iter(torch.from_numpy(TOKENS))
    rest = iter(torch.from_numpy(TOKENS))
    order = np.random.RandomState(0)
    for start in (
        lambda: once,
        lambda: (row for row in rest),
        lambda: torch.from_numpy(order.permutation(TOKENS)),
    ):
        batches = open_batches(Stream(start), None, 4, forward)
        with pytest.raises(ValueError, match=r"'X' parameter.*same order.*first batch differs"):
            list(batches)
    # Missing values are the same as before, and a stream may not end early.
    missing = torch.full((N, 1), torch.nan)
    lengths = iter([N, N, N, N - 2])
    batches = open_batches(Stream(lambda: missing[: next(lengths)]), None, 4, forward)
    assert sum(batch.size for batch in batches) == N
    assert batches.first(2).size == 2
    with pytest.raises(ValueError, match=rf"inconsistent numbers of samples: \[{N}, {N - 2}\]"):
        list(batches)


@pytest.mark.parametrize("n", [N - 1, N + 1, 1])
@pytest.mark.parametrize("kind", ALL)
def test_lengths_of_labels(kind, n):
    X = ALL[kind]()
    message = rf"Found input variables with inconsistent numbers of samples: \[\d+, {n}\]"
    if kind in STREAMS:
        batches = open_batches(X, np.zeros(n), 4, forward)
        with pytest.raises(ValueError, match=message):
            list(batches)
    else:
        with pytest.raises(ValueError, match=message):
            open_batches(X, np.zeros(n), 4, forward)


def test_long_streams_end_with_the_labels():
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


def test_a_loader_that_gives_fewer_samples_than_it_has():
    loader = td.DataLoader(Rows(lambda i: TOKENS[i]), 4, collate_fn=lambda rows: np.stack(rows[:3]))
    batches = open_batches(loader, None, 4, forward)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[11, 9\]"):
        list(batches)


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
def test_loaders_out_of_order(reason):
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
def test_wrong_types(message):
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
def test_wrong_values(message):
    with pytest.raises(ValueError, match=message):
        list(open_batches(VALUE_ERRORS[message](), None, 4, forward))


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
def test_no_samples(X):
    with pytest.raises(ValueError, match=r"0 sample\(s\) while a minimum of 1 is required"):
        open_batches(X, None, 4, forward)


def test_wrong_labels():
    cases = {
        "y must contain numbers": ["a"] * N,
        "y is a scalar": 3,
        "y has rows of unequal length": [[0], [1, 2]] + [[0]] * (N - 2),
    }
    for message, y in cases.items():
        with pytest.raises((TypeError, ValueError), match=message):
            open_batches(TOKENS, y, 4, forward)


def test_to_device():
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
