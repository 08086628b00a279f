"""Sampling by ridge leverage scores."""

from numbers import Real
from typing import ClassVar

import numpy as np

from sklearn_skmm.base import BaseSelector
from sklearn_skmm.core._moments import directional_energies
from sklearn_skmm.core._peak_memory import peak_of_scores
from sklearn_skmm.selectors._leverage import draw_by_scores, sampled_rank
from sklearn_skmm.utils._sklearn import Interval


class RidgeLeverageSelector(BaseSelector):
    r"""Sample with probabilities proportional to ridge leverage scores.

    The score of a sample measures its influence on the fit of ridge regression. Use it for linear
    models, or to estimate totals over all samples without bias.

    The score of sample i is :math:`\ell_i = x_i^\top (X^\top X + N \alpha I)^{-1} x_i`, the
    diagonal of the hat matrix [1]_, [2]_. Samples are included with probabilities
    :math:`\pi_i = \min(1, c\,\ell_i)`, with c such that they sum to n. Systematic sampling realises
    these probabilities exactly.

    Parameters
    ----------
    {n_to_select}
    alpha : float or None, default=None
        The ridge, in units of the eigenvalues of :math:`\Sigma = X^\top X / N`. None means
        :math:`tr(\Sigma - \langle\Sigma\rangle_k) / k` for k = n / log n: what the best rank-k
        approximation leaves of the trace, divided by k [2]_. Sampling k log k rows preserves k
        directions.
    {stratify}
    {random_state}

    Attributes
    ----------
    {sample_indices_ascending}
    sample_weight_ : ndarray of shape (n_to_select,)
        Inverse inclusion probabilities, times the weights if there are any. Weighted totals over
        the samples with a positive score are unbiased. A score of zero, as of a row of zeros, means
        an inclusion probability of zero, unless fewer than n scores are positive. Samples that are
        in the coreset already represent only themselves, so that totals remain unbiased.
    leverage_scores_ : ndarray of shape (N,)
        Leverage score of each sample. They sum to the effective dimension.
    inclusion_probabilities_ : ndarray of shape (N,)
        Inclusion probability of each sample. They sum to n, besides those of samples that are in
        the coreset already, which are 1.
    {fitted}

    See Also
    --------
    TruncatedLeverageSelector : Truncates the spectrum instead of adding a ridge.

    Notes
    -----
    O(N m²) time for N samples of m features. Memory is needed for two arrays like X in double
    precision next to it.

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

    def _select(self, X, n, reference, rng, step, *, sample_weight=None, selected=None):
        values, vectors = reference.spectrum
        k = sampled_rank(n)
        alpha = values[k:].sum() / k if self.alpha is None else self.alpha
        energies = directional_energies(X, vectors)
        scores = np.sum(energies / (values + alpha) / X.shape[0], axis=1)
        return draw_by_scores(scores, n, rng, sample_weight, selected)
