"""A plot of how far selectors are from the best one; Matplotlib is imported when drawing."""

from collections.abc import Mapping

import numpy as np

from sklearn_skmm.plots._style import COLORS, LINES, MARKERS, axes_for, check_results
from sklearn_skmm.utils._sklearn import check_matplotlib_support

# From a score to a loss, for which zero is best.
LOSSES = {
    "accuracy": lambda score: 1.0 - score,
    "neg_loss": lambda score: -score,
    "loss": lambda score: score,
}


class PerformanceProfileDisplay:
    """Plot of the fraction of tasks on which each selector is within a factor of the best.

    Use it to compare selectors over many tasks. At factor 1, a curve shows how often a selector is
    the best. Far to the right, it shows whether the selector is ever far from the best.

    This is the performance profile of Dolan and Moré [1]_. The loss of a selector on a task is
    divided by the smallest loss of all selectors on that task. The curve is the fraction of tasks
    on which this ratio is at most the factor. A curve depends on which other selectors are
    compared.

    Parameters
    ----------
    losses : DataFrame of shape (n_tasks, n_selectors)
        Non-negative losses, with one column per selector and one row per task. A missing loss is
        within no factor.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and figure of the plot.
    lines_ : dict of str to matplotlib Line2D
        The step function of each selector.
    ratios_ : DataFrame of shape (n_tasks, n_selectors)
        The losses divided by the smallest in their row. Infinite where the loss is missing.

    Raises
    ------
    ValueError
        If the data are not such a DataFrame or are empty, a loss is negative, or an option is
        unknown.

    See Also
    --------
    SelectionCurveDisplay : Plots the score against the size of the coreset.

    References
    ----------
    .. [1] E. D. Dolan, J. J. Moré. "Benchmarking optimization software with performance profiles".
       Mathematical Programming 91, 2002. :arxiv:`cs/0102001`

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_skmm import PerformanceProfileDisplay
    >>> losses = pd.DataFrame({"uniform": [0.3, 0.2], "SkMM": [0.1, 0.2]}, index=["text", "images"])
    >>> display = PerformanceProfileDisplay(losses).plot()
    >>> display.lines_["SkMM"].get_ydata().tolist()  # the best on both, and ties on one
    [1.0, 1.0]
    """

    def __init__(self, losses):
        if not hasattr(losses, "to_numpy") or getattr(losses, "ndim", 0) != 2:
            raise ValueError(f"losses={losses!r} must be a pandas DataFrame.")
        if not losses.size:
            raise ValueError(
                f"losses must have rows and columns. Got shape {losses.shape} instead."
            )
        if (losses < 0).any(axis=None):
            least = losses.min().min()
            raise ValueError(f"losses must be non-negative, but the smallest is {least:g}.")
        self.losses = losses

    def plot(self, ax=None, *, line_kw=None, max_factor=None):
        """Draw the profiles on a logarithmic axis, and return the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None creates a new figure.
        line_kw : dict of str to dict, default=None
            Keyword arguments of matplotlib's `step`, by name of the selector.
        max_factor : float, default=None
            Where the axis ends. None means a little beyond the largest finite ratio.
        """
        names, line_kw = list(self.losses.columns), line_kw or {}
        if unknown := [name for name in line_kw if name not in names]:
            raise ValueError(f"line_kw names {unknown}, but the selectors are {names}.")
        if max_factor is not None and not 1 < max_factor < np.inf:
            raise ValueError(f"max_factor={max_factor!r} must be a number above 1.")
        losses = self.losses.to_numpy(dtype=float)
        losses = np.where(np.isnan(losses), np.inf, losses)
        best = losses.min(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(losses == best, 1.0, losses / best)
        ratios[~np.isfinite(losses)] = np.inf
        self.ratios_ = type(self.losses)(ratios, index=self.losses.index, columns=names)
        if max_factor is None:
            max_factor = max(1.1, 1.05 * ratios[np.isfinite(ratios)].max(initial=1.0))
        ax, legend_kw = axes_for(self, ax)
        self.lines_ = {}
        for i, name in enumerate(names):
            inside = ratios[:, i][ratios[:, i] <= max_factor]
            factors = np.unique(np.concatenate([[1.0], inside, [max_factor]]))
            fraction = np.searchsorted(np.sort(ratios[:, i]), factors, side="right") / len(ratios)
            style = {"color": COLORS[i % len(COLORS)], "linestyle": LINES[i % len(LINES)]}
            # Few markers, staggered between lines, tell lines apart without colour.
            style |= {"marker": MARKERS[i % len(MARKERS)], "markersize": 5}
            style |= {"markevery": (0.03 + 0.17 * i / len(names), 0.17), "label": str(name)}
            style |= line_kw.get(name, {})
            (self.lines_[name],) = ax.step(factors, fraction, where="post", **style)
        ax.set(xscale="log", xlim=(1, max_factor), ylim=(0, 1.03))
        ticks = [t for t in (1, 1.1, 1.25, 1.5, 2, 3, 4, 6, 10, 20, 50, 100) if t <= max_factor]
        if max_factor <= 200:
            # On a wide axis the first ticks would overlap.
            ticks = [t for t in ticks if t == 1 or np.log(t) >= 0.04 * np.log(max_factor)]
            ticks = [t for t in ticks if t not in (1.1, 1.25, 1.5) or max_factor <= 8]
            ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
            ax.set_xticks([], minor=True)
        tasks = f"{len(ratios)} task" + "s" * (len(ratios) != 1)
        ax.set(
            xlabel="loss divided by the smallest", ylabel=f"fraction of {tasks} within the factor"
        )
        ax.legend(**legend_kw)
        return self

    @classmethod
    def from_results(cls, results, *, score_kind="accuracy", ax=None, **plot_kw):
        """Draw the profiles of the selectors in `results`, and return the display.

        Parameters
        ----------
        results : DataFrame, or dict of str to DataFrame
            Output of `compare_selectors`, for one data set or for each of several. A task is one
            size n of one data set, and its scores are means over splits and seeds. A score that
            is missing, because a fit failed, makes the mean missing, and that within no factor. A
            single DataFrame may name the data sets in a column `task`.
        score_kind : {"accuracy", "neg_loss", "loss"}, default="accuracy"
            How the loss is computed from the score: as 1 - score, which also suits R²; as -score,
            for scores like ``"neg_mean_squared_error"``; or as the score itself.
        ax, **plot_kw
            As in `plot`.
        """
        check_matplotlib_support(f"{cls.__name__}.from_results")
        import pandas as pd

        if score_kind not in LOSSES:
            raise ValueError(f"score_kind={score_kind!r} must be one of {tuple(LOSSES)}.")
        parts = results if isinstance(results, Mapping) else {None: results}
        frames = []
        for task, frame in parts.items():
            check_results(frame)
            if task is not None or "task" not in frame.columns:
                frame = frame.assign(task=task or "")
            frames.append(frame[["task", "selector", "n", "score"]])
        if not frames or not sum(map(len, frames)):
            raise ValueError("results must have rows. Got none instead.")
        table = pd.concat(frames, ignore_index=True)
        means = table.groupby(["task", "n", "selector"], sort=False, observed=True)["score"].agg(
            lambda scores: scores.astype(float).to_numpy().mean()
        )
        # Reindexed, because `unstack(sort=False)` of pandas 2.2 mixes up the values.
        names = table["selector"].unique()
        losses = LOSSES[score_kind](means).unstack("selector").reindex(columns=names)
        return cls(losses).plot(ax, **plot_kw)
