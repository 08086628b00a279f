"""Runs that are killed and started again: a sketch in blocks that are kept on disk."""

from collections.abc import Iterable, Iterator
from os import PathLike

import numpy as np
import torch

from sklearn_skmm.sketch._cache import SketchCache, digest
from sklearn_skmm.sketch._sketch_plan import PlannedParameter
from sklearn_skmm.sketch._torch._batches import Batch
from sklearn_skmm.sketch._torch._engine import Engine

# A file of the cache holds so many samples, or as many as come from so many bytes of input.
CACHED_ROWS, CACHED_BYTES = 4096, 64 * 2**20


def sketch_with_cache(
    engine: Engine,
    batches: Iterable[Batch],
    planned: list[PlannedParameter],
    directory: str | PathLike,
) -> Iterator[np.ndarray]:
    """Yield GΓ for blocks of batches, those that are in the cache from there.

    Parameters
    ----------
    engine : Engine
        Computes what is missing.
    batches : iterable of Batch
        All samples, from the first.
    planned : list of PlannedParameter
        From `plan`.
    directory : str or path-like
        Where the cache is, or is to be.
    """
    model, objective = engine.model, engine.objective
    key = {
        "model": digest(*_digest_parts([*model.named_parameters(), *model.named_buffers()])),
        "loss": _loss_name(objective.loss),
        "target": objective.target,
        "parameters": digest(*(str(p) for p in planned)),
        "m": planned[0].projection.m,
        "seed": objective.seed,
        "dtype": str(engine.dtype),
    }
    cache = SketchCache(directory, key)
    start = 0
    for k, block in enumerate(_batches_by_block(batches)):
        named = [
            item for batch in block for item in _named_inputs(batch, objective.target == "label")
        ]
        inputs = digest(start, *_digest_parts(named))
        sketch = cache.get(k, inputs)
        if sketch is None:
            sizes = np.cumsum([0, *(batch.size for batch in block)])
            sketch = np.concatenate(
                [
                    engine.sketch(batch, start + int(before), planned)
                    for before, batch in zip(sizes, block, strict=False)
                ]
            )
            if np.isfinite(sketch).all():
                cache.put(k, inputs, sketch)
        start += len(sketch)
        yield sketch


def _digest_parts(named: Iterable[tuple[object, torch.Tensor]]) -> Iterator[str | np.ndarray]:
    """Yield what tells named tensors from others; their bytes, since NumPy has not every dtype."""
    for name, tensor in named:
        yield f"{name}:{tensor.dtype}:{tuple(tensor.shape)}"
        yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _named_inputs(batch: Batch, with_labels: bool) -> list[tuple[object, torch.Tensor]]:
    """Return what a batch's sketch is made from, with names."""
    named = [*enumerate(batch.args), *batch.kwargs.items()]
    return [*named, ("labels", batch.labels)] if with_labels and batch.labels is not None else named


def _batches_by_block(batches) -> Iterator[list[Batch]]:
    """Yield batches together that make one file of the cache: neither tiny nor all of memory."""
    block: list[Batch] = []
    size = n_bytes = 0
    for batch in batches:
        block.append(batch)
        size += batch.size
        n_bytes += sum(t.nbytes for t in (*batch.args, *batch.kwargs.values()))
        if size >= CACHED_ROWS or n_bytes >= CACHED_BYTES:
            yield block
            block, size, n_bytes = [], 0, 0
    if block:
        yield block


def _loss_name(loss):
    """Return what tells a loss from others in the key of a cache."""
    if isinstance(loss, str):
        return loss
    code = getattr(loss, "__code__", None)
    name = f"{getattr(loss, '__module__', '')}.{getattr(loss, '__qualname__', repr(loss))}"
    return name if code is None else f"{name}:{digest(code.co_code, *code.co_names)}"
