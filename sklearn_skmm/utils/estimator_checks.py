"""Checks of the selector contract, for selectors of this package and of others.

They stand next to scikit-learn's own checks, and are called in the same way::

    from sklearn_skmm.utils.estimator_checks import parametrize_with_checks

    @parametrize_with_checks([MySelector(10)])
    def test_selector(estimator, check):
        check(estimator)
"""

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn
from unittest import SkipTest, TestCase

import numpy as np
from scipy import sparse
from scipy.spatial.distance import cdist, pdist
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.random_projection import GaussianRandomProjection
from sklearn.utils.estimator_checks import estimator_checks_generator

__all__ = [
    "EXPECTED_FAILED_CHECKS",
    "check_selector",
    "parametrize_with_checks",
    "selector_checks_generator",
]

_POSITIONS = "transform returns positions of selected samples, not one row per sample"
_POOL = "which samples are selected depends on the pool as a whole"

#: Checks of scikit-learn that no selector can pass, each with its reason.
EXPECTED_FAILED_CHECKS = {
    "check_transformer_general": _POSITIONS,
    "check_transformer_data_not_an_array": _POSITIONS,
    "check_methods_sample_order_invariance": _POOL,
    "check_methods_subset_invariance": _POOL,
}

N_SAMPLES, N_FEATURES = 60, 6
_raises = TestCase().assertRaisesRegex


def _pool() -> np.ndarray:
    """Return samples that are exact in float32, so that only containers differ, not the data."""
    X = np.random.RandomState(0).normal(size=(N_SAMPLES, N_FEATURES))
    return (X * [5, 3, 2, 1, 0.5, 0.1]).astype(np.float32).astype(np.float64)


def _labels() -> np.ndarray:
    """Return labels for selectors that use y; the others ignore it."""
    return np.arange(N_SAMPLES) % 2


def _strata() -> np.ndarray:
    return np.repeat(["a", "b", "c"], [40, 15, 5])


def _with(selector, n_to_select, **params):
    """Return an unfitted copy that selects so many samples, with a seed if it takes one."""
    if "random_state" in selector.get_params():
        params.setdefault("random_state", 0)
    return clone(selector).set_params(n_to_select=n_to_select, **params)


def check_selects_distinct_positions(name, selector_orig):
    """Check that as many samples as asked for are selected, distinct, with positive weights."""
    X, y = _pool(), _labels()
    for n in (1, 7, N_SAMPLES - 1, N_SAMPLES, 0.25, 1.0):
        selector = _with(selector_orig, n).fit(X, y)
        expected = n if isinstance(n, int) else round(N_SAMPLES * n)
        indices, weight = selector.sample_indices_, selector.sample_weight_
        assert indices.shape == weight.shape == (expected,)
        assert np.issubdtype(indices.dtype, np.integer)
        assert len(set(indices.tolist())) == expected
        assert set(indices.tolist()) <= set(range(N_SAMPLES))
        assert np.all(weight > 0)
        assert np.isfinite(weight).all()


def check_same_selection_in_every_container(name, selector_orig):
    """Check that the same seed selects the same samples from every container."""
    X, y = _pool(), _labels()
    expected = _with(selector_orig, 10).fit_transform(X, y)
    containers = {
        "again": X,
        "float32": X.astype(np.float32),
        "fortran": np.asfortranarray(X),
        "strided": np.repeat(X, 2, axis=1)[:, ::2],
        "list": X.tolist(),
        "csr": sparse.csr_array(X),
        "csc": sparse.csc_matrix(X),
    }
    try:
        import pandas as pd
    except ImportError:
        pass
    else:
        containers["frame"] = pd.DataFrame(X, columns=list("abcdef"))
    for kind, container in containers.items():
        selector = _with(selector_orig, 10).fit(container, y)
        np.testing.assert_array_equal(selector.sample_indices_, expected, err_msg=kind)
        np.testing.assert_array_equal(selector.transform(container), expected, err_msg=kind)


def check_transform_repeats_fit(name, selector_orig):
    """Check that `transform` on the data of `fit` returns its selection, seeded or not."""
    X, y = _pool(), _labels()
    params = {"random_state": None} if "random_state" in selector_orig.get_params() else {}
    selector = _with(selector_orig, 10, **params).fit(X, y)
    np.testing.assert_array_equal(selector.transform(X), selector.sample_indices_)
    np.testing.assert_array_equal(selector.transform(X), selector.transform(X))


def check_transform_selects_from_another_pool(name, selector_orig):
    """Check that `transform` selects from any pool with the same columns."""
    selector = _with(selector_orig, 10).fit(_pool(), _labels())
    other = np.random.RandomState(1).normal(size=(25, N_FEATURES))
    indices = selector.transform(other)
    assert indices.shape == (10,)
    assert len(np.unique(indices)) == 10
    assert indices.max() < 25
    with _raises(ValueError, r"n_to_select=10 .* n_samples=9"):
        selector.transform(other[:9])
    with _raises(ValueError, "features"):
        selector.transform(other[:, :5])


def check_copies_and_set_params(name, selector_orig):
    """Check that clones, copies of the state and `set_params` lead to the same selection."""
    X, y = _pool(), _labels()
    selector = _with(selector_orig, 10)
    expected = selector.fit_transform(X, y)
    np.testing.assert_array_equal(clone(selector).fit_transform(X, y), expected)
    restored = deepcopy(selector)  # by the state that a pickle has
    np.testing.assert_array_equal(restored.transform(X), expected)
    assert restored.score(X) == selector.score(X)
    changed = _with(selector_orig, 3).set_params(n_to_select=10)
    np.testing.assert_array_equal(changed.fit_transform(X, y), expected)


def check_fit_does_not_write_to_X(name, selector_orig):
    """Check that neither `fit`, `transform` nor `score` changes its input."""
    X = _pool()
    before = X.copy()
    X.setflags(write=False)
    selector = _with(selector_orig, 10).fit(X, _labels())
    selector.transform(X)
    selector.score(X)
    np.testing.assert_array_equal(X, before)


def check_get_support(name, selector_orig):
    """Check the mask and the positions that `get_support` returns."""
    selector = _with(selector_orig, 10).fit(_pool(), _labels())
    mask = selector.get_support()
    assert mask.dtype == bool
    assert mask.shape == (N_SAMPLES,)
    np.testing.assert_array_equal(np.flatnonzero(mask), np.sort(selector.sample_indices_))
    np.testing.assert_array_equal(selector.get_support(indices=True), np.flatnonzero(mask))


def check_fit_resample(name, selector_orig):
    """Check that `fit_resample` returns rows and labels in the container they came in."""
    X, y = _pool(), _labels()
    selector = _with(selector_orig, 10)
    X_part, y_part = selector.fit_resample(sparse.csr_array(X), y)
    np.testing.assert_array_equal(X_part.toarray(), X[selector.sample_indices_])
    np.testing.assert_array_equal(y_part, y[selector.sample_indices_])
    try:
        import pandas as pd
    except ImportError:
        raise SkipTest("pandas is not installed: not checking data frames") from None
    rows = [f"row{i}" for i in range(N_SAMPLES)]
    frame = pd.DataFrame(X, columns=list("abcdef"), index=rows)
    X_part, y_part = selector.fit_resample(frame, pd.Series(_strata(), index=rows))
    assert list(X_part.index) == [f"row{i}" for i in selector.sample_indices_]
    assert list(y_part) == list(_strata()[selector.sample_indices_])


def check_stratify(name, selector_orig):
    """Check that ``stratify=True`` selects from each class in proportion to its size."""
    X, y = _pool(), _strata()
    selector = _with(selector_orig, 12, stratify=True).fit(X, y)
    classes, counts = np.unique(y[selector.sample_indices_], return_counts=True)
    assert dict(zip(classes.tolist(), counts.tolist(), strict=True)) == {"a": 8, "b": 3, "c": 1}
    assert list(selector.strata_) == ["a", "b", "c"]
    np.testing.assert_array_equal(selector.transform(X, y), selector.sample_indices_)
    with _raises(ValueError, "requires y"):
        selector.transform(X)
    with _raises(ValueError, r"not seen in fit: \['d'\]"):
        selector.transform(X, np.where(y == "c", "d", y))
    with _raises(ValueError, "inconsistent numbers of samples"):
        selector.fit(X, y[:-1])
    # A later fit without strata leaves nothing of them behind.
    assert not hasattr(selector.set_params(stratify=False).fit(X, y), "strata_")


def check_score_is_the_discrepancy(name, selector_orig):
    """Check that `score` equals its formula, and is nearly one for the whole pool."""
    X, y = _pool(), _labels()
    selector = _with(selector_orig, 10).fit(X, y)
    test = np.random.RandomState(3).normal(size=(30, N_FEATURES))
    bandwidth = 0.5 * np.median(pdist(X))

    def mean_kernel(A, B):
        return np.exp(-0.5 * cdist(A, B, "sqeuclidean") / bandwidth**2).mean()

    coreset = X[selector.sample_indices_]
    both = mean_kernel(test, test) + mean_kernel(coreset, coreset)
    expected = 1.0 - (both - 2.0 * mean_kernel(test, coreset))
    np.testing.assert_allclose(selector.score(test), expected, rtol=1e-10)
    assert 0 < selector.score(test) < 1
    assert _with(selector_orig, 1.0).fit(X, y).score(X) > 0.9


def check_failed_fit_changes_nothing(name, selector_orig):
    """Check that a `fit` that raises leaves the selector as it was."""
    X, y = _pool(), _labels()
    wrong = {
        "n_to_select": [0, N_SAMPLES + 1, 1.5, "ten"],
        "stratify": ["yes"],
        "random_state": ["seed"],
    }
    selector = _with(selector_orig, 10).fit(X, y)
    for param in wrong.keys() & selector.get_params().keys():
        usual = getattr(selector, param)
        before = {key: value for key, value in vars(selector).items() if key != param}
        for value in wrong[param]:
            selector.set_params(**{param: value})
            with _raises(ValueError, param):
                selector.fit(X[:, :4], y)
            after = {key: kept for key, kept in vars(selector).items() if key != param}
            assert before.keys() == after.keys()
            assert all(before[key] is after[key] for key in before)
        selector.set_params(**{param: usual})
    selector = _with(selector_orig, 100)
    with _raises(ValueError, "n_to_select=100 must be at most .* n_samples=60"):
        selector.fit(X, y)
    with _raises(NotFittedError, ""):
        selector.get_support()


def check_degenerate_pools(name, selector_orig):
    """Check pools of equal rows, of one column, and of more columns than rows."""
    y = _labels()[:8]
    for X in (np.zeros((8, 3)), np.ones((8, 3)), np.tile([[1.0, 2.0]], (8, 1)), np.ones((8, 1))):
        selector = _with(selector_orig, 3).fit(X, y)
        assert len(np.unique(selector.sample_indices_)) == 3
        np.testing.assert_allclose(selector.score(X), 1.0, atol=0.15)
    wide = np.random.RandomState(0).normal(size=(5, 300))
    for container in (wide, sparse.csr_array(wide)):
        assert len(np.unique(_with(selector_orig, 3).fit_transform(container, y[:5]))) == 3


class _Recorder:
    """A callback that records the tasks it is told of."""

    def __init__(self):
        self.tasks = []

    def setup(self, estimator, context):
        self.tasks.append("setup")

    def teardown(self, estimator, context):
        self.tasks.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        self.tasks.append(context.task_name)
        return False


def check_callbacks(name, selector_orig):
    """Check that callbacks see `fit` begin and end, and do not change the selection."""
    X, y = _pool(), _labels()
    recorder = _Recorder()
    expected = _with(selector_orig, 10).fit_transform(X, y)
    indices = _with(selector_orig, 10).set_callbacks(recorder).fit_transform(X, y)
    np.testing.assert_array_equal(indices, expected)
    assert recorder.tasks[0] == "setup"
    assert recorder.tasks[-2:] == ["fit", "teardown"]


def check_pipeline_step(name, selector_orig):
    """Check that a selector works as the last step of a Pipeline."""
    X = _pool()
    projection = GaussianRandomProjection(4, random_state=0)
    pipe = make_pipeline(projection, _with(selector_orig, 10))
    indices = pipe.fit_transform(X, _labels())
    assert indices.shape == (10,)
    np.testing.assert_array_equal(pipe.transform(X), indices)
    assert 0 < pipe.score(X) <= 1


def _supports(selector, *names) -> bool:
    """Whether `fit` takes these keywords, and this selector does not refuse them."""
    if not set(names) <= signature(selector.fit).parameters.keys():
        return False
    given = {"sample_weight": np.arange(1.0, N_SAMPLES + 1), "selected": [0]}
    try:
        _with(selector, 1).fit(_pool(), _labels(), **{name: given[name] for name in names})
    except ValueError as error:
        if re.search("does not support", str(error)):
            return False
        raise
    return True


def _require(selector, *names) -> None:
    if not _supports(selector, *names):
        raise SkipTest(f"{type(selector).__name__} does not support {' and '.join(names)}")


def _weights() -> np.ndarray:
    """Return unequal weights of which none is so large that its sample is selected for certain."""
    return 1.0 + np.arange(N_SAMPLES) * 7 % 11 / 10


#: Positions of samples that are in the coreset already, some from each of `_strata`.
_GIVEN = np.array([3, 11, 30, 44, 57])


def _given_mask() -> np.ndarray:
    return np.isin(np.arange(N_SAMPLES), _GIVEN)


def _optional(selector) -> dict:
    """Return the weights and the samples that the selector supports."""
    given = {"sample_weight": _weights(), "selected": _GIVEN}
    optional = {name: value for name, value in given.items() if _supports(selector, name)}
    if not optional:
        raise SkipTest(f"{type(selector).__name__} supports neither weights nor given samples")
    return optional


def check_equal_weights_are_none(name, selector_orig):
    """Check that equal weights change nothing but the unit of `sample_weight_`."""
    _require(selector_orig, "sample_weight")
    X, y = _pool(), _labels()
    expected = _with(selector_orig, 10).fit(X, y)
    for value in (1.0, 0.1, 8.0):
        selector = _with(selector_orig, 10).fit(X, y, sample_weight=np.full(N_SAMPLES, value))
        np.testing.assert_array_equal(selector.sample_indices_, expected.sample_indices_)
        np.testing.assert_allclose(selector.sample_weight_, value * expected.sample_weight_)


def check_only_ratios_of_weights_matter(name, selector_orig):
    """Check that the unit of the weights is that of `sample_weight_`, and changes nothing else."""
    _require(selector_orig, "sample_weight")
    X, y, weight = _pool(), _labels(), _weights()
    expected = _with(selector_orig, 10).fit(X, y, sample_weight=weight)
    for unit in (2.0**-40, 8.0):
        selector = _with(selector_orig, 10).fit(X, y, sample_weight=unit * weight)
        np.testing.assert_array_equal(selector.sample_indices_, expected.sample_indices_)
        np.testing.assert_allclose(selector.sample_weight_, unit * expected.sample_weight_)


def check_samples_of_weight_zero_do_not_count(name, selector_orig):
    """Check that the selection is that from the other samples, with weights and with strata."""
    _require(selector_orig, "sample_weight")
    X, y, weight = _pool(), _strata(), _weights()
    zero = np.isin(np.arange(N_SAMPLES) % 8, [2, 5])
    rest = np.flatnonzero(~zero)
    far = np.where(zero[:, None], 100.0 * X, X)  # samples that would change the moments
    for stratify in (False, True):
        for weight_of_rest in (weight[rest], np.ones(len(rest))):
            mixed = np.zeros(N_SAMPLES)
            mixed[rest] = weight_of_rest
            selector = _with(selector_orig, 10, stratify=stratify)
            expected = clone(selector).fit(X[rest], y[rest], sample_weight=weight_of_rest)
            selector.fit(far, y, sample_weight=mixed)
            np.testing.assert_array_equal(selector.sample_indices_, rest[expected.sample_indices_])
            np.testing.assert_array_equal(selector.sample_weight_, expected.sample_weight_)
            assert selector.get_support().shape == (N_SAMPLES,)
            if hasattr(selector, "labels_"):
                np.testing.assert_array_equal(selector.labels_[rest], expected.labels_)
                assert (selector.labels_[zero] == -1).all()


def check_given_samples_are_not_selected(name, selector_orig):
    """Check that others are selected, as many as asked for, and that a mask says the same."""
    _require(selector_orig, "selected")
    X, y = _pool(), _labels()
    n_free = N_SAMPLES - len(_GIVEN)
    for n in (1, 10, n_free):
        selector = _with(selector_orig, n).fit(X, y, selected=_GIVEN[::-1])
        indices = selector.sample_indices_
        assert len(np.unique(indices)) == n == len(indices)
        assert not np.isin(indices, _GIVEN).any()
        for weight, size in ((selector.sample_weight_, n), (selector.given_weight_, len(_GIVEN))):
            assert weight.shape == (size,)
            assert np.isfinite(weight).all()
            assert np.all(weight >= 0)
        by_mask = _with(selector_orig, n).fit(X, y, selected=_given_mask())
        np.testing.assert_array_equal(by_mask.sample_indices_, indices)
        np.testing.assert_array_equal(by_mask.given_weight_, selector.given_weight_)
    expected = _with(selector_orig, 10).fit(X, y)
    for none in ([], np.zeros(N_SAMPLES, dtype=bool), None):
        selector = _with(selector_orig, 10).fit(X, y, selected=none)
        np.testing.assert_array_equal(selector.sample_indices_, expected.sample_indices_)
        assert not hasattr(selector, "given_weight_")
    with _raises(ValueError, rf"n_to_select={n_free + 1} .* can still be selected"):
        _with(selector_orig, n_free + 1).fit(X, y, selected=_GIVEN)


def check_sum_of_weights(name, selector_orig):
    """Check that the coreset represents the sum of the weights, if it does so without them."""
    X, y, optional = _pool(), _strata(), _optional(selector_orig)
    parts = [{key: value} for key, value in optional.items()]
    for stratify in (False, True):
        selector = _with(selector_orig, 12, stratify=stratify)
        if not np.isclose(clone(selector).fit(X, y).sample_weight_.sum(), N_SAMPLES):
            raise SkipTest("the weights sum to the number of samples in expectation only")
        for given in (*parts, optional):
            selector.fit(X, y, **given)
            total = selector.sample_weight_.sum() + np.sum(getattr(selector, "given_weight_", 0.0))
            expected = np.sum(given.get("sample_weight", np.ones(N_SAMPLES)))
            np.testing.assert_allclose(total, expected)


def check_stratify_counts_weights_and_given_samples(name, selector_orig):
    """Check that both together are in proportion to the weights of the strata."""
    X, y, optional = _pool(), _strata(), _optional(selector_orig)
    expected = {"a": 8, "b": 3, "c": 1}
    if "sample_weight" in optional:
        optional["sample_weight"] = np.select([y == "a", y == "b"], [0.5, 1.0], 5.0)
        expected = {"a": 4, "b": 3, "c": 5}
    n_given = len(optional.get("selected", []))
    selector = _with(selector_orig, 12 - n_given, stratify=True).fit(X, y, **optional)
    both = np.concatenate([optional.get("selected", np.empty(0, int)), selector.sample_indices_])
    classes, counts = np.unique(y[both], return_counts=True)
    assert dict(zip(classes.tolist(), counts.tolist(), strict=True)) == expected
    assert len(np.unique(both)) == 12


def check_weights_and_given_samples_in_every_container(name, selector_orig):
    """Check that containers of X, of the weights and of the mask change nothing."""
    X, y, optional = _pool(), _labels(), _optional(selector_orig)
    expected = _with(selector_orig, 10).fit(X, y, **optional)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "X.npy"
        np.save(file, X)
        containers = {
            "read-only memory map": np.load(file, mmap_mode="r", allow_pickle=False),
            "float32": X.astype(np.float32),
            "csr": sparse.csr_array(X),
        }
        as_lists = {key: value.tolist() for key, value in optional.items()}
        given = dict.fromkeys(containers, (optional, as_lists))
        try:
            import pandas as pd
        except ImportError:
            pass
        else:
            rows = np.arange(N_SAMPLES)[::-1]  # positions count, not row labels
            containers["frame"] = pd.DataFrame(X, columns=list("abcdef"), index=rows)
            series = {key: pd.Series(value) for key, value in optional.items()}
            if "sample_weight" in series:
                series["sample_weight"].index = rows
            given["frame"] = (optional, series)
        before = {key: value.copy() for key, value in optional.items()}
        for value in optional.values():
            value.setflags(write=False)
        for kind, container in containers.items():
            for optional_in_container in given[kind]:
                selector = _with(selector_orig, 10).fit(container, y, **optional_in_container)
                np.testing.assert_array_equal(
                    selector.sample_indices_, expected.sample_indices_, err_msg=kind
                )
                np.testing.assert_allclose(
                    selector.sample_weight_, expected.sample_weight_, rtol=1e-4, err_msg=kind
                )
        del containers
    for key, value in optional.items():
        np.testing.assert_array_equal(value, before[key])


def check_bad_weights_and_given_samples(name, selector_orig):
    """Check that what cannot be used is refused, and all of it if it is not supported."""
    X, y = _pool(), _labels()
    ones, no_mask = np.ones(N_SAMPLES), np.zeros(N_SAMPLES + 1, dtype=bool)
    no_mask[0] = True
    bad = {
        "sample_weight": [
            np.append(ones[1:], -1.0),
            np.append(ones[1:], np.nan),
            np.append(ones[1:], np.inf),
            0.0 * ones,
            ones[1:],
            ones[:, None],
        ],
        "selected": [
            [N_SAMPLES],
            [-1],
            [3, 3],
            no_mask,
            [0.5],
            _given_mask().astype(float),
            [_GIVEN],
            ["a"],
            "a",
            3,
        ],
    }
    for key, values in bad.items():
        if not _supports(selector_orig, key):
            with _raises((ValueError, TypeError), key):
                _with(selector_orig, 10).fit(X, y, **{key: np.ones(N_SAMPLES, dtype=bool)})
            continue
        for value in values:
            with _raises(ValueError, "(?i)sample.weight" if key == "sample_weight" else key):
                _with(selector_orig, 10).fit(X, y, **{key: value})


CONTRACT_CHECKS = (
    check_selects_distinct_positions,
    check_same_selection_in_every_container,
    check_transform_repeats_fit,
    check_transform_selects_from_another_pool,
    check_copies_and_set_params,
    check_fit_does_not_write_to_X,
    check_get_support,
    check_fit_resample,
    check_stratify,
    check_score_is_the_discrepancy,
    check_failed_fit_changes_nothing,
    check_degenerate_pools,
    check_callbacks,
    check_pipeline_step,
    check_equal_weights_are_none,
    check_only_ratios_of_weights_matter,
    check_samples_of_weight_zero_do_not_count,
    check_given_samples_are_not_selected,
    check_sum_of_weights,
    check_stratify_counts_weights_and_given_samples,
    check_weights_and_given_samples_in_every_container,
    check_bad_weights_and_given_samples,
)


def _name_of(check) -> str:
    return (check.func if isinstance(check, partial) else check).__name__


def _skip(reason: str) -> NoReturn:
    raise SkipTest(reason)


def _expected_to_fail(check: Callable, reason: str, give_up: Callable) -> Callable:
    """Return a check that calls `give_up` if `check` fails, and fails if it passes."""

    def inverted(estimator):
        try:
            check(estimator)
        except SkipTest:
            raise
        except (AssertionError, ValueError, IndexError):
            failed = True
        else:
            failed = False
        if not failed:
            raise AssertionError(f"{_name_of(check)} passed, but was expected to fail: {reason}")
        # Not in the except clause: pytest takes a third of a second to format both tracebacks.
        give_up(reason)

    inverted.__name__ = _name_of(check)
    return partial(inverted)


def selector_checks_generator(
    selector, *, contract_only=False, give_up: Callable[[str], NoReturn] = _skip
) -> Iterator[tuple]:
    """Generate all checks of a selector: scikit-learn's, and those of the selector contract.

    Parameters
    ----------
    selector : selector
        An instance. The checks set its `n_to_select`, `stratify` and `random_state`.
    contract_only : bool, default=False
        Whether to leave out scikit-learn's checks.
    give_up : callable, default=raises unittest.SkipTest
        Called with the reason where a check of `EXPECTED_FAILED_CHECKS` fails.

    Yields
    ------
    selector : selector
        The instance.
    check : functools.partial
        To be called with the instance. It raises AssertionError if the check fails, also if it
        passes although it is expected to fail, and `unittest.SkipTest` if it cannot run.

    Examples
    --------
    >>> from sklearn_skmm import UniformSelector
    >>> from sklearn_skmm.utils.estimator_checks import selector_checks_generator
    >>> checks = selector_checks_generator(UniformSelector(5), contract_only=True)
    >>> for selector, check in checks:
    ...     check(selector)
    """
    if not contract_only:
        for estimator, check in estimator_checks_generator(selector):
            reason = EXPECTED_FAILED_CHECKS.get(_name_of(check))
            if reason is not None:
                check = _expected_to_fail(check, reason, give_up)
            yield estimator, check
    name = type(selector).__name__
    for check in CONTRACT_CHECKS:
        yield selector, partial(check, name)


def check_selector(selector, *, contract_only=False) -> None:
    """Check that a selector keeps scikit-learn's conventions and the selector contract.

    Parameters
    ----------
    selector : selector
        An instance, such as ``MySelector(10)``.
    contract_only : bool, default=False
        Whether to leave out scikit-learn's checks.

    Raises
    ------
    AssertionError
        If a check fails, or whatever the selector raises in it.

    See Also
    --------
    parametrize_with_checks : One test for each check, with pytest.

    Examples
    --------
    >>> from sklearn_skmm import UniformSelector
    >>> from sklearn_skmm.utils.estimator_checks import check_selector
    >>> check_selector(UniformSelector(5), contract_only=True)
    """
    for estimator, check in selector_checks_generator(selector, contract_only=contract_only):
        try:
            check(estimator)
        except SkipTest:
            continue


def parametrize_with_checks(selectors, *, contract_only=False):
    """Return a decorator of pytest that runs each check as a test of its own.

    Parameters
    ----------
    selectors : list of selectors
        Instances.
    contract_only : bool, default=False
        Whether to leave out scikit-learn's checks.

    Returns
    -------
    decorator : pytest.mark.parametrize
        For a test with the arguments `estimator` and `check`.

    See Also
    --------
    check_selector : All checks in one call, without pytest.

    Examples
    --------
    >>> from sklearn_skmm import UniformSelector
    >>> from sklearn_skmm.utils.estimator_checks import parametrize_with_checks
    >>> @parametrize_with_checks([UniformSelector(5)])
    ... def test_selector(estimator, check):
    ...     check(estimator)
    """
    import pytest

    def name_of(item):
        if not isinstance(item, partial):
            return repr(item).replace("\n", "")
        return _name_of(item)

    pairs = [
        pair
        for selector in selectors
        for pair in selector_checks_generator(
            selector, contract_only=contract_only, give_up=pytest.xfail
        )
    ]
    return pytest.mark.parametrize(("estimator", "check"), pairs, ids=name_of)
