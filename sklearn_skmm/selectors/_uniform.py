"""The baseline of every comparison."""

from typing import ClassVar

import numpy as np

from sklearn_skmm.base import BaseSelector, Selection


class UniformSelector(BaseSelector):
    """Select n samples uniformly at random, the baseline of every comparison.

    Parameters
    ----------
    n_to_select : int or float
        How many samples to select; a float in (0, 1] is a share of the samples.
    stratify : bool, default=False
        Select within each class of y, in proportion to its size.
    random_state : int, RandomState instance or None, default=None
        Seeds the draw.

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_to_select,), dtype int
        Positions of the selected samples, ascending.
    sample_weight_ : ndarray of shape (n_to_select,)
        N / n for each: the inverse of the inclusion probability.
    n_samples_seen_ : int
        Number of samples in `fit`.
    strata_ : ndarray
        Classes of y, with `stratify=True` only.
    n_features_in_ : int
        Number of features in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X has string column names.

    See Also
    --------
    SkMMSelector : Selection by moment matching.

    Notes
    -----
    O(N) time. Of X only the number of rows is used; it is read to check it, with 16 MiB for blocks
    of its rows. Next to X there is a vector of N entries.

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
    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseSelector._parameter_constraints,
        "random_state": ["random_state"],
    }

    def __init__(self, n_to_select, *, stratify=False, random_state=None):
        self.n_to_select = n_to_select
        self.stratify = stratify
        self.random_state = random_state

    def _select(self, X, n, reference, rng, step):
        indices = rng.choice(X.shape[0], size=n, replace=False)
        indices.sort()
        return Selection(indices)
