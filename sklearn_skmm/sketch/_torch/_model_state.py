"""Evaluation mode that restores the state of the model afterwards."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

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
