"""A selector written elsewhere, from the public names of `sklearn_skmm.base` alone."""

import numpy as np
from sklearn.utils.extmath import row_norms

from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.utils.estimator_checks import parametrize_with_checks


class FarthestSelector(BaseSelector):
    """Select the n samples farthest from the mean."""

    def __init__(self, n_to_select, *, stratify=False):
        self.n_to_select = n_to_select
        self.stratify = stratify

    def _select(self, X, n, reference, rng, step):
        mean = reference.mean
        distances = row_norms(X, squared=True) - 2 * (X @ mean) + mean @ mean
        farthest = np.argsort(-distances, kind="stable")[:n]
        return Selection(farthest, per_sample={"distances_": distances})


@parametrize_with_checks([FarthestSelector(10)])
def test_the_whole_contract(estimator, check):
    check(estimator)
