"""Sketch in blocks that are cached on disk, so that a killed run can be resumed."""

from collections.abc import Iterable, Iterator
from os import PathLike

import numpy as np
import torch

from sklearn_skmm.sketch._cache import SketchCache, digest
from sklearn_skmm.sketch._sketch_plan import PlannedParameter
from sklearn_skmm.sketch._torch._batches import Batch
from sklearn_skmm.sketch._torch._decoder_inputs import has_decoder_inputs
from sklearn_skmm.sketch._torch._engine import Engine
from sklearn_skmm.sketch._torch._model_state import original_state

# A block of the cache ends at this many samples, or at this many bytes of input.
CACHED_ROWS, CACHED_BYTES = 4096, 64 * 2**20


def sketch_with_cache(
    engine: Engine,
    batches: Iterable[Batch],
    planned: list[PlannedParameter],
    directory: str | PathLike,
) -> Iterator[np.ndarray]:
    """Yield GΓ block by block, reading the blocks that are in the cache.

    Parameters
    ----------
    engine : Engine
        Engine that computes the missing blocks.
    batches : iterable of Batch
        All samples, starting at the first.
    planned : list of PlannedParameter
        From `plan_parameters`.
    directory : str or path-like
        Directory of the cache, created if missing.
    """
    model, objective = engine.model, engine.objective
    with original_state(model):
        weights = digest(*_digest_parts([*model.named_parameters(), *model.named_buffers()]))
    key = {
        "model": weights,
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
            item
            for batch in block
            for item in _named_inputs(
                batch, objective.target == "label" or has_decoder_inputs(batch)
            )
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
    """Yield what to digest of named tensors; raw bytes, as NumPy lacks some torch dtypes."""
    for name, tensor in named:
        yield f"{name}:{tensor.dtype}:{tuple(tensor.shape)}"
        yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _named_inputs(batch: Batch, with_labels: bool) -> list[tuple[object, torch.Tensor]]:
    """Return the named tensors that determine the sketch of a batch."""
    named = [*enumerate(batch.args), *batch.kwargs.items()]
    return [*named, ("labels", batch.labels)] if with_labels and batch.labels is not None else named


def _batches_by_block(batches) -> Iterator[list[Batch]]:
    """Group batches into blocks of the cache that are neither tiny nor exhaust the memory."""
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
    """Return a text that identifies a loss in the key of a cache."""
    if isinstance(loss, str):
        return loss
    code = getattr(loss, "__code__", None)
    name = f"{getattr(loss, '__module__', '')}.{getattr(loss, '__qualname__', repr(loss))}"
    return name if code is None else f"{name}:{digest(code.co_code, *code.co_names)}"
