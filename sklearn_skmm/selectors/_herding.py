"""Kernel herding."""

import numpy as np
from sklearn.utils.extmath import row_norms, safe_sparse_dot

from sklearn_skmm.base import BaseSelector, Selection


class HerdingSelector(BaseSelector):
    r"""Select the n samples whose mean follows the mean of all, one after the other.

    Kernel herding [1]_ with the linear kernel, first moments only, as in the
    paper's comparison [2]_.
    Pick t + 1 maximises :math:`\langle x, w_t \rangle` over the samples not yet picked, and
    :math:`w_{t+1} = w_t + \mu - x_{t+1}`, :math:`w_0 = \mu` the mean of the data of `fit`.

    Parameters
    ----------
    n_to_select : int or float
        How many samples to select; a float in (0, 1] is a share of the samples.
    stratify : bool, default=False
        Select within each class of y, in proportion to its size.

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_to_select,), dtype int
        Positions of the selected samples, in order of selection.
    sample_weight_ : ndarray of shape (n_to_select,)
        N / n for each.
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
    SkMMSelector : Matches second moments.

    Notes
    -----
    O(N n m) time for N samples of m features, n passes over X in double precision. Next to that,
    memory for four vectors of N entries, at least 16 MiB if X has more.

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

    def __init__(self, n_to_select, *, stratify=False):
        self.n_to_select = n_to_select
        self.stratify = stratify

    def _select(self, X, n, reference, rng, step):
        # Scores of all samples are kept; a pick changes them by one product with X. Ties, as
        # between equal rows, are broken by position; what rounding makes of them is not.
        gain = safe_sparse_dot(X, reference.mean)
        scores = gain.copy()
        tie = 1e-12 * float(row_norms(X, squared=True).max(initial=0.0))
        indices = np.empty(n, dtype=int)
        for t in range(n):
            indices[t] = np.argmax(scores >= scores.max() - tie)
            row = X[[indices[t]]]
            scores += gain - safe_sparse_dot(X, row.T, dense_output=True).ravel()
            scores[indices[: t + 1]] = -np.inf
            step()
        return Selection(indices)
