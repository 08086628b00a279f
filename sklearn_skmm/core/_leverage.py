"""What sampling by leverage scores shares. Pure functions."""

import numpy as np

from sklearn_skmm.base import Selection
from sklearn_skmm.core._draws import inclusion_probabilities, systematic


def sampled_rank(n: int) -> int:
    """Return k = n / log n: sampling k log k rows by their leverage keeps k directions."""
    return max(1, int(n / np.log(n + 1)))


def draw_by_scores(scores: np.ndarray, n: int, rng: np.random.RandomState) -> Selection:
    """Include samples with probabilities proportional to their scores, exactly."""
    pi = inclusion_probabilities(scores, n)
    indices = systematic(pi / n, n, rng)
    return Selection(
        indices,
        sample_weight=1.0 / pi[indices],
        per_sample={"leverage_scores_": scores, "inclusion_probabilities_": pi},
    )
