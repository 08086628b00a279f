"""Notice when a model reads values of tensors in Python, as in ``if x.sum() > 0``.

What follows from such a value is in no autograd graph, and in a batch of several samples the value
may come from all of them.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# Functions that return the values of tensors to Python.
READING = {
    torch.Tensor.__array__,
    torch.Tensor.__bool__,
    torch.Tensor.__complex__,
    torch.Tensor.__contains__,
    torch.Tensor.__cuda_array_interface__.__get__,
    torch.Tensor.__dlpack__,
    torch.Tensor.__float__,
    torch.Tensor.__format__,
    torch.Tensor.__index__,
    torch.Tensor.__int__,
    torch.Tensor.__repr__,
    torch.Tensor.allclose,
    torch.Tensor.apply_,
    torch.Tensor.data_ptr,
    torch.Tensor.equal,
    torch.Tensor.is_nonzero,
    torch.Tensor.item,
    torch.Tensor.map_,
    torch.Tensor.numpy,
    torch.Tensor.storage,
    torch.Tensor.tolist,
    torch.Tensor.untyped_storage,
    torch.allclose,
    torch.equal,
    torch.is_nonzero,
}
INDEXING = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
# Functions that return tensors whose shape depends on values, and those that may keep this shape.
SELECTING, KEEPING = (
    {
        getattr(namespace, name)
        for namespace in (torch, torch.Tensor)
        for name in names.split()
        if hasattr(namespace, name)
    }
    for names in (
        """
        argwhere bincount masked_select nonzero repeat_interleave unique unique_consecutive where
        """,
        "clone contiguous detach flatten reshape squeeze t to long unsqueeze view",
    )
)
# Functions that return the shape of a tensor to Python.
MEASURING = {
    torch.Tensor.__iter__,
    torch.Tensor.__len__,
    torch.Tensor.nelement,
    torch.Tensor.numel,
    torch.Tensor.shape.__get__,  # type: ignore[attr-defined]
    torch.Tensor.size,
    torch.Tensor.unbind,
    torch.numel,
    torch.unbind,
}

# Code whose reads are known not to change the outputs. It skips masks that exclude nothing, and
# loops over the experts that have tokens.
HARMLESS = re.compile(
    r"transformers\.masking_utils:.*"
    r"|transformers\.models\.\w+\.modeling_\w+:\w*Experts\.forward"
    r"|torch\.nn\.modules\.transformer:_detect_is_causal_mask"
)
# Parts of torch between the code that reads and the mode.
BETWEEN = ("torch._tensor", "torch.overrides")


class ValueReads(TorchFunctionMode):
    """Notice whether values that may depend on the samples are read in Python.

    Parameters
    ----------
    constants : iterable of Tensor
        Parameters and buffers of the model, which may be read as long as nothing changes them.

    Attributes
    ----------
    found : bool
        Whether such values were read since the context was entered.
    """

    def __init__(self, constants: Iterable[torch.Tensor]):
        super().__init__()
        self._versions = {id(t): _version(t) for t in constants}
        self.found = False

    def __enter__(self):
        """Begin to watch."""
        self.found = False
        return super().__enter__()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call a function of torch, and remember whether it reads values."""
        kwargs = kwargs or {}
        if self.found:
            return func(*args, **kwargs)
        for tensor in _tensors_read(func, args, kwargs):
            if self._may_vary(tensor) and not _is_harmless(sys._getframe(1)):
                self.found = True
        result = func(*args, **kwargs)
        if func in SELECTING or func in INDEXING or func in KEEPING:
            self._mark(func, args, kwargs, result)
        return result

    def _may_vary(self, tensor) -> bool:
        return self._versions.get(id(tensor), -1) != _version(tensor)

    def _mark(self, func, args, kwargs, result) -> None:
        """Mark results whose shape depends on values."""
        given = (*args, *kwargs.values())
        if func is torch.Tensor.__getitem__:
            index = args[1] if isinstance(args[1], tuple) else args[1:]
            marked = any(_is_mask(part) or _is_marked(part) for part in (args[0], *index))
        elif func in KEEPING:
            marked = _is_marked(args[0]) if args else False
        elif func in (torch.where, torch.Tensor.where):
            marked = len(given) == 1
        else:
            if func in (torch.repeat_interleave, torch.Tensor.repeat_interleave):
                given = given[1:] or given  # the numbers of repeats
            marked = any(isinstance(part, torch.Tensor) and self._may_vary(part) for part in given)
        if marked:
            for part in result if isinstance(result, tuple) else (result,):
                if isinstance(part, torch.Tensor):
                    part._shape_from_values = True  # type: ignore[attr-defined]


def _version(tensor: torch.Tensor) -> int:
    """Return the number of changes of a tensor in place."""
    return 0 if tensor.is_inference() else tensor._version


def _is_mask(part) -> bool:
    return isinstance(part, torch.Tensor) and part.dtype in (torch.bool, torch.uint8)


def _is_marked(part) -> bool:
    return isinstance(part, torch.Tensor) and hasattr(part, "_shape_from_values")


def _tensors_read(func, args: tuple, kwargs: dict) -> Iterator[torch.Tensor]:
    """Yield the tensors whose values, or shapes that come from values, a function reads."""
    numbers: Iterable[Any] = ()
    if func in READING:
        numbers = (*args, *kwargs.values())
    elif func in MEASURING:
        numbers = args[:1] if args and _is_marked(args[0]) else ()
    elif func in INDEXING:
        index = args[1] if isinstance(args[1], tuple) else args[1:2]
        numbers = [
            number
            for part in index
            for number in (
                (part.start, part.stop, part.step) if isinstance(part, slice) else [part]
            )
            if isinstance(number, torch.Tensor) and number.ndim == 0
        ]
    elif func is torch.nn.functional.one_hot and len(args) + len(kwargs) == 1:
        numbers = (*args, *kwargs.values())
    else:
        places, names, rest = _places_of_numbers(func)
        numbers = [args[place] for place in places if place < len(args)]
        if rest is not None:
            numbers += args[rest:]
        if kwargs:
            numbers += [value for name, value in kwargs.items() if name in names]
    for number in numbers:
        for part in number if isinstance(number, tuple | list) else (number,):
            if isinstance(part, torch.Tensor):
                yield part


@lru_cache(maxsize=4096)
def _places_of_numbers(func) -> tuple[tuple[int, ...], frozenset[str], int | None]:
    """Return the arguments of a function that are numbers, of which tensors are read.

    Returns
    -------
    places : tuple of int
        Their places.
    names : frozenset of str
        Their names.
    rest : int or None
        The first of any number of arguments that are numbers, such as the sizes of a shape.
    """
    name = getattr(func, "__name__", "_")
    found: dict[bool, set] = {True: set(), False: set()}
    lists = set()
    if not name.startswith("_"):
        for schema in torch._C._jit_get_schemas_for_operator(f"aten::{name}"):
            for place, argument in enumerate(schema.arguments):
                kind = str(argument.type)
                found["Tensor" in kind] |= {argument.name} | (
                    set() if argument.kwarg_only else {place}
                )
                if kind == "List[int]" and not argument.kwarg_only:
                    lists.add(place)
    numbers = found[False] - found[True]
    if func is torch.nn.functional.interpolate:
        numbers |= {1, 2, "size", "scale_factor"}
    rest = min(lists & numbers, default=None)
    places = {n for n in numbers if isinstance(n, int) and (rest is None or n < rest)}
    return tuple(places), frozenset(n for n in numbers if isinstance(n, str)), rest


def _is_harmless(frame) -> bool:
    while (module := frame.f_globals.get("__name__", "")) in BETWEEN:
        frame = frame.f_back
    return HARMLESS.fullmatch(f"{module}:{frame.f_code.co_qualname}") is not None
