"""Notice when a model reads values of tensors in Python, as in ``if x.sum() > 0``.

What follows from such a value is in no autograd graph, and in a batch of several samples the value
may come from all of them.
"""

import re
import sys
from collections.abc import Iterable, Iterator
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
    torch.Tensor.equal,
    torch.Tensor.is_nonzero,
    torch.Tensor.item,
    torch.Tensor.numpy,
    torch.Tensor.storage,
    torch.Tensor.tolist,
    torch.Tensor.untyped_storage,
    torch.allclose,
    torch.equal,
    torch.is_nonzero,
}
# Functions in which tensors can stand for numbers: in slices, as any argument of functions that
# make tensors, and as any but the first of functions that change their shape.
SLICING = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
MAKING, SHAPING = (
    {getattr(namespace, name) for namespace, names in found.items() for name in names.split()}
    for found in (
        {torch: "arange empty eye full linspace ones rand randn range zeros"},
        {
            torch: "chunk narrow reshape roll select split tile topk unflatten",
            torch.Tensor: """
                chunk expand narrow new_empty new_full new_ones new_zeros repeat reshape roll select
                split tile topk unflatten view
                """,
            torch.nn.functional: "interpolate one_hot pad",
        },
    )
)
WATCHED = READING | SLICING | MAKING | SHAPING

# Code whose reads are known not to change the outputs. It skips masks that exclude nothing, and
# loops over the experts that have tokens.
HARMLESS = re.compile(
    r"transformers\.masking_utils:.*"
    r"|transformers\.models\.\w+\.modeling_\w+:\w*Experts\.forward"
    r"|torch\.nn\.modules\.transformer:.*"
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
        if func in WATCHED and not self.found:
            read = _tensors_read(func, args, kwargs or {})
            if any(self._versions.get(id(t), -1) != _version(t) for t in read):
                self.found = not _is_harmless(sys._getframe(1))
        return func(*args, **(kwargs or {}))


def _version(tensor: torch.Tensor) -> int:
    """Return the number of changes of a tensor in place."""
    return 0 if tensor.is_inference() else tensor._version


def _tensors_read(func, args: tuple, kwargs: dict) -> Iterator[torch.Tensor]:
    """Yield the tensors whose values a function reads."""
    numbers: list[Any] = [*args[func in SHAPING :], *kwargs.values()]
    if func in SLICING:
        index = args[1] if isinstance(args[1], tuple) else args[1:2]
        slices = [part for part in index if isinstance(part, slice)]
        numbers = [(part.start, part.stop, part.step) for part in slices]
    for number in numbers:
        for part in number if isinstance(number, tuple | list) else (number,):
            if isinstance(part, torch.Tensor):
                yield part


def _is_harmless(frame) -> bool:
    while (module := frame.f_globals.get("__name__", "")) in BETWEEN:
        frame = frame.f_back
    return HARMLESS.fullmatch(f"{module}:{frame.f_code.co_qualname}") is not None
