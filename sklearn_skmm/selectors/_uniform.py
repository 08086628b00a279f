"""Uniform random sampling, the baseline of every comparison."""

from typing import ClassVar

import numpy as np

from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.core._draws import draw_rest, inclusion_probabilities
from sklearn_skmm.utils._sklearn import _num_samples


class UniformSelector(BaseSelector):
    """Select n samples uniformly at random, the baseline of every comparison.

    Every sample is equally likely to be selected, whatever its features. Use it to check what
    another selector gains over random sampling. X may hold anything: text, missing values, images.

    Parameters
    ----------
    {n_to_select}
    {stratify}
    {random_state}

    Attributes
    ----------
    {sample_indices_ascending}
    sample_weight_ : ndarray of shape (n_to_select,)
        N / n for each selected sample: the inverse of the inclusion probability. With weights, a
        sample that weighs more than that represents its own weight.
    {fitted}

    See Also
    --------
    SkMMSelector : Selection by moment matching.

    Notes
    -----
    O(N) time. Only the number of rows of X is used to select. If X holds finite numbers, `fit` also
    sums their squares for `score`, which takes 16 MiB for blocks of rows; otherwise `score` raises
    an error. A Dask array is read chunk by chunk and not gathered. Next to X there is a vector of N
    entries.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import UniformSelector
    >>> UniformSelector(3, random_state=0).fit_transform(np.eye(10))
    array([4, 5, 6])
    """

    _dtypes: ClassVar[list[type]] = [np.float64, np.float32]
    _vectors: ClassVar[float] = 1.0
    _kept: ClassVar[float] = 1.0
    _reads_values: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseSelector._parameter_constraints,
        "random_state": ["random_state"],
    }

    def __init__(self, n_to_select, *, stratify=False, random_state=None):
        self.n_to_select = n_to_select
        self.stratify = stratify
        self.random_state = random_state

    def _select(self, X, n, reference, rng, step, *, sample_weight=None, selected=None):
        n_samples = _num_samples(X)
        if sample_weight is None and selected is None:
            return Selection(np.sort(rng.choice(n_samples, size=n, replace=False)))
        weight = np.ones(n_samples) if sample_weight is None else sample_weight
        indices, _ = draw_rest(weight, n, rng, selected)
        both = indices if selected is None else np.concatenate([indices, selected])
        # Equal masses, except of samples that weigh more than that themselves.
        pi = inclusion_probabilities(weight, len(both))[both]
        mass = weight[both] / np.maximum(pi, np.finfo(float).tiny)
        mass *= weight.sum() / mass.sum()
        return Selection(indices, mass[:n], None if selected is None else mass[n:])

    def __sklearn_tags__(self):
        """Return the tags: every value is accepted, because none is looked at."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.input_tags.three_d_array = True
        return tags
