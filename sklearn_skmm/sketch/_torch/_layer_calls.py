"""Calls of layers in a forward pass, and how parameters are used in the autograd graph."""

from collections import Counter
from typing import Any, NamedTuple

import torch


class LayerCall(NamedTuple):
    """One call of a layer during a forward pass, as recorded by a forward hook."""

    module: torch.nn.Module
    input: torch.Tensor
    output_shape: torch.Size
    input_version: int  # version counter of the input, which in-place changes increase
    # Rows of the input per sample; 0 if all samples share one, None if rows belong to no sample.
    rows_at_call: int | None
    output_edge: Any  # graph edge of the output before in-place changes

    @property
    def rows_per_sample(self) -> int | None:
        """Rows of the input per sample, or None if the input was modified after the call."""
        return self.rows_at_call if self.input._version == self.input_version else None


class Signature(NamedTuple):
    """How a parameter is used in the autograd graph of a batch.

    The cache of sketches digests this tuple, so renaming a field makes existing caches stale.
    """

    edges: int  # number of graph edges that lead to the parameter
    ratios: tuple[int | None, ...]  # `rows_per_sample` of each call of a layer that owns it


UNUSED = Signature(0, ())


def nodes_and_leaf_edges(output) -> tuple[set, Counter]:
    """Return the graph nodes below an output, and the number of edges to each leaf, by id."""
    nodes, stack = {output.grad_fn}, [output.grad_fn]
    leaves: Counter = Counter()
    while stack:
        for node, _ in stack.pop().next_functions:
            if type(node).__name__ == "AccumulateGrad":
                leaves[id(node.variable)] += 1
            elif node is not None and node not in nodes:
                nodes.add(node)
                stack.append(node)
    return nodes, leaves
