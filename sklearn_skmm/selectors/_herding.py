"""Kernel herding."""

from typing import ClassVar

import numpy as np
from sklearn.utils.extmath import row_norms, safe_sparse_dot

from sklearn_skmm.base import BaseSelector, Selection


class HerdingSelector(BaseSelector):
    r"""Select samples one at a time so that their mean follows the mean of all samples.

    Use it when the mean is what the coreset should match. Second moments are not matched. The
    selection is not random.

    This is kernel herding [1]_ with the linear kernel, as in the paper's comparison [2]_. Sample
    t + 1 maximises :math:`\langle x, w_t \rangle` over the samples that are not yet selected. The
    recursion is :math:`w_{t+1} = w_t + \mu - x_{t+1}`, starting from :math:`w_0 = \mu`, the mean of
    the data of `fit`.

    Parameters
    ----------
    {n_to_select}
    {stratify}

    Attributes
    ----------
    {sample_indices_in_order}
    {sample_weight_equal}
    {fitted}

    See Also
    --------
    SkMMSelector : Matches second moments.

    Notes
    -----
    O(N n m) time for N samples of m features: n passes over X in double precision. Next to X,
    memory is needed for four vectors of N entries, and at least 16 MiB if X is larger than that.

    References
    ----------
    .. [1] M. Welling. "Herding dynamical weights to learn". ICML 2009.
    .. [2] Y. Dong et al. "Sketchy Moment Matching". NeurIPS 2024. :arxiv:`2407.06120`

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import HerdingSelector
    >>> HerdingSelector(2).fit_transform(np.array([[0.0], [1.0], [5.0]]))
    array([2, 0])
    """

    _ordered: ClassVar[bool] = True

    def __init__(self, n_to_select, *, stratify=False):
        self.n_to_select = n_to_select
        self.stratify = stratify

    def _select(self, X, n, reference, rng, step, *, sample_weight=None, selected=None):
        # The tolerance makes scores that differ only by rounding, as those of equal rows may, ties;
        # the first position wins.
        gain = safe_sparse_dot(X, reference.mean)
        scores = gain.copy()
        tie = 1e-12 * float(row_norms(X, squared=True).max(initial=0.0))
        if selected is not None:
            chosen = np.asarray(X[selected].sum(axis=0)).ravel()
            scores += len(selected) * gain - safe_sparse_dot(X, chosen)
            scores[selected] = -np.inf
        indices = np.empty(n, dtype=int)
        for t in range(n):
            indices[t] = np.argmax(scores >= scores.max() - tie)
            row = X[[indices[t]]]
            scores += gain - safe_sparse_dot(X, row.T, dense_output=True).ravel()
            scores[indices[: t + 1]] = -np.inf
            step()
        return Selection(indices)
