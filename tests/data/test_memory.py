"""What would not fit is refused before memory is asked for, by an estimate that holds within 20 %.

A table of what each selector holds is made by `examples/benchmarks/memory.py`.
"""

import tracemalloc

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from sklearn_skmm import FacilityLocationSelector, KCenterSelector, SkMMSelector, UniformSelector
from sklearn_skmm.core import _components
from sklearn_skmm.data import _checks
from tests._selectors import make, selector_classes

ROUNDINGS = sorted(SkMMSelector._parameter_constraints["rounding"][0].options)
OTHERS = sorted(cls.__name__ for cls in selector_classes() if cls is not SkMMSelector)
# Samples, features and picks. Facility location keeps all costs of as many samples.
SHAPE, FEW = (20_000, 32, 256), (4_000, 32, 256)
SLOW = ("cells", "exemplar", "spread", "cube", "local_cube")
SLOW += ("AdaptiveSelector", "FacilityLocationSelector", "KMeansSelector")


def test_what_does_not_fit_is_refused_and_nothing_changes(monkeypatch):
    X = np.random.RandomState(0).normal(size=(50, 4))
    one = X.nbytes
    monkeypatch.setattr(_checks, "SMALL", 1)
    selector = KCenterSelector(5, random_state=0).fit(X)
    before = dict(vars(selector))
    needed = one + 5 * 8 * 50  # a centred copy and five vectors
    monkeypatch.setattr(_checks, "available_memory", lambda: needed - 1)
    for call in (selector.fit, selector.transform, selector.score):
        with pytest.raises(MemoryError, match=r"KCenterSelector.*X of shape \(50, 4\)"):
            call(X)
        assert vars(selector) == before
    monkeypatch.setattr(_checks, "available_memory", lambda: needed)
    selector.fit(X)
    with pytest.raises(MemoryError):  # columns that lie one after the other are copied
        selector.fit(np.asfortranarray(X))
    with pytest.raises(MemoryError):  # single precision is taken to double, a copy more
        selector.fit(X.astype(np.float32))
    UniformSelector(5).fit(X)
    monkeypatch.setattr(_checks, "available_memory", lambda: None)
    selector.fit(X)


def pool(n_samples, n_features, dtype):
    """Samples of a spectrum that decays, and two classes."""
    X = np.random.RandomState(0).normal(size=(n_samples, n_features))
    X /= np.sqrt(np.arange(1, n_features + 1))
    return X.astype(dtype), X[:, 0] > 0


def peak(selector, X, y):
    """Return the most bytes that a fit holds at once, as NumPy counts them.

    What the system counts would be rounded to pages, and has in it what was there before.
    """
    selector.fit(X[:1000], y[:1000])  # what is imported at first use is no part of it
    tracemalloc.start()
    try:
        with threadpool_limits(1):
            selector.fit(X, y)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def check(selector, X, y):
    """The peak next to X is what is stated, within 20 % of itself: no share of X hides it."""
    measured, stated = peak(selector, X, y), selector._bytes_next_to(X)
    assert 0.8 * stated <= measured <= 1.2 * stated, (measured / X.nbytes, stated / X.nbytes)


def marked(names):
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in names]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", marked([*OTHERS, *ROUNDINGS]))
def test_the_stated_peak_is_measured(name, dtype):
    n_samples, n_features, n = FEW if name == "FacilityLocationSelector" else SHAPE
    X, y = pool(n_samples, n_features, dtype)
    if name in ("cells", "exemplar"):
        n = 64  # as much is stated for 256, which take longer
    if name in ROUNDINGS:
        selector = SkMMSelector(n, rounding=name, random_state=0)
    else:
        selector = make(next(cls for cls in selector_classes() if cls.__name__ == name), n)
    if name == "KMeansSelector":
        selector.set_params(max_iter=3)
    check(selector, X, y)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rounding", ["cells", "exemplar", "systematic"])
def test_the_stated_peak_of_many_samples_is_measured(rounding, dtype, monkeypatch):
    """As beyond 512 MiB: half of X for the solver, nothing else like it; and cells in two steps."""
    monkeypatch.setattr(_components, "KEEP_BYTES", 0)
    X, y = pool(300_000, 32, dtype)
    check(SkMMSelector(1000, rounding=rounding, random_state=0), X, y)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["gaussian", "euclidean"])
def test_the_stated_peak_of_more_costs_than_are_kept_is_measured(metric):
    X, y = pool(9_000, 32, np.float64)
    X += 3.0 * np.random.RandomState(1).normal(size=(30, 32))[np.arange(9_000) % 30]
    check(make(FacilityLocationSelector, 60, metric=metric), X, y)


def test_the_peak_is_a_ceiling_for_few_picks_and_grows_with_their_number():
    X, y = pool(20_000, 32, np.float64)
    for name, few, many in (("Adaptive", 4, 16), ("TruncatedLeverage", 10, 500)):
        cls = next(cls for cls in selector_classes() if cls.__name__ == f"{name}Selector")
        stated = [make(cls, n)._bytes_next_to(X) for n in (few, many)]
        assert stated[0] < stated[1]
        assert peak(make(cls, few), X, y) <= 1.2 * stated[0]
