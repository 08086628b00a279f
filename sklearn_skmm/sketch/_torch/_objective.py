"""The objective to differentiate: a scalar for each sample, computed from the outputs."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

# Number of samples whose random numbers come from one stream.
SAMPLES_PER_STREAM = 4096
# Labels with this value are ignored, as in torch's cross entropy.
IGNORED_LABEL = -100

NO_LABELS = (
    "GradientSketcher with target='label' requires y to be passed, but the target y is None and X "
    "contains no labels. Pass y, or use target='output', which needs no labels."
)


def output_of(result: Any) -> torch.Tensor:
    """Return the tensor of outputs contained in the return value of a model."""
    for name in ("logits", "last_hidden_state"):  # transformers
        found = getattr(result, name, None)
        if found is None and isinstance(result, Mapping):
            found = result.get(name)
        if isinstance(found, torch.Tensor):
            return found
    if isinstance(result, tuple | list) and result:
        result = result[0]
    if not isinstance(result, torch.Tensor):
        raise TypeError(
            "The 'model' parameter must return a tensor, a tuple that starts with one, or an "
            f"object with logits. Got {type(result).__name__} instead."
        )
    return result


def uniform_draws(seed: int, start: int, size: int, n_positions: int) -> np.ndarray:
    """Return draws from U(0, 1), of shape (size, n_positions), for samples from start on.

    They come from counter-based streams, so they depend neither on the batch nor on the order.

    Examples
    --------
    >>> bool((uniform_draws(0, 3, 2, 1) == uniform_draws(0, 0, 5, 1)[3:]).all())
    True
    """

    def stream(k, n):
        return np.random.Generator(np.random.Philox(key=[seed, k])).random(n)

    if n_positions > 1:  # one stream per sample, as the number of tokens may differ
        return np.stack([stream(i, n_positions) for i in range(start, start + size)])
    first, last = start // SAMPLES_PER_STREAM, (start + size - 1) // SAMPLES_PER_STREAM
    draws = np.concatenate([stream(k, SAMPLES_PER_STREAM) for k in range(first, last + 1)])
    return draws[start - first * SAMPLES_PER_STREAM :][:size, None]


class Objective:
    r"""Compute a scalar for each sample, whose gradient is the sample's row of G.

    Parameters
    ----------
    loss : {"cross_entropy", "squared_error"} or callable
        A callable takes the output and target of one sample and returns a scalar.
    target : {"label", "predicted", "sampled", "random", "output"}
        Target of the loss. With ``"output"`` no loss is used: for K outputs per sample the scalar
        is :math:`z^\top f / \sqrt{K}`, with the same vector z of random signs for all samples. For
        K = 1 it is the output itself.
    seed : int
        Seed of the signs and of randomly drawn labels.
    """

    def __init__(self, loss: str | Callable, target: str, seed: int):
        self.loss, self.target, self.seed = loss, target, seed

    def targets(self, output, labels, start) -> torch.Tensor | None:
        """Return the validated targets of the loss for a batch of outputs.

        Parameters
        ----------
        output : Tensor of shape (B,), (B, K), (B, T, K) or (B, K, ...)
            Outputs of the model: for tokens with three dimensions, for pixels with four or more.
        labels : Tensor or None
            Labels, required for target "label".
        start : int
            Position of the first sample, which determines its random numbers.
        """
        if self.target == "output":
            return None
        if self.target == "label" and labels is None:
            raise ValueError(NO_LABELS)
        if callable(self.loss):
            return labels
        if self.loss == "squared_error":
            if labels.numel() != output.numel():
                raise ValueError(
                    f"y has targets of shape {tuple(labels.shape)} for outputs of shape "
                    f"{tuple(output.shape)}. Both must have the same number of entries."
                )
            return labels
        output = _classes_last(output, labels)
        n_classes = output.shape[-1]
        if n_classes == 1:
            raise ValueError(
                "loss='cross_entropy' needs a model with an output for each class. Got one output "
                "per sample. Use loss='squared_error' or a callable instead."
            )
        if self.target == "predicted":
            return output.argmax(-1)
        if self.target in ("sampled", "random"):
            draws = torch.as_tensor(uniform_draws(self.seed, start, *output.shape[:2]))
            if self.target == "random":
                return (draws * n_classes).long().to(output.device)
            p = output.double().softmax(-1).cumsum(-1)
            return (p < draws.to(output.device)[..., None]).sum(-1).clamp(max=n_classes - 1)
        if labels.is_floating_point():
            raise ValueError(
                "y must contain integer class positions for loss='cross_entropy'. Got dtype "
                f"{str(labels.dtype).removeprefix('torch.')} instead."
            )
        labels = labels.reshape(len(output), -1).long()
        if labels.shape[1] != output.shape[1]:
            raise ValueError(
                f"y has {labels.shape[1]} labels for each sample, but the model has outputs at "
                f"{output.shape[1]} positions."
            )
        known = labels[labels != IGNORED_LABEL]
        if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < n_classes:
            raise ValueError(
                f"y must contain class positions from 0 to {n_classes - 1}, one for each output of "
                f"the model. Got values from {int(known.min())} to {int(known.max())} instead."
            )
        return labels

    def __call__(self, output, targets, mask=None) -> torch.Tensor:
        """Return the scalars of a batch, of shape (B,).

        Parameters
        ----------
        output : Tensor
            Outputs of the model.
        targets : Tensor or None
            From `targets`.
        mask : Tensor of shape (B, T) or None
            Tokens to include.
        """
        if self.target == "output":
            return _masked_mean(self._random_combination(_classes_last(output, None)), mask)
        if callable(self.loss):
            return self._values_of_callable(output, targets)
        if self.loss == "squared_error":
            squares = (output - targets.reshape(output.shape)).square()
            return _masked_mean(_classes_last(squares, None).sum(-1), mask)
        output = _classes_last(output, targets)
        values = F.cross_entropy(
            output.flatten(0, 1), targets.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
        ).reshape(targets.shape)
        kept = targets != IGNORED_LABEL
        if mask is not None and mask.shape == kept.shape:
            kept = kept & mask.bool()
        return _masked_mean(values, kept)

    def _random_combination(self, output):
        n_outputs = output.shape[-1]
        if n_outputs == 1:
            return output[..., 0]
        stream = np.random.Generator(np.random.Philox(key=[self.seed, 0]))
        z = 2 * stream.integers(2, size=n_outputs) - 1
        return output @ torch.as_tensor(z / np.sqrt(n_outputs)).to(output)

    def _values_of_callable(self, output, labels):
        values = []
        for i in range(len(output)):
            value = self.loss(output[i], labels[i])
            if not isinstance(value, torch.Tensor) or value.numel() != 1:
                got = tuple(value.shape) if isinstance(value, torch.Tensor) else repr(value)
                raise ValueError(
                    "The 'loss' parameter must return one value per sample. "
                    f"Got shape {got} instead."
                )
            values.append(value.reshape(()))
        return torch.stack(values)


def _classes_last(output, labels):
    """Return outputs reshaped to (B, T, K), with T = 1 if they have up to two dimensions."""
    if output.ndim <= 2:
        return output.reshape(len(output), 1, -1)
    if output.ndim == 3:
        # (B, T, K) as in language models, unless the labels only fit torch's (B, K, T).
        fits = labels is None or labels.ndim != 2 or labels.shape[1] != output.shape[2]
        if fits or labels.shape[1] == output.shape[1]:
            return output
    return output.flatten(2).transpose(1, 2)


def _masked_mean(values, mask):
    """Return the mean over positions, only over those in the mask if its shape fits."""
    if mask is None or mask.shape != values.shape:
        return values.mean(1)
    mask = mask.to(values)
    return (values * mask).sum(1) / mask.sum(1).clamp(min=1)
