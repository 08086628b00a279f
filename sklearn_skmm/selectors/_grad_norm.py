"""Selection by gradient norm."""

from typing import ClassVar

import numpy as np
from sklearn.utils.extmath import row_norms

from sklearn_skmm.base import BaseSelector, Selection


class GradNormSelector(BaseSelector):
    """Select the n samples with the largest gradients.

    GraNd [1]_: the norm of a sample's gradient bounds how much leaving it out changes a step of
    training. Rows of X are (sketched) gradients.

    Parameters
    ----------
    n_to_select : int or float
        How many samples to select; a float in (0, 1] is a share of the samples.
    stratify : bool, default=False
        Select within each class of y, in proportion to its size.

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_to_select,), dtype int
        Positions of the selected samples, largest first, ties by position.
    sample_weight_ : ndarray of shape (n_to_select,)
        N / n for each.
    norms_ : ndarray of shape (N,)
        Norm of each row.
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
    GradientSketcher : Sketched gradients of a model.

    Notes
    -----
    O(N m) time for N samples of m features, in double precision, and memory for four vectors of N
    entries, or for two and 16 MiB.

    References
    ----------
    .. [1] M. Paul, S. Ganguli, G. K. Dziugaite. "Deep learning on a data diet: finding important
       examples early in training". NeurIPS 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import GradNormSelector
    >>> GradNormSelector(2).fit_transform(np.array([[1.0], [-5.0], [2.0]]))
    array([1, 2])
    """

    _kept: ClassVar[float] = 2.0

    def __init__(self, n_to_select, *, stratify=False):
        self.n_to_select = n_to_select
        self.stratify = stratify

    def _select(self, X, n, reference, rng, step):
        norms = row_norms(X)
        # Norms that differ by rounding are equal; the first comes first.
        rounded = norms if not norms.max() else np.round(norms / norms.max(), 12)
        return Selection(np.argsort(-rounded, kind="stable")[:n], per_sample={"norms_": norms})
