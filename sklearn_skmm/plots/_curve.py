"""A plot of score against coreset size; Matplotlib is imported when drawing."""

import numpy as np

from sklearn_skmm.plots._style import COLORS, LINES, MARKERS, axes_for, check_results
from sklearn_skmm.utils._sklearn import check_matplotlib_support


def _check_options(*, line_kw=None, std_display_style="fill_between", log_scale="auto"):
    """Check the options of `SelectionCurveDisplay.plot`, and return log_scale as a pair."""
    if std_display_style not in (styles := ("fill_between", "errorbar", None)):
        raise ValueError(f"std_display_style={std_display_style!r} must be one of {styles}.")
    pair = log_scale if isinstance(log_scale, tuple) else (log_scale, log_scale)
    if len(pair) != 2 or any(value not in ("auto", True, False) for value in pair):
        raise ValueError(f"log_scale={log_scale!r} must be 'auto', a bool or a pair of these.")
    return pair


class SelectionCurveDisplay:
    """Line plot of the score against the size of the coreset, one line per selector.

    Use it to see at which sizes a selector is better than another.

    Parameters
    ----------
    results : DataFrame
        Output of `compare_selectors`. The columns `selector`, `n` and `score` are used.
    score_name : str, default="score"
        Label of the y-axis.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and figure of the plot.
    lines_ : dict of str to matplotlib Line2D
        Line of the mean scores of each selector.
    fill_between_, errorbar_ : dict of str to matplotlib artist, or None
        Standard deviations of the scores of each selector. None for the style that is not drawn.

    Raises
    ------
    ValueError
        If `results` is not such a DataFrame, is empty or has a size that is not positive. In
        `plot`, if an option or selector is unknown, or a mean is not positive on a log scale.

    See Also
    --------
    CoresetDisplay : Plots the selected samples.

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
        check_results(results)
        if not len(results) or not (results["n"] > 0).all():
            got = f"{len(results)} rows, smallest n={results['n'].min()}"
            raise ValueError(f"results must have rows, with positive n. Got {got} instead.")
        self.results, self.score_name = results, score_name

    def plot(self, ax=None, *, line_kw=None, std_display_style="fill_between", log_scale="auto"):
        """Draw the curves and return the display.

        A curve has a gap where a mean is not finite: where the fit failed on one of the splits, for
        instance. To plot the means of the other splits, drop these rows from `results`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None creates a new figure.
        line_kw : dict of str to dict, default=None
            Keyword arguments of matplotlib's `plot`, by name of the selector.
        std_display_style : {"fill_between", "errorbar"} or None, default="fill_between"
            How to show the standard deviation of the scores over splits and seeds. On a
            logarithmic axis it does not go below the smallest positive score.
        log_scale : "auto", bool or tuple of two of these, default="auto"
            Whether the axes are logarithmic: one value for both, or a pair for x and y. With
            "auto", x is logarithmic if the sizes span a decade, and y if all means are positive
            and span more than a decade and a half.
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
        ax, legend_kw = axes_for(self, ax)
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
        """Draw `results` and return the display; the parameters are as in the class and `plot`."""
        return cls(results, score_name=score_name).plot(ax, **plot_kw)

    @classmethod
    def from_estimators(
        cls, selectors, estimator, X, y, *, n_to_select, cv=None, scoring=None, n_repeats=1,
        random_state=None, n_jobs=None, callbacks=(), error_score=np.nan, ax=None, score_name=None,
        **plot_kw,
    ):  # fmt: skip
        """Compare selectors, draw the curves and return the display.

        Parameters
        ----------
        selectors, estimator, X, y
            As in `compare_selectors`.
        n_to_select, cv, scoring, n_repeats, random_state, n_jobs, callbacks, error_score
            As in `compare_selectors`.
        score_name : str, default=None
            Label of the y-axis. None means `scoring` if that is a string, otherwise "score".
        ax, **plot_kw
            As in `plot`.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimators")
        from sklearn_skmm.meta._compare import compare_selectors

        _check_options(**plot_kw)  # before the comparison, which takes long
        options = {"n_to_select": n_to_select, "cv": cv, "scoring": scoring, "n_repeats": n_repeats}
        options |= {"random_state": random_state, "n_jobs": n_jobs, "callbacks": callbacks}
        options |= {"error_score": error_score}
        results = compare_selectors(selectors, estimator, X, y, **options)
        score_name = score_name or (scoring if isinstance(scoring, str) else "score")
        return cls(results, score_name=score_name).plot(ax, **plot_kw)

    def _curves(self):
        """Return each selector's sizes, mean scores, deviations and smallest positive scores."""
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
        """Set a tick at each size, and label those for which there is room."""
        place = np.log(sizes / sizes[0]) if log else sizes - sizes[0]
        labels, end = [], -1.0
        for x, size in zip(place / (place[-1] or 1), sizes, strict=True):
            half = 0.0125 * len(label := np.format_float_positional(size, trim="-"))
            labels.append(label if x - half >= end else "")
            end = x + half if labels[-1] else end
        ax.set_xticks(sizes, labels)
        ax.set_xticks([], minor=True)
