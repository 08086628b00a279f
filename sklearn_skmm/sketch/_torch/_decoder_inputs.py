"""Decoder inputs of sequence-to-sequence models, and the positions of outputs that count."""

from collections.abc import Callable

import torch

from sklearn_skmm.sketch._torch._batches import Batch
from sklearn_skmm.sketch._torch._objective import IGNORED_LABEL

DECODER_INPUTS = frozenset({"decoder_input_ids", "decoder_inputs_embeds"})


def makes_decoder_inputs(model: torch.nn.Module) -> bool:
    """Return whether a model makes its decoder inputs from labels, as T5 and BART do."""
    return hasattr(model, "prepare_decoder_input_ids_from_labels")


def has_decoder_inputs(batch: Batch) -> bool:
    """Return whether the outputs of a batch are at the positions of a decoder."""
    return not DECODER_INPUTS.isdisjoint(batch.kwargs)


def with_decoder_inputs(model: torch.nn.Module, batch: Batch) -> Batch:
    """Return a batch with the decoder inputs that the model itself would make from the labels.

    Labels are never passed to the model, so it cannot make them in its forward pass.

    Raises
    ------
    ValueError
        If the model needs decoder inputs, and the batch has neither these nor labels of tokens.
    """
    if has_decoder_inputs(batch) or not makes_decoder_inputs(model):
        return batch
    labels = batch.labels
    if labels is None or labels.ndim != 2 or labels.is_floating_point():
        got = "no labels" if labels is None else f"labels of shape {tuple(labels.shape)}"
        raise ValueError(
            f"The 'model' parameter is a sequence-to-sequence model, {type(model).__name__}, which "
            "needs decoder inputs. Add to X a column 'labels' with integer tokens of shape "
            "(n_samples, n_tokens), from which they are made, or a column 'decoder_input_ids'. Got "
            f"{got} instead."
        )
    prepare: Callable = model.prepare_decoder_input_ids_from_labels  # type: ignore[assignment]
    tokens = prepare(labels=labels.long())
    return batch._replace(kwargs={**batch.kwargs, "decoder_input_ids": tokens})


def counted_positions(batch: Batch) -> torch.Tensor | None:
    """Return a mask of the positions that count in means over tokens; None if there is none."""
    if not has_decoder_inputs(batch):
        return batch.kwargs.get("attention_mask")
    # The attention mask belongs to the inputs of the encoder.
    labels = batch.labels
    if labels is not None and labels.ndim == 2 and not labels.is_floating_point():
        return labels.long() != IGNORED_LABEL
    return batch.kwargs.get("decoder_attention_mask")
