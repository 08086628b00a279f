"""How many of each class: proportional, balanced, or by a count for each."""

import numpy as np
import pytest

from sklearn_skmm import KMeansSelector, SkMMSelector, UniformSelector
from sklearn_skmm.core._allocation import allocate
from tests._selectors import make, selector_classes

X = np.random.RandomState(0).normal(size=(100, 4))
Y = np.repeat(["a", "b", "c", "d"], [70, 20, 8, 2])


def counts_of(selector, y=Y, **given):
    indices = selector.fit(X, y, **given).sample_indices_
    return dict(zip(*(v.tolist() for v in np.unique(y[indices], return_counts=True)), strict=True))


@pytest.mark.parametrize("cls", selector_classes())
def test_balanced_and_counts(cls):
    assert counts_of(make(cls, 12, stratify="balanced")) in (
        {"a": 4, "b": 3, "c": 3, "d": 2},
        {"a": 3, "b": 4, "c": 3, "d": 2},
        {"a": 3, "b": 3, "c": 4, "d": 2},
    )
    assert counts_of(make(cls, {"b": 5, "a": 0.1, "c": 0})) == {"a": 7, "b": 5}
    selector = make(cls, {"d": 2})
    assert selector.fit_transform(X, Y).tolist() == [98, 99] or set(selector.sample_indices_) == {
        98,
        99,
    }


def brute_force_balance(n, free, taken):
    """One after the other to the class with the fewest."""
    counts = np.zeros(len(free), dtype=int)
    for _ in range(n):
        total = np.where(counts < free, counts + taken, 10**9)
        counts[total.argmin()] += 1
    return counts


@pytest.mark.parametrize("seed", range(20))
def test_balanced_counts_are_as_equal_as_they_can_be(seed):
    rng = np.random.RandomState(seed)
    free, taken = rng.randint(0, 12, size=5), rng.randint(0, 4, size=5)
    for n in range(1, free.sum() + 1):
        counts = allocate(n, np.ones(5), free, taken)
        assert counts.sum() == n
        assert np.all(counts <= free)
        expected = brute_force_balance(n, free, taken)
        assert np.sort(counts + taken).tolist() == np.sort(expected + taken).tolist()


@pytest.mark.parametrize("stratify", [True, "balanced"])
def test_given_samples_count_for_their_class(stratify):
    """Ten samples of the first class are selected already."""
    selector = UniformSelector(10, stratify=stratify, random_state=0)
    counts = counts_of(selector, selected=np.arange(10))
    both = {**counts, "a": counts.get("a", 0) + 10}
    expected = {
        True: {"a": 14, "b": 4, "c": 1, "d": 1},
        "balanced": {"a": 10, "b": 4, "c": 4, "d": 2},
    }
    assert both == expected[stratify]


def test_weights_set_the_proportions():
    weight = np.where(Y == "c", 10.0, 1.0)
    counts = counts_of(SkMMSelector(20, stratify=True, random_state=0), sample_weight=weight)
    assert counts == {"a": 8, "b": 2, "c": 8, "d": 1} or counts["c"] == 8


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"x": 1}, "has a count for the class 'x', but the classes of y are"),
        ({"a": 71}, "n_to_select=71 for the class 'a' must be at most .* which is 70"),
        ({"a": -1}, "Got -1 for the class 'a'"),
        ({"a": 1.5}, "Got 1.5 for the class 'a'"),
        ({"a": True}, "Got True for the class 'a'"),
        ({"a": "3"}, "Got '3' for the class 'a'"),
        ({"a": 0}, "must have a positive count"),
        ({}, "must have a positive count"),
    ],
)
def test_wrong_counts(counts, message):
    with pytest.raises(ValueError, match=message):
        UniformSelector(counts).fit(X, Y)


def test_targets_must_be_classes():
    y = np.linspace(0, 1, 100)
    for params in ({"n_to_select": 10, "stratify": True}, {"n_to_select": {0.5: 1}}):
        with pytest.raises(ValueError, match="continuous values such as"):
            UniformSelector(**params).fit(X, y)
        with pytest.raises(ValueError, match="requires y to be passed"):
            UniformSelector(**params).fit(X)
    UniformSelector(10, stratify=True).fit(X, np.arange(100) % 3.0)
    with pytest.raises(ValueError, match="'stratify' parameter of UniformSelector"):
        UniformSelector(10, stratify="equal").fit(X, Y)


@pytest.mark.parametrize("given", [None, np.array([3, 40])])
def test_labels_of_k_means_say_what_the_masses_are(given):
    selector = KMeansSelector(10, random_state=0).fit(X, selected=given)
    labels, n_given = selector.labels_, 0 if given is None else 2
    assert labels[selector.sample_indices_].tolist() == list(range(10))
    np.testing.assert_array_equal(np.bincount(labels[labels >= 0]), selector.sample_weight_)
    if n_given:
        assert labels[given].tolist() == [-1, -1]
        assert np.sum(labels == -1) == selector.given_weight_.sum()
    else:
        assert labels.min() == 0
