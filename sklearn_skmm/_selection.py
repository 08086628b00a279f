"""What a selection is made from and what it gives: the pieces of the selector contract."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np

from sklearn_skmm._moments import Spectrum, spectrum


@dataclass
class Selection:
    """What a selector's `_select` returns.

    Parameters
    ----------
    indices : ndarray of shape (n,), dtype int
        Distinct positions in X.
    sample_weight : ndarray of shape (n,) or None
        How many samples of X each selected one stands for; None means N / n each.
    per_sample : dict
        Fitted attributes with one entry per sample of X.
    attributes : dict
        Any other fitted attributes.
    """

    indices: np.ndarray
    sample_weight: np.ndarray | None = None
    per_sample: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)


class Reference:
    """What the selection is matched against: the data seen in `fit`, kept as its moments.

    Each piece is computed at its first use, which is during `fit`; then the data is let go.
    """

    def __init__(self, X, y=None, whole=None):
        self._X, self._y = X, y
        # With strata, the reference of all of them together.
        self.whole: Reference = self if whole is None else whole
        self._learned: dict[str, Any] = {}

    @cached_property
    def spectrum(self) -> Spectrum:
        """Eigenpairs of the second moment XᵀX / N that are above rounding."""
        return spectrum(self._X)

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean of the rows, shape (n_features,)."""
        return np.asarray(self._X.mean(axis=0)).ravel()

    def learn(self, name: str, function: Callable) -> Any:
        """Return ``function(X, y)`` of the data of `fit`, computed once and kept."""
        if name not in self._learned:
            self._learned[name] = function(self._X, self._y)
        return self._learned[name]

    def release(self) -> None:
        """Forget the data, keep what was computed from it."""
        self._X = self._y = None


def resolve_n_to_select(n_to_select, n_samples: int) -> int:
    """Turn a count or a share of the samples into a count.

    A share is rounded to the nearest count and never below one.
    """
    if isinstance(n_to_select, Integral):
        if int(n_to_select) > n_samples:
            raise ValueError(
                f"n_to_select={n_to_select} must be at most the number of samples, "
                f"but X has n_samples={n_samples}."
            )
        return int(n_to_select)
    return max(1, round(float(n_to_select) * n_samples))


def allocate(n: int, sizes: np.ndarray) -> np.ndarray:
    """Split n over strata in proportion to their sizes, by largest remainders.

    Each stratum gets at least one while n allows it; then no stratum is left out for
    being small, which is what a user asks for with `stratify`.
    """
    floor = np.ones_like(sizes) if n >= len(sizes) else np.zeros_like(sizes)
    share = n * sizes / sizes.sum()
    counts = np.minimum(np.maximum(np.floor(share).astype(int), floor), sizes)
    while counts.sum() != n:
        step = 1 if counts.sum() < n else -1
        room = counts < sizes if step > 0 else counts > floor
        counts[np.argmax(np.where(room, step * (share - counts), -np.inf))] += step
    return counts
