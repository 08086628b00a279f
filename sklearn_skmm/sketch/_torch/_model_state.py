"""Evaluation mode and other tensors for a model, whose own state is restored afterwards."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Switch to evaluation mode and restore the mode of every submodule afterwards.

    After an error the submodules' parameters, buffers and hooks are restored, too.
    """
    modes = [(module, module.training) for module in model.modules()]
    # torch replaces these entries during a call and restores them afterwards. If Ctrl-C interrupted
    # the restoring, the model would lose its parameters.
    saved = [
        (entries, dict(entries))
        for module, _ in modes
        for name in ("_parameters", "_buffers", "_forward_hooks", "_forward_hooks_with_kwargs")
        if isinstance(entries := getattr(module, name), dict)  # scripted modules have no dict
    ]
    with ExitStack() as stack:
        if torch.cuda.is_available() and any(isinstance(m, torch.nn.RNNBase) for m, _ in modes):
            # cuDNN has no backward pass for recurrent layers in evaluation mode.
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        try:
            try:
                # Do not call `eval`: some models override it to merge adapters into their weights.
                for module, _ in modes:
                    module.training = False
                yield
            finally:
                _set_modes(modes)
        except BaseException:  # may be Ctrl-C while the modes are restored
            _set_modes(modes)
            for entries, before in saved:
                entries.clear()
                entries.update(before)
            raise


def _set_modes(modes) -> None:
    for module, mode in modes:
        module.training = mode


class TensorSlots:
    """The places of a model's parameters and buffers, which can hold other tensors for a while.

    Unlike in `torch.func.functional_call`, these can stay there during the backward pass, in which
    activation checkpoints compute a part of the model again.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    """

    def __init__(self, model: torch.nn.Module):
        named = [*model.named_parameters(), *model.named_buffers()]
        # Tied weights have the first of their names.
        names = {id(tensor): name for name, tensor in reversed(named)}
        self._slots: list[tuple[str, Any, str]] = [
            (names[id(tensor)], entries, local)
            for module in model.modules()
            for entries in (module._parameters, module._buffers)
            for local, tensor in entries.items()
            if tensor is not None
        ]

    @contextmanager
    def hold(self, tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Hold these tensors, one for each name, and the model's own again afterwards."""
        own = [entries[local] for _, entries, local in self._slots]
        try:
            for name, entries, local in self._slots:
                entries[local] = tensors[name]
            yield
        finally:
            for (_, entries, local), tensor in zip(self._slots, own, strict=True):
                entries[local] = tensor
