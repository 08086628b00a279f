"""Sampling by truncated leverage scores."""

from numbers import Integral
from typing import ClassVar

import numpy as np

from sklearn_skmm.base import BaseSelector
from sklearn_skmm.core._moments import directional_energies
from sklearn_skmm.core._peak_memory import peak_of_scores
from sklearn_skmm.selectors._leverage import draw_by_scores, sampled_rank
from sklearn_skmm.utils._sklearn import Interval


class TruncatedLeverageSelector(BaseSelector):
    r"""Sample with probabilities proportional to truncated leverage scores.

    The score of a sample measures its influence in the k leading directions of X. Use it for linear
    models, or to estimate totals over all samples without bias.

    The score of sample i is :math:`\ell_i = \sum_{j \le k} (x_i^\top v_j)^2 / (N \lambda_j)`,
    its leverage on the best rank-k approximation of X [1]_. Samples are included with probabilities
    :math:`\pi_i = \min(1, c\,\ell_i)`, with c such that they sum to n. Systematic sampling realises
    these probabilities exactly.

    Parameters
    ----------
    {n_to_select}
    n_components : int or None, default=None
        The rank k, at most the numerical rank of X. None means n / log n: sampling k log k rows by
        their leverage preserves k directions.
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
        Leverage score of each sample. They sum to k.
    inclusion_probabilities_ : ndarray of shape (N,)
        Inclusion probability of each sample. They sum to n, besides those of samples that are in
        the coreset already, which are 1.
    {fitted}

    See Also
    --------
    RidgeLeverageSelector : Adds a ridge instead of truncating the spectrum.

    Notes
    -----
    O(N m²) time for N samples of m features, in double precision. Memory is needed for the k
    leading components of each sample and their squares.

    References
    ----------
    .. [1] P. Drineas, M. W. Mahoney, S. Muthukrishnan. "Relative-error CUR matrix decompositions".
       SIAM Journal on Matrix Analysis and Applications 30, 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import TruncatedLeverageSelector
    >>> X = np.array([[9.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    >>> TruncatedLeverageSelector(2, n_components=2, random_state=0).fit(X).leverage_scores_
    array([1. , 0.5, 0.5])
    """

    _kept: ClassVar[float] = 2.0
    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseSelector._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
    }

    def __init__(self, n_to_select, *, n_components=None, stratify=False, random_state=None):
        self.n_to_select = n_to_select
        self.n_components = n_components
        self.stratify = stratify
        self.random_state = random_state

    def _peak_bytes(self, n_samples, n_features, n, itemsize):
        return peak_of_scores(n_samples, min(self.n_components or sampled_rank(n), n_features))

    def _select(self, X, n, reference, rng, step, *, sample_weight=None, selected=None):
        values, vectors = reference.spectrum
        k = self.n_components or sampled_rank(n)
        k = min(k, len(values))
        energies = directional_energies(X, vectors[:, :k])
        scores = np.sum(energies / (X.shape[0] * values[:k]), axis=1)
        return draw_by_scores(scores, n, rng, sample_weight, selected)
