"""Weights of samples and samples that are in the coreset already, against loops and closed forms.

What every selector has to do with them is in `sklearn_skmm.utils.estimator_checks`. Here are the
results themselves: weights count as repeated rows, and given samples as if they were selected.
"""

import inspect
import warnings

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import sklearn_skmm as skmm
from sklearn_skmm.base import Reference
from sklearn_skmm.core._cells import Cells
from sklearn_skmm.core._draws import draw_rest, inclusion_probabilities
from sklearn_skmm.core._given_cells import _with_free_cells, cells_besides
from sklearn_skmm.selectors import _skmm
from tests._selectors import make, selector_classes
from tests.core.test_exemplars import METRICS, cost_matrix
from tests.test_statistics import assert_included, assert_unbiased, repeat_first_result

equal, close = np.testing.assert_array_equal, np.testing.assert_allclose
N = 50
Y = np.arange(N) % 2
GIVEN = np.array([4, 17, 31])
REST = np.setdiff1d(np.arange(N), GIVEN)


def pool(seed=0, m=4):
    X = np.random.RandomState(seed).normal(size=(N, m)) * np.logspace(0, -1, m) * 3
    return X + 0.5


def whole_weights(seed=0):
    return np.random.RandomState(seed + 100).randint(1, 5, size=N)


def moment(X, weight=None):
    return np.average(np.einsum("ij,ik->ijk", X, X), axis=0, weights=weight)


# Which selectors support what


def test_every_selector_supports_what_it_says():
    without = {
        "sample_weight": {"GradNormSelector", "UncertaintySelector"},
        "selected": set(),
    }
    value = {"sample_weight": np.ones(N), "selected": GIVEN}
    for cls in selector_classes():
        for name, names in without.items():
            for method in ("fit", "fit_transform", "fit_resample"):
                supported = name in inspect.signature(getattr(cls, method)).parameters
                assert supported == (cls.__name__ not in names)
                if not supported:
                    with pytest.raises(ValueError, match=f"{cls.__name__} does not support {name}"):
                        getattr(make(cls, 5), method)(pool(), Y, **{name: value[name]})
    exemplar = skmm.SkMMSelector(5, rounding="exemplar", random_state=0)
    with pytest.raises(ValueError, match="rounding='exemplar' does not support selected"):
        exemplar.fit(pool(), selected=GIVEN)
    exemplar.fit(pool(), sample_weight=whole_weights())


# Weights are as repeated rows


def first_of(indices, weight):
    """Return which samples these positions of repeated rows are copies of."""
    return np.repeat(np.arange(N), weight)[indices]


WITHOUT_COPIES = [  # which select no copies of a row before all rows
    skmm.KCenterSelector(12, init="center"),
    skmm.AdaptiveSelector(4, pivoting="greedy"),
    *(skmm.FacilityLocationSelector(12, metric=metric, bandwidth=1.0) for metric in METRICS),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("selector", WITHOUT_COPIES, ids=str)
def test_weights_are_repeated_rows(selector, seed):
    X, weight = pool(seed, 10), whole_weights(seed)
    copies = np.flatnonzero(np.isin(np.repeat(np.arange(N), weight), GIVEN))
    for given, all_given in ((None, None), (GIVEN, copies)):
        repeated = clone(selector).fit(X.repeat(weight, axis=0), selected=all_given)
        for container in (X, sparse.csr_array(X)):
            fitted = clone(selector).fit(container, sample_weight=weight, selected=given)
            equal(fitted.sample_indices_, first_of(repeated.sample_indices_, weight))
            if isinstance(selector, skmm.FacilityLocationSelector):
                close(fitted.sample_weight_, repeated.sample_weight_)
            for name in {"objective_", "radius_"} & vars(repeated).keys():
                value = getattr(repeated, name)
                assert getattr(fitted, name) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    "selector",
    [
        skmm.HerdingSelector(12),
        skmm.VOptimalSelector(12, alpha=0.05),
        skmm.RidgeLeverageSelector(12, random_state=0),
        skmm.TruncatedLeverageSelector(12, random_state=0),
        skmm.SkMMSelector(12, init="vertex", rounding="systematic", random_state=0),
    ],
    ids=str,
)
@pytest.mark.parametrize("m", [4, 70])
def test_another_pool_is_matched_to_weighted_moments(selector, m):
    X, weight, others = pool(m=m), whole_weights(), pool(9, m)[:, ::-1]
    repeated = clone(selector).fit(X.repeat(weight, axis=0))
    for container in (X, sparse.csr_array(X)):
        fitted = clone(selector).fit(container, sample_weight=weight)
        equal(fitted.transform(others), repeated.transform(others))
    if "spectrum" in vars(fitted._references[0]):
        values, vectors = fitted._references[0].spectrum
        close((vectors * values) @ vectors.T, moment(X, weight), atol=1e-9 * values[0])


def test_weights_of_cells_and_clusters_are_counts_of_repeated_rows():
    """Separated clusters have a cell each, whatever is random."""
    X, cluster, weight = clusters()
    masses = np.bincount(cluster, weights=weight)
    for selector in (
        skmm.KMeansSelector(8, n_init=30, random_state=0),
        skmm.FacilityLocationSelector(8, metric="sqeuclidean"),
        skmm.SkMMSelector(8, balance=np.inf, random_state=0),
        skmm.SkMMSelector(8, rounding="exemplar", random_state=0),
    ):
        selector.fit(X, sample_weight=weight)
        own = cluster[selector.sample_indices_]
        equal(np.sort(own), np.arange(8))
        close(selector.sample_weight_, masses[own])
        if isinstance(selector, skmm.KMeansSelector):
            repeated = clone(selector).fit(X.repeat(weight, axis=0))
            # Weights are in multiples of their mean.
            assert selector.inertia_ * weight.mean() == pytest.approx(repeated.inertia_)
            equal(selector.sample_indices_, first_of(repeated.sample_indices_, weight))


def clusters():
    """Return eight clusters, far from each other, of samples of different weight."""
    rng = np.random.RandomState(0)
    cluster = np.sort(np.append(np.arange(8), rng.randint(8, size=N - 8)))
    X = 20.0 * np.array([*np.eye(4), *-np.eye(4)])[cluster] + rng.normal(size=(N, 4))
    return X, cluster, rng.randint(1, 5, size=N)


LEVERAGE = [
    skmm.RidgeLeverageSelector(8, alpha=0.1),
    skmm.TruncatedLeverageSelector(8, n_components=3),
]


@pytest.mark.parametrize("selector", LEVERAGE, ids=str)
def test_leverage_scores_are_those_of_all_copies(selector):
    X, weight = pool(), whole_weights()
    selector.set_params(random_state=0)
    for name in ("leverage_scores_", "inclusion_probabilities_"):
        copies = getattr(selector.fit(X.repeat(weight, axis=0)), name)
        sums = np.bincount(np.repeat(np.arange(N), weight), weights=copies)
        assert sums.max() < 1  # no probability is capped
        close(getattr(selector.fit(X, sample_weight=weight), name), sums, rtol=1e-9)


@pytest.mark.parametrize("largest", [3.0, 100.0])
@pytest.mark.parametrize("given", [None, GIVEN])
def test_uniform_selects_in_proportion_to_the_weights(given, largest):
    """Copies of a row are selected as often together; a heavy row is selected for certain."""
    weight = whole_weights() / 1.0
    weight[7] = largest
    counts, repeats = np.zeros(N), 1000
    reference, relative = Reference(np.zeros((N, 1))), weight / weight.mean()
    for seed in range(repeats):
        selection = skmm.UniformSelector(6)._select(
            np.zeros((N, 1)),
            6,
            reference,
            np.random.RandomState(seed),
            None,
            sample_weight=relative,
            selected=given,
        )
        counts[selection.indices] += 1
        both = np.append(selection.sample_weight, () if given is None else selection.given_weight)
        assert both.sum() == pytest.approx(N)
        # Nobody represents less than itself.
        own = relative[np.append(selection.indices, () if given is None else given).astype(int)]
        if 7 in selection.indices:
            assert np.all(both >= own * (1 - 1e-12))
    rest = np.arange(N) if given is None else REST
    pi = np.zeros(N)
    pi[rest] = inclusion_probabilities(weight[rest], 6)
    assert (pi[7] == 1.0) == (largest == 100.0)
    assert_included(counts, repeats, pi)


@pytest.mark.parametrize("selector", LEVERAGE, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_leverage_sampling_is_unbiased_besides_given_samples(selector, weighted):
    X, weight = pool(), whole_weights() / 1.0
    X[GIVEN[0]] = 0.0  # has no leverage, and once represented 1e12 samples
    weight = weight / weight.mean() if weighted else np.ones(N)
    reference = Reference(X, weight=weight if weighted else None)
    optional = {"sample_weight": weight} if weighted else {}
    counts, totals, repeats = np.zeros(N), [], 1000
    columns = np.column_stack([np.ones(N), X])
    columns[X.any(axis=1) == 0] = 0.0
    for seed in range(repeats):
        selection = selector._select(
            X, 8, reference, np.random.RandomState(seed), None, selected=GIVEN, **optional
        )
        counts[selection.indices] += 1
        totals.append(selection.sample_weight @ columns[selection.indices])
        totals[-1] = totals[-1] + selection.given_weight @ columns[GIVEN]
    pi = selection.per_sample["inclusion_probabilities_"]
    equal(pi[GIVEN], 1.0)
    scores = selection.per_sample["leverage_scores_"]
    close(pi[REST], inclusion_probabilities(scores[REST], 8))
    pi[GIVEN] = 0.0
    assert_included(counts, repeats, pi)
    assert_unbiased(totals, weight @ columns)


def test_masses_sum_to_the_weights_if_a_heavy_sample_is_left_out():
    weight = np.where(np.arange(N) < 2, 100.0, 1.0)
    selector = skmm.UniformSelector(1, random_state=0).fit(
        pool(), sample_weight=weight, selected=GIVEN
    )
    assert selector.sample_weight_.sum() + selector.given_weight_.sum() == pytest.approx(248)


@pytest.mark.parametrize("cls", selector_classes(), ids=lambda cls: cls.__name__)
def test_equal_rows_besides_given_samples(cls):
    for X in (np.zeros((8, 3)), np.ones((8, 3)), np.eye(8)[[0, 0, 0, 1, 1, 1, 2, 2]]):
        selector = make(cls, 4).fit(X, np.arange(8) % 2, selected=[0, 3])
        assert len(np.unique([0, 3, *selector.sample_indices_])) == 6


def test_rest_is_drawn_with_exact_probabilities():
    scores = 10.0 ** np.random.RandomState(0).uniform(-2, 1, size=20)
    given, counts, repeats = np.array([3, 8]), np.zeros(20), 3000
    for seed in range(repeats):
        items, pi = draw_rest(scores, 7, np.random.RandomState(seed), given)
        counts[items] += 1
    expected = np.zeros(20)
    rest = np.setdiff1d(np.arange(20), given)
    expected[rest] = inclusion_probabilities(scores[rest], 7)
    assert (expected == 1).any()
    close(pi[rest], expected[rest])
    assert_included(counts, repeats, expected)


def residuals(X, rows):
    """Return the squared norms of what these rows do not span of each row."""
    if not len(rows):
        return np.square(X).sum(axis=1)
    basis = np.linalg.qr(X[list(rows)].T)[0]
    return np.square(X - X @ basis @ basis.T).sum(axis=1)


@pytest.mark.parametrize("block_size", [1, 8])
@pytest.mark.parametrize("given", [(), (2,)])
def test_adaptive_sampling_draws_by_weighted_residuals(given, block_size):
    X, weight = pool()[:8] - 0.5, np.array([1.0, 4, 2, 1, 3, 1, 2, 2])
    weight = weight / weight.mean()
    pair, repeats = np.zeros((8, 8)), 1000
    chance = weight * residuals(X, given)
    chance[list(given)] = 0.0
    chance /= chance.sum()
    for i in np.flatnonzero(chance):
        left = weight * residuals(X, [*given, i])
        left[[*given, i]] = 0.0
        pair[i] = chance[i] * left / left.sum()
    selector, counts = skmm.AdaptiveSelector(2, block_size=block_size), np.zeros((8, 8))
    selected = np.array(given, dtype=int) if given else None
    for seed in range(repeats):
        selection = selector._select(
            X,
            2,
            None,
            np.random.RandomState(seed),
            lambda: False,
            sample_weight=weight,
            selected=selected,
        )
        counts[tuple(selection.indices)] += 1
    assert_included(counts.ravel(), repeats, pair.ravel())


def test_adaptive_sampling_of_rows_of_zeros_is_by_weight():
    weight, counts = np.array([1.0, 2.0, 5.0]), np.zeros(3)
    for seed in range(1000):
        selection = skmm.AdaptiveSelector(1)._select(
            np.zeros((3, 2)), 1, None, np.random.RandomState(seed), None, sample_weight=weight
        )
        counts[selection.indices] += 1
    assert_included(counts, 1000, weight / 8)


def test_first_centre_is_drawn_by_weight():
    X, weight, counts = pool()[:8], np.array([1.0, 4, 2, 1, 3, 1, 2, 2]) / 2, np.zeros(8)
    for seed in range(1000):
        selection = skmm.KCenterSelector(1)._select(
            X, 1, Reference(X), np.random.RandomState(seed), None, sample_weight=weight
        )
        counts[selection.indices] += 1
    assert_included(counts, 1000, weight / weight.sum())


# Given samples are as if they had been selected


@pytest.mark.parametrize(
    "selector",
    [
        skmm.HerdingSelector(20),
        skmm.KCenterSelector(20, random_state=3),
        skmm.KCenterSelector(20, init="center"),
        skmm.AdaptiveSelector(20, pivoting="greedy"),
        skmm.GradNormSelector(20),
        skmm.UncertaintySelector(20, LogisticRegression()),
        *(skmm.FacilityLocationSelector(20, metric=m, random_state=0) for m in METRICS),
    ],
    ids=str,
)
@pytest.mark.parametrize("weighted", [False, True])
def test_two_steps_are_one(selector, weighted):
    """Selecting half, and then the other half besides it, is selecting all at once."""
    X = pool(m=25)
    optional = {}
    if weighted:
        if "sample_weight" not in inspect.signature(selector.fit).parameters:
            pytest.skip("no weights")
        optional = {"sample_weight": whole_weights()}
    whole = selector.fit(X, Y, **optional)
    first = clone(selector).set_params(n_to_select=10).fit(X, Y, **optional)
    equal(first.sample_indices_, whole.sample_indices_[:10])
    second = clone(first).fit(X, Y, selected=first.sample_indices_, **optional)
    equal(second.sample_indices_, whole.sample_indices_[10:])
    order = np.argsort(first.sample_indices_)
    weight = np.append(second.given_weight_[np.argsort(order)], second.sample_weight_)
    close(weight, whole.sample_weight_)
    for name in ("objective_", "radius_", "bandwidth_"):
        if hasattr(whole, name):
            assert getattr(second, name) == pytest.approx(getattr(whole, name), nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
def test_herding_follows_its_definition(seed):
    X, weight = pool(seed), whole_weights(seed)
    mu, chosen = np.average(X, axis=0, weights=weight), GIVEN.tolist()
    for _ in range(20):
        w = mu + (mu - X[chosen]).sum(axis=0)
        chosen.append(max(set(range(N)) - set(chosen), key=lambda i: X[i] @ w))
    selector = skmm.HerdingSelector(20).fit(X, sample_weight=weight, selected=GIVEN)
    equal(selector.sample_indices_, chosen[3:])


@pytest.mark.parametrize("metric", METRICS)
def test_facility_location_is_plain_greedy(metric):
    X, weight = pool(), whole_weights()
    C = cost_matrix(X, metric, 1.3)
    chosen = GIVEN.tolist()
    for _ in range(9):
        nearest = C[:, chosen].min(axis=1, keepdims=True)
        totals = weight @ np.minimum(C, nearest)
        totals[chosen] = np.inf
        chosen.append(int(np.argmin(totals)))
    selector = skmm.FacilityLocationSelector(9, metric=metric, bandwidth=1.3)
    selector.fit(X, sample_weight=weight, selected=GIVEN)
    equal(selector.sample_indices_, chosen[3:])
    assert selector.objective_ == pytest.approx(
        np.average(C[:, chosen].min(axis=1), weights=weight)
    )
    counts = np.bincount(C[:, chosen].argmin(axis=1), weights=weight)
    close(np.append(selector.given_weight_, selector.sample_weight_), counts)


def test_median_distance_is_that_of_repeated_rows():
    X, weight = pool(), 1 + 5 * (np.arange(N) < 25)
    X[25:] *= 3.0
    D, both = cdist(X, X), np.outer(weight, weight)
    order = np.argsort(D, axis=None)
    cumulative = np.cumsum(both.ravel()[order])
    median = D.ravel()[order][np.searchsorted(cumulative, cumulative[-1] / 2)]
    bandwidth = skmm.FacilityLocationSelector(5, random_state=0).fit(X, sample_weight=weight)
    assert bandwidth.bandwidth_ == pytest.approx(median / 2, rel=0.02)
    assert np.median(D[np.triu_indices(N, 1)]) > 1.2 * median  # the weights matter


@pytest.mark.parametrize("params", [{}, {"init": "greedy"}, {"alpha": 1e-3}, {"alpha": 1.0}])
def test_v_optimal_is_optimal_under_exchanges_of_new_samples(params):
    X, weight = pool(), whole_weights()
    selector = skmm.VOptimalSelector(6, **params).fit(X, sample_weight=weight, selected=GIVEN)
    sigma, alpha = moment(X, weight), selector.alpha_

    def V(new):
        return np.trace(np.linalg.solve(moment(X[[*GIVEN, *new]]) + alpha * np.eye(4), sigma))

    new = selector.sample_indices_
    assert not np.isin(new, GIVEN).any()
    value = V(new)
    assert selector.objective_ == pytest.approx(value, rel=1e-9)
    for position in range(6):
        for i in np.setdiff1d(REST, new):
            assert V([*np.delete(new, position), i]) >= value * (1 - 1e-4 - 1e-9)
    rng = np.random.RandomState(0)
    for _ in range(100):
        assert V(rng.choice(REST, 6, replace=False)) >= selector.lower_bound_ - 1e-9
    assert selector.gap_ == pytest.approx((value - selector.lower_bound_) / value)


def test_v_optimal_refuses_an_init_besides_given_samples():
    with pytest.raises(ValueError, match="'relaxation' or 'greedy' with selected samples"):
        skmm.VOptimalSelector(6, init=[1, 2]).fit(pool(), selected=GIVEN)


@pytest.mark.parametrize("init", ["random", "center"])
def test_k_center_covers_besides_given_samples(init):
    X = pool()
    selector = skmm.KCenterSelector(8, init=init, random_state=0)
    selector.fit(X, sample_weight=whole_weights(), selected=GIVEN)
    chosen = GIVEN.tolist()
    for _ in range(8):
        chosen.append(int(np.argmax(cdist(X, X[chosen]).min(axis=1))))
    equal(selector.sample_indices_, chosen[3:])
    assert selector.radius_ == pytest.approx(cdist(X, X[chosen]).min(axis=1).max())


COVERING = [
    skmm.KMeansSelector(5, random_state=0),
    skmm.FacilityLocationSelector(5, metric="sqeuclidean"),
    skmm.KCenterSelector(5, random_state=0),
    skmm.SkMMSelector(5, balance=np.inf, random_state=0),
    skmm.SkMMSelector(5, balance=np.inf, centrality=np.inf, n_candidates=None, random_state=0),
]


@pytest.mark.parametrize("selector", COVERING, ids=str)
@pytest.mark.parametrize("shared", [0, 2])
def test_clusters_that_hold_given_samples_get_no_other(selector, shared):
    """Also if several given samples share a cluster."""
    X, cluster, weight = clusters()
    given = np.concatenate(
        [np.flatnonzero(cluster == k)[: 1 + shared * (k == 6)] for k in (0, 3, 6)]
    )
    selector.fit(X, sample_weight=weight, selected=given)
    own = cluster[selector.sample_indices_]
    equal(np.sort(own), [1, 2, 4, 5, 7])
    if isinstance(selector, skmm.KCenterSelector):
        return
    masses = np.bincount(cluster, weights=weight)
    close(selector.sample_weight_, masses[own])
    sums = np.bincount(cluster[given], weights=selector.given_weight_, minlength=8)
    close(sums[[0, 3, 6]], masses[[0, 3, 6]])
    if selector.get_params().get("centrality") == np.inf or isinstance(
        selector, skmm.KMeansSelector
    ):
        for i, k in zip(selector.sample_indices_, own, strict=True):
            members = np.flatnonzero(cluster == k)
            mean = np.average(X[members], axis=0, weights=weight[members])
            assert i == members[np.linalg.norm(X[members] - mean, axis=1).argmin()]


def test_k_means_weights_are_those_of_the_nearest_samples():
    X, weight = pool(), whole_weights()
    selector = skmm.KMeansSelector(7, random_state=0)
    selector.fit(X, sample_weight=weight, selected=GIVEN)
    both = np.append(selector.sample_indices_, GIVEN)
    counts = np.bincount(cdist(X, X[both]).argmin(axis=1), weights=weight)
    close(np.append(selector.sample_weight_, selector.given_weight_), counts)


def test_largest_norms_and_uncertainties_of_the_rest():
    X = pool()
    selector = skmm.GradNormSelector(5).fit(X, selected=GIVEN)
    norms = np.linalg.norm(X, axis=1)
    equal(selector.sample_indices_, REST[np.argsort(-norms[REST])[:5]])
    close(selector.norms_, norms)
    selector = skmm.UncertaintySelector(5, LogisticRegression()).fit(X, Y, selected=GIVEN)
    scores = selector.uncertainties_
    equal(selector.sample_indices_, REST[np.argsort(-scores[REST], kind="stable")[:5]])


# Sketchy Moment Matching


def large_pool():
    rng = np.random.RandomState(1)
    X = rng.normal(size=(400, 5)) * [3, 2, 1, 0.5, 0.3] + rng.randint(3, size=(400, 1)) * 3.0
    weight = np.exp(0.5 * X[:, 0] / 3)
    given = np.argsort(-np.linalg.norm(X, axis=1))[5:60:5]  # extreme samples, on purpose
    return X, weight / weight.mean(), np.sort(given)


def errors(X, rows, mean, second):
    """Return the relative errors of the first and the second moment of these rows."""
    return np.array(
        [
            np.linalg.norm(X[rows].mean(axis=0) - mean) / np.linalg.norm(mean),
            np.linalg.norm(moment(X[rows]) - second) / np.linalg.norm(second),
        ]
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("params", [{}, {"centrality": 0.0, "n_candidates": None}])
def test_skmm_matches_weighted_moments_together_with_given_samples(weighted, params):
    X, weight, given = large_pool()
    optional = {"sample_weight": weight} if weighted else {}
    mean = np.average(X, axis=0, weights=weight if weighted else None)
    second = moment(X, weight if weighted else None)
    told, untold, unweighted = [], [], []
    for seed in range(8):
        selector = skmm.SkMMSelector(30, random_state=seed, **params)
        new = selector.fit_transform(X, selected=given, **optional)
        told.append(errors(X, np.append(new, given), mean, second))
        new = np.setdiff1d(selector.fit_transform(X, **optional), given)
        untold.append(errors(X, np.append(new, given), mean, second))
        new = selector.fit_transform(X, selected=given)
        unweighted.append(errors(X, np.append(new, given), mean, second))
    bound = 0.45 if params else 0.6
    assert np.all(np.mean(told, axis=0) < bound * np.mean(untold, axis=0))
    if weighted:
        assert np.all(np.mean(told, axis=0) < 0.6 * np.mean(unweighted, axis=0))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("params", [{}, {"c_S": 0.6}, {"c_S": 0.999, "init": "vertex"}])
def test_cells_of_skmm_that_hold_given_samples_are_taken(params, weighted):
    X, weight, given = large_pool()
    optional = {"sample_weight": weight} if weighted else {}
    selector = skmm.SkMMSelector(30, random_state=0, max_iter=20_000, **params)
    selector.fit(X, selected=given, **optional)
    labels, s = selector.labels_, selector.weights_
    equal(labels[selector.sample_indices_], np.arange(30))
    equal(labels[given], -1)
    # A sample has no label if it has no weight, or if its cell holds a given sample: then the
    # nearest of those that were laid out with it is no farther than some free cell.
    taken = (labels == -1) & (s > 0)
    assert taken.sum() > len(given)
    mass = np.bincount(labels[labels >= 0], weights=s[labels >= 0], minlength=30)
    total = optional.get("sample_weight", np.ones(400)).sum()
    close(selector.sample_weight_, total * mass, rtol=1e-9)
    close(selector.given_weight_.sum(), total * s[taken].sum(), rtol=1e-9)
    assert np.all(selector.given_weight_ > 0)
    assert np.isin(np.unique(labels), np.arange(-1, 30)).all()


def test_labels_of_cells_besides_given_samples():
    """Labels below n are of free cells, those from n on of cells that hold a given sample."""
    for seed in range(20):
        rng = np.random.RandomState(seed)
        P = rng.normal(size=(60, 2))
        P[rng.randint(60, size=25)] = P[0]
        s = rng.dirichlet(np.ones(60)) if seed % 2 else np.full(60, 1 / 60)
        n, g = rng.randint(1, 20), rng.randint(1, 40)
        given = np.sort(rng.choice(60, size=g, replace=False))
        if seed % 4 > 1:  # all of them close together
            given = np.argsort(P[:, 0])[:g]
        cells = cells_besides(P, s, n, given, 4.0, rng)
        assert cells.labels[given].min() >= n
        free = cells.labels < n
        taken = np.setdiff1d(np.arange(60), np.flatnonzero(free))
        equal(np.unique(cells.labels[free]), np.arange(n))
        equal(np.unique(cells.labels[taken]), np.unique(cells.labels[given]))
        equal(cells.labels[cells.exemplars], np.arange(n))


def test_lightest_of_too_many_free_cells_are_divided_among_the_nearest():
    P = np.array([[0.0], [1.0], [4.0], [4.1], [9.0], [9.1], [9.2]])
    cells = Cells(np.array([0, 1, 2, 4]), np.array([0, 1, 2, 2, 3, 3, 3]), np.zeros(7))
    s = np.array([2, 0.5, 1, 1, 1, 1, 1]) / 7.5
    free = np.array([False, True, True, True])
    merged = _with_free_cells(P, s, cells, free, 2)
    equal(merged.exemplars, [2, 4])
    equal(merged.labels, [2, 2, 0, 0, 1, 1, 1])  # the second joins the first, which is taken
    close(merged.costs, [0, 1, 0, 0, 0, 0, 0])


SOLVED = [
    {"c_S": 0.6},
    {"c_S": 0.35},
    {"c_S": 0.999, "init": "vertex"},
    {"c_S": 0.6, "init": "vertex"},
    {"init": "vertex"},
]


@pytest.mark.parametrize("params", SOLVED, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_weights_of_skmm_are_feasible_and_nearly_optimal(params, weighted, dtype):
    X, weight, given = large_pool()
    X, n, n_all = X[:200].astype(dtype), 40, 46
    given = np.arange(0, 60, 10)
    optional = {"sample_weight": weight[:200]} if weighted else {}
    selector = skmm.SkMMSelector(
        n, rounding="systematic", random_state=0, max_iter=20_000, **params
    ).fit(X, selected=given, **optional)
    s, eps = selector.weights_.astype(float), np.finfo(dtype).eps
    close(s.sum(), 1.0, atol=200 * eps)
    assert s.min() >= 0
    assert s.max() <= (1 + 2 * eps) / n_all
    close(s[given], 1 / n_all, rtol=2 * eps)
    second = moment(X.astype(float), optional.get("sample_weight"))
    values, vectors = selector.eigenvalues_, selector.components_
    tolerance = 1e-10 if dtype == np.float64 else 1e-4
    close((vectors.T * values) @ vectors, second, atol=tolerance * values[0])
    A = np.square(X.astype(float) @ vectors.T)
    size = np.square(values / selector.c_S).sum()

    def f(s):
        return np.square(np.maximum(0.0, values / selector.c_S - s @ A)).sum()

    assert selector.objective_ == pytest.approx(f(s), abs=tolerance * size)
    assert 0 <= selector.dual_gap_ <= max(1e-7 * size, 1e-3 * selector.objective_)
    # No other feasible weights are better by more than the gap.
    below = selector.objective_ - selector.dual_gap_ - tolerance * size
    rng, rest = np.random.RandomState(0), np.setdiff1d(np.arange(200), given)
    order = np.argsort(-(A / values).sum(axis=1)[rest], kind="stable")
    for k in range(20):
        other = np.zeros(200)
        other[given] = 1 / n_all
        chosen = order[:n] if k == 0 else rng.choice(len(rest), n, replace=False)
        other[rest[chosen]] = 1 / n_all
        assert below <= f(other)
        assert below <= f(0.5 * other + 0.5 * s)


def test_a_weight_at_the_cap_is_solved_for():
    """With n = 49, a weight of 1 / n once looked as if it were below the cap, by rounding."""
    X, weight, _ = large_pool()
    weight = np.where(np.arange(400) < 5, 100.0, weight)
    for n in (10, 49):
        for dtype in (np.float64, np.float32):
            selector = skmm.SkMMSelector(n, rounding="systematic", random_state=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                selector.fit(X.astype(dtype), sample_weight=weight)
            s, values = selector.weights_.astype(float), selector.eigenvalues_
            missing = values - s @ np.square(X @ selector.components_.T)
            value = np.square(np.maximum(0.0, missing)).sum()
            size = np.square(values).sum()
            assert selector.objective_ == pytest.approx(value, abs=1e-6 * size)


def test_vertices_are_drawn_by_weight():
    X, weight, counts = pool(), whole_weights() / 2.5, np.zeros(N)
    selector, reference = skmm.SkMMSelector(5, init="vertex", tol=1.0), Reference(X, weight=weight)
    for seed in range(600):
        selection = selector.set_params(rounding="systematic")._select(
            X,
            5,
            reference,
            np.random.RandomState(seed),
            lambda: True,
            sample_weight=weight,
            selected=GIVEN,
        )
        start = np.flatnonzero(selection.per_sample["weights_"])
        counts[np.setdiff1d(start, GIVEN)] += 1
    pi = np.zeros(N)
    pi[REST] = inclusion_probabilities(weight[REST], 5)
    assert_included(counts, 600, pi)


@pytest.mark.parametrize("rounding", ["systematic", "cube", "spread", "local_cube", "choice"])
@pytest.mark.parametrize("c_S", [1.0, 0.7])
def test_random_roundings_select_besides_given_samples(rounding, c_S, monkeypatch):
    X, weight = pool(), whole_weights() / 2.5
    weight[7] = 40.0  # selected for certain
    weight /= weight.mean()
    selector = skmm.SkMMSelector(6, rounding=rounding, c_S=c_S)
    # From uniform weights, the solver's result does not depend on the seed, so it runs once.
    monkeypatch.setattr(_skmm, "solve", repeat_first_result(_skmm.solve))
    reference, counts, repeats = Reference(X, weight=weight), np.zeros(N), 150
    for seed in range(repeats):
        selection = selector._select(
            X,
            6,
            reference,
            np.random.RandomState(seed),
            lambda: False,
            sample_weight=weight,
            selected=GIVEN,
        )
        assert len(np.unique(selection.indices)) == 6
        counts[selection.indices] += 1
    s = selection.per_sample["weights_"]
    pi = np.zeros(N)
    pi[REST] = inclusion_probabilities(s[REST], 6)
    equal(counts[pi == 0], 0)
    if rounding != "choice":
        assert_included(counts, repeats, pi)


# Strata


def test_given_samples_represent_strata_without_another():
    y = np.repeat([0, 1, 2], [20, 20, 10])
    weight = np.where(y == 1, 3.0, 1.0)
    selector = skmm.KMeansSelector(1, stratify=True, random_state=0)
    selector.fit(pool(), y, sample_weight=weight, selected=[25, 30, 45])
    assert selector.sample_indices_[0] < 20
    close(selector.sample_weight_, 20)
    close(selector.given_weight_, [30, 30, 10])


@pytest.mark.parametrize("cls", selector_classes(), ids=lambda cls: cls.__name__)
def test_strata_without_weight(cls):
    """A stratum of no weight is as one that is not there; one of given samples is kept."""
    X, y, weight = pool(), np.repeat([0, 1, 2], [20, 20, 10]), np.ones(N)
    weight[40:] = 0.0
    if "sample_weight" not in inspect.signature(cls.fit).parameters:
        pytest.skip("no weights")
    selector = make(cls, 6, stratify=True).fit(X, y, sample_weight=weight)
    alone = make(cls, 6, stratify=True).fit(X[:40], y[:40])
    equal(selector.sample_indices_, alone.sample_indices_)
    equal(selector.strata_, [0, 1])
    with pytest.raises(ValueError, match=r"not seen in fit: \[2\]"):
        selector.transform(X, y)
    selector.fit(X, y, sample_weight=weight, selected=[45, 47])
    equal(np.bincount(y[selector.sample_indices_]), [3, 3])
    equal(selector.given_weight_, 0.0)
    indices = selector.transform(X, y)
    equal(np.unique(y[indices]), [0, 1, 2])
    assert len(np.unique(indices)) == 6


@pytest.mark.parametrize("cls", selector_classes())
def test_transform_after_given_samples_selects_from_another_pool(cls):
    X = np.random.RandomState(0).normal(size=(40, 3))
    selector = make(cls, 6).fit(X, np.arange(40) % 2, selected=[1, 2])
    assert len(np.unique(selector.transform(X[::-1] + 0.1))) == 6
