"""The ranking of the selected samples: any first part is a coreset."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.exceptions import NotFittedError

from sklearn_skmm import FacilityLocationSelector, SkMMSelector, UniformSelector
from tests._selectors import make, selector_classes

X = np.random.RandomState(0).normal(size=(80, 3)) * [4, 2, 1]
Y = np.arange(80) % 2


@pytest.mark.parametrize("cls", selector_classes())
def test_a_permutation_of_the_selected_samples(cls):
    selector = make(cls, 12)
    with pytest.raises(NotFittedError):
        _ = selector.ranking_
    selector.fit(X, Y)
    assert sorted(selector.ranking_) == sorted(selector.sample_indices_)
    if cls._ordered:
        assert selector.ranking_.tolist() == selector.sample_indices_.tolist()
    stratified = make(cls, 12, stratify=True).fit(X, Y)
    assert sorted(stratified.ranking_) == sorted(stratified.sample_indices_)


@pytest.mark.parametrize("given", [[], [3, 50]])
def test_it_is_greedy(given):
    """Each next sample lowers the weighted sum of squared distances the most."""
    selector = SkMMSelector(10, random_state=0).fit(X, selected=given)
    weight = np.zeros(80)
    weight[selector.sample_indices_] = selector.sample_weight_
    if given:
        weight[given] = selector.given_weight_
    squared, chosen = cdist(X, X, "sqeuclidean"), list(given)
    for j in selector.ranking_:
        after = {
            i: weight @ squared[:, [*chosen, i]].min(axis=1)
            for i in selector.sample_indices_
            if i not in chosen
        }
        assert after[j] <= min(after.values()) * (1 + 1e-9) + 1e-12
        chosen.append(int(j))


def test_text_has_no_ranking():
    selector = UniformSelector(2, random_state=0).fit(["a", "b", "c"])
    with pytest.raises(AttributeError, match="ranking_ needs rows of finite numbers"):
        _ = selector.ranking_
    similarity = FacilityLocationSelector(3, metric="precomputed").fit(np.eye(5))
    assert similarity.ranking_.tolist() == similarity.sample_indices_.tolist()
