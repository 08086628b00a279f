"""Batches of consecutive samples as tensors, and iteration over all of them.

Only `_datasets` knows the kinds of data sets. All other modules see `Batch` only.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor


class Batch(NamedTuple):
    """Consecutive samples, to be passed to a model as ``model(*args, **kwargs)``.

    Attributes
    ----------
    args : tuple of Tensor of shape (size, ...)
        Positional inputs.
    kwargs : dict of str to Tensor of shape (size, ...)
        Keyword inputs.
    labels : Tensor of shape (size, ...) or None
        Labels, or None if there are none.
    size : int
        Number of samples.
    """

    args: tuple[Tensor, ...]
    kwargs: dict[str, Tensor]
    labels: Tensor | None
    size: int


def _named_tensors(batch: Batch) -> dict[str, Tensor]:
    named = {f"input {i}": tensor for i, tensor in enumerate(batch.args)} | batch.kwargs
    return named if batch.labels is None else {**named, "labels": batch.labels}


def _raise_inconsistent_lengths(lengths: list, remark: str = "") -> NoReturn:
    raise ValueError(
        f"Found input variables with inconsistent numbers of samples: {lengths}{remark}"
    )


def make_batch(args: tuple, kwargs: dict, labels: Any) -> Batch:
    """Return a batch, checking that all tensors have the same number of samples."""
    batch = Batch(args, kwargs, labels, 0)
    sizes = {}
    for name, tensor in _named_tensors(batch).items():
        if tensor.ndim == 0:
            raise ValueError(
                f"The first dimension of inputs must be the samples, but {name} is a scalar."
            )
        sizes[name] = tensor.shape[0]
    if len(set(sizes.values())) > 1:
        _raise_inconsistent_lengths(list(sizes.values()), f" in {list(sizes)}.")
    return batch._replace(size=next(iter(sizes.values())))


def map_tensors(function: Callable, *batches: Batch) -> Batch:
    """Return a batch of function values, computed from the corresponding tensors of batches."""
    labels = [batch.labels for batch in batches]
    return make_batch(
        tuple(function(*tensors) for tensors in zip(*(b.args for b in batches), strict=True)),
        {name: function(*(b.kwargs[name] for b in batches)) for name in batches[0].kwargs},
        None if labels[0] is None else function(*labels),
    )


def to_device(batch: Batch, device: Any, float_dtype: torch.dtype | None) -> Batch:
    """Return a batch on a device, with only floating tensors cast (not tokens and masks).

    Parameters
    ----------
    batch : Batch
        Batch to move, which is not modified.
    device : torch.device or str
        Target device.
    float_dtype : torch.dtype or None
        Target dtype of floating tensors; None keeps their dtype.

    Returns
    -------
    batch : Batch
        The moved batch.
    """
    return map_tensors(
        lambda t: t.to(device, float_dtype if t.is_floating_point() else None), batch
    )


class Batches:
    """Iterable of consecutive batches; every iteration starts at the first sample.

    Parameters
    ----------
    make_iterator : callable
        Returns a new iterator of `Batch`.
    n_samples : int or None
        Number of samples; None if it is only known after iterating.
    y : array or tensor of shape (n_samples, ...) or None
        Labels that replace those of the data set.
    """

    def __init__(self, make_iterator: Callable[[], Iterator[Batch]], n_samples: int | None, y: Any):
        self.n_samples, self._n_seen = n_samples, n_samples
        self._make_iterator = make_iterator
        self._y = y
        # A stream has no indices. Whether it restarts and keeps its order can only be checked by
        # comparing the first batch and the number of samples between iterations.
        self._first_batch = next(make_iterator(), None) if n_samples is None else None
        if n_samples == 0 or (n_samples is None and self._first_batch is None):
            raise ValueError("Found X with 0 sample(s) while a minimum of 1 is required.")
        if y is not None and n_samples not in (None, len(y)):
            _raise_inconsistent_lengths([n_samples, len(y)])

    def __iter__(self) -> Iterator[Batch]:
        position, expected_first, y = 0, self._first_batch, self._y
        for batch in self._make_iterator():
            if expected_first is not None and not _same_tensors(expected_first, batch):
                break
            expected_first, start, position = None, position, position + batch.size
            if y is not None:
                if position > len(y):
                    _raise_inconsistent_lengths([position, len(y)])
                batch = batch._replace(labels=copy_to_tensor(y[start:position]))
            yield batch
        if expected_first is not None:
            raise ValueError(
                "The 'X' parameter must give the same samples in the same order every time it is "
                "iterated over, but its first batch differs between two iterations."
            )
        if self._n_seen not in (None, position):
            _raise_inconsistent_lengths(
                [self._n_seen, position], ", expected from X and found by iterating."
            )
        if y is not None and position != len(y):
            _raise_inconsistent_lengths([position, len(y)])
        self._n_seen = position

    def first(self, k: int) -> Batch:
        """Return up to k samples from the start, to try out a model.

        Parameters
        ----------
        k : int
            Number of samples. Fewer are returned if there are no more, or if later batches are
            padded to another length.

        Returns
        -------
        batch : Batch
            The samples. Later iterations still start at the first sample.
        """
        parts: list[Batch] = []
        for batch in self:
            parts.append(batch)
            shapes = [{n: t.shape[1:] for n, t in _named_tensors(part).items()} for part in parts]
            if shapes[0] != shapes[-1]:
                parts.pop()
                break
            if sum(part.size for part in parts) >= k:
                break
        return map_tensors(lambda *tensors: torch.cat(tensors)[:k], *parts)


def _same_tensors(batch: Batch, other: Batch) -> bool:
    mine, theirs = _named_tensors(batch), _named_tensors(other)
    # A missing value (NaN) must equal itself here.
    return mine.keys() == theirs.keys() and all(
        torch.equal(mine[name].nan_to_num(), theirs[name].nan_to_num()) for name in mine
    )


def copy_to_tensor(array: np.ndarray | Tensor) -> Tensor:
    """Return a copy as a tensor, because a model may modify its inputs in place."""
    if isinstance(array, Tensor):
        return array.clone()
    # The copy removes negative strides and read-only memory. The dtype fixes the byte order.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
