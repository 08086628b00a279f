"""How parameters are used in the graph of a batch, and when hooks are to be trusted there."""

from collections import Counter
from typing import Any, NamedTuple

import torch


class LayerCall(NamedTuple):
    """One call of a layer."""

    module: torch.nn.Module
    input: torch.Tensor  # its input
    output_shape: torch.Size  # of its output
    input_version: int  # of the input's memory, which tells of changes in place
    # Rows of the input per sample; 0 if all samples share one, None if none are theirs.
    rows_at_call: int | None
    output_edge: Any  # of its output in the graph, as it was before changes in place

    @property
    def rows_per_sample(self) -> int | None:
        """Rows of the input per sample, None if it is no longer what the layer saw."""
        return self.rows_at_call if self.input._version == self.input_version else None


class Signature(NamedTuple):
    """How a parameter is used in the graph of a batch."""

    edges: int  # that lead to it
    ratios: tuple[int | None, ...]  # of the calls of layers that hold it


UNUSED = Signature(0, ())


def nodes_and_leaf_edges(output) -> tuple[set, Counter]:
    """Return the nodes below an output, and how many edges lead to each leaf, by its id."""
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
