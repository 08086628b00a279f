"""Use of a model by one thread at a time, with other tensors, which leaves the model as it was."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from sklearn_skmm.sketch._torch._shared import ProcessSetting, Use, exclusive_use

_without_cudnn = ProcessSetting(lambda: torch.backends.cudnn.flags(enabled=False))


@contextmanager
def original_state(model: torch.nn.Module) -> Iterator[Use]:
    """Keep other threads from using the model, which is in the state that its owner knows.

    This holds within another use by the same thread, too. For example, the forward method of a
    model may itself compute gradients of the model, while the model has other parameters and hooks.
    """
    with exclusive_use(model.modules()) as use:
        if not use.outer:
            yield use
            return
        current = _State(module for outer in use.outer for module in outer.modules)
        try:
            for outer in reversed(use.outer):
                if outer.restore is not None:
                    outer.restore()
            yield use
        finally:
            current.restore()


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Switch to evaluation mode and restore the mode of every submodule afterwards.

    After an error the submodules' parameters, buffers and hooks are restored, too. Other threads
    cannot use the model meanwhile. They wait for one batch at most, because the modes are restored
    after each batch.
    """
    with original_state(model) as use, ExitStack() as stack:
        before = _State(use.modules)
        use.restore = before.restore
        if torch.cuda.is_available() and any(isinstance(m, torch.nn.RNNBase) for m in use.modules):
            # cuDNN has no backward pass for recurrent layers in evaluation mode.
            stack.enter_context(_without_cudnn())
        try:
            try:
                # Do not call `eval`: some models override it to merge adapters into their weights.
                for module in use.modules:
                    module.training = False
                yield
            finally:
                before.restore_modes()
        except BaseException:  # may be Ctrl-C while the modes are restored
            before.restore()
            raise


class _State:
    """The modes, parameters, buffers and hooks of modules."""

    def __init__(self, modules: Iterable[torch.nn.Module]) -> None:
        self._modes = [(module, module.training) for module in modules]
        # torch replaces these entries during a call and restores them afterwards. If Ctrl-C
        # interrupted the restoring, the model would lose its parameters.
        self._entries = [
            (entries, dict(entries))
            for module, _ in self._modes
            for name in ("_parameters", "_buffers", "_forward_hooks", "_forward_hooks_with_kwargs")
            if isinstance(entries := getattr(module, name), dict)  # scripted modules have no dict
        ]

    def restore_modes(self) -> None:
        for module, mode in self._modes:
            module.training = mode

    def restore(self) -> None:
        self.restore_modes()
        for entries, before in self._entries:
            entries.clear()
            entries.update(before)


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
