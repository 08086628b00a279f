"""The model's own state, which is put back after use."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Switch to evaluation mode and put every submodule's mode back afterwards.

    After an error the submodules' parameters, buffers and hooks are put back, too.
    """
    modes = [(module, module.training) for module in model.modules()]
    # torch has others in the place of these during a call. It puts them back, but not if Ctrl-C
    # comes while it is at that: the model would have lost its parameters.
    own = [
        (entries, dict(entries))
        for module, _ in modes
        for name in ("_parameters", "_buffers", "_forward_hooks", "_forward_hooks_with_kwargs")
        if isinstance(entries := getattr(module, name), dict)  # scripts have no dict
    ]
    with ExitStack() as stack:
        if torch.cuda.is_available() and any(isinstance(m, torch.nn.RNNBase) for m, _ in modes):
            # cuDNN has no backward pass of these in evaluation mode.
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        try:
            try:
                # Not by `eval`, which models override: some merge adapters into their weights
                # there.
                for module, _ in modes:
                    module.training = False
                yield
            finally:
                _set_modes(modes)
        except BaseException:  # which may be Ctrl-C on the way back
            _set_modes(modes)
            for entries, before in own:
                entries.clear()
                entries.update(before)
            raise


def _set_modes(modes) -> None:
    for module, mode in modes:
        module.training = mode
