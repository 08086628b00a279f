"""Functions that the selectors by leverage scores share."""

import numpy as np

from sklearn_skmm.base import Selection
from sklearn_skmm.core._draws import inclusion_probabilities, systematic


def sampled_rank(n: int) -> int:
    """Return the rank k = n / log n: k log k rows sampled by leverage scores keep k directions."""
    return max(1, int(n / np.log(n + 1)))


def draw_by_scores(scores: np.ndarray, n: int, rng: np.random.RandomState) -> Selection:
    """Draw n samples with inclusion probabilities exactly proportional to their scores.

    Probabilities are capped at 1.

    Parameters
    ----------
    scores : ndarray of shape (N,)
        Nonnegative leverage scores.
    n : int
        Number of samples to select.
    rng : RandomState
        The only source of randomness.

    Returns
    -------
    selection : Selection
        The samples, with weights 1 / π.
    """
    pi = inclusion_probabilities(scores, n)
    indices = systematic(pi / n, n, rng)
    return Selection(
        indices,
        sample_weight=1.0 / pi[indices],
        per_sample={"leverage_scores_": scores, "inclusion_probabilities_": pi},
    )
