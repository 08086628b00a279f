"""A fit beyond the available memory raises before allocating; estimates are within 20 %.

`examples/benchmarks/memory.py` makes a table of the memory that each selector uses.
"""

import tracemalloc

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from sklearn_skmm import FacilityLocationSelector, KCenterSelector, SkMMSelector, UniformSelector
from sklearn_skmm.core import _components, _costs, _peak_memory
from sklearn_skmm.data import _checks
from tests._selectors import make, selector_classes

ROUNDINGS = sorted(SkMMSelector._parameter_constraints["rounding"][0].options)
OTHERS = sorted(cls.__name__ for cls in selector_classes() if cls is not SkMMSelector)
# (n_samples, n_features, n_to_select). Facility location keeps all costs of 2,000 samples.
SHAPE, FEW = (20_000, 32, 256), (2_000, 32, 256)
SLOW = ("cells", "exemplar", "spread", "cube", "local_cube")
SLOW += ("AdaptiveSelector", "FacilityLocationSelector", "KMeansSelector")


def test_fit_beyond_memory_raises_and_leaves_the_selector_unchanged(monkeypatch):
    X = np.random.RandomState(0).normal(size=(50, 4))
    n_bytes = X.nbytes
    monkeypatch.setattr(_checks, "SMALL", 1)
    selector = KCenterSelector(5, random_state=0).fit(X)
    before = dict(vars(selector))
    needed = n_bytes + 5 * 8 * 50  # a centred copy and five vectors
    monkeypatch.setattr(_checks, "available_memory", lambda: needed - 1)
    for call in (selector.fit, selector.transform, selector.score):
        with pytest.raises(MemoryError, match=r"KCenterSelector.*X of shape \(50, 4\)"):
            call(X)
        assert vars(selector) == before
    monkeypatch.setattr(_checks, "available_memory", lambda: needed)
    selector.fit(X)
    with pytest.raises(MemoryError):  # an array in Fortran order is copied
        selector.fit(np.asfortranarray(X))
    with pytest.raises(MemoryError):  # converting single to double precision makes another copy
        selector.fit(X.astype(np.float32))
    UniformSelector(5).fit(X)
    monkeypatch.setattr(_checks, "available_memory", lambda: None)
    selector.fit(X)


def pool(n_samples, n_features, dtype):
    """Return samples whose spectrum decays, and labels of two classes."""
    X = np.random.RandomState(0).normal(size=(n_samples, n_features))
    X /= np.sqrt(np.arange(1, n_features + 1))
    return X.astype(dtype), X[:, 0] > 0


def peak(selector, X, y):
    """Return the peak memory of a fit in bytes, as NumPy reports its allocations.

    The system's figure is rounded to pages and includes earlier allocations.
    """
    few = slice(1000)  # imports at first use do not count
    selector.fit(X[few, few] if selector._is_pairwise() else X[few], y[few])
    tracemalloc.start()
    try:
        with threadpool_limits(1):
            selector.fit(X, y)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def assert_peak_is_as_stated(selector, X, y):
    """Assert that the peak next to X is within 20 % of what is stated.

    The tolerance is relative to the stated memory without X, so the size of X hides no error.
    """
    measured, stated = peak(selector, X, y), selector._bytes_next_to(X)
    assert 0.8 * stated <= measured <= 1.2 * stated, (measured / X.nbytes, stated / X.nbytes)


def mark_slow(names):
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in names]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", mark_slow([*OTHERS, *ROUNDINGS]))
def test_measured_peak_is_as_stated(name, dtype):
    n_samples, n_features, n = FEW if name == "FacilityLocationSelector" else SHAPE
    X, y = pool(n_samples, n_features, dtype)
    if name in ("cells", "exemplar"):
        n = 32  # the stated memory is the same for 256, which take longer
    if name in ROUNDINGS:
        selector = SkMMSelector(n, rounding=name, random_state=0)
    else:
        selector = make(next(cls for cls in selector_classes() if cls.__name__ == name), n)
    if name == "KMeansSelector":
        selector.set_params(max_iter=3)
    assert_peak_is_as_stated(selector, X, y)


@pytest.mark.parametrize("cls", [FacilityLocationSelector, KCenterSelector])
def test_measured_peak_of_other_metrics_is_as_stated(cls):
    X, y = pool(*SHAPE[:2] if cls is KCenterSelector else (5000, 32), np.float64)
    assert_peak_is_as_stated(make(cls, 30, metric="cosine"), X, y)
    D = _costs.squared_distances(X[: FEW[0]])
    selector = make(cls, 30, metric="precomputed")
    matrix = D if cls is KCenterSelector else 1.0 - D
    assert peak(selector, matrix, y[: FEW[0]]) <= 1.2 * selector._bytes_next_to(matrix)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rounding", ["cells", "exemplar", "systematic"])
def test_measured_peak_of_many_samples_is_as_stated(rounding, dtype, monkeypatch):
    """As beyond 512 MiB: the solver uses half of X, nothing else as much; cells take two steps."""
    monkeypatch.setattr(_components, "KEEP_BYTES", 0)
    X, y = pool(100_000, 32, dtype)
    assert_peak_is_as_stated(SkMMSelector(1000, rounding=rounding, random_state=0), X, y)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["gaussian", "euclidean", "cosine"])
def test_measured_peak_is_as_stated_when_not_all_costs_are_kept(metric, monkeypatch):
    for module in (_costs, _peak_memory):
        monkeypatch.setattr(module, "CACHE_BYTES", 45 * 2**20)
    X, y = pool(5_000, 32, np.float64)
    X += 3.0 * np.random.RandomState(1).normal(size=(30, 32))[np.arange(5_000) % 30]
    assert_peak_is_as_stated(make(FacilityLocationSelector, 60, metric=metric), X, y)


def test_stated_peak_grows_with_n_and_bounds_that_of_small_selections():
    X, y = pool(20_000, 32, np.float64)
    for name, few, many in (("Adaptive", 4, 16), ("TruncatedLeverage", 10, 500)):
        cls = next(cls for cls in selector_classes() if cls.__name__ == f"{name}Selector")
        stated = [make(cls, n)._bytes_next_to(X) for n in (few, many)]
        assert stated[0] < stated[1]
        assert peak(make(cls, few), X, y) <= 1.2 * stated[0]
