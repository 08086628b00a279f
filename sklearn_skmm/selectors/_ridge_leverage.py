"""Sampling by ridge leverage scores."""

from numbers import Real
from typing import ClassVar

import numpy as np

from sklearn_skmm.base import BaseSelector
from sklearn_skmm.core._leverage import draw_by_scores, sampled_rank
from sklearn_skmm.core._moments import directional_energies
from sklearn_skmm.core._peak_memory import peak_of_scores
from sklearn_skmm.utils._sklearn import Interval


class RidgeLeverageSelector(BaseSelector):
    r"""Draw samples by their leverage in ridge regression.

    The score of sample i is :math:`\ell_i = x_i^\top (X^\top X + N \alpha I)^{-1} x_i`, the
    diagonal of the hat matrix [1]_, [2]_. Samples are included with probabilities
    :math:`\pi_i = \min(1, c\,\ell_i)` that sum to n, exactly, by systematic sampling.

    Parameters
    ----------
    n_to_select : int or float
        How many samples to select; a float in (0, 1] is a share of the samples.
    alpha : float or None, default=None
        The ridge, in units of the eigenvalues of :math:`\Sigma = X^\top X / N`. None takes
        :math:`tr(\Sigma - \langle\Sigma\rangle_k) / k` for k = n / log n, the energy outside of the
        best rank-k approximation shared by k [2]_: sampling k log k rows keeps k directions.
    stratify : bool, default=False
        Select within each class of y, in proportion to its size.
    random_state : int, RandomState instance or None, default=None
        Seeds the draw.

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_to_select,), dtype int
        Positions of the selected samples, ascending.
    sample_weight_ : ndarray of shape (n_to_select,)
        Inverse inclusion probabilities: weighted totals over the samples with a positive score are
        unbiased. A sample with none, such as a row of zeros, is left out.
    leverage_scores_ : ndarray of shape (N,)
        The scores; they sum to the effective dimension.
    inclusion_probabilities_ : ndarray of shape (N,)
        They sum to n.
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
    TruncatedLeverageSelector : A truncation instead of a ridge.

    Notes
    -----
    O(N m²) time for N samples of m features, and two arrays like X in double precision next to it.

    References
    ----------
    .. [1] A. Alaoui, M. W. Mahoney. "Fast randomized kernel ridge regression with statistical
       guarantees". NeurIPS 2015.
    .. [2] M. B. Cohen, C. Musco, C. Musco. "Input sparsity time low-rank approximation via ridge
       leverage score sampling". SODA 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import RidgeLeverageSelector
    >>> X = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> RidgeLeverageSelector(1, alpha=0.5, random_state=0).fit(X).leverage_scores_
    array([0.5, 0.5])
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseSelector._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left"), None],
        "random_state": ["random_state"],
    }

    def __init__(self, n_to_select, *, alpha=None, stratify=False, random_state=None):
        self.n_to_select = n_to_select
        self.alpha = alpha
        self.stratify = stratify
        self.random_state = random_state

    def _peak_bytes(self, n_samples, n_features, n, itemsize):
        return peak_of_scores(n_samples, n_features)

    def _select(self, X, n, reference, rng, step):
        values, vectors = reference.spectrum
        k = sampled_rank(n)
        alpha = values[k:].sum() / k if self.alpha is None else self.alpha
        energies = directional_energies(X, vectors)
        scores = np.sum(energies / (values + alpha) / X.shape[0], axis=1)
        return draw_by_scores(scores, n, rng)
