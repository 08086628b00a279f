"""Selection by gradient norm."""

from typing import ClassVar

import numpy as np
from sklearn.utils.extmath import row_norms

from sklearn_skmm.base import BaseSelector, Selection


class GradNormSelector(BaseSelector):
    """Select the n samples with the largest gradients.

    The norm of a sample's gradient bounds how much a training step changes if that sample is left
    out (GraNd [1]_). Use it to keep the samples that change the model most. The rows of X are
    gradients, sketched or not.

    Parameters
    ----------
    {n_to_select}
    {stratify}

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_to_select,), dtype int
        Positions of the selected samples, largest norm first. Ties are in order of position.
    {sample_weight_equal}
    norms_ : ndarray of shape (N,)
        Norm of each row.
    {fitted}

    See Also
    --------
    GradientSketcher : Sketches the gradients of a model.

    Notes
    -----
    O(N m) time for N samples of m features, in double precision. Memory is needed for four vectors
    of N entries, or for two of them and 16 MiB, whichever is more.

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

    _ordered: ClassVar[bool] = True
    _kept: ClassVar[float] = 2.0

    def __init__(self, n_to_select, *, stratify=False):
        self.n_to_select = n_to_select
        self.stratify = stratify

    def _select(self, X, n, reference, rng, step, *, selected=None):
        norms = row_norms(X)
        # Norms that differ only by rounding are ties.
        rounded = norms if not norms.max() else np.round(norms / norms.max(), 12)
        order = np.argsort(-rounded, kind="stable")
        if selected is not None:
            order = order[~np.isin(order, selected)]
        return Selection(order[:n], per_sample={"norms_": norms})
