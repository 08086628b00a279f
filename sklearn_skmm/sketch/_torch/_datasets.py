"""Conversion of users' data to batches of torch tensors for a model.

`open_batches` is the only place that knows the kinds of data sets. Hugging Face's `datasets` is
never imported; its data sets are recognised by their methods.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data

from sklearn_skmm.data import check_has_values
from sklearn_skmm.sketch._torch._batches import (
    Batch,
    Batches,
    copy_to_tensor,
    make_batch,
    map_tensors,
)

# Hugging Face's names for labels; the first one present is used. Labels are never passed to the
# model, which would compute its own loss from them.
LABEL_KEYS = ("labels", "label", "label_ids")
PAD_ADVICE = (
    'Pad to one length (padding="max_length"), or pass a DataLoader with a collate_fn that pads.'
)


def _to_array_or_tensor(value: Any, name: str) -> np.ndarray | Tensor:
    """Return a tensor detached but not converted, and anything else as an array of numbers."""
    if isinstance(value, Tensor):
        check_has_values(value, name)
        return value.detach()
    try:
        array = np.asarray(value)
        if array.dtype == object:
            # For frames of mixed types and arrays of rows, NumPy finds the common type from lists.
            array = np.asarray(array.tolist())
    except ValueError as error:
        raise ValueError(f"{name} has rows of unequal length. {PAD_ADVICE}") from error
    if array.dtype.kind not in "biufc":
        raise TypeError(
            f"{name} must contain numbers. Got dtype {array.dtype} instead. Tokenize text first."
        )
    return array


def _to_tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor | np.ndarray):
        array = _to_array_or_tensor(value, name)
        return array if isinstance(array, Tensor) else copy_to_tensor(array)
    raise TypeError(
        "Batches from the 'X' parameter must be a tensor, a tuple of inputs and labels, or a "
        f"mapping of str to tensors, but {name} is of type {type(value).__name__}."
    )


def _is_text(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        value = value.flat[:1].tolist()
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, str | bytes)


def _is_not_numeric_feature(feature: Any) -> bool:
    """Return whether a column of a Hugging Face data set is text, an image or similar."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return not str(getattr(feature, "dtype", "")).startswith(("int", "uint", "float", "bool"))


def _input_and_label_keys(
    entries: Mapping[str, Any], names: frozenset[str] | None, unusable: Callable[[Any], bool]
) -> tuple[list[str], list[str]]:
    """Return the keys of the inputs, and a list with the key of the labels if there is one.

    An entry that the model's signature names is always an input. A model that accepts any keyword,
    as most transformers do, does not get text: tokenized data sets often keep the raw text in
    another column.
    """
    inputs = [
        key
        for key, value in entries.items()
        if key not in LABEL_KEYS and (key in names if names is not None else not unusable(value))
    ]
    if not inputs:
        accepted = "any" if names is None else sorted(names.difference(LABEL_KEYS))
        raise ValueError(
            f"None of the keys {list(entries)} of X is an input of the model, "
            f"whose forward method accepts {accepted}."
        )
    labels = [key for key in LABEL_KEYS if key in entries][:1]
    return inputs, [key for key in labels if not unusable(entries[key])]


def _to_batch(item: Any, names: frozenset[str] | None, convert: Callable) -> Batch:
    """Return data from the user or a batch from a DataLoader as a `Batch`."""
    *inputs, last = item if isinstance(item, list | tuple) and item else (item,)
    labels = None
    if not inputs:
        inputs = [last]
    elif not _is_text(last):
        labels = convert(last, "labels")
    if len(inputs) > 1 or not isinstance(inputs[0], Mapping):
        return make_batch(tuple(convert(x, f"input {i}") for i, x in enumerate(inputs)), {}, labels)
    entries = inputs[0]
    keys, label = _input_and_label_keys(entries, names, _is_text)
    if labels is None and label:
        labels = convert(entries[label[0]], label[0])
    return make_batch((), {key: convert(entries[key], key) for key in keys}, labels)


def input_names(forward: Callable) -> frozenset[str] | None:
    """Return the keywords that forward accepts, or None if it accepts any."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):  # compiled code has no signature
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(
        p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    )


def _check_loader(loader: data.DataLoader) -> int | None:
    """Return the number of samples; raise unless all of them come in the data set's order."""
    batches = loader.batch_sampler
    # Exact types, because a subclass may change the order.
    if batches is None:
        reason = "batch_size is None"
    elif type(batches) is not data.BatchSampler:
        reason = f"batch_sampler is a {type(batches).__name__}"
    elif isinstance(loader.dataset, data.IterableDataset):
        if loader.num_workers == 0 and not batches.drop_last:
            return None
        reason = "an IterableDataset does not allow num_workers > 0 or drop_last=True here"
    elif type(batches.sampler) is not data.SequentialSampler:
        reason = f"sampler is a {type(batches.sampler).__name__}"
    elif batches.drop_last and len(batches.sampler) % batches.batch_size:
        reason = "drop_last=True drops the last samples"
    elif loader.num_workers and not getattr(loader, "in_order", True):
        reason = "in_order is False"
    else:
        return len(batches.sampler)
    raise ValueError(
        "A DataLoader as the 'X' parameter must give batches of all samples in the order of its "
        f"data set (shuffle=False), because positions identify samples, but {reason}."
    )


def _collate(samples: list, name: str = "X") -> Any:
    if isinstance(samples[0], Mapping):
        return {key: _collate([s[key] for s in samples], f"X[{key!r}]") for key in samples[0]}
    try:
        return data.default_collate(samples)
    except RuntimeError as error:
        raise ValueError(f"{name} has samples of unequal shape. {PAD_ADVICE}") from error


def _default_loader(dataset: Any, batch_size: int) -> data.DataLoader:
    # With its own generator, iterating does not change torch's global random state.
    return data.DataLoader(dataset, batch_size, collate_fn=_collate, generator=torch.Generator())


def _in_torch_format(X: Any, names: frozenset[str] | None) -> Any:
    """Return a Hugging Face data set that gives tensors of the required columns only."""
    form = getattr(X, "format", None) or {}
    if form.get("type") == "custom":
        return X  # another format would replace the user's transform, which makes the columns
    if X.features is not None:
        columns = form.get("columns", X.column_names)
        inputs, label = _input_and_label_keys(
            {c: X.features[c] for c in columns}, names, _is_not_numeric_feature
        )
        X = X.select_columns(inputs + label)
    return X.with_format("torch")


def _slice_batches(whole: Batch, batch_size: int, y: Any) -> Batches:
    def piece(start: int) -> Batch:
        return map_tensors(lambda array: copy_to_tensor(array[start : start + batch_size]), whole)

    return Batches(lambda: map(piece, range(0, whole.size, batch_size)), whole.size, y)


def open_batches(X: Any, y: Any, batch_size: int, forward: Callable) -> Batches:
    """Return the samples of X as batches of tensors for a model.

    Parameters
    ----------
    X : array-like, Tensor, mapping of these, Dataset, DataLoader or datasets.Dataset
        Samples along the first dimension. A tuple from a torch data set has inputs followed by
        labels. In a mapping, the keys in `LABEL_KEYS` are labels and the others are keyword inputs.
        A DataLoader keeps its own batch size and must not shuffle.
    y : array-like or Tensor of shape (n_samples, ...) or None
        Labels, which replace those in X.
    batch_size : int
        Number of samples in a batch.
    forward : callable
        The ``forward`` method of the model. Entries of mappings that it does not accept are left
        out.

    Returns
    -------
    batches : Batches
        Iterable that can be used any number of times.

    Raises
    ------
    TypeError
        If X is of another type or does not contain numbers.
    ValueError
        If X is empty, ragged or not in order, or if lengths disagree. Errors that only iterating
        can detect are raised while iterating.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm.sketch._torch._datasets import open_batches
    >>> X = {"x": np.zeros((5, 2)), "id": np.arange(5), "label": np.arange(5) * 10}
    >>> for batch in open_batches(X, None, 2, lambda x: x):
    ...     print(batch.size, list(batch.kwargs), batch.labels.tolist())
    2 ['x'] [0, 10]
    2 ['x'] [20, 30]
    1 ['x'] [40]
    """
    names = input_names(forward)
    if y is not None:
        y = _to_array_or_tensor(y, "y")
        make_batch((), {"y": y}, None)
    if isinstance(X, Mapping):
        if any(isinstance(v, data.Dataset) or hasattr(v, "with_format") for v in X.values()):
            raise TypeError(
                f"The 'X' parameter contains the data sets {list(X)}. Pass one of them instead."
            )
        return _slice_batches(_to_batch(X, names, _to_array_or_tensor), batch_size, y)
    if isinstance(X, Tensor | list) or hasattr(X, "__array__"):
        return _slice_batches(make_batch((_to_array_or_tensor(X, "X"),), {}, None), batch_size, y)
    if hasattr(X, "with_format") and hasattr(X, "column_names"):
        loader = _default_loader(_in_torch_format(X, names), batch_size)
    elif isinstance(X, data.IterableDataset) or (
        isinstance(X, data.Dataset) and hasattr(X, "__len__")
    ):
        loader = _default_loader(X, batch_size)
    elif isinstance(X, data.DataLoader):
        loader = X
    else:
        remark = " An iterator can be read only once." if isinstance(X, Iterator) else ""
        raise TypeError(
            "The 'X' parameter must be an array-like of numbers, a torch.Tensor, a mapping of str "
            "to these, a torch.utils.data.Dataset with __len__ or an IterableDataset, a DataLoader "
            f"or a datasets.Dataset. Got an instance of {type(X).__name__!r} instead.{remark}"
        )
    n_samples = _check_loader(loader)
    return Batches(lambda: (_to_batch(item, names, _to_tensor) for item in loader), n_samples, y)
