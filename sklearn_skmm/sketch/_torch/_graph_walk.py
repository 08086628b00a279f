"""Follow the samples through the autograd graph of a batch, from the outputs to the layers.

The *stride* of a tensor says which of its entries affect which samples' outputs. Entry e, in the
order of the shape, affects at most the outputs of sample ``(e // stride) % B``. In a tensor of
shape (B, T, d) with the samples in the first dimension the stride is T · d; in one of shape
(T, B, d) it is d. The outputs of the model start with the samples. From there each node of the
graph gives the strides of its inputs, by the table `OPERATIONS`. An operation that is not in the
table, or that acts along the samples, makes the stride of its inputs `UNKNOWN`.
"""

import re
from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

# In place of a stride: the tensor affects the outputs of all samples, or it is not known of which.
SHARED, UNKNOWN = 0, -1


class GraphWalk(NamedTuple):
    """What is found on the way through the graph below the outputs of a batch."""

    strides: dict[Any, dict[int, int]]  # for each node, the stride of each of its outputs
    leaves: Counter  # number of graph edges to each leaf, by id
    kinds: list[type]  # types of the nodes, in the order of the walk
    size: int  # number of samples

    @property
    def mixes(self) -> bool:
        """Whether there are operations that may act along the samples."""
        return any(UNKNOWN in strides.values() for strides in self.strides.values())

    def stride(self, edge) -> int | None:
        """Return the stride at an edge of the graph, or None if it does not affect the outputs."""
        return self.strides.get(edge.node, {}).get(edge.output_nr)


def walk(output, size: int) -> GraphWalk:
    """Walk through the graph below the outputs of a batch, whose first dimension is the samples."""
    strides: dict[Any, dict[int, int]] = {}
    leaves: Counter = Counter()
    kinds: list[type] = []
    todo = []

    def reach(node, number, stride):
        found = strides.setdefault(node, {})
        before = found.get(number)
        if before != stride:
            if before is not None:
                stride = UNKNOWN  # different ways to the outputs disagree
            if before != stride:
                found[number] = stride
                todo.append((node, number, stride))

    reach(output.grad_fn, output.output_nr, output.numel() // size if size > 1 else 1)
    seen = set()
    while todo:
        node, number, stride = todo.pop()
        kind = type(node)
        first_visit = node not in seen
        if first_visit:
            seen.add(node)
            kinds.append(kind)
        operation = None
        if stride > 0 and size > 1:
            operation = _operation(kind.__name__)
            if operation is not None and operation is not _in_order:
                try:
                    shape = node._input_metadata[number].shape
                except (AttributeError, RuntimeError):  # older versions of torch
                    operation = None
            if operation is None:
                stride = UNKNOWN
        for i, (below, below_number) in enumerate(node.next_functions):
            if below is None:
                continue
            if type(below).__name__ == "AccumulateGrad":
                if first_visit:
                    leaves[id(below.variable)] += 1
                continue
            found = stride
            if operation is not None and operation is not _in_order:
                found = _stride_below(operation, node, i, stride, shape, below, below_number, size)
            reach(below, below_number, found)
    return GraphWalk(strides, leaves, kinds, size)


def _stride_below(operation, node, i, stride, shape, below, below_number, size) -> int:
    """Return the stride of input i of a node with an output of this shape and stride."""
    try:
        given = below._input_metadata[below_number].shape
    except (AttributeError, RuntimeError):
        return UNKNOWN
    if operation is _elementwise and given == shape:
        return stride
    at = _samples(shape, stride, size)
    if at is None:
        return UNKNOWN
    dim, inner = at
    to = operation(node, i, dim, shape, given)
    if to is None or to < 0:
        return SHARED if to is None else UNKNOWN
    if to >= len(given) or given[to] != shape[dim]:
        return UNKNOWN
    return inner * prod(given[to + 1 :])


def _samples(shape, stride, size) -> tuple[int, int] | None:
    """Return the dimension that contains the samples, and the stride inside it."""
    after = 1
    for dim in range(len(shape) - 1, -1, -1):
        length = after * shape[dim]
        if stride < length:
            inside = stride % after == 0 and length % (stride * size) == 0
            return (dim, stride // after) if inside else None
        after = length
    return None


def _operation(name: str) -> Callable | None:
    if name not in _KNOWN:
        # Classes of users have names that do not end with a number.
        match = re.fullmatch(r"(\w+?)Backward\d+", name)
        _KNOWN[name] = OPERATIONS.get(match[1]) if match else None
    return _KNOWN[name]


_KNOWN: dict[str, Callable | None] = {}

# Each function below returns the dimension of input i that corresponds to dimension `dim` of the
# output, which contains the samples. None means that the input affects all samples, and -1 that
# it is not known which.


def _in_order(node, i, dim, shape, given):
    """Keep the stride, because the order of the entries stays."""
    raise NotImplementedError  # the walk does not call it


def _elementwise(node, i, dim, shape, given):
    """Treat functions of corresponding entries, with broadcasting."""
    to = dim - (len(shape) - len(given))
    return None if to < 0 or given[to] == 1 else to


def _transposed(node, i, dim, shape, given):
    dims = list(range(len(shape)))
    if hasattr(node, "_saved_dims"):
        dims = [_positive(d, len(shape)) for d in node._saved_dims]
    else:
        a, b = getattr(node, "_saved_dim0", 0), getattr(node, "_saved_dim1", 1)
        a, b = _positive(a, len(shape)), _positive(b, len(shape))
        dims[a], dims[b] = b, a
    return dims[dim]


def _product(node, i, dim, shape, given):
    """Treat matrix products, of batches too."""
    last = len(shape) - 1
    if dim < last - 1:
        return dim
    if i == 0:
        return dim if dim == last - 1 else None
    return dim if dim == last else None


def _sum_and_product(node, i, dim, shape, given):
    if i == 0:
        return _elementwise(node, i, dim, shape, given)
    return _product(node, i - 1, dim, shape, given)


def _linear(node, i, dim, shape, given):
    last = len(shape) - 1
    if i == 2:
        return _elementwise(node, i, dim, shape, given)
    if i == 0:
        return dim if dim < last else None
    return 0 if dim == last else None


def _along(node, i, dim, shape, given):
    """Treat operations along saved dimensions, which stay."""
    if given == shape and type(node).__name__ == "SliceBackward0":
        return dim
    return -1 if dim in _saved_dims(node, len(shape)) else dim


def _select(node, i, dim, shape, given):
    """Treat operations that remove a dimension, other than reductions."""
    (removed,) = _saved_dims(node, len(given))
    return dim if dim < removed else dim + 1


def _stack(node, i, dim, shape, given):
    (added,) = _saved_dims(node, len(shape))
    return -1 if dim == added else dim - (dim > added)


def _reduction(node, i, dim, shape, given):
    reduced = _saved_dims(node, len(given))
    if not reduced:
        return -1
    if getattr(node, "_saved_keepdim", False):
        return -1 if dim in reduced else dim
    kept = [d for d in range(len(given)) if d not in reduced]
    return kept[dim] if dim < len(kept) else -1


def _images(node, i, dim, shape, given):
    """Treat functions of each entry of the first dimension, with weights for all of them."""
    if i > 0:
        return None
    return 0 if dim == 0 else -1


def _attention(node, i, dim, shape, given):
    """Treat attention with queries, keys and values in inputs 0 to 2, and a mask."""
    if dim > 0:
        return -1
    if i > 2:
        return None if len(given) < len(shape) or given[0] == 1 else 0
    return 0


def _layer_norm(node, i, dim, shape, given):
    if i > 0:
        return None
    return dim if dim < len(shape) - len(node._saved_normalized_shape) else -1


def _batch_norm(node, i, dim, shape, given):
    if i > 0:
        return None
    # With statistics of the batch, only the channels are treated independently. Instance norms put
    # the samples there.
    return dim if dim == 1 or not node._saved_training else -1


def _padding(node, i, dim, shape, given):
    padded = len(node._saved_pad) // 2
    return -1 if dim >= len(shape) - padded and given[dim] != shape[dim] else dim


def _weights(node, i, dim, shape, given):
    """Return that all samples use the input, such as the table of an embedding."""


def _recurrent(node, i, dim, shape, given):
    """Treat a recurrent layer of oneDNN, with the time in the first dimension."""
    if 0 < i < 5:
        return None
    return 1 if i == 0 and dim == 1 and len(shape) == 3 else -1


def _positive(dim, n):
    return (dim - 2**64 if dim >= 2**63 else dim) % n


def _saved_dims(node, n) -> list[int]:
    dims = getattr(node, "_saved_dims", None)
    if dims is None:
        dims = getattr(node, "_saved_dim", None)
    if isinstance(dims, int):
        dims = [dims]
    return [_positive(d, n) for d in dims or range(n)]


# By the name of the autograd node without "Backward0".
OPERATIONS: dict[str, Callable] = {
    name: operation
    for operation, names in {
        _in_order: "View UnsafeView ReshapeAlias Squeeze Unsqueeze Alias Clone ToCopy",
        _elementwise: """
            Abs Acos Add Addcdiv Addcmul Asin Atan Atan2 Ceil Celu Clamp ClampMax ClampMin Cos Cosh
            Div Elu Erf Erfc Erfinv Exp Exp2 Expand Expm1 Floor Fmod Frac FusedDropout Gelu
            Hardshrink Hardsigmoid Hardswish Hardtanh Huber LeakyRelu Lerp Log Log10 Log1P Log2
            LogSigmoid Logaddexp Logit MaskedFill Maximum Minimum Mish Mul NanToNum NativeDropout
            Neg Pow PreluKernel Reciprocal Relu Remainder Repeat Round Rrelu Rsqrt Rsub Sgn Sigmoid
            Sign Silu Sin Sinc Sinh Softplus Softshrink Sqrt Square Sub Tan Tanh Threshold Tril Triu
            Trunc Where Xlogy
            """,
        _transposed: "T Transpose Permute",
        _product: "Mm Bmm",
        _sum_and_product: "Addmm Baddbmm",
        _linear: "Linear",
        _along: """
            Cat Cumprod Cumsum Flip Gather Glu IndexSelect LogSoftmax Logcumsumexp Roll SafeSoftmax
            Scatter ScatterAdd Slice Softmax Sort Split SplitWithSizes Topk UnsafeSplit
            UnsafeSplitWithSizes
            """,
        _select: "Select Unbind",
        _stack: "Stack",
        _reduction: """
            Amax Amin LinalgVectorNorm Logsumexp Max Mean Median Min Nansum Prod Std StdMean Sum Var
            VarMean
            """,
        _images: """
            AdaptiveAvgPool2D AdaptiveAvgPool3D AdaptiveMaxPool2D AdaptiveMaxPool3D AvgPool2D
            AvgPool3D Convolution Im2Col MaxPool2DWithIndices MaxPool3DWithIndices NativeGroupNorm
            PixelShuffle PixelUnshuffle ReflectionPad1D ReflectionPad2D ReflectionPad3D
            ReplicationPad1D ReplicationPad2D ReplicationPad3D UpsampleBicubic2D UpsampleBilinear2D
            UpsampleLinear1D UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D
            UpsampleTrilinear3D
            """,
        _attention: """
            ScaledDotProductCudnnAttention ScaledDotProductEfficientAttention
            ScaledDotProductFlashAttention ScaledDotProductFlashAttentionForCpu
            ScaledDotProductFusedAttentionOverrideable
            """,
        _layer_norm: "NativeLayerNorm FusedRmsNorm",
        _batch_norm: "NativeBatchNorm CudnnBatchNorm MiopenBatchNorm",
        _padding: "ConstantPadNd",
        _weights: "Embedding",
        _recurrent: "MkldnnRnnLayer",
    }.items()
    for name in names.split()
}
