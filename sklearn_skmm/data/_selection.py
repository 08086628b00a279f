"""What a selector returns, and how selections of parts are put together."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass
class Selection:
    """What the `_select` method of a selector returns.

    Parameters
    ----------
    indices : ndarray of shape (n,), dtype int
        Distinct positions of the selected rows of X.
    sample_weight : ndarray of shape (n,) or None, default=None
        Number of samples of X that each selected one represents. None means N / n each.
    given_weight : ndarray of shape (n_given,) or None, default=None
        Number of samples that each of those represents which were in the coreset already, in
        ascending order of position. None means N / n each, too. n counts both.
    labels : ndarray of shape (N,), dtype int, or None, default=None
        Position in `indices` of the selected sample that represents each sample of X, or -1. It
        becomes the attribute `labels_`.
    per_sample : dict of str to ndarray of shape (N, ...), default={}
        Fitted attributes with one entry for each sample of X. With ``stratify=True`` the entries
        of all strata are put together.
    attributes : dict of str to object, default={}
        Other fitted attributes. With ``stratify=True`` they become lists with one entry for each
        stratum.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm.base import Selection
    >>> Selection(np.array([0, 2]), attributes={"n_iter_": 3}).sample_weight is None
    True
    """

    indices: np.ndarray
    sample_weight: np.ndarray | None = None
    given_weight: np.ndarray | None = None
    labels: np.ndarray | None = None
    per_sample: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)


def put_together(members: list[np.ndarray], parts: list[Selection], n_samples: int) -> Selection:
    """Return the selection of which each part was made among some members of all samples."""
    both = list(zip(members, parts, strict=True))
    indices = np.concatenate([own[part.indices] for own, part in both])
    order = np.argsort(indices, kind="stable")
    weight = np.concatenate([part.sample_weight for part in parts])
    merged = Selection(indices[order], weight[order])
    if all(part.labels is not None for part in parts):
        merged.labels = np.full(n_samples, -1)
        position = np.argsort(order)
        first = 0
        for own, part in both:
            places = np.append(position[first : first + len(part.indices)], -1)  # for label -1
            merged.labels[own] = places[part.labels]
            first += len(part.indices)
    for name, example in parts[0].per_sample.items():
        merged.per_sample[name] = np.zeros(n_samples, dtype=example.dtype)
        for own, part in both:
            merged.per_sample[name][own] = part.per_sample[name]
    for name in parts[0].attributes:
        merged.attributes[name] = [part.attributes[name] for part in parts]
    return merged


def in_positions_of(selection: Selection, positions: np.ndarray, n_samples: int) -> Selection:
    """Return the selection among all samples, of which those at the positions took part."""
    labels = None
    if selection.labels is not None:
        labels = np.full(n_samples, -1)
        labels[positions] = selection.labels
    per_sample = {}
    for name, values in selection.per_sample.items():
        per_sample[name] = np.zeros((n_samples, *values.shape[1:]), dtype=values.dtype)
        per_sample[name][positions] = values
    indices = positions[selection.indices]
    return replace(selection, indices=indices, labels=labels, per_sample=per_sample)
