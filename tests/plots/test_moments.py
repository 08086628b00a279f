"""Tests of the displays of spectra, moments and performance profiles: values, invalid input."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from sklearn_skmm import (
    FacilityLocationSelector,
    KMeansSelector,
    MomentMatchDisplay,
    PerformanceProfileDisplay,
    SkMMSelector,
    SpectrumDisplay,
    UniformSelector,
    compare_selectors,
)
from sklearn_skmm.diagnostics import intrinsic_dimension

matplotlib = pytest.importorskip("matplotlib")
pd = pytest.importorskip("pandas")


@pytest.fixture(autouse=True)
def plt():
    """Plot without a screen, close all figures, and check that matplotlib's settings stay."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    yield plt
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


def data(N=60, k=6, seed=0):
    return np.random.RandomState(seed).normal(size=(N, k)) * 2.0 ** -np.arange(k)


def brute_moments(X, directions, weight=None):
    """Return the second moment of the rows of X along each direction."""
    return np.array([np.average((X @ v) ** 2, weights=weight) for v in directions.T])


# --- SpectrumDisplay -----------------------------------------------------------------------------


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array, sparse.coo_matrix])
def test_spectrum_of_data(container):
    X = data()
    display = SpectrumDisplay.from_data(container(X), m=50, n=7)
    expected = np.linalg.eigvalsh(X.T @ X / 60)[::-1]
    np.testing.assert_allclose(display.eigenvalues_.get_ydata(), expected)
    assert display.eigenvalues_.get_xdata().tolist() == [1, 2, 3, 4, 5, 6]
    tails = [expected[j:].sum() for j in range(1, 6)]
    np.testing.assert_allclose(display.tail_.get_ydata()[:-1], tails)
    assert np.isnan(display.tail_.get_ydata()[-1])
    np.testing.assert_allclose(display.threshold_.get_ydata(), np.trace(X.T @ X) / 60**2)
    assert display.ax_.get_yscale() == "log"
    assert display.ax_.get_xscale() == "linear"
    places = {name: line.get_xdata()[0] for name, line in display.marks_.items()}
    assert places == {"intrinsic_dimension": intrinsic_dimension(X), "m": 50, "n": 7}


@pytest.mark.parametrize("seed", range(5))
def test_intrinsic_dimension_is_that_of_the_diagnostics(seed):
    X = data(N=30, k=20, seed=seed) ** 3
    assert SpectrumDisplay.from_data(X).intrinsic_dimension_ == intrinsic_dimension(X)


def test_intrinsic_dimension_of_given_eigenvalues():
    # A tenth of the total of 10 may remain, and does after the first two eigenvalues.
    display = SpectrumDisplay([1.0, 6.0, 3.0, 0.0], n_samples=10).plot()
    assert display.eigenvalues.tolist() == [6.0, 3.0, 1.0, 0.0]
    assert display.intrinsic_dimension_ == 2
    assert display.eigenvalues_.get_ydata().tolist() == [6.0, 3.0, 1.0]
    assert list(display.marks_) == ["intrinsic_dimension"]


def test_spectrum_of_a_selector():
    X = data()
    selector = SkMMSelector(9, random_state=0).fit(X)
    display = SpectrumDisplay.from_estimator(selector, line_kw={"color": "red"})
    np.testing.assert_array_equal(display.eigenvalues_.get_ydata(), selector.eigenvalues_)
    assert (display.n_samples, display.m, display.n) == (60, 6, 9)
    assert display.eigenvalues_.get_color() == "red"
    assert display.intrinsic_dimension_ == intrinsic_dimension(X)


def test_from_estimator_needs_one_fitted_spectrum():
    with pytest.raises(NotFittedError):
        SpectrumDisplay.from_estimator(SkMMSelector(9))
    with pytest.raises(AttributeError, match=r"eigenvalues_|not fitted"):
        SpectrumDisplay.from_estimator(UniformSelector(9, random_state=0).fit(data()))
    strata = SkMMSelector(9, stratify=True, random_state=0).fit(data(), np.arange(60) % 2)
    with pytest.raises(ValueError, match="must have one spectrum, but has 2"):
        SpectrumDisplay.from_estimator(strata)


@pytest.mark.parametrize("values", [[], [0.0], [-1.0, 2.0], [np.nan], [np.inf], [[1.0]]])
def test_bad_eigenvalues(values):
    with pytest.raises(ValueError, match=r"eigenvalues=.*must be non-negative numbers"):
        SpectrumDisplay(values, n_samples=2)


@pytest.mark.parametrize("size", [{"n_samples": 0}, {"m": 0}, {"n": 2.5}, {"m": True}])
def test_bad_sizes(size):
    name, value = next(iter(size.items()))
    with pytest.raises(ValueError, match=f"{name}={value} must be a positive integer"):
        SpectrumDisplay([1.0], **{"n_samples": 2} | size)


def test_many_directions_use_a_logarithmic_axis():
    assert SpectrumDisplay(np.ones(120), n_samples=9).plot().ax_.get_xscale() == "log"


# --- MomentMatchDisplay --------------------------------------------------------------------------


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("kind", ["ratio", "moment"])
def test_moments_against_brute_force(container, kind):
    X, indices = data(), [3, 50, 7, 8]
    weight = np.array([1.0, 2.0, 0.0, 5.0])
    values, vectors = np.linalg.eigh(X.T @ X / 60)
    values, vectors = values[::-1], vectors[:, ::-1]
    display = MomentMatchDisplay.from_indices(
        container(X), indices, sample_weight=weight, c_S=0.5, kind=kind
    )
    unit = values if kind == "ratio" else 1.0
    np.testing.assert_allclose(display.target, values)
    np.testing.assert_allclose(display.target_.get_ydata(), values / 0.5 / unit)
    plain = brute_moments(X[indices], vectors)
    np.testing.assert_allclose(display.coreset_.get_ydata(), plain / unit)
    weighted = brute_moments(X[indices], vectors, weight)
    np.testing.assert_allclose(display.weighted_.get_ydata(), weighted / unit)
    short = 1 + np.flatnonzero(plain < 0.5 * values / 0.5)
    assert display.uncovered_.get_xdata().tolist() == short.tolist()
    assert display.ax_.get_yscale() == ("linear" if kind == "ratio" else "log")


def test_all_samples_match_their_own_moments():
    X = data()
    display = MomentMatchDisplay.from_indices(X, np.arange(60))
    np.testing.assert_allclose(display.coreset_.get_ydata(), 1.0)
    assert not display.uncovered_.get_xdata().size
    assert display.weighted_ is None
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert "below half of the target" not in labels
    assert display.ax_.get_ylim()[0] == 0


def test_a_direction_without_samples_is_marked_on_a_logarithmic_axis():
    display = MomentMatchDisplay.from_indices(np.diag([2.0, 1.0]), [0], kind="moment")
    np.testing.assert_allclose(display.uncovered_.get_xydata(), [[2, 0.5]])


def test_moments_of_selectors():
    X = data()
    selector = SkMMSelector(8, c_S=0.9, rounding="systematic", random_state=0).fit(X)
    display = MomentMatchDisplay.from_estimator(selector, X)
    assert display.c_S == 0.9
    assert display.weighted is None  # all weights are equal
    cells = MomentMatchDisplay.from_estimator(SkMMSelector(8, random_state=0).fit(X), X)
    assert cells.weighted is not None
    np.testing.assert_allclose(
        display.coreset, brute_moments(X[selector.sample_indices_], selector.components_.T)
    )
    other = FacilityLocationSelector(8, random_state=0).fit(X)
    display = MomentMatchDisplay.from_estimator(other, X)
    assert display.c_S is None
    weight = other.sample_weight_
    assert np.ptp(weight) > 0
    expected = brute_moments(X[other.sample_indices_], selector.components_.T, weight)
    np.testing.assert_allclose(display.weighted, expected)
    with pytest.raises(ValueError, match=r"X has 59 samples, but the selector saw 60\."):
        MomentMatchDisplay.from_estimator(selector, X[1:])
    with pytest.raises(NotFittedError):
        MomentMatchDisplay.from_estimator(UniformSelector(2), X)


def test_target_from_a_reference_population():
    X, reference = data(), 3.0 * data(N=40, seed=1)
    display = MomentMatchDisplay.from_indices(X, [0, 1], reference=reference)
    values, vectors = np.linalg.eigh(reference.T @ reference / 40)
    np.testing.assert_allclose(display.target, values[::-1])
    np.testing.assert_allclose(display.coreset, brute_moments(X[:2], vectors[:, ::-1]))
    with pytest.raises(ValueError, match="reference has 5 features, but X has 6"):
        MomentMatchDisplay.from_indices(X, [0], reference=reference[:, :5])


def test_shared_axes_include_later_plots(plt):
    _, axes = plt.subplots(2, 1, sharey=True)
    for ax, moments in zip(axes, ([1.0, 1.0], [1.0, 9.0]), strict=True):
        MomentMatchDisplay([2.0, 1.0], moments).plot(ax)
    low, high = axes[0].get_ylim()
    assert low == 0
    assert high > 9


def test_bad_moments():
    for bad in ([1.0], [1.0, -1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="coreset="):
            MomentMatchDisplay([2.0, 1.0], bad)
        with pytest.raises(ValueError, match="weighted="):
            MomentMatchDisplay([2.0, 1.0], [1.0, 1.0], weighted=bad)
    for bad in ([], [0.0], [[1.0]]):
        with pytest.raises(ValueError, match="target="):
            MomentMatchDisplay(bad, bad)
    for c_S in (0, -1.0, np.inf):
        with pytest.raises(ValueError, match=f"c_S={c_S} must be a positive number"):
            MomentMatchDisplay([1.0], [1.0], c_S=c_S)


def test_bad_options_of_moments(plt):
    with pytest.raises(ValueError, match="kind='share' must be one of"):
        MomentMatchDisplay([1.0], [1.0]).plot(kind="share")
    for indices in ([], [60], [-1], [0.5], [[0]]):
        with pytest.raises(ValueError, match="indices="):
            MomentMatchDisplay.from_indices(data(), indices)
    for weight in ([1.0], [1.0, -1.0], [0.0, 0.0]):
        with pytest.raises(ValueError, match=r"sample_weight=.*must be 2 non-negative numbers"):
            MomentMatchDisplay.from_indices(data(), [0, 1], sample_weight=weight)
    with pytest.raises(ValueError, match="zero in all directions"):
        MomentMatchDisplay.from_indices(np.zeros((3, 2)), [0])
    assert not plt.get_fignums()


# --- PerformanceProfileDisplay -------------------------------------------------------------------


def profile(line, factor):
    """Return the value of the step function at a factor."""
    x, y = line.get_xdata(), line.get_ydata()
    return y[np.searchsorted(x, factor, side="right") - 1]


def test_profiles_match_direct_counting():
    losses = pd.DataFrame(np.random.RandomState(0).lognormal(size=(30, 4)), columns=list("abcd"))
    display = PerformanceProfileDisplay(losses).plot()
    for name in losses:
        ratios = losses[name] / losses.min(axis=1)
        np.testing.assert_allclose(display.ratios_[name], ratios)
        for factor in (1.0, 1.2, 1.7, 3.0):
            assert profile(display.lines_[name], factor) == np.mean(ratios <= factor)
        assert display.lines_[name].get_drawstyle() == "steps-post"
        assert display.lines_[name].get_ydata()[-1] == 1.0
    assert sum(profile(line, 1.0) for line in display.lines_.values()) == pytest.approx(1.0)
    assert display.ax_.get_xscale() == "log"
    assert [t.get_text() for t in display.ax_.get_legend().get_texts()] == list("abcd")


def test_zero_and_missing_losses():
    losses = pd.DataFrame({"a": [0.0, 1.0, np.nan], "b": [0.0, np.nan, np.nan], "c": [2.0, 2.0, 1]})
    display = PerformanceProfileDisplay(losses).plot()
    np.testing.assert_array_equal(display.ratios_["a"], [1, 1, np.inf])
    np.testing.assert_array_equal(display.ratios_["b"], [1, np.inf, np.inf])
    np.testing.assert_array_equal(display.ratios_["c"], [np.inf, 2, 1])
    ends = [display.lines_[name].get_ydata()[-1] for name in losses]
    np.testing.assert_allclose(ends, [2 / 3, 1 / 3, 2 / 3])


def results(scores, sizes=(10, 20)):
    rows = [
        (name, n, split, score + 0.1 * split - 0.1)
        for name, values in scores.items()
        for n, score in zip(sizes, values, strict=True)
        for split in range(3)
    ]
    return pd.DataFrame(rows, columns=["selector", "n", "split", "score"])


@pytest.mark.parametrize("kind", ["accuracy", "neg_loss", "loss"])
def test_results_are_averaged_to_losses(kind):
    losses = {"z": [0.5, 0.2], "a": [0.25, 0.4]}
    to_score = {"accuracy": lambda x: 1 - x, "neg_loss": lambda x: -x, "loss": lambda x: x}[kind]
    scores = {name: [to_score(x) for x in values] for name, values in losses.items()}
    display = PerformanceProfileDisplay.from_results(results(scores), score_kind=kind)
    assert list(display.lines_) == ["z", "a"]
    np.testing.assert_allclose(display.losses, np.column_stack([losses["z"], losses["a"]]))
    np.testing.assert_allclose(display.ratios_["z"], [2, 1])
    assert profile(display.lines_["a"], 1.5) == 0.5


def test_results_of_several_tasks():
    one, two = results({"a": [0.9, 0.8]}), results({"a": [0.7, 0.6], "b": [0.8, 0.9]})
    display = PerformanceProfileDisplay.from_results({"one": one, "two": two})
    assert display.losses.shape == (4, 2)
    assert np.isinf(display.ratios_.loc["one", "b"]).all()
    named = pd.concat([one.assign(task="one"), two.assign(task="two")])
    again = PerformanceProfileDisplay.from_results(named)
    pd.testing.assert_frame_equal(again.losses, display.losses)


def test_output_of_compare_selectors_can_be_plotted():
    X, y = load_iris(return_X_y=True)
    selectors = {"uniform": UniformSelector(1), "k-means": KMeansSelector(1)}
    compared = compare_selectors(
        selectors, LogisticRegression(max_iter=1000), X, y, n_to_select=[15, 30], random_state=0
    )
    display = PerformanceProfileDisplay.from_results({"iris": compared})
    error = 1 - compared.groupby(["selector", "n"])["score"].mean().unstack("selector")
    np.testing.assert_allclose(display.losses, error[["uniform", "k-means"]], atol=1e-12)


def test_options_of_profiles():
    losses = pd.DataFrame({"a": [1.0, 1.0], "b": [2.0, 9.0]})
    display = PerformanceProfileDisplay(losses)
    display.plot(max_factor=4, line_kw={"a": {"color": "red"}})
    assert display.lines_["a"].get_color() == "red"
    assert display.lines_["b"].get_ydata()[-1] == 0.5
    assert display.ax_.get_xlim() == (1, 4)
    with pytest.raises(ValueError, match=r"line_kw names \['c'\].*'a', 'b'"):
        display.plot(line_kw={"c": {}})
    for factor in (1, 0.5, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"max_factor={factor} must be a number above 1"):
            display.plot(max_factor=factor)


def test_ticks_of_profiles():
    losses = pd.DataFrame({"a": [1.0, 1.0], "b": [2.0, 9.0]})
    display = PerformanceProfileDisplay(losses)
    assert display.plot(max_factor=10).ax_.get_xticks().tolist() == [1, 2, 3, 4, 6, 10]
    # A wide axis needs ticks only at the decades.
    assert {1, 10, 100, 1000} <= set(display.plot(max_factor=2000).ax_.get_xticks())


def test_lines_differ_without_colour():
    losses = pd.DataFrame(np.ones((2, 8)), columns=list("abcdefgh"))
    lines = PerformanceProfileDisplay(losses).plot().lines_.values()
    assert len({line.get_marker() for line in lines}) == 8


def test_bad_losses_and_results():
    with pytest.raises(ValueError, match=r"losses=.*must be a pandas DataFrame"):
        PerformanceProfileDisplay([[1.0]])
    with pytest.raises(ValueError, match="must have rows and columns"):
        PerformanceProfileDisplay(pd.DataFrame())
    with pytest.raises(ValueError, match="losses must be non-negative, but the smallest is -1"):
        PerformanceProfileDisplay(pd.DataFrame({"a": [-1.0]}))
    frame = results({"a": [0.9, 0.8]})
    for bad, match in (
        ({"x": 3}, "results=3 must be a pandas DataFrame"),
        (frame.drop(columns="n"), r"lacks \['n'\]"),
        (frame[:0], "must have rows"),
        ({}, "must have rows"),
    ):
        with pytest.raises(ValueError, match=match):
            PerformanceProfileDisplay.from_results(bad)
    with pytest.raises(ValueError, match="score_kind='r2' must be one of"):
        PerformanceProfileDisplay.from_results(frame, score_kind="r2")


def test_given_axes_are_used(plt):
    _, axes = plt.subplots(1, 3)
    assert SpectrumDisplay.from_data(data(), ax=axes[0]).ax_ is axes[0]
    assert MomentMatchDisplay.from_indices(data(), [0], ax=axes[1]).ax_ is axes[1]
    losses = pd.DataFrame({"a": [1.0]})
    display = PerformanceProfileDisplay(losses)
    assert display.plot(axes[2]) is display
    assert display.figure_ is axes[2].figure
    assert len(plt.get_fignums()) == 1
