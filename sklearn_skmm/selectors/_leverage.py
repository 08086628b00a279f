"""Functions that the selectors by leverage scores share."""

import numpy as np

from sklearn_skmm.base import Selection
from sklearn_skmm.core._draws import draw_rest


def sampled_rank(n: int) -> int:
    """Return the rank k = n / log n: k log k rows sampled by leverage scores keep k directions."""
    return max(1, int(n / np.log(n + 1)))


def draw_by_scores(
    scores: np.ndarray,
    n: int,
    rng: np.random.RandomState,
    sample_weight: np.ndarray | None = None,
    selected: np.ndarray | None = None,
) -> Selection:
    """Draw n samples with inclusion probabilities exactly proportional to their scores.

    Probabilities are capped at 1. With weights, the score of a sample is multiplied by its weight.

    Parameters
    ----------
    scores : ndarray of shape (N,)
        Nonnegative leverage scores.
    n : int
        Number of samples to select.
    rng : RandomState
        The only source of randomness.
    sample_weight : ndarray of shape (N,) or None, default=None
        Weights relative to their mean.
    selected : ndarray of shape (n_given,), dtype int, or None, default=None
        Positions of samples that are in the coreset already.

    Returns
    -------
    selection : Selection
        The samples, with weights w / π. Those that are in the coreset already represent
        themselves, so that weighted totals over both together are unbiased.
    """
    weight = np.ones(len(scores)) if sample_weight is None else sample_weight
    if sample_weight is not None:
        scores = scores * weight
    indices, pi = draw_rest(scores, n, rng, selected)
    given = None if selected is None else weight[selected]
    return Selection(
        indices,
        sample_weight=weight[indices] / pi[indices],
        given_weight=given,
        per_sample={"leverage_scores_": scores, "inclusion_probabilities_": pi},
    )
