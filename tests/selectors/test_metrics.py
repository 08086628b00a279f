"""Facility location and k-center in every metric, with weights and given samples, against loops."""

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import cosine_similarity

from sklearn_skmm import FacilityLocationSelector, KCenterSelector
from sklearn_skmm.core._costs import unit_rows

N, n = 50, 12
RNG = np.random.RandomState(0)
X = RNG.normal(size=(N, 3)) + 0.5
X[[4, 17]] = 0.0
X[8] = 1e-200 * X[9]  # its squares are zero
classes = RNG.randint(3, size=N)
OPTIONS = {
    "plain": {},
    "weights": {"sample_weight": RNG.gamma(1.0, size=N)},
    "zero weights": {"sample_weight": RNG.randint(3, size=N)},
    "given": {"selected": [3, 17, 40]},
    "both": {"sample_weight": RNG.randint(3, size=N), "selected": np.arange(N) % 20 == 1},
}
equal = np.testing.assert_array_equal


def similarities():
    """Return the cosines of X; rows of zeros are similar to each other only."""
    S = cosine_similarity(np.where(np.arange(N)[:, None] == 8, 1e200 * X, X))
    S[np.ix_([4, 17], [4, 17])] = 1.0
    return S


def asymmetric():
    return np.random.RandomState(1).normal(size=(N, N)) + 3.0 * np.eye(N)


def read(options, members):
    """Return the weights of the members, and which of their positions are given."""
    weight = np.ones(N) if "sample_weight" not in options else options["sample_weight"] + 0.0
    given = np.zeros(N, dtype=bool)
    given[options.get("selected", [])] = True
    return weight[members], np.flatnonzero(given[members])


def best_by_loop(C, n, weight, given, first):
    """Select n positions greedily by the weighted sum of the least costs."""
    selected, free = list(given), [j for j in range(len(C)) if weight[j] > 0 and j not in given]
    for _ in range(n):
        totals = [
            sum(weight[i] * min([first, *C[i, [*selected, j]]]) for i in range(len(C)))
            for j in free
        ]
        near = np.flatnonzero(totals <= min(totals) + 1e-9 * weight.sum())
        selected.append(free.pop(near[0]))
    return selected[len(given) :]


def farthest_by_loop(D, n, weight, given, first):
    selected = list(given) or [first]
    while len(selected) < n + len(given):
        far = D[:, selected].min(axis=1)
        far[(weight == 0) | np.isin(np.arange(len(D)), selected)] = -1.0
        selected.append(int(np.flatnonzero(far >= far.max() - 1e-9)[0]))
    return selected[len(given) :]


FACILITY = {
    "gaussian": (X, lambda: -np.expm1(-cdist(X, X, "sqeuclidean") / 2)),
    "euclidean": (X, lambda: cdist(X, X)),
    "sqeuclidean": (X, lambda: cdist(X, X, "sqeuclidean")),
    "cosine": (X, lambda: 1.0 - similarities()),
    "precomputed": (asymmetric(), lambda: 1.0 - asymmetric()),
}


@pytest.mark.parametrize("metric", FACILITY)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("stratify", [False, True])
def test_facility_location_is_greedy(metric, options, stratify):
    data, costs = FACILITY[metric]
    C, options = costs(), OPTIONS[options]
    selector = FacilityLocationSelector(n, metric=metric, bandwidth=1.0, stratify=stratify)
    selector.fit(data, classes, **options)
    groups = [np.flatnonzero(classes == k) for k in range(3)] if stratify else [np.arange(N)]
    weights = np.zeros(N)
    weights[selector.sample_indices_] = selector.sample_weight_
    for k, members in enumerate(groups):
        weight, given = read(options, members)
        own, count = C[np.ix_(members, members)], np.isin(members, selector.sample_indices_).sum()
        first = 1.0 if metric == "gaussian" else np.inf
        selected = best_by_loop(own, count, weight, given, first)
        found = [i for i in selector.sample_indices_ if i in members]
        equal(found, sorted(members[selected]) if stratify else members[selected])
        both = [*given, *selected]
        value = weight @ own[:, both].min(axis=1) / weight.sum()
        objective = selector.objective_
        assert (objective[k] if stratify else objective) == pytest.approx(value, rel=1e-6)
        near = own[:, both] <= own[:, both].min(axis=1, keepdims=True) + 1e-9
        near[both] = np.eye(len(both))
        # A row of zeros is equally near to several; rounding decides which one represents it.
        masses = weights[members[selected]]
        assert np.all(masses <= (weight @ near)[len(given) :] + 1e-9)
        alone = near & (near.sum(axis=1, keepdims=True) == 1)
        assert np.all(masses >= (weight @ alone)[len(given) :] - 1e-9)
        if not len(given):
            assert masses.sum() == pytest.approx(weight.sum())


CENTER = {
    "euclidean": (X, lambda: cdist(X, X)),
    "cosine": (X, lambda: np.sqrt(np.maximum(2.0 - 2.0 * similarities(), 0.0))),
    "precomputed": (asymmetric() ** 2 * (1 - np.eye(N)),) * 2,
}


@pytest.mark.parametrize("metric", CENTER)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("init", ["random", "center"])
def test_k_center_is_farthest_first(metric, options, stratify, init):
    data, D = CENTER[metric]
    D, options = D() if callable(D) else D, OPTIONS[options]
    selector = KCenterSelector(n, metric=metric, init=init, stratify=stratify, random_state=0)
    selector.fit(data, classes, **options)
    groups = [np.flatnonzero(classes == k) for k in range(3)] if stratify else [np.arange(N)]
    for k, members in enumerate(groups):
        weight, given = read(options, members)
        own, found = D[np.ix_(members, members)], selector.sample_indices_
        found = np.flatnonzero(np.isin(members, found)) if stratify else found
        if init == "random" and stratify and not len(given):
            continue  # the order, and so the first sample, is not known
        first = int(found[0])
        if init == "center":
            squares = np.where(weight > 0, weight @ own**2, np.inf)
            first = int(np.flatnonzero(squares <= squares.min() * (1 + 1e-9))[0])
        selected = farthest_by_loop(own, len(found), weight, given, first)
        equal(found, sorted(selected) if stratify else selected)
        counts = (weight > 0) | np.isin(np.arange(len(own)), given)
        value = own[np.ix_(counts, [*given, *selected])].min(axis=1).max()
        radius = selector.radius_[k] if stratify else selector.radius_
        assert radius == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize("cls", [FacilityLocationSelector, KCenterSelector])
@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix, sparse.coo_array])
def test_cosine_of_sparse_rows(cls, kind):
    for rows in (X, X[[4, 4, 17]], np.where(X < 0.2, X, 0.0)):
        selector = cls(min(n, len(rows)), metric="cosine", random_state=0)
        expected = selector.fit_transform(rows)
        equal(selector.fit_transform(kind(rows)), expected)
    np.testing.assert_allclose(unit_rows(sparse.csr_array(X)).toarray(), unit_rows(X), atol=1e-15)


def test_lengths_do_not_matter_for_the_cosine():
    lengths = np.logspace(-150, 120, N)[:, None]
    for cls in (FacilityLocationSelector, KCenterSelector):
        selector = cls(n, metric="cosine", random_state=0)
        rows = np.delete(X, 8, axis=0)
        equal(selector.fit_transform(rows * lengths[1:]), selector.fit_transform(rows))


def test_facility_location_of_many_blocks():
    """The gains are updated in blocks of rows; the first selected sample improves nearly all."""
    rows = np.random.RandomState(3).normal(size=(1300, 3))
    rows[7] += 9.0
    expected = FacilityLocationSelector(40, metric="euclidean").fit(rows, selected=[7])
    found = FacilityLocationSelector(40, metric="precomputed")
    found.fit(1.0 - cdist(rows, rows), selected=[7])
    equal(found.sample_indices_, expected.sample_indices_)
    equal(found.sample_weight_, expected.sample_weight_)
    assert found.objective_ == pytest.approx(expected.objective_, rel=1e-9)


PRECOMPUTED = {
    "similarities": (FacilityLocationSelector(n, metric="precomputed"), similarities()),
    "distances": (KCenterSelector(n, metric="precomputed", random_state=0), cdist(X, X)),
}


@pytest.mark.parametrize("kind", PRECOMPUTED)
def test_precomputed_matrices_are_of_one_pool(kind):
    selector, M = PRECOMPUTED[kind]
    selector.fit(M)
    assert selector.__sklearn_tags__().input_tags.pairwise
    equal(selector.transform(M.tolist()), selector.sample_indices_)
    for other in (M[:, ::-1], M[:20, :20], M[:20], 2.0 * M):
        with pytest.raises(ValueError, match="transforms only the matrix seen in fit"):
            selector.transform(other)
    with pytest.raises(ValueError, match="score needs rows of features"):
        selector.score(M)
    with pytest.raises(ValueError, match=r"square matrix .* shape \(20, 50\)"):
        selector.fit(M[:20])
    with pytest.raises(ValueError, match="contains NaN"):
        selector.fit(np.where(np.eye(N, k=3), np.nan, M))
    with pytest.raises(TypeError, match="dense"):
        selector.fit(sparse.csr_array(M))
    # A failed fit leaves the selector as it was.
    equal(selector.transform(M), selector.sample_indices_)


@pytest.mark.parametrize(
    ("kind", "matrix", "message"),
    [
        ("similarities", cdist(X, X), "pass -D"),
        ("distances", similarities(), "none below 0. Got -0."),
        ("distances", np.exp(-cdist(X, X)), "0 on the diagonal. Got 1"),
        ("distances", -cdist(X, X), "none below 0"),
    ],
)
def test_similarities_and_distances_are_not_mistaken(kind, matrix, message):
    with pytest.raises(ValueError, match=message):
        PRECOMPUTED[kind][0].fit(matrix)


def test_negative_distances_are_similarities():
    expected = FacilityLocationSelector(n, metric="euclidean").fit_transform(X)
    equal(FacilityLocationSelector(n, metric="precomputed").fit_transform(-cdist(X, X)), expected)
