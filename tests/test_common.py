"""scikit-learn's estimator checks and the selector contract, for every estimator."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks as parametrize_estimators

from sklearn_skmm import (
    CoresetEstimator,
    CoresetSampler,
    GradientSketcher,
    KMeansSelector,
    SkMMSelector,
    UniformSelector,
)
from sklearn_skmm.core._allocation import allocate, resolve_n_to_select
from sklearn_skmm.utils import estimator_checks
from sklearn_skmm.utils.estimator_checks import (
    CONTRACT_CHECKS,
    EXPECTED_FAILED_CHECKS,
    check_selector,
    parametrize_with_checks,
    selector_checks_generator,
)
from tests._selectors import make, selector_classes

SELECTORS = selector_classes()


@parametrize_with_checks([make(cls) for cls in SELECTORS], contract_only=True)
def test_selectors_keep_the_contract(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(estimator, check, id=f"{type(estimator).__name__}-{check.func.__name__}")
        for cls in SELECTORS
        for estimator, check in selector_checks_generator(make(cls), give_up=pytest.xfail)
        if check.func not in CONTRACT_CHECKS
    ],
)
def test_selectors_keep_the_conventions_of_scikit_learn(estimator, check):
    check(estimator)


@parametrize_estimators(
    [
        GradientSketcher(m=8),
        # With a selector that looks at all values: the checks want errors about any of them.
        CoresetEstimator(LogisticRegression(), KMeansSelector(0.9, random_state=0)),
        CoresetEstimator(Ridge(), SkMMSelector(0.9, random_state=0)),
        CoresetSampler(SkMMSelector(0.9, random_state=0)),
    ]
)
def test_other_estimators(estimator, check):
    check(estimator)


# Each of these selectors, except the first, breaks one rule of the contract. The checks must
# detect it.


class Valid(UniformSelector):
    """Follows the contract."""


class DuplicateIndices(UniformSelector):
    """Selects one sample twice."""

    def _select(self, X, n, reference, rng, step):
        selection = super()._select(X, n, reference, rng, step)
        selection.indices[-1] = selection.indices[0]
        return selection


class NotReproducible(UniformSelector):
    """Selects different samples in each call."""

    calls = 0

    def _select(self, X, n, reference, rng, step):
        NotReproducible.calls += 1
        return super()._select(X, n, reference, np.random.RandomState(NotReproducible.calls), step)


class WritesToX(UniformSelector):
    """Writes to X."""

    def _select(self, X, n, reference, rng, step):
        X[0] = 0.0
        return super()._select(X, n, reference, rng, step)


class FailedFitLeavesAttribute(UniformSelector):
    """Leaves an attribute behind when `fit` fails."""

    def fit(self, X, y=None):
        self.began_ = object()
        return super().fit(X, y)


class NegativeWeights(UniformSelector):
    """Gives samples a negative weight."""

    def _select(self, X, n, reference, rng, step):
        selection = super()._select(X, n, reference, rng, step)
        selection.sample_weight = np.full(n, -1.0)
        return selection


class ConstantScore(UniformSelector):
    """Returns a score that is not the explained fraction."""

    def score(self, X, y=None):
        return 0.95


class IgnoresGivenSamples(UniformSelector):
    """Selects samples again that are in the coreset already."""

    def _select(self, X, n, reference, rng, step, *, sample_weight=None, selected=None):
        selection = super()._select(X, n, reference, rng, step, sample_weight=sample_weight)
        selection.given_weight = None if selected is None else np.ones(len(selected))
        return selection


class TakesMasksForPositions(UniformSelector):
    """Reads a mask as the positions 0 and 1."""

    def fit(self, X, y=None, *, sample_weight=None, selected=None):
        selected = None if selected is None else np.unique(selected).astype(int)
        return super().fit(X, y, sample_weight=sample_weight, selected=selected)


class _ChangesWeights(UniformSelector):
    def fit(self, X, y=None, *, sample_weight=None, selected=None):
        if sample_weight is not None:
            sample_weight = self._changed(sample_weight)
        return super().fit(X, y, sample_weight=sample_weight, selected=selected)


class IgnoresWeights(_ChangesWeights):
    """Accepts weights, and does nothing with them."""

    def _changed(self, weight):
        return None


class SquaresWeights(_ChangesWeights):
    """Uses other weights than those given, in another unit."""

    def _changed(self, weight):
        return np.square(weight)


class AddsToWeights(_ChangesWeights):
    """Counts samples of weight zero a little, and others a little more."""

    def _changed(self, weight):
        return np.asarray(weight) + 0.01


class MendsWeights(_ChangesWeights):
    """Accepts weights that make no sense."""

    def _changed(self, weight):
        return np.abs(np.nan_to_num(weight))


class AlignsWeights(_ChangesWeights):
    """Takes weights in the order of their labels."""

    def _changed(self, weight):
        return weight.sort_index() if hasattr(weight, "sort_index") else weight


class LosesMass(UniformSelector):
    """Leaves out what given samples represent."""

    def _select(self, X, n, reference, rng, step, *, sample_weight=None, selected=None):
        optional = {"sample_weight": sample_weight, "selected": selected}
        selection = super()._select(X, n, reference, rng, step, **optional)
        selection.given_weight = None if selected is None else np.zeros(len(selected))
        return selection


def test_valid_selector_passes_the_contract():
    check_selector(Valid(5), contract_only=True)


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (DuplicateIndices, estimator_checks.check_selects_distinct_positions),
        (NegativeWeights, estimator_checks.check_selects_distinct_positions),
        (NotReproducible, estimator_checks.check_transform_repeats_fit),
        (WritesToX, estimator_checks.check_fit_does_not_write_to_X),
        (FailedFitLeavesAttribute, estimator_checks.check_failed_fit_changes_nothing),
        (ConstantScore, estimator_checks.check_score_is_the_discrepancy),
        (IgnoresGivenSamples, estimator_checks.check_given_samples_are_not_selected),
        (TakesMasksForPositions, estimator_checks.check_given_samples_are_not_selected),
        (IgnoresWeights, estimator_checks.check_samples_of_weight_zero_do_not_count),
        (AddsToWeights, estimator_checks.check_samples_of_weight_zero_do_not_count),
        (SquaresWeights, estimator_checks.check_equal_weights_are_none),
        (SquaresWeights, estimator_checks.check_only_ratios_of_weights_matter),
        (SquaresWeights, estimator_checks.check_sum_of_weights),
        (LosesMass, estimator_checks.check_sum_of_weights),
        (IgnoresWeights, estimator_checks.check_stratify_counts_weights_and_given_samples),
        (AlignsWeights, estimator_checks.check_weights_and_given_samples_in_every_container),
        (MendsWeights, estimator_checks.check_bad_weights_and_given_samples),
    ],
)
def test_contract_check_detects_a_violation(cls, check):
    check(cls.__name__, Valid(5))
    with pytest.raises((AssertionError, ValueError)):
        check(cls.__name__, cls(5))


def test_expected_failed_checks_exist_in_scikit_learn():
    import sklearn.utils.estimator_checks as sklearn_checks

    assert all(hasattr(sklearn_checks, name) for name in EXPECTED_FAILED_CHECKS)
    assert len({check.__name__ for check in CONTRACT_CHECKS}) == len(CONTRACT_CHECKS)


# Properties of this package's selectors that the contract does not require


@pytest.fixture(params=SELECTORS, ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


@pytest.fixture
def X():
    rng = np.random.RandomState(0)
    # Exact in float32, so that only the container differs, not the data.
    X = rng.normal(size=(60, 6)) * np.array([5, 3, 2, 1, 0.5, 0.1])
    return X.astype(np.float32).astype(np.float64)


LABELS = np.arange(60) % 2  # for the selectors that use y; the others ignore it
NOT_ROTATION_INVARIANT = {"UncertaintySelector": "the selection depends on its classifier"}
# Their weights sum to N only in expectation.
UNBIASED = {"RidgeLeverageSelector", "TruncatedLeverageSelector"}


def test_rotations_do_not_matter(cls, X):
    if cls.__name__ in NOT_ROTATION_INVARIANT:
        pytest.skip(NOT_ROTATION_INVARIANT[cls.__name__])
    rng = np.random.RandomState(2)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    expected = make(cls, 10).fit_transform(X, LABELS)
    np.testing.assert_array_equal(
        make(cls, 10).fit_transform(X[:, rng.permutation(6)], LABELS), expected
    )
    np.testing.assert_array_equal(make(cls, 10).fit_transform(X @ rotation, LABELS), expected)


@pytest.mark.parametrize("stratify", [False, True])
def test_weights_sum_to_the_number_of_samples(cls, X, stratify):
    if cls.__name__ in UNBIASED:
        pytest.skip("the sum is N only in expectation")
    selector = make(cls, 12, stratify=stratify).fit(X, LABELS)
    assert selector.sample_weight_.sum() == pytest.approx(60)


class StopAfter:
    """A callback that stops the solver after some iterations."""

    def __init__(self, n_iterations):
        self.left = n_iterations

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        self.left -= context.task_name == "iteration"
        return self.left <= 0


def test_callback_can_stop_the_solver(X, capsys):
    selector = SkMMSelector(10, c_S=0.9, tol=0, random_state=0).set_callbacks(StopAfter(3))
    with pytest.warns(UserWarning, match="duality gap"):
        selector.fit(X, LABELS)
    assert selector.n_iter_ == 3
    assert capsys.readouterr() == ("", "")


def test_allocation_is_proportional_and_skips_no_stratum():
    np.testing.assert_array_equal(allocate(10, np.array([50, 30, 20])), [5, 3, 2])
    np.testing.assert_array_equal(allocate(4, np.array([1000, 1, 1])), [2, 1, 1])
    np.testing.assert_array_equal(allocate(2, np.array([5, 3, 1])), [1, 1, 0])
    rng = np.random.RandomState(0)
    for _ in range(200):
        sizes = rng.randint(1, 30, size=rng.randint(1, 8))
        n = rng.randint(1, sizes.sum() + 1)
        counts = allocate(n, sizes)
        assert counts.sum() == n
        assert np.all((counts >= 0) & (counts <= sizes))
        if n >= len(sizes):
            assert counts.min() >= 1


def test_fraction_is_rounded_and_selects_at_least_one():
    assert resolve_n_to_select(0.29, 100) == 29  # 0.29 * 100 is 28.999…
    assert resolve_n_to_select(0.001, 100) == 1
    assert resolve_n_to_select(1.0, 7) == 7
