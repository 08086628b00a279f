"""Check that the output for each sample depends on this sample only.

Outputs that differ by more than rounding are refused. If they differ by more than is usual for
rounding, but could be rounded so in a model that computes parts in half precision, the batch is
sketched one sample at a time.

Where the autograd graph has nothing that acts along the samples, a few samples are run alone for
each new size of batches and each new graph. Elsewhere every batch is run again in two halves, or
all of its samples alone if their gradients are computed one by one in any case.

A model that reads values of tensors in Python may take another way for each batch. Its gradients
may then depend on the batch even where its outputs do not. So each sample is run alone, and the
batch is sketched one sample at a time.
"""

import torch
from torch.linalg import vector_norm

from sklearn_skmm.sketch._torch._autograd_check import equal_up_to_rounding
from sklearn_skmm.sketch._torch._batches import Batch, map_tensors

# Relative differences of outputs that are certainly rounding, if in units of the precision.
SURELY_ROUNDING = 1000
# At most this many samples of a batch are run alone, and one in eight.
SAMPLES_ALONE = 8


class OneByOne(Exception):
    """Raised to have a batch sketched one sample at a time."""


def check_first_samples(engine, batch: Batch, output) -> None:
    """Raise if the output for one of the first samples depends on the others, or on chance."""
    batch_normalised = [
        name
        for name, module in engine.model.named_modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_mean is None
    ]
    if batch_normalised:
        raise ValueError(
            "The 'model' parameter must treat each sample independently, but these layers "
            f"normalise over the batch even in evaluation mode: {batch_normalised}. Use "
            "track_running_stats=True, or a layer that normalises each sample."
        )
    check_first_dimension(output, batch.size)
    for i in range(batch.size):
        alone = outputs_of(engine, batch, slice(i, i + 1))
        check_outputs(output[i : i + 1], alone, output, torch.finfo(output.dtype).eps)


def check_first_dimension(output, size: int) -> None:
    """Raise if the first dimension of the outputs is not the samples."""
    if output.ndim == 0 or len(output) != size:
        raise ValueError(
            "The 'model' parameter must return outputs whose first dimension is the samples. Got "
            f"shape {tuple(output.shape)} for {size} samples instead."
        )


def check_halves(engine, batch: Batch, output) -> None:
    """Raise if outputs are others when every other sample is left out."""
    for i in range(2):
        part = slice(i, None, 2)
        check_outputs(output[part], outputs_of(engine, batch, part), output)


def check_all_alone(engine, batch: Batch, output) -> None:
    """Raise if the outputs for any sample are others when it is run alone."""
    for i in range(batch.size):
        part = slice(i, i + 1)
        check_outputs(output[part], outputs_of(engine, batch, part), output)


def check_some_alone(engine, batch: Batch, output) -> None:
    """Raise if the outputs for a few samples, spread over the batch, are others when run alone."""
    count = max(1, min(SAMPLES_ALONE, batch.size // 8))
    # The golden ratio spreads them without symmetry.
    for i in {int((0.618 * (k + 1) % 1) * batch.size) for k in range(count)}:
        part = slice(i, i + 1)
        try:
            check_outputs(output[part], outputs_of(engine, batch, part), output)
        except OneByOne:
            # Rounding depends on the size of the batch, so repeat the sample in a batch of it.
            repeated = map_tensors(
                lambda tensor, part=part: tensor[part].expand_as(tensor),
                batch._replace(labels=None),
            )
            found = outputs_of(engine, repeated, slice(None))
            check_outputs(output[part], found[part], output)


def outputs_of(engine, batch: Batch, part: slice):
    """Return the outputs of the model for a part of a batch alone."""
    batch = map_tensors(lambda tensor: tensor[part], batch._replace(labels=None))
    return engine.call_model(engine.chosen, batch.args, batch.kwargs).detach()


def check_outputs(output, alone, whole, eps: float | None = None) -> None:
    """Raise if the outputs for some samples in a batch and without the others differ.

    Parameters
    ----------
    output, alone : Tensor
        Outputs for these samples in the batch, and without the others.
    whole : Tensor
        Outputs of the batch.
    eps : float or None
        Precision of the outputs, to which they must agree. With None it is at best single
        precision, as in parts of some models, and `OneByOne` is raised for unusual rounding.
    """
    if alone.shape != output.shape:
        one = "one sample" if len(output) == 1 else f"{len(output)} samples"
        raise ValueError(
            f"The 'model' parameter must return outputs of shape {tuple(output.shape)} for {one}, "
            f"because it returns shape {tuple(whole.shape)} for {len(whole)} samples. Got "
            f"{tuple(alone.shape)} instead."
        )
    own, single = (torch.finfo(d).eps for d in (output.dtype, torch.float32))
    if float(vector_norm(output - alone)) <= 20 * own * float(vector_norm(output)):
        return  # as usual, and all that follows takes longer
    surely = None
    if eps is None:
        eps, surely = max(own, single), max(SURELY_ROUNDING * own, 1e-8)
    whole = whole.flatten(1) if whole.ndim > 1 else whole[:, None]
    output, alone = output.reshape(len(output), -1), alone.reshape(len(output), -1)
    # Outputs that are not finite get another error.
    finite = output.isfinite().all(1)
    output, alone = output[finite], alone[finite]
    typical = float(whole.norm(dim=1).nan_to_num().median()) * len(output) ** 0.5
    norm = max(float(output.norm()), typical)
    difference = float((output - alone).norm())
    if not equal_up_to_rounding(difference, norm, norm, eps):
        raise ValueError(
            "The 'model' parameter must treat each sample independently, but its output for a "
            "sample depends on the other samples in the batch or on chance, even in evaluation "
            "mode."
        )
    if surely is not None and difference > surely * norm:
        raise OneByOne
