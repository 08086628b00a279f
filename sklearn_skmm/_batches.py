"""What users have, as consecutive batches of torch tensors for a model.

`open_batches` is the one place that knows kinds of data sets; everything behind it sees `Batch`
only. Imports torch, so it is imported late; never imports `datasets`, whose data sets are
recognised by their methods.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.utils import data

# Hugging Face's names for labels; the first that is present wins. No model is given them: it would
# compute its own loss.
LABELS = ("labels", "label", "label_ids")
PAD = 'Pad to one length (padding="max_length"), or pass a DataLoader with a collate_fn that pads.'


class Batch(NamedTuple):
    """Consecutive samples, to call a model with as ``model(*args, **kwargs)``.

    Attributes
    ----------
    args : tuple of Tensor of shape (size, ...)
        Positional inputs.
    kwargs : dict of str to Tensor of shape (size, ...)
        Keyword inputs.
    labels : Tensor of shape (size, ...) or None
        Labels, where there are any.
    size : int
        Number of samples.
    """

    args: tuple[Tensor, ...]
    kwargs: dict[str, Tensor]
    labels: Tensor | None
    size: int


def _tensors(batch: Batch) -> dict[str, Tensor]:
    named = {f"input {i}": tensor for i, tensor in enumerate(batch.args)} | batch.kwargs
    return named if batch.labels is None else {**named, "labels": batch.labels}


def _inconsistent(lengths: list, remark: str = "") -> NoReturn:
    raise ValueError(
        f"Found input variables with inconsistent numbers of samples: {lengths}{remark}"
    )


def _batch(args: tuple, kwargs: dict, labels: Any) -> Batch:
    """Return a batch of the size on which all tensors agree."""
    batch = Batch(args, kwargs, labels, 0)
    sizes = {}
    for name, tensor in _tensors(batch).items():
        if tensor.ndim == 0:
            raise ValueError(f"The first dimension must be the samples, but {name} is a scalar.")
        sizes[name] = tensor.shape[0]
    if len(set(sizes.values())) > 1:
        _inconsistent(list(sizes.values()), f" in {list(sizes)}.")
    return batch._replace(size=next(iter(sizes.values())))


def _map(function: Callable, *batches: Batch) -> Batch:
    """Apply a function to the corresponding tensors of batches."""
    labels = [batch.labels for batch in batches]
    return _batch(
        tuple(function(*tensors) for tensors in zip(*(b.args for b in batches), strict=True)),
        {name: function(*(b.kwargs[name] for b in batches)) for name in batches[0].kwargs},
        None if labels[0] is None else function(*labels),
    )


def to_device(batch: Batch, device: Any, float_dtype: torch.dtype | None) -> Batch:
    """Move a batch, casting floating tensors only: tokens and masks stay what they are.

    Parameters
    ----------
    batch : Batch
        What to move; it stays as it is.
    device : torch.device or str
        Where to.
    float_dtype : torch.dtype or None
        Type of floating tensors; None keeps it.

    Returns
    -------
    batch : Batch
        The moved batch.
    """
    return _map(lambda t: t.to(device, float_dtype if t.is_floating_point() else None), batch)


class Batches:
    """Consecutive batches, from the first sample at every `iter`.

    Parameters
    ----------
    pieces : callable
        Returns a new iterator of `Batch`.
    n_samples : int or None
        How many samples there are; None if only iterating can tell.
    y : array or tensor of shape (n_samples, ...) or None
        Labels that replace those of the data set.
    """

    def __init__(self, pieces: Callable[[], Iterator[Batch]], n_samples: int | None, y: Any):
        self.n_samples, self._seen = n_samples, n_samples
        self._pieces = pieces
        self._y = y
        # A stream has no positions to ask for. That it starts over and keeps its order can only be
        # observed, on the first batch and on the number of samples.
        self._head = next(pieces(), None) if n_samples is None else None
        if n_samples == 0 or (n_samples is None and self._head is None):
            raise ValueError("Found X with 0 sample(s) while a minimum of 1 is required.")
        if y is not None and n_samples not in (None, len(y)):
            _inconsistent([n_samples, len(y)])

    def __iter__(self) -> Iterator[Batch]:
        position, head, y = 0, self._head, self._y
        for batch in self._pieces():
            if head is not None and not _same(head, batch):
                break
            head, start, position = None, position, position + batch.size
            if y is not None:
                if position > len(y):
                    _inconsistent([position, len(y)])
                batch = batch._replace(labels=_tensor(y[start:position]))
            yield batch
        if head is not None:
            raise ValueError(
                "The 'X' parameter must give the same samples in the same order every time it is "
                "iterated over, but its first batch differs between two iterations."
            )
        if self._seen not in (None, position):
            _inconsistent([self._seen, position], ", expected of X and found by iterating.")
        if y is not None and position != len(y):
            _inconsistent([position, len(y)])
        self._seen = position

    def first(self, k: int) -> Batch:
        """Return the first at most k samples, for probing a model.

        Parameters
        ----------
        k : int
            How many. Fewer come back where there are no more, or where later batches are padded
            to another length.

        Returns
        -------
        batch : Batch
            The samples; iterations still start from the first.
        """
        parts: list[Batch] = []
        for batch in self:
            parts.append(batch)
            shapes = [{n: t.shape[1:] for n, t in _tensors(part).items()} for part in parts]
            if shapes[0] != shapes[-1]:
                parts.pop()
                break
            if sum(part.size for part in parts) >= k:
                break
        return _map(lambda *tensors: torch.cat(tensors)[:k], *parts)


def _same(batch: Batch, other: Batch) -> bool:
    mine, theirs = _tensors(batch), _tensors(other)
    # NaN, a missing value, is to equal itself here.
    return mine.keys() == theirs.keys() and all(
        torch.equal(mine[name].nan_to_num(), theirs[name].nan_to_num()) for name in mine
    )


def _array(value: Any, name: str) -> np.ndarray | Tensor:
    """Return a tensor as it is, and anything else as an array of numbers."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise TypeError(f"Sparse data was passed for {name}, but dense data is required.")
        return value.detach()
    try:
        array = np.asarray(value)
        if array.dtype == object:
            # Frames of mixed types and arrays of rows: lists let NumPy find the common type.
            array = np.asarray(array.tolist())
    except ValueError as error:
        raise ValueError(f"{name} holds rows of unequal length. {PAD}") from error
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{name} must hold numbers, got {array.dtype}. Text must be tokenized.")
    return array


def _tensor(array: np.ndarray | Tensor) -> Tensor:
    """Return a copy of a slice, for a model may work in place and the data is the user's."""
    if isinstance(array, Tensor):
        return array.clone()
    # A copy is free of negative strides and read-only memory; byte order is left to take care of.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


def _loaded(value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor | np.ndarray):
        array = _array(value, name)
        return array if isinstance(array, Tensor) else _tensor(array)
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


def _is_not_numeric(feature: Any) -> bool:
    """Tell whether a column of a Hugging Face data set is text, an image or the like."""
    while hasattr(feature, "feature"):
        feature = feature.feature
    return not str(getattr(feature, "dtype", "")).startswith(("int", "uint", "float", "bool"))


def _keys(
    entries: Mapping[str, Any], names: frozenset[str] | None, unusable: Callable[[Any], bool]
) -> tuple[list[str], list[str]]:
    """Return the keys of the inputs, and that of the labels if there are any.

    What a model names is its input whatever it holds. One that takes all keywords, as most of
    transformers, is not given text: tokenized data sets tend to keep it in another column.
    """
    inputs = [
        key
        for key, value in entries.items()
        if key not in LABELS and (key in names if names is not None else not unusable(value))
    ]
    if not inputs:
        accepted = "any" if names is None else sorted(names.difference(LABELS))
        raise ValueError(
            f"None of the keys {list(entries)} of X is an input of the model, "
            f"whose forward accepts {accepted}."
        )
    labels = [key for key in LABELS if key in entries][:1]
    return inputs, [key for key in labels if not unusable(entries[key])]


def _read(item: Any, names: frozenset[str] | None, convert: Callable) -> Batch:
    """Return what a user or a DataLoader gives as a batch."""
    *inputs, last = item if isinstance(item, list | tuple) and item else (item,)
    labels = None
    if not inputs:
        inputs = [last]
    elif not _is_text(last):
        labels = convert(last, "labels")
    if len(inputs) > 1 or not isinstance(inputs[0], Mapping):
        return _batch(tuple(convert(x, f"input {i}") for i, x in enumerate(inputs)), {}, labels)
    entries = inputs[0]
    keys, label = _keys(entries, names, _is_text)
    if labels is None and label:
        labels = convert(entries[label[0]], label[0])
    return _batch((), {key: convert(entries[key], key) for key in keys}, labels)


def _input_names(forward: Callable) -> frozenset[str] | None:
    """Return the keywords that forward accepts, None for all."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):  # compiled
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(
        p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    )


def _check_loader(loader: data.DataLoader) -> int | None:
    """Return the number of samples, and raise unless they are the data set in its order."""
    batches = loader.batch_sampler
    # Exact types: a subclass may do anything.
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
        f"data set, as with shuffle=False, so that positions identify samples, but {reason}."
    )


def _collate(samples: list, name: str = "X") -> Any:
    if isinstance(samples[0], Mapping):
        return {key: _collate([s[key] for s in samples], f"X[{key!r}]") for key in samples[0]}
    try:
        return data.default_collate(samples)
    except RuntimeError as error:
        raise ValueError(f"{name} holds samples of unequal shape. {PAD}") from error


def _own_loader(dataset: Any, batch_size: int) -> data.DataLoader:
    # With a generator of its own, iterating leaves torch's global random state alone.
    return data.DataLoader(dataset, batch_size, collate_fn=_collate, generator=torch.Generator())


def _with_tensors(X: Any, names: frozenset[str] | None) -> Any:
    """Let a Hugging Face data set give tensors, of the columns that are needed."""
    form = getattr(X, "format", None) or {}
    if form.get("type") == "custom":
        return X  # the columns come from the user's transform, which another format would replace
    if X.features is not None:
        columns = form.get("columns", X.column_names)
        inputs, label = _keys({c: X.features[c] for c in columns}, names, _is_not_numeric)
        X = X.select_columns(inputs + label)
    return X.with_format("torch")


def _sliced(whole: Batch, batch_size: int, y: Any) -> Batches:
    def piece(start: int) -> Batch:
        return _map(lambda array: _tensor(array[start : start + batch_size]), whole)

    return Batches(lambda: map(piece, range(0, whole.size, batch_size)), whole.size, y)


def open_batches(X: Any, y: Any, batch_size: int, forward: Callable) -> Batches:
    """Return the samples of X as batches of tensors for a model.

    Parameters
    ----------
    X : array-like, Tensor, mapping of these, Dataset, DataLoader or datasets.Dataset
        The samples, along first dimensions. Tuples from a torch data set are inputs and, at the
        end, labels; in mappings the keys of `LABELS` are labels and others are keyword inputs.
        A DataLoader keeps its own batch size and must not shuffle.
    y : array-like or Tensor of shape (n_samples, ...) or None
        Labels to use in place of those in X.
    batch_size : int
        Samples in a batch.
    forward : callable
        The model's ``forward``. Entries of mappings that it does not accept are left out.

    Returns
    -------
    batches : Batches
        To be iterated over as often as needed.

    Raises
    ------
    TypeError
        If X is nothing of the above or does not hold numbers.
    ValueError
        If X is empty, ragged or not in order, or lengths disagree. What only iterating can tell
        is raised then.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm._batches import open_batches
    >>> X = {"x": np.zeros((5, 2)), "id": np.arange(5), "label": np.arange(5) * 10}
    >>> for batch in open_batches(X, None, 2, lambda x: x):
    ...     print(batch.size, list(batch.kwargs), batch.labels.tolist())
    2 ['x'] [0, 10]
    2 ['x'] [20, 30]
    1 ['x'] [40]
    """
    names = _input_names(forward)
    if y is not None:
        y = _array(y, "y")
        _batch((), {"y": y}, None)
    if isinstance(X, Mapping):
        if any(isinstance(v, data.Dataset) or hasattr(v, "with_format") for v in X.values()):
            raise TypeError(f"The 'X' parameter holds the data sets {list(X)}: pass one of them.")
        return _sliced(_read(X, names, _array), batch_size, y)
    if isinstance(X, Tensor | list) or hasattr(X, "__array__"):
        return _sliced(_batch((_array(X, "X"),), {}, None), batch_size, y)
    if hasattr(X, "with_format") and hasattr(X, "column_names"):
        loader = _own_loader(_with_tensors(X, names), batch_size)
    elif isinstance(X, data.IterableDataset) or (
        isinstance(X, data.Dataset) and hasattr(X, "__len__")
    ):
        loader = _own_loader(X, batch_size)
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
    return Batches(lambda: (_read(item, names, _loaded) for item in loader), n_samples, y)
