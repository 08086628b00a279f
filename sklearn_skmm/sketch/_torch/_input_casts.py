"""Casts of integer and Boolean inputs for models that do not accept them."""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import torch

# Inputs of which every combination is tried; of more, each alone and all together.
MAX_COMBINED = 4


class InputCasts:
    """Find out which integer or Boolean inputs a model accepts in another dtype only.

    Images are often stored as uint8 and counts as int64, which most layers refuse. Tokens and
    masks have to stay as they are. So inputs are cast only if the model fails otherwise, and as
    few of them as it takes. This is decided in the first call.

    Parameters
    ----------
    dtype : torch.dtype
        Floating precision of the inputs of the model.
    """

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        self.casts: dict[int | str, torch.dtype] | None = None  # None is undecided

    def call(self, function: Callable, args: tuple, kwargs: dict) -> Any:
        """Return ``function(*args, **kwargs)`` of copies of the inputs, cast where needed."""
        if self.casts is not None:
            return _call_with_copies(function, args, kwargs, self.casts)
        integers: dict[int | str, torch.Tensor] = {
            name: tensor
            for name, tensor in [*enumerate(args), *kwargs.items()]
            if not (tensor.is_floating_point() or tensor.is_complex())
        }
        last: BaseException | None = None
        for casts in self._candidates(integers):
            try:
                result = _call_with_copies(function, args, kwargs, casts)
            except Exception as error:
                if last is None and not (integers and _is_about_dtypes(error)):
                    raise
                last = error
            else:
                self.casts = casts
                return result
        dtypes = {
            f"input {name}" if isinstance(name, int) else name: _name(tensor.dtype)
            for name, tensor in integers.items()
        }
        raise TypeError(
            f"The 'model' parameter accepts its inputs neither in their dtypes, {dtypes}, nor cast "
            f"to {_name(self.dtype)}. Cast X to the dtypes that the model takes. With the last "
            f"cast, it raised {type(last).__name__}: {last}"
        ) from last

    def _candidates(self, integers) -> Iterator[dict]:
        """Yield casts to try, those that change less first."""
        narrow = {
            name: torch.int64
            for name, tensor in integers.items()
            if tensor.dtype not in (torch.bool, torch.int32, torch.int64)
        }
        yield {}
        if narrow:  # tokens that are stored in less memory
            yield narrow
        n = len(integers)
        for size in range(1, n + 1):
            if n <= MAX_COMBINED or size in (1, n):
                for names in combinations(integers, size):
                    floating = dict.fromkeys(names, self.dtype)
                    yield floating
                    if narrow.keys() - names:
                        yield narrow | floating


def _call_with_copies(function, args, kwargs, casts):
    # Copies, because models may change their inputs in place and are called more than once.
    # Contiguous, so that rounding depends only on the values, not on the memory layout.
    def copy(name, tensor):
        if name in casts:
            tensor = tensor.to(casts[name])
        return tensor.clone(memory_format=torch.contiguous_format)

    args = tuple(copy(i, a) for i, a in enumerate(args))
    return function(args, {name: copy(name, a) for name, a in kwargs.items()})


def _is_about_dtypes(error: Exception) -> bool:
    """Return whether an error may mean that an input has another dtype than a layer accepts."""
    if not isinstance(error, RuntimeError | ValueError):
        return False
    return "type" in str(error) or "not implemented for" in str(error)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
