"""What a model's own loss does with labels of tokens: whether it shifts them.

Causal language models take labels equal to their inputs and compare the output at each position
with the label of the next one. Masked language models and token classifiers compare both at the
same position. Which of the two a model does is found by calling it with labels, and comparing its
loss with both.
"""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from sklearn_skmm.sketch._torch._batches import Batch, map_tensors
from sklearn_skmm.sketch._torch._datasets import input_names
from sklearn_skmm.sketch._torch._decoder_inputs import counted_positions, has_decoder_inputs
from sklearn_skmm.sketch._torch._objective import IGNORED_LABEL, Objective, output_of

# So many labels are all equal to the input tokens by intention only.
MANY = 8

CALLABLE = (
    "pass as 'loss' a callable that takes the outputs and the labels of one sample, such as "
    "torch.nn.functional.cross_entropy"
)


class LabelReading(NamedTuple):
    """How labels of tokens are read."""

    shifted: bool  # whether the output at a position is compared with the next label
    masked: bool  # whether labels of tokens that the attention mask excludes do not count

    def apply(self, labels, mask) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the labels at the positions of the outputs, and the mask of these positions."""
        if not self.shifted:
            return labels, mask if self.masked else None
        if self.masked and mask is not None:
            labels = labels.masked_fill(mask == 0, IGNORED_LABEL)
        return F.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL), None


AS_GIVEN = LabelReading(shifted=False, masked=True)
# In this order, each is compared with the own loss.
READINGS = {
    AS_GIVEN: AS_GIVEN,
    LabelReading(shifted=True, masked=False): LabelReading(shifted=True, masked=False),
    LabelReading(shifted=True, masked=True): LabelReading(shifted=True, masked=True),
    # Losses without a shift leave out what the mask excludes, whether or not the model's does.
    LabelReading(shifted=False, masked=False): AS_GIVEN,
}


class LabelReader:
    """Read labels of tokens as the own loss of the model does.

    Parameters
    ----------
    engine : Engine
        Engine whose model is called.
    """

    def __init__(self, engine: Any):
        self.engine = engine
        self._names = input_names(engine.model.forward)
        # None stands for a model without a loss of its own. One entry for batches with padding,
        # and one for those without, which cannot show what the loss does with padding.
        self._readings: dict[bool, LabelReading | None] = {}
        self._shifted_by_hand: bool | None = None  # None as long as no labels have shown it

    def read(self, batch: Batch, output: torch.Tensor) -> tuple:
        """Return the labels and the mask that the objective compares with the outputs of a batch.

        Parameters
        ----------
        batch : Batch
            Samples, on the device of the engine.
        output : Tensor
            The outputs of the model at these samples.
        """
        labels, mask, objective = batch.labels, counted_positions(batch), self.engine.objective
        if (
            objective.target != "label"
            or objective.loss != "cross_entropy"
            or labels is None
            or labels.is_floating_point()
            or output.ndim != 3
            or labels.shape != output.shape[:2]
        ):
            return labels, mask
        labels = labels.long()  # unsigned integers cannot be compared with -100
        batch = batch._replace(labels=labels)
        padded = torch.zeros(len(labels), dtype=torch.bool)
        if mask is not None and mask.shape == labels.shape and not has_decoder_inputs(batch):
            padded = (mask == 0).any(1)
        with_padding = bool(padded.any())
        if with_padding not in self._readings:
            i = int(padded.int().argmax())
            one = map_tensors(lambda t: t[i : i + 1], batch)
            self._readings[with_padding] = self._probe(one, output[i : i + 1].detach())
        reading = self._readings[with_padding]
        self._compare_with_tokens(batch, reading)
        if reading is None:
            reading = AS_GIVEN
        elif self._shifted_by_hand:
            reading = LabelReading(shifted=False, masked=False)
        return reading.apply(labels, mask)

    def _compare_with_tokens(self, batch: Batch, reading: LabelReading | None) -> None:
        """Find out from the input tokens whether labels were shifted before they were passed."""
        labels, tokens = batch.labels, _input_tokens(batch)
        if labels is None or tokens is None or reading == AS_GIVEN:
            return
        counted = labels != IGNORED_LABEL
        equal = bool((labels == tokens)[counted].all())
        if reading is None:
            # A masked language model has to predict few of the tokens that it sees.
            n_counted = int(counted.sum())
            if equal and (2 * n_counted > labels.numel() or n_counted >= MANY):
                raise ValueError(
                    "The labels are the input tokens, but the 'model' parameter has no loss of its "
                    "own that says whether a token is compared with itself or predicted from those "
                    "before it. Pass a model whose forward method takes labels and returns a loss, "
                    f"or shift the labels. To compare each token with itself, {CALLABLE}."
                )
            return
        ahead = bool((labels[:, :-1] == tokens[:, 1:])[counted[:, :-1]].all())
        if not counted[:, :-1].any() or (equal and ahead):
            return
        by_hand = ahead and not equal
        if self._shifted_by_hand not in (None, by_hand):
            raise ValueError(
                "Labels must be shifted for all samples or for none. Some are the next tokens of "
                "the input, and others are not."
            )
        if by_hand and self._shifted_by_hand is None:
            warnings.warn(
                "The labels are shifted by one position already, and are not shifted again. Pass "
                "them as the model takes them, which shifts its labels itself.",
                UserWarning,
                stacklevel=2,
            )
        self._shifted_by_hand = by_hand

    def _probe(self, one: Batch, output: torch.Tensor) -> LabelReading | None:
        """Compare the own loss of the model for one sample with the losses of the readings."""
        labels = self._probe_labels(output)
        result = self._result_with_labels(one, labels)
        loss, logits = _loss_and_outputs(result, output)
        if loss is None:
            return None
        if logits.shape != output.shape or not _close(logits.detach(), output, 1e-2):
            raise ValueError(
                "The outputs of the 'model' parameter change when it gets labels, which are never "
                "passed to it. Sequence-to-sequence models make their decoder inputs from labels: "
                "add a column 'decoder_input_ids' to X."
            )
        gradient = None
        if loss.requires_grad and logits.requires_grad:
            (gradient,) = torch.autograd.grad(loss, logits, allow_unused=True)
        objective, mask = Objective("cross_entropy", "label", 0), counted_positions(one)
        for reading, meant in READINGS.items():
            leaf = logits.detach().requires_grad_()
            read, kept = reading.apply(labels, mask)
            value = objective(
                leaf.to(self.engine.sketch_dtype), objective.targets(leaf, read, 0), kept
            )
            (expected,) = torch.autograd.grad(value.sum(), leaf)
            nothing_counts = not expected.any()
            if nothing_counts:  # torch's mean over no tokens
                value = torch.full_like(value, torch.nan)
            same_value = _close(loss.detach().reshape(1), value.detach())
            if same_value and (gradient is None or nothing_counts or _close(gradient, expected)):
                return meant
        raise ValueError(
            "The meaning of labels for the 'model' parameter is not known: its own loss is the "
            "cross entropy neither with the label at each position nor with the next one (as in "
            f"causal language models). For the first, {CALLABLE}."
        )

    def _probe_labels(self, output):
        """Return random labels for one sample, of which one is ignored and one is padding."""
        n_tokens, n_classes = output.shape[1:]
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(n_classes, (1, n_tokens), generator=generator)
        padding = getattr(getattr(self.engine.model, "config", None), "pad_token_id", None)
        if n_tokens > 3 and isinstance(padding, int) and 0 <= padding < n_classes:
            labels[0, -2] = padding
        if n_tokens > 2:
            labels[0, 1] = IGNORED_LABEL
        return labels.to(output.device)

    def _result_with_labels(self, one: Batch, labels: torch.Tensor) -> Any:
        """Return what the model returns if it gets labels, or None if it takes none."""
        engine = self.engine
        if self._names is not None and "labels" not in self._names:
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # EncoderDecoderModel warns of its own loss
                kwargs = {**one.kwargs, "labels": labels}
                return engine.run_model(engine.chosen, one.args, kwargs)
        except Exception as error:
            # Wrappers that pass on any keyword may wrap a model that takes no labels.
            if isinstance(error, TypeError) and self._names is None:
                return None
            raise ValueError(
                "The meaning of labels for the 'model' parameter is not known: it takes an "
                "argument labels, and fails if labels for each token are passed to it. To compare "
                f"outputs and labels at the same positions, {CALLABLE}."
            ) from error


def _loss_and_outputs(result: Any, output: torch.Tensor) -> tuple[torch.Tensor | None, Any]:
    """Return the loss in what a model returns, None if there is none, and the outputs.

    The given outputs are returned if the model returns nothing but a loss.
    """
    if isinstance(result, torch.Tensor):
        result = (result,)
    if isinstance(result, tuple | list):
        losses = [part for part in result if _is_scalar(part)]
        result = tuple(part for part in result if not _is_scalar(part)) or output
        return (losses[0] if losses else None), output_of(result)
    loss = result.get("loss") if isinstance(result, Mapping) else getattr(result, "loss", None)
    if not isinstance(loss, torch.Tensor):
        return None, output
    return (loss.reshape(()) if loss.numel() == 1 else loss.mean()), output_of(result)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim == 0 and value.is_floating_point()


def _input_tokens(batch: Batch) -> torch.Tensor | None:
    """Return the input tokens of a batch that stand at the positions of its labels, if any."""
    tokens, labels = batch.kwargs.get("input_ids", *batch.args[:1]), batch.labels
    if tokens is None or tokens.is_floating_point() or has_decoder_inputs(batch):
        return None
    return tokens if labels is not None and tokens.shape == labels.shape else None


def _close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> bool:
    """Return whether two computations of the same numbers agree up to rounding."""
    eps = max(torch.finfo(t.dtype).eps for t in (found, expected))
    found, expected = found.double().nan_to_num(1e9), expected.double().nan_to_num(1e9)
    return bool((found - expected).norm() <= max(tolerance, 8 * eps) * expected.norm())
