"""Whatever holds samples for a selector or a sketcher: their number, some of them, and more."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_skmm.data import take
from sklearn_skmm.utils._sklearn import _num_samples


def n_samples_of(X: Any) -> int:
    """Return the number of samples, also of a mapping of arrays."""
    return _num_samples(next(iter(X.values()), ()) if _is_mapping(X) else X)


def take_samples(X: Any, positions: np.ndarray) -> Any:
    """Return the samples at these positions, in the container of X.

    Examples
    --------
    >>> take_samples({"text": ["a", "b", "c"]}, np.array([2, 0]))
    {'text': ['c', 'a']}
    """
    if _is_mapping(X):
        return {name: take(values, positions) for name, values in X.items()}
    if _library(X) == "datasets":
        return X.select(positions)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(X, torch.utils.data.Dataset):
        return torch.utils.data.Subset(X, positions.tolist())
    return take(X, positions)


def _is_mapping(X: Any) -> bool:
    return isinstance(X, Mapping) and not sparse.issparse(X)  # DOK matrices are both


def _library(X: Any) -> str:
    return type(X).__module__.partition(".")[0]


def append(X: Any, candidates: Any) -> Any:
    """Return the samples in X followed by the candidates, in the container of X.

    Examples
    --------
    >>> append({"text": ["a", "b"]}, {"text": ["c"]})
    {'text': ['a', 'b', 'c']}
    """
    mapping, library = _is_mapping(X), _library(X)
    own = library in ("pandas", "polars", "datasets") and library != _library(candidates)
    if mapping != _is_mapping(candidates) or own:
        raise TypeError(
            "The 'candidates' parameter of SelectorQuery.query must contain positions in X, or "
            f"samples in the container of X, a {type(X).__name__}. Got a "
            f"{type(candidates).__name__} instead."
        )
    if mapping:
        return {name: append(values, candidates[name]) for name, values in X.items()}
    if sparse.issparse(X) or sparse.issparse(candidates):
        return sparse.vstack([X, candidates], format="csr")
    if isinstance(X, list):
        return [*X, *candidates]
    if library in ("pandas", "polars"):
        if hasattr(X, "columns"):
            candidates = candidates[list(X.columns)]
        return sys.modules[library].concat([X, candidates])
    if library == "datasets":
        return sys.modules[library].concatenate_datasets([X, candidates])
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(X, torch.Tensor):
        return torch.cat([X, torch.as_tensor(candidates)])
    if torch is not None and isinstance(X, torch.utils.data.Dataset):
        return torch.utils.data.ConcatDataset([X, candidates])
    if not hasattr(X, "__array__"):
        raise TypeError(
            "The 'candidates' parameter of SelectorQuery.query must contain positions in X if X is "
            f"a {type(X).__name__}, to which no samples can be appended."
        )
    return np.concatenate([X, candidates])
