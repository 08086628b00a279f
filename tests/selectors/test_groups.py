"""At most one sample of each group."""

import inspect

import numpy as np
import pytest

from sklearn_skmm import GradNormSelector, SkMMSelector, UniformSelector
from tests._selectors import make, selector_classes

rng = np.random.RandomState(0)
X, Y = rng.normal(size=(120, 3)) + 1, np.arange(120) % 2
GROUPS = np.array(["a", "b", "c"])[rng.randint(3, size=120)].astype(object) + (
    rng.randint(12, size=120).astype(str).astype(object)
)
N_GROUPS = len(np.unique(GROUPS))
WITH_GROUPS = [c for c in selector_classes() if "groups" in inspect.signature(c.fit).parameters]


@pytest.mark.parametrize("cls", WITH_GROUPS)
@pytest.mark.parametrize("weighted", [False, True])
def test_at_most_one_of_each_group(cls, weighted):
    weight = np.random.RandomState(1).randint(0, 3, size=120) if weighted else None
    given = np.array([4, 9])
    for params in ({}, {"selected": given}):
        selector = make(cls, 15)
        picks = selector.fit_transform(X, Y, groups=GROUPS, sample_weight=weight, **params)
        both = np.concatenate([picks, params.get("selected", [])]).astype(int)
        assert len(both) == 15 + len(both) - len(picks)
        assert len(np.unique(GROUPS[both])) == len(both)
        assert weight is None or weight[picks].min() > 0
        if "Leverage" not in cls.__name__:
            mass = selector.sample_weight_.sum()
            mass += selector.given_weight_.sum() if params else 0.0
            assert mass == pytest.approx(120 if weight is None else weight.sum())


@pytest.mark.parametrize("cls", WITH_GROUPS)
def test_exactly_one_of_each_group(cls):
    selector = make(cls, 1.0).fit(X, Y, groups=GROUPS)
    assert np.unique(GROUPS[selector.sample_indices_]).tolist() == np.unique(GROUPS).tolist()
    with pytest.raises(ValueError, match=f"at most the number of groups .* is {N_GROUPS}"):
        make(cls, N_GROUPS + 1).fit(X, Y, groups=GROUPS)


def test_groups_of_one_change_nothing():
    plain = SkMMSelector(20, random_state=0).fit_transform(X)
    np.testing.assert_array_equal(
        SkMMSelector(20, random_state=0).fit_transform(X, groups=np.arange(120)), plain
    )


def test_labels_are_those_of_the_group():
    selector = SkMMSelector(10, random_state=0).fit(X, groups=GROUPS)
    for group in np.unique(GROUPS):
        assert len(np.unique(selector.labels_[group == GROUPS])) == 1
    own = selector.labels_[selector.sample_indices_]
    assert own.tolist() == list(range(10))
    np.testing.assert_allclose(np.bincount(selector.labels_), selector.sample_weight_)


def test_samples_of_a_group_are_drawn_by_weight():
    """A sample of weight 3 of a group of weight 4 stands for it in three of four fits."""
    groups, weight = np.repeat([0, 1], 2), np.array([3.0, 1.0, 1.0, 1.0])
    picks = [
        UniformSelector(2, random_state=seed).fit_transform(
            np.zeros((4, 1)), groups=groups, sample_weight=weight
        )
        for seed in range(800)
    ]
    times = np.bincount(np.concatenate(picks), minlength=4) / 800
    np.testing.assert_allclose(times, [0.75, 0.25, 0.5, 0.5], atol=0.06)


def test_strata_and_groups():
    picks = SkMMSelector(20, stratify=True, random_state=0).fit_transform(X, Y, groups=GROUPS)
    assert len(np.unique(GROUPS[picks])) == 20


def test_errors():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        UniformSelector(2).fit(X, groups=GROUPS[:5])
    with pytest.raises(ValueError, match="groups contains NaN"):
        UniformSelector(2).fit(X, groups=np.full(120, np.nan))
    with pytest.raises(ValueError, match="GradNormSelector does not support groups"):
        GradNormSelector(2).fit(X, groups=GROUPS)


def test_too_few_samples_of_positive_weight():
    weight = np.zeros(120)
    weight[:5] = [1, 2, 1, 2, 1]
    with pytest.raises(ValueError, match=r"but 3 of n_samples=120 have a positive sample_weight"):
        SkMMSelector(4).fit(X, sample_weight=weight, selected=[0, 1])
