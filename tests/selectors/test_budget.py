"""A budget in place of a number of samples."""

import inspect

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.base import clone

from sklearn_skmm import (
    FacilityLocationSelector,
    SkMMSelector,
    UniformSelector,
    VOptimalSelector,
)
from tests._selectors import make, selector_classes

rng = np.random.RandomState(0)
X = rng.normal(size=(200, 4)) * [3, 2, 1, 0.5]
COST = rng.lognormal(size=200)
WITH_BUDGET = [c for c in selector_classes() if "budget" in inspect.signature(c).parameters]


def with_budget(cls, budget, **params):
    return make(cls, None, budget=budget, **params)


@pytest.mark.parametrize("cls", WITH_BUDGET)
@pytest.mark.parametrize("given", [None, [5, 6, 7]])
@pytest.mark.parametrize("seed", range(3))
def test_the_budget_is_never_exceeded(cls, given, seed):
    costs = [COST, np.ones(200), np.random.RandomState(seed).pareto(1, size=200) + 1e-3]
    for cost in costs:
        free = np.delete(cost, given or [])
        for budget in (free.min(), 2 * free.mean(), 30 * free.mean(), 1e9):
            selector = with_budget(cls, budget)
            picks = selector.fit_transform(X, cost=cost, selected=given)
            assert len(np.unique(picks)) == len(picks) >= 1
            assert cost[picks].sum() <= budget * (1 + 1e-9)
            assert not np.isin(picks, given or []).any()
            if budget == 1e9:
                assert len(picks) == len(free)
            if budget == 30 * free.mean():
                assert cost[picks].sum() > 0.5 * budget or cost[picks].sum() + free.max() > budget
            n_given = 0 if given is None else selector.given_weight_.sum()
            assert np.isclose(selector.sample_weight_.sum() + n_given, 200)


@pytest.mark.parametrize("cls", WITH_BUDGET)
def test_equal_costs_buy_as_many(cls):
    picks = with_budget(cls, 20.0).fit_transform(X, cost=np.ones(200))
    assert len(picks) == 20


@pytest.mark.parametrize("cls", WITH_BUDGET)
def test_costs_that_scale_with_the_budget_change_nothing(cls):
    picks = with_budget(cls, 20.0).fit_transform(X, cost=COST)
    scaled = clone(with_budget(cls, 20e6)).fit_transform(X, cost=1e6 * COST)
    np.testing.assert_array_equal(picks, scaled)


def test_cheap_samples_are_preferred():
    picks = SkMMSelector(budget=30.0, random_state=0).fit_transform(X, cost=COST)
    assert COST[picks].mean() < 0.8 * COST.mean()
    assert len(picks) > 30 / COST.mean()


@pytest.mark.parametrize("cls", WITH_BUDGET)
def test_errors(cls):
    name = cls.__name__
    for cost, message in (
        (None, f"{name} with a budget requires cost"),
        (np.zeros(200), "cost must be positive, got 0"),
        (-COST, "cost must be positive"),
        (COST[:5], r"cost must have shape \(200,\)"),
        (np.full(200, np.nan), "cost contains NaN"),
        (COST + 30, r"budget=20 must be at least the smallest cost .* which is 30"),
    ):
        with pytest.raises(ValueError, match=message):
            with_budget(cls, 20.0).fit(X, cost=cost)
    with pytest.raises(ValueError, match="n_to_select must be None with a budget"):
        make(cls, 5, budget=20.0).fit(X, cost=COST)
    with pytest.raises(ValueError, match="got the cost of the samples, but no budget"):
        make(cls, 5).fit(X, cost=COST)
    with pytest.raises(ValueError, match=f"{name} needs n_to_select, or a budget"):
        make(cls, None).fit(X)
    with pytest.raises(ValueError, match="stratify must be False"):
        with_budget(cls, 20.0, stratify=True).fit(X, np.arange(200) % 2, cost=COST)
    with pytest.raises(ValueError, match="'budget' parameter of"):
        with_budget(cls, 0.0).fit(X, cost=COST)
    with pytest.raises(ValueError, match=r"transform cannot be used with a budget"):
        with_budget(cls, 20.0).fit(X, cost=COST).transform(X)


def test_selectors_without_a_budget_refuse_costs():
    with pytest.raises(ValueError, match="UniformSelector does not support cost"):
        UniformSelector(5).fit(X, cost=COST)
    with pytest.raises(ValueError, match="with rounding='cells' only"):
        SkMMSelector(budget=9.0, rounding="cube").fit(X, cost=COST)


def plain_greedy(similarity, weight, cost, budget, relative, given=()):
    """Return the picks of facility location under a budget, by all gains in every step."""
    chosen, best = list(given), similarity[:, list(given)].max(axis=1, initial=0.0)
    picks = []
    while True:
        gain = weight @ np.maximum(similarity - best[:, None], 0.0)
        gain = gain / cost if relative else gain
        left = budget - cost[picks].sum()
        gain[(cost > left * (1 + 1e-12)) | np.isin(np.arange(len(cost)), chosen)] = -np.inf
        if gain.max() == -np.inf:
            return picks, float(weight @ (1 - best) / weight.sum())
        j = int(gain.argmax())
        picks.append(j)
        chosen.append(j)
        best = np.maximum(best, similarity[:, j])


@pytest.mark.parametrize("seed", range(6))
def test_facility_location_is_the_better_of_two_plain_greedy_runs(seed):
    rng = np.random.RandomState(seed)
    rows, weight = rng.normal(size=(60, 3)), rng.uniform(0.5, 2, size=60)
    cost = rng.lognormal(sigma=1.5, size=60)
    given = [] if seed % 2 else [3, 11]
    budget = 0.15 * cost.sum()
    K = np.exp(-0.5 * cdist(rows, rows, "sqeuclidean"))
    runs = [plain_greedy(K, weight, cost, budget, relative, given) for relative in (True, False)]
    picks, objective = min(runs, key=lambda run: run[1])
    selector = FacilityLocationSelector(budget=budget, bandwidth=1.0, random_state=0)
    selector.fit(rows, sample_weight=weight, selected=given, cost=cost)
    assert selector.sample_indices_.tolist() == picks
    assert selector.objective_ == pytest.approx(objective)


@pytest.mark.parametrize("seed", range(4))
def test_v_optimal_is_the_better_of_two_plain_greedy_runs(seed):
    rng = np.random.RandomState(seed)
    rows, cost = rng.normal(size=(40, 3)) * [3, 1, 0.3], rng.lognormal(sigma=1.5, size=40)
    budget, alpha = 0.2 * cost.sum(), 0.05
    n = max(1, round(budget / cost.mean()))
    sigma = rows.T @ rows / 40

    def value(picks):
        return n * np.trace(
            np.linalg.solve(rows[picks].T @ rows[picks] + n * alpha * np.eye(3), sigma)
        )

    def run(relative):
        picks = []
        while True:
            left = budget - cost[picks].sum()
            gains = {
                i: (value(picks) - value([*picks, i])) / (cost[i] if relative else 1)
                for i in range(40)
                if i not in picks and cost[i] <= left * (1 + 1e-12)
            }
            if not gains:
                return picks
            picks.append(max(gains, key=gains.get))

    best = min((run(relative) for relative in (True, False)), key=value)
    selector = VOptimalSelector(budget=budget, alpha=alpha).fit(rows, cost=cost)
    assert selector.sample_indices_.tolist() == sorted(best)
    assert selector.lower_bound_ <= selector.objective_
