"""Find to which sample each row of a layer's input belongs, from two backward passes.

The second pass multiplies the cotangent of each sample by a weight of its own. Where a row affects
the outputs of one sample only, the gradients at the row differ by the factor of this sample. So
the order of the rows inside a model, which may depend on the data, need not be known.
"""

from typing import NamedTuple

import numpy as np
import torch

# The weights have both signs, and absolute values within this factor of one.
LARGEST_WEIGHT = 16.0
# Relative rounding errors that gradients may have, in units of the precision.
ROUNDING = 256


class Rows(NamedTuple):
    """The rows of a layer's input, grouped by the samples that they belong to."""

    samples: torch.Tensor  # (U,): the samples with any rows
    rows: torch.Tensor  # (U, T): positions of each sample's rows, padded with others
    present: torch.Tensor  # (U, T): where rows are not padding

    def group(self, tensor, padding=None):
        """Return a tensor of rows in the order of the groups, of length U · T."""
        grouped = tensor[self.rows.flatten()]
        if padding is not None:
            absent = ~self.present.flatten()
            grouped[absent] = padding
        return grouped


def sample_weights(size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor | None:
    """Return a random weight for each sample, or None if the precision cannot tell them apart.

    No two weights are close to each other, nor is a mean of several likely to be close to one.
    """
    half = -(-size // 2)
    log_range = 2 * np.log(LARGEST_WEIGHT)
    if 16 * ROUNDING * torch.finfo(dtype).eps > log_range / (2 * half):
        return None
    rng = np.random.Generator(np.random.Philox(key=[2, seed]))
    places = (np.arange(half)[:, None] + rng.uniform(0.25, 0.75, (half, 2))) / half
    weights = np.exp(log_range * (places - 0.5)) * np.array([1.0, -1.0])
    return torch.from_numpy(rng.permutation(weights.flatten()[:size]))


def owners_of_rows(delta, weighted, weights, eps: float) -> torch.Tensor | None:
    """Return the sample that each row belongs to, or None if a row belongs to no single one.

    Parameters
    ----------
    delta, weighted : Tensor of shape (R, entries)
        Gradients at the rows, without and with the weights of the samples.
    weights : Tensor of shape (B,)
        Weights from `sample_weights`.
    eps : float
        Precision of the gradients.

    Returns
    -------
    owners : Tensor of shape (R,) or None
        Positions of the samples; -1 for rows that affect no output.
    """
    dtype = torch.promote_types(delta.dtype, torch.float32)
    delta, weighted = delta.to(dtype), weighted.to(dtype)
    largest, largest_weighted = delta.abs().amax(1), weighted.abs().amax(1)
    unit = delta / largest.clamp(min=torch.finfo(dtype).tiny)[:, None]
    weighted = weighted / largest.clamp(min=torch.finfo(dtype).tiny)[:, None]
    squares = unit.square().sum(1)
    ratios = ((unit * weighted).sum(1) / squares).double()
    weights, order = weights.to(delta.device).sort()
    right = torch.searchsorted(weights, ratios).clamp(1, len(weights) - 1)
    nearer = (ratios - weights[right - 1]).abs() < (ratios - weights[right]).abs()
    found = torch.where(nearer, right - 1, right)
    factor = weights[found]
    residual = (weighted - factor.to(dtype)[:, None] * unit).norm(dim=1)
    matched = (squares > 0) & (residual <= ROUNDING * eps * factor.abs() * squares.sqrt())
    # Rows without a gradient belong to any sample. What is left of gradients that cancel is lost
    # in rounding.
    limit = 20 * eps * largest.max()
    none = ~matched & (largest <= limit) & (largest_weighted <= LARGEST_WEIGHT * limit)
    if not bool((matched | none).all()):
        return None
    return torch.where(matched, order[found], -1)


def group_rows(owners: torch.Tensor) -> Rows:
    """Group rows by their owners."""
    kept = (owners >= 0).nonzero()[:, 0]
    kept = kept[owners[kept].argsort(stable=True)]
    samples, counts = owners[kept].unique_consecutive(return_counts=True)
    largest = int(counts.max()) if len(counts) else 0
    positions = torch.arange(len(kept), device=owners.device)
    group = torch.arange(len(samples), device=owners.device).repeat_interleave(counts)
    place = positions - (counts.cumsum(0) - counts)[group]
    rows = owners.new_zeros(len(samples), largest)
    present = torch.zeros_like(rows, dtype=torch.bool)
    rows[group, place] = kept
    present[group, place] = True
    return Rows(samples, rows, present)


def in_equal_blocks(owners: torch.Tensor, size: int) -> bool:
    """Return whether the rows of each sample are one block, in the order of the samples."""
    if len(owners) % size:
        return False
    blocks = torch.arange(size, device=owners.device).repeat_interleave(len(owners) // size)
    return bool(((owners == blocks) | (owners < 0)).all())
