"""Tests of SelectionCurveDisplay and CoresetDisplay: plotted values, scales, invalid input."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.linear_model import LogisticRegression

from sklearn_skmm import (
    CoresetDisplay,
    KMeansSelector,
    PerformanceProfileDisplay,
    SelectionCurveDisplay,
    SkMMSelector,
    UniformSelector,
)
from sklearn_skmm.plots._style import COLORS, LINES, MARKERS

matplotlib = pytest.importorskip("matplotlib")
pd = pytest.importorskip("pandas")


@pytest.fixture(autouse=True)
def plt():
    """Plot without a screen, and close all figures afterwards."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


def frame(score, sizes=(10, 20, 40), selectors=("uniform", "SkMM"), repeats=5):
    """Return results whose scores are score(index of the selector, n, noise in [0, 1))."""
    rng = np.random.RandomState(0)
    rows = [
        (name, n, i, i, score(k, n, rng.uniform()), 0.0)
        for k, name in enumerate(selectors)
        for n in sizes
        for i in range(repeats)
    ]
    return pd.DataFrame(rows, columns=["selector", "n", "split", "seed", "score", "seconds"])


def accuracy(k, n, noise):
    return 0.9 - 1 / n + 0.05 * k + 0.02 * noise


def risk(k, n, noise):
    return (1 + k + noise) / n


def summary(results, name):
    score = results[results["selector"] == name].groupby("n")["score"]
    return score.mean().to_numpy(), score.std(ddof=0).to_numpy()


def band(collection, sizes):
    """Return the lower and upper edges of a band at these sizes."""
    (path,) = collection.get_paths()
    return np.array(
        [[f(path.vertices[path.vertices[:, 0] == n, 1]) for n in sizes] for f in (min, max)]
    )


@pytest.mark.parametrize("shuffle", [False, True])
def test_lines_are_means_and_bands_are_standard_deviations(shuffle):
    results = frame(accuracy)
    if shuffle:
        results = results.sample(frac=1, random_state=0)
    display = SelectionCurveDisplay.from_results(results, score_name="accuracy")
    assert set(display.lines_) == set(display.fill_between_) == {"uniform", "SkMM"}
    assert display.errorbar_ is None
    for name, line in display.lines_.items():
        mean, std = summary(results, name)
        assert line.get_xdata().tolist() == [10, 20, 40]
        np.testing.assert_allclose(line.get_ydata(), mean)
        edges = band(display.fill_between_[name], [10, 20, 40])
        np.testing.assert_allclose(edges, [mean - std, mean + std])
    assert display.figure_ is display.ax_.figure
    assert display.ax_.get_ylabel() == "accuracy"
    legend = display.ax_.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list(display.lines_)
    assert legend.get_title().get_text() == "mean ± std"


def test_selectors_keep_their_order_and_may_differ_in_sizes():
    parts = [frame(accuracy, sizes=(10, 30), selectors=["b"]), frame(accuracy, (20,), ["a"])]
    display = SelectionCurveDisplay(pd.concat(parts)).plot()
    assert list(display.lines_) == ["b", "a"]
    assert display.lines_["a"].get_xdata().tolist() == [20]
    assert display.ax_.get_xticks().tolist() == [10, 20, 30]
    # A band over a single size has no area, so its edge is drawn.
    assert display.fill_between_["a"].get_linewidth()[0] > 0
    assert display.fill_between_["b"].get_linewidth()[0] == 0


def test_errorbars_and_no_spread():
    results = frame(accuracy)
    display = SelectionCurveDisplay.from_results(results, std_display_style="errorbar")
    assert display.fill_between_ is None
    for name, bars in display.errorbar_.items():
        mean, std = summary(results, name)
        assert display.lines_[name] is bars.lines[0]
        np.testing.assert_allclose(display.lines_[name].get_ydata(), mean)
        ends = np.array(bars.lines[2][0].get_segments())[:, :, 1]
        np.testing.assert_allclose(ends.T, [mean - std, mean + std])
    display.plot(std_display_style=None)
    assert display.fill_between_ is display.errorbar_ is None
    assert display.ax_.get_legend().get_title().get_text() == "mean"


@pytest.mark.parametrize(
    ("score", "sizes", "log_scale", "scales"),
    [
        (accuracy, (10, 20, 90), "auto", ("linear", "linear")),
        (accuracy, (10, 20, 100), "auto", ("log", "linear")),
        (risk, (10, 20, 90), "auto", ("linear", "linear")),
        (risk, (10, 100, 1000), "auto", ("log", "log")),
        (lambda *args: -risk(*args), (10, 100, 1000), "auto", ("log", "linear")),
        (risk, (10, 100, 1000), False, ("linear", "linear")),
        (risk, (10, 20), True, ("log", "log")),
        (risk, (10, 100, 1000), (False, "auto"), ("linear", "log")),
        (risk, (10, 100, 1000), ("auto", False), ("log", "linear")),
    ],
)
def test_axis_scales_and_ticks(score, sizes, log_scale, scales):
    display = SelectionCurveDisplay.from_results(frame(score, sizes), log_scale=log_scale)
    assert (display.ax_.get_xscale(), display.ax_.get_yscale()) == scales
    assert display.ax_.get_xticks().tolist() == list(sizes)
    assert [text.get_text() for text in display.ax_.get_xticklabels()] == list(map(str, sizes))
    assert display.ax_.get_xticks(minor=True).size == 0


def test_crowded_ticks_have_no_label():
    display = SelectionCurveDisplay(frame(accuracy, (10, 1000, 1100, 100000))).plot()
    labels = [text.get_text() for text in display.ax_.get_xticklabels()]
    assert labels == ["10", "1000", "", "100000"]
    display = SelectionCurveDisplay(frame(accuracy, (0.1, 0.25, 0.5))).plot()
    labels = [text.get_text() for text in display.ax_.get_xticklabels()]
    assert labels == ["0.1", "0.25", "0.5"]


@pytest.mark.parametrize("style", ["fill_between", "errorbar"])
@pytest.mark.parametrize("zero", [False, True])
def test_spread_stays_positive_on_a_log_axis(style, zero):
    # Heavy-tailed: the standard deviation exceeds the mean.
    scores = [1, 1, 1, 100, 0.01, 0.01, 0.01, 0.01] if not zero else [0, 0, 9, 0, 0.01, 0, 0, 0]
    results = pd.DataFrame({"selector": "a", "n": [10] * 4 + [100] * 4, "score": scores})
    mean, std = summary(results, "a")
    assert mean[0] < std[0]
    display = SelectionCurveDisplay.from_results(results, std_display_style=style)
    assert display.ax_.get_yscale() == "log"
    if style == "errorbar":
        lower, upper = np.array(display.errorbar_["a"].lines[2][0].get_segments())[:, :, 1].T
    else:
        lower, upper = band(display.fill_between_["a"], [10, 100])
    np.testing.assert_allclose(lower, [1, 0.01] if not zero else mean)
    np.testing.assert_allclose(upper, mean + std)


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_missing_scores_leave_a_gap(missing):
    results = frame(accuracy)
    results.loc[(results["selector"] == "SkMM").idxmax(), "score"] = missing
    display = SelectionCurveDisplay.from_results(results)
    assert np.isnan(display.lines_["SkMM"].get_ydata()).tolist() == [True, False, False]
    assert np.isfinite(display.lines_["uniform"].get_ydata()).all()


def test_lines_differ_without_colour_and_line_kw_overrides_styles():
    names = [f"selector {k}" for k in range(len(MARKERS))]
    results = frame(accuracy, selectors=names)
    line_kw = {names[1]: {"color": "red", "linewidth": 5}}
    lines = SelectionCurveDisplay.from_results(results, line_kw=line_kw).lines_
    assert len({line.get_marker() for line in lines.values()}) == len(names)
    assert len({line.get_linestyle() for line in lines.values()}) == len(LINES)
    assert lines[names[0]].get_color() == COLORS[0]
    assert (lines[names[1]].get_color(), lines[names[1]].get_linewidth()) == ("red", 5)


def test_given_axes_are_used(plt):
    _, (left, right) = plt.subplots(1, 2)
    curve = SelectionCurveDisplay(frame(accuracy))
    assert curve.plot(left) is curve
    assert SelectionCurveDisplay.from_results(frame(accuracy), ax=right).ax_ is right
    curve.plot(right, std_display_style=None)
    assert curve.ax_ is right
    assert len(right.get_lines()) == 4
    assert CoresetDisplay.from_indices(np.eye(4), [0], ax=left).ax_ is left
    assert len(plt.get_fignums()) == 1


def test_from_estimators_plots_compare_selectors():
    from sklearn_skmm import compare_selectors

    X, y = load_iris(return_X_y=True)
    selectors = {"uniform": UniformSelector(1), "k-means": KMeansSelector(1)}
    options = {"n_to_select": [15, 30], "cv": 3, "scoring": "accuracy", "random_state": 0}
    estimator = LogisticRegression(max_iter=1000)
    display = SelectionCurveDisplay.from_estimators(selectors, estimator, X, y, **options)
    results = compare_selectors(selectors, estimator, X, y, **options)
    pd.testing.assert_series_equal(display.results["score"], results["score"])
    for name in selectors:
        np.testing.assert_allclose(display.lines_[name].get_ydata(), summary(results, name)[0])
    assert display.ax_.get_ylabel() == "accuracy"


def test_from_estimators_checks_options_before_fitting():
    for options, error in (({"log_scale": "x"}, ValueError), ({"typo": 1}, TypeError)):
        with pytest.raises(error, match=next(iter(options))):
            SelectionCurveDisplay.from_estimators(None, None, None, None, n_to_select=1, **options)


@pytest.mark.parametrize(
    ("results", "match"),
    [
        ([1, 2], "results=.*must be a pandas DataFrame"),
        (frame(accuracy).drop(columns=["n", "score"]), r"lacks \['n', 'score'\]"),
        (frame(accuracy)[:0], "must have rows.*Got 0 rows"),
        (frame(risk).assign(n=0), r"positive n\. Got 30 rows, smallest n=0"),
    ],
)
def test_bad_results(results, match):
    with pytest.raises(ValueError, match=match):
        SelectionCurveDisplay(results)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"std_display_style": "band"}, "std_display_style='band' must be one of"),
        ({"log_scale": "both"}, "log_scale='both' must be"),
        ({"log_scale": (True,)}, "log_scale=.*must be"),
        ({"log_scale": True}, "log_scale=True needs positive mean scores, got -"),
        ({"line_kw": {"nobody": {}}}, r"line_kw names \['nobody'\].*'uniform', 'SkMM'"),
    ],
)
def test_bad_options_of_curves(options, match, plt):
    display = SelectionCurveDisplay(frame(lambda *args: -risk(*args)))
    with pytest.raises(ValueError, match=match):
        display.plot(**options)
    assert not plt.get_fignums()


def test_no_finite_mean_raises():
    with pytest.raises(ValueError, match="finite mean score"):
        SelectionCurveDisplay.from_results(frame(lambda *args: np.nan))


def test_two_features_are_plotted_directly():
    X = np.random.RandomState(0).normal(size=(50, 2))
    selector = KMeansSelector(5, random_state=0).fit(X)
    display = CoresetDisplay.from_selector(selector, X)
    np.testing.assert_array_equal(display.pool_.get_offsets(), X)
    np.testing.assert_array_equal(display.coreset_.get_offsets(), X[selector.sample_indices_])
    np.testing.assert_array_equal(display.weights, selector.sample_weight_)
    assert display.figure_ is display.ax_.figure
    assert display.coreset_.get_zorder() >= display.pool_.get_zorder()
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["pool, N = 50", "coreset, n = 5"]
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("feature 0", "feature 1")


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array, sparse.coo_matrix, list])
@pytest.mark.parametrize("n_features", [1, 2, 6])
def test_points_for_any_container_and_number_of_features(container, n_features):
    X = np.random.RandomState(0).normal(size=(30, n_features))
    indices = [4, 2, 9]
    display = CoresetDisplay.from_indices(container(X), indices)
    if n_features == 1:
        expected = np.column_stack([X, np.zeros(30)])
    elif n_features == 2:
        expected = X
    elif container in (np.asarray, list):
        expected = PCA(2).fit_transform(X)
    else:
        expected = TruncatedSVD(2, random_state=0).fit_transform(sparse.csr_array(X))
    np.testing.assert_allclose(np.abs(display.points), np.abs(expected), atol=1e-12)
    np.testing.assert_array_equal(display.pool_.get_offsets(), display.points)
    np.testing.assert_array_equal(display.coreset_.get_offsets(), display.points[indices])


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_components_may_be_features(container):
    X = np.random.RandomState(0).normal(size=(30, 5))
    display = CoresetDisplay.from_indices(container(X), [0], components=(3, 1))
    np.testing.assert_array_equal(display.points, X[:, [3, 1]])
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("feature 3", "feature 1")
    for bad in ("tsne", (0, 5), (0, 1, 2), 1):
        with pytest.raises(ValueError, match=r"components=.*must be 'pca' or two"):
            CoresetDisplay.from_indices(container(X), [0], components=bad)


def test_marker_areas_are_proportional_to_weights():
    X, weights = np.random.RandomState(0).normal(size=(9, 2)), [1, 2, 3]
    display = CoresetDisplay.from_indices(X, [0, 4, 8], sample_weight=weights)
    assert display.coreset_.get_sizes().tolist() == [30]
    display.plot(weight_area=True, coreset_kw={"s": 50})
    np.testing.assert_allclose(display.coreset_.get_sizes(), [25, 50, 75])
    size = np.array([10, 10, 20])
    display.plot(weight_area=True, coreset_kw={"s": size})
    np.testing.assert_allclose(display.coreset_.get_sizes(), [5, 10, 30])
    assert size.tolist() == [10, 10, 20]
    with pytest.raises(ValueError, match="weight_area=True needs weights"):
        CoresetDisplay(X, [0]).plot(weight_area=True)


def test_scatter_keywords():
    display = CoresetDisplay(np.eye(2), [0]).plot(
        pool_kw={"c": [0, 1], "label": None}, coreset_kw={"c": "red", "marker": "*"}
    )
    np.testing.assert_array_equal(display.pool_.get_array(), [0, 1])
    np.testing.assert_allclose(display.coreset_.get_facecolor(), [[1, 0, 0, 1]])


@pytest.mark.parametrize(
    ("points", "indices", "weights", "match"),
    [
        (np.eye(3), [0], None, r"points must have two columns\. Got shape \(3, 3\)"),
        (np.eye(2), [0, 2], None, r"indices=\[0, 2\].*positions from 0 to 1|indices=array"),
        (np.eye(2), [-1], None, "indices="),
        (np.eye(2), [], None, "indices="),
        (np.eye(2), [True, False], None, "indices="),
        (np.eye(2), [[0], [1]], None, "indices="),
        (np.eye(2), [0, 1], [1], "weights=.* must be 2 non-negative numbers"),
        (np.eye(2), [0, 1], [1, -1], "weights="),
        (np.eye(2), [0, 1], [1, np.nan], "weights="),
        (np.eye(2), [0, 1], [0, 0], "weights="),
    ],
)
def test_bad_points_indices_and_weights(points, indices, weights, match):
    with pytest.raises(ValueError, match=match):
        CoresetDisplay(points, indices, weights=weights)


def test_selector_must_be_fitted_on_as_many_samples():
    X = np.eye(6)
    with pytest.raises(NotFittedError):
        CoresetDisplay.from_selector(UniformSelector(2), X)
    selector = UniformSelector(2, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"X has 5 samples, but the selector saw 6\."):
        CoresetDisplay.from_selector(selector, X[:5])
    frame = pd.DataFrame(X[:, :2])
    np.testing.assert_array_equal(CoresetDisplay.from_selector(selector, frame).points, X[:, :2])


class OneClassFails(LogisticRegression):
    """Fails on a small coreset, as if it lacked a class."""

    def fit(self, X, y):
        if len(X) < 30:
            raise ValueError("too small")
        return super().fit(X, y)


def test_a_gap_where_a_fit_failed():
    options = {"n_to_select": [20, 40], "cv": 3, "random_state": 0}
    selectors, data = [UniformSelector(1), KMeansSelector(0.5)], load_iris(return_X_y=True)
    model = OneClassFails(max_iter=1000)
    with pytest.warns(FitFailedWarning, match="6 fits failed out of a total of 12"):
        display = SelectionCurveDisplay.from_estimators(selectors, model, *data, **options)
    for line in display.lines_.values():
        assert np.isnan(line.get_ydata()).tolist() == [True, False]
    profile = PerformanceProfileDisplay.from_results(display.results)
    assert np.isinf(profile.ratios_).all(axis=1).tolist() == [True, False]
    with pytest.raises(ValueError, match="too small"):
        SelectionCurveDisplay.from_estimators(
            selectors, model, *data, **options, error_score="raise"
        )


def test_lines_lead_to_who_represents_a_sample():
    X = np.random.RandomState(0).normal(size=(30, 2))
    selector = SkMMSelector(5, random_state=0).fit(X)
    display = CoresetDisplay.from_selector(selector, X, components=(0, 1), lines=True)
    ends = np.array(display.lines_.get_segments())
    np.testing.assert_array_equal(ends[:, 0], X)
    np.testing.assert_array_equal(ends[:, 1], X[selector.sample_indices_[selector.labels_]])
    display = CoresetDisplay.from_selector(selector, X, components=(0, 1), lines=2)
    own = selector.labels_ == 2
    np.testing.assert_array_equal(np.array(display.lines_.get_segments())[:, 0], X[own])
    given = SkMMSelector(5, random_state=0).fit(X, selected=[3])
    display = CoresetDisplay.from_selector(given, X, lines=True)
    assert len(display.lines_.get_segments()) == np.sum(given.labels_ >= 0) < 30


def test_lines_need_labels():
    X = np.random.RandomState(0).normal(size=(30, 2))
    selector = UniformSelector(5, random_state=0).fit(X)
    with pytest.raises(ValueError, match="lines=True needs labels"):
        CoresetDisplay.from_selector(selector, X, lines=True)
    for labels in ([0] * 29, [0.5] * 30, [-2] * 30, [5] * 30):
        with pytest.raises(ValueError, match="must be 30 integers from -1 to 4"):
            CoresetDisplay(X, [0, 1, 2, 3, 4], labels=labels)
