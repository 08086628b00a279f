"""Plots of what a selection is worth and of what it picked; Matplotlib is imported when drawing."""

import numpy as np
from scipy.sparse import issparse
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.utils import check_array
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import _num_samples, check_is_fitted

# The colours of Okabe and Ito, for colour-blind readers, but for the yellow, too faint for a line.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = "os^DvPX<>*p"
LINES = ("-", "--", "-.", ":")


def _axes(display, ax):
    """Set and return the axes, and where the legend goes: beside the axes if they are new."""
    check_matplotlib_support(f"{type(display).__name__}.plot")
    import matplotlib.pyplot as plt

    legend_kw = {}
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 4.8), layout="constrained")
        legend_kw = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
    display.ax_, display.figure_ = ax, ax.figure
    return ax, legend_kw


def _check_options(*, line_kw=None, std_display_style="fill_between", log_scale="auto"):
    """Check what `SelectionCurveDisplay.plot` takes, and return log_scale as a pair."""
    if std_display_style not in (styles := ("fill_between", "errorbar", None)):
        raise ValueError(f"std_display_style={std_display_style!r} must be one of {styles}.")
    pair = log_scale if isinstance(log_scale, tuple) else (log_scale, log_scale)
    if len(pair) != 2 or any(value not in ("auto", True, False) for value in pair):
        raise ValueError(f"log_scale={log_scale!r} must be 'auto', a bool or a pair of these.")
    return pair


class SelectionCurveDisplay:
    """Score against the size of the coreset, a line per selector.

    Parameters
    ----------
    results : DataFrame
        What `compare_selectors` returns; its columns `selector`, `n` and `score` are used.
    score_name : str, default="score"
        Label of the y-axis.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where the curves are.
    lines_ : dict of str to matplotlib Line2D
        The mean scores of each selector.
    fill_between_, errorbar_ : dict of str to matplotlib artist, or None
        The standard deviations of each selector; None in the style that is not drawn.

    Raises
    ------
    ValueError
        If `results` is not such a DataFrame, is empty or has a size that is not positive; in
        `plot`, if an option or selector is unknown, or a mean is not positive on a log scale.

    See Also
    --------
    CoresetDisplay : The samples that were picked.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_skmm import SelectionCurveDisplay
    >>> results = pd.DataFrame({"selector": "SkMM", "n": [10, 10, 99], "score": [0.5, 0.7, 0.8]})
    >>> display = SelectionCurveDisplay.from_results(results, score_name="accuracy")
    >>> display.lines_["SkMM"].get_ydata().round(2).tolist()
    [0.6, 0.8]
    """

    def __init__(self, results, *, score_name="score"):
        if not hasattr(results, "groupby"):
            raise ValueError(f"results={results!r} must be a pandas DataFrame.")
        if missing := [c for c in ("selector", "n", "score") if c not in results.columns]:
            raise ValueError(f"results must have the columns selector, n, score; lacks {missing}.")
        if not len(results) or not (results["n"] > 0).all():
            got = f"{len(results)} rows, smallest n={results['n'].min()}"
            raise ValueError(f"results must have rows, with positive n; got {got}.")
        self.results, self.score_name = results, score_name

    def plot(self, ax=None, *, line_kw=None, std_display_style="fill_between", log_scale="auto"):
        """Draw the curves, with a gap where a mean is not finite, and return the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a new figure.
        line_kw : dict of str to dict, default=None
            Keywords of matplotlib's `plot` for the lines of the selectors that it names.
        std_display_style : {"fill_between", "errorbar"} or None, default="fill_between"
            How to show the standard deviation of the scores over splits and seeds. On a
            logarithmic axis it ends at the smallest positive score where it would go below.
        log_scale : "auto", bool or tuple of two of these, default="auto"
            Whether both axes, or x and y, are logarithmic. With "auto" x is where the sizes span
            a decade, and y where all means are positive and span more than a decade and a half.
        """
        log_x, log_y = _check_options(std_display_style=std_display_style, log_scale=log_scale)
        curves, line_kw = self._curves(), line_kw or {}
        if unknown := [name for name in line_kw if name not in curves]:
            raise ValueError(f"line_kw names {unknown}, but the selectors are {list(curves)}.")
        sizes, means = np.unique(self.results["n"]), np.concatenate([c[1] for c in curves.values()])
        if np.isnan(means).all():
            raise ValueError("results must have a finite mean score, got none.")
        low, high = np.nanmin(means), np.nanmax(means)
        log_x = sizes[-1] >= 10 * sizes[0] if log_x == "auto" else log_x
        if log_y == "auto":
            log_y = 0 < 10**1.5 * low < high
        elif log_y and low <= 0:
            raise ValueError(f"log_scale={log_scale!r} needs positive mean scores, got {low:g}.")
        ax, legend_kw = _axes(self, ax)
        ax.set(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
        self.lines_ = {}
        self.fill_between_ = {} if std_display_style == "fill_between" else None
        self.errorbar_ = {} if std_display_style == "errorbar" else None
        for i, (name, (n, mean, std, floor)) in enumerate(curves.items()):
            style = {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]}
            style |= {"linestyle": LINES[i % len(LINES)], "label": str(name)}
            style |= line_kw.get(name, {})
            lower = np.maximum(mean - std, floor) if log_y else mean - std
            if self.errorbar_ is not None:
                bars = ax.errorbar(n, mean, yerr=[mean - lower, std], capsize=3, **style)
                self.errorbar_[name], self.lines_[name] = bars, bars.lines[0]
                continue
            (self.lines_[name],) = ax.plot(n, mean, **style)
            if self.fill_between_ is not None:
                color, width = self.lines_[name].get_color(), 0 if len(n) > 1 else 4
                self.fill_between_[name] = ax.fill_between(
                    n, lower, mean + std, color=color, alpha=0.15, linewidth=width
                )
        self._set_ticks(ax, sizes, log_x)
        ax.set(xlabel="n, size of the coreset", ylabel=self.score_name)
        ax.legend(title="mean ± std" if std_display_style else "mean", **legend_kw)
        return self

    @classmethod
    def from_results(cls, results, *, ax=None, score_name="score", **plot_kw):
        """Draw `results`, with the parameters of the class and of `plot`; return the display."""
        return cls(results, score_name=score_name).plot(ax, **plot_kw)

    @classmethod
    def from_estimators(
        cls, selectors, estimator, X, y, *, n_to_select, cv=None, scoring=None, n_repeats=1,
        random_state=None, n_jobs=None, callbacks=(), ax=None, score_name=None, **plot_kw,
    ):  # fmt: skip
        """Compare selectors, draw the curves and return the display.

        Parameters
        ----------
        selectors, estimator, X, y
            As in `compare_selectors`.
        n_to_select, cv, scoring, n_repeats, random_state, n_jobs, callbacks
            As in `compare_selectors`.
        score_name : str, default=None
            Label of the y-axis; None takes `scoring` if that is a string, else "score".
        ax, **plot_kw
            As in `plot`.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimators")
        from sklearn_skmm._compare import compare_selectors

        _check_options(**plot_kw)  # before the work
        options = {"n_to_select": n_to_select, "cv": cv, "scoring": scoring, "n_repeats": n_repeats}
        options |= {"random_state": random_state, "n_jobs": n_jobs, "callbacks": callbacks}
        results = compare_selectors(selectors, estimator, X, y, **options)
        score_name = score_name or (scoring if isinstance(scoring, str) else "score")
        return cls(results, score_name=score_name).plot(ax, **plot_kw)

    def _curves(self):
        """Return the sizes, means, deviations and smallest positive scores of each selector."""
        curves = {}
        for name, rows in self.results.groupby("selector", sort=False, observed=True):
            score = rows["score"].astype(float).replace([np.inf, -np.inf], np.nan).to_numpy()
            n, group = np.unique(rows["n"], return_inverse=True)
            parts = [score[group == g] for g in range(len(n))]
            summary = [(s.mean(), s.std(), s[s > 0].min(initial=s.mean())) for s in parts]
            curves[name] = n, *np.array(summary).T
        return curves

    @staticmethod
    def _set_ticks(ax, sizes, log):
        """Put a tick at each size, labelled where there is room."""
        place = np.log(sizes / sizes[0]) if log else sizes - sizes[0]
        labels, end = [], -1.0
        for x, size in zip(place / (place[-1] or 1), sizes, strict=True):
            half = 0.0125 * len(label := np.format_float_positional(size, trim="-"))
            labels.append(label if x - half >= end else "")
            end = x + half if labels[-1] else end
        ax.set_xticks(sizes, labels)
        ax.set_xticks([], minor=True)


class CoresetDisplay:
    """The pool and the picks, in two dimensions.

    Parameters
    ----------
    points : array-like of shape (n_samples, 2)
        Where the samples of the pool are drawn.
    indices : array-like of shape (n_to_select,), dtype int
        Positions of the picks in the pool.
    weights : array-like of shape (n_to_select,), default=None
        How many samples each pick stands for.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where the points are.
    pool_, coreset_ : matplotlib PathCollection
        The samples of the pool, and the picks.

    Raises
    ------
    ValueError
        If `points` has not two columns, `indices` are no positions in it, or `weights` are not
        one per pick, non-negative and of positive sum.

    See Also
    --------
    SelectionCurveDisplay : What the picks are worth.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_skmm import CoresetDisplay, UniformSelector
    >>> X, _ = load_iris(return_X_y=True)
    >>> selector = UniformSelector(20, random_state=0).fit(X)
    >>> display = CoresetDisplay.from_selector(selector, X)
    >>> display.coreset_.get_offsets().shape
    (20, 2)
    """

    def __init__(self, points, indices, *, weights=None):
        points, indices = check_array(points, input_name="points"), np.asarray(indices)
        if points.shape[1] != 2:
            raise ValueError(f"points must have two columns, got shape {points.shape}.")
        N, n = len(points), indices.size
        whole = n and indices.ndim == 1 and indices.dtype.kind in "iu"
        if not whole or indices.min() < 0 or indices.max() >= N:
            raise ValueError(f"indices={indices!r} must be positions from 0 to {N - 1}.")
        if weights is not None:
            weights = np.asarray(weights, dtype=float)
            if weights.shape != (n,) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
                raise ValueError(f"weights={weights!r} must be {n} numbers >= 0 of positive sum.")
        self.points, self.indices, self.weights = points, indices, weights

    def plot(self, ax=None, *, pool_kw=None, coreset_kw=None, weight_area=False):
        """Draw the pool and the picks on top, and return the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes a new figure.
        pool_kw, coreset_kw : dict, default=None
            Keywords of matplotlib's `scatter` for the pool and for the picks; colours go by `c`.
        weight_area : bool, default=False
            Make the areas of the picks proportional to their weights, with the same mean.
        """
        if weight_area and self.weights is None:
            raise ValueError("weight_area=True needs weights, but they are None.")
        ax, legend_kw = _axes(self, ax)
        pool, picks = self.points, self.points[self.indices]
        style = {"linewidths": 0, "label": f"pool, N = {len(pool)}"}
        pool_kw = {"s": 8, "c": "0.75"} | style | (pool_kw or {})
        style = {"edgecolors": "white", "linewidths": 0.5, "label": f"coreset, n = {len(picks)}"}
        coreset_kw = {"s": 30, "c": COLORS[0]} | style | (coreset_kw or {})
        if weight_area:
            coreset_kw["s"] = coreset_kw["s"] * self.weights / self.weights.mean()
        self.pool_ = ax.scatter(*pool.T, **pool_kw)
        self.coreset_ = ax.scatter(*picks.T, **coreset_kw)
        ax.legend(**legend_kw)
        return self

    @classmethod
    def from_selector(cls, selector, X, *, components="pca", ax=None, **plot_kw):
        """Draw what a fitted selector picked, and return the display.

        Parameters
        ----------
        selector : selector
            A fitted selector.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The pool that it was fitted on.
        components, ax, **plot_kw
            As in `from_indices`.
        """
        check_is_fitted(selector, ["sample_indices_", "sample_weight_", "n_samples_seen_"])
        if (N := _num_samples(X)) != selector.n_samples_seen_:
            raise ValueError(f"X has {N} samples, but the selector saw {selector.n_samples_seen_}.")
        plot_kw |= {"sample_weight": selector.sample_weight_, "components": components, "ax": ax}
        return cls.from_indices(X, selector.sample_indices_, **plot_kw)

    @classmethod
    def from_indices(cls, X, indices, *, sample_weight=None, components="pca", ax=None, **plot_kw):
        """Draw picks that are given by their positions, and return the display.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The pool.
        indices, sample_weight
            As `indices` and `weights` of the class.
        components : "pca" or pair of int, default="pca"
            Draw the first two principal components, not centred if X is sparse, or the features
            at these positions. With "pca" one or two features are drawn as they are.
        ax, **plot_kw
            As in `plot`.
        """
        X = check_array(X, accept_sparse="csr", ensure_min_samples=2, input_name="X")
        names = [f"feature {j}" for j in range(X.shape[1])]
        if isinstance(components, str) and components == "pca":
            if X.shape[1] > 2:
                pca = TruncatedSVD if issparse(X) else PCA
                X = pca(2, random_state=0).fit_transform(X)
                names = ["first principal component", "second principal component"]
        elif np.size(components) == 2 and set(components) <= set(range(X.shape[1])):
            X, names = X[:, list(components)], [names[j] for j in components]
        else:
            raise ValueError(f"components={components!r} must be 'pca' or two feature positions.")
        points = np.pad(X.toarray() if issparse(X) else X, ((0, 0), (0, 2 - X.shape[1])))
        display = cls(points, indices, weights=sample_weight).plot(ax, **plot_kw)
        display.ax_.set(**dict(zip(("xlabel", "ylabel"), names, strict=False)))
        return display
