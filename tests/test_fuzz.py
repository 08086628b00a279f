"""Short runs of the fuzzer, the bugs that it has found, and its checks under Hypothesis.

Hypothesis shrinks failing examples. Its database keeps them only until they pass, so a committed
database would be empty. The cases to keep are explicit examples here.
"""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sklearn_skmm import AdaptiveSelector, KMeansSelector, SkMMSelector
from sklearn_skmm.core._costs import median_distance
from tests import fuzz
from tests._selectors import make, selector_classes
from tests._twins import PAIRS

NAMES = [fuzz.variant_name(cls, params) for cls, params in fuzz.VARIANTS]
# Integers make ties, equal rows and opposite rows. The other numbers do not.
ENTRIES = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6, width=32))
MATRICES = st.one_of(st.just(np.float32), st.just(np.float64)).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=10),
        elements=ENTRIES.filter(lambda x: x == 0 or abs(x) > 1e-6),
    )
)


def problem(X, share, seed, many=False):
    rng = np.random.default_rng(seed)
    n = max(1, round(share * len(X)))
    y = rng.integers(1 + rng.integers(4), size=len(X))
    return fuzz.Problem(X, y, n, seed, many, rng, "given")


def test_short_run_finds_no_failures():
    table, failures = fuzz.run(seed=12, start=0, stop=50, report=lambda line: None)
    assert failures == []
    assert table["problems"].sum() == 50


@pytest.mark.slow
def test_longer_run_finds_no_failures_and_covers_every_check():
    table, failures = fuzz.run(seed=14, start=0, stop=400, report=lambda line: None)
    assert failures == []
    twins = {pair.__name__ for pair in PAIRS}
    assert set(table["name"]) == twins | set(NAMES)


def test_every_selector_is_fuzzed_with_every_named_option():
    assert {cls for cls, _ in fuzz.VARIANTS} == set(selector_classes())
    assert "SkMMSelector(vertex, local_cube)" in NAMES
    assert len(NAMES) == len(set(NAMES))


def test_problems_and_failures_can_be_reproduced(monkeypatch, capsys):
    one, other = fuzz.draw_problem(3, 7), fuzz.draw_problem(3, 7)
    np.testing.assert_array_equal(one.X, other.X)
    assert one.description == other.description

    def broken(problem):
        raise ValueError(f"broken for {problem.seed}")

    monkeypatch.setattr(fuzz, "PAIRS", {broken: 1})
    table, failures = fuzz.run(seed=3, start=4, stop=6, report=lambda line: None)
    assert table["failures"].sum() == len(failures) == 1
    assert failures[0].startswith("--seed 3 --only 4  broken: ")
    assert "ValueError: broken for " in failures[0]
    assert fuzz.main(["--seed", "3", "--only", "4"]) == 1
    assert "broken for " in capsys.readouterr().err
    assert fuzz.main(["--seed", "3", "--start", "4", "--problems", "1"]) == 1


def test_infinite_loop_is_a_failure(monkeypatch):
    def endless(problem):
        while True:
            pass

    monkeypatch.setattr(fuzz, "PAIRS", {endless: 1})
    monkeypatch.setattr(fuzz, "LIMIT", 0.1)
    _, failures = fuzz.run(seed=3, start=4, stop=5, report=lambda line: None)
    assert len(failures) == 1
    assert "TimeoutError: not done in 0.1 s" in failures[0]


@pytest.mark.parametrize(("cls", "params"), fuzz.VARIANTS, ids=NAMES)
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,  # every run has the same examples; `tests.fuzz` tries others
    suppress_health_check=[HealthCheck.too_slow],
)
@given(X=MATRICES, share=st.floats(0.01, 1.0), seed=st.integers(0, 2**31 - 2), many=st.booleans())
@example(X=np.zeros((1, 1)), share=1.0, seed=0, many=False)
@example(X=np.zeros((9, 2)), share=0.5, seed=0, many=True)
@example(X=np.full((9, 3), 0.1, dtype=np.float32), share=0.4, seed=1, many=False)
@example(X=np.repeat(np.eye(3), 3, axis=0), share=0.7, seed=2, many=True)
@example(X=np.vstack([np.eye(4), -np.eye(4)]), share=0.5, seed=3, many=False)
@example(X=np.outer([1e6, 1.0, 1.0, 0.0, -1.0], [1.0, 2.0]), share=0.6, seed=4, many=True)
@pytest.mark.slow
def test_the_contract_holds(cls, params, X, share, seed, many):
    with fuzz.ExitStack() as stack:
        if many:
            fuzz.as_for_many(stack)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("error")
        fuzz.check_selector(cls, params, problem(X.copy(), share, seed, many))


# Bugs that the fuzzer has found


@pytest.mark.parametrize("cls", selector_classes(), ids=lambda cls: cls.__name__)
def test_stratum_without_selected_samples_may_get_some_from_another_pool(cls):
    """The stratum's data were once released before anything was fitted to them."""
    X = np.random.RandomState(0).normal(size=(30, 4))
    y = np.repeat([0, 1, 2], [15, 10, 5])
    selector = make(cls, 2, stratify=True).fit(X, y)
    assert set(y[selector.sample_indices_]) == {0, 1}
    pool, labels = X[::-1][:15], y[::-1][:15]  # five samples of the last stratum, ten of the second
    indices = selector.transform(pool, labels)
    assert set(labels[indices]) == {1, 2}
    np.testing.assert_array_equal(selector.transform(pool, labels), indices)
    np.testing.assert_array_equal(selector.transform(X, y), selector.sample_indices_)


@pytest.mark.parametrize("rows", [np.eye(5), np.arange(-2.0, 3.0)[:, None]])
def test_equal_centres_divide_their_samples_as_in_fit(rows):
    """With fewer distinct rows than cells, `transform` once selected other samples than `fit`."""
    for seed in range(20):
        X = rows[np.random.RandomState(seed).randint(5, size=30)]
        selector = KMeansSelector(20, random_state=seed).fit(X)
        np.testing.assert_array_equal(selector.transform(X), selector.sample_indices_)


def test_stalled_solver_does_not_overflow():
    """In single precision, steps of zero length were accepted, and the step size grew to inf."""
    X = np.array([[2.0], [-1.0], [0.0], [0.0], [-2.0]], dtype=np.float32)
    selector = SkMMSelector(4, c_S=0.8, rounding="systematic", tol=0.0, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The solver stopped after")
        selector.fit(X)
    assert np.isfinite(selector.weights_).all()


def test_median_distance_of_equal_rows_is_not_a_rounding_error():
    """It was once 6e-8 if all rows were equal, and as small if more than half of them were."""
    for seed in range(12):
        row = np.random.RandomState(seed).normal(size=7)
        assert median_distance(np.tile(row, (14, 1)), None) == 1.0
        rows = np.vstack([np.tile(row, (26, 1)), row + 5.0])
        assert median_distance(rows, None) == pytest.approx(5 * np.sqrt(7) * 26 / 351)


@pytest.mark.parametrize("pivoting", ["greedy", "random"])
def test_residuals_at_the_rounding_threshold_do_not_loop(pivoting):
    """Once an infinite loop: a downdated residual above rounding, but below it when recomputed."""
    ulp = 2.0**-21
    X = np.outer([7, 7, 1, 3, 8, 1], [1, 3]) + ulp * np.array(
        [[1, 0], [1, 0], [2, 0], [-1.5, 0], [-1, 0], [-0.875, -2]]
    )
    with fuzz.limited(20):
        indices = AdaptiveSelector(6, pivoting=pivoting, random_state=0).fit_transform(
            X.astype(np.float32)
        )
    assert sorted(indices) == list(range(6))
