"""A plot of the eigenvalues of a second moment; Matplotlib is imported when drawing."""

from numbers import Integral

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklearn_skmm.core._moments import spectrum
from sklearn_skmm.data import open_samples
from sklearn_skmm.plots._style import COLORS, axes_for


class SpectrumDisplay:
    r"""Plot of the eigenvalues of the second moment and of the intrinsic dimension.

    Use it to check the sketch dimension m. The intrinsic dimension :math:`\bar r`, an effective
    rank, is the number of eigenvalues after which the sum of the remaining ones is at most 1 / N of
    their total. The paper asks for :math:`m \ge 11 \bar r`.

    The plot of a sketch shows the spectrum of the sketch, not that of the gradients. If the
    eigenvalues have not fallen off at m, a larger m would have shown more of them.

    Parameters
    ----------
    eigenvalues : array-like of shape (k,)
        Non-negative eigenvalues of the second moment. They are drawn largest first.
    n_samples : int
        Number of samples, N.
    m : int, default=None
        Sketch dimension to mark.
    n : int, default=None
        Size of the coreset to mark.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and figure of the plot.
    eigenvalues_, tail_ : matplotlib Line2D
        The positive eigenvalues, and for each j the sum of the eigenvalues after the first j.
    threshold_ : matplotlib Line2D
        1 / N of the sum of all eigenvalues.
    marks_ : dict of str to matplotlib Line2D
        The vertical lines: "intrinsic_dimension", and "m" and "n" if given.
    intrinsic_dimension_ : int
        :math:`\bar r`, as `diagnostics.intrinsic_dimension` of the same data.

    Raises
    ------
    ValueError
        If `eigenvalues` are not finite and non-negative with a positive sum, or a size is not a
        positive integer. In `from_estimator`, if the selector has several spectra.

    See Also
    --------
    MomentMatchDisplay : Plots how strongly the coreset represents each direction.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import SkMMSelector, SpectrumDisplay
    >>> X = np.diag([10.0, 10.0, 0.1, 0.1])
    >>> display = SpectrumDisplay.from_estimator(SkMMSelector(2, random_state=0).fit(X))
    >>> display.intrinsic_dimension_
    2
    """

    def __init__(self, eigenvalues, *, n_samples, m=None, n=None):
        values = np.asarray(eigenvalues, dtype=float)
        good = values.ndim == 1 and (values >= 0).all() and 0 < values.sum() < np.inf
        if not good:
            raise ValueError(
                f"eigenvalues={eigenvalues!r} must be non-negative numbers with a positive, finite "
                "sum."
            )
        for name, value in (("n_samples", n_samples), ("m", m), ("n", n)):
            if value is None and name != "n_samples":
                continue
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r} must be a positive integer.")
        self.eigenvalues, self.n_samples, self.m, self.n = np.sort(values)[::-1], n_samples, m, n

    def plot(self, ax=None, *, line_kw=None):
        """Draw the spectrum and return the display.

        The y-axis is logarithmic. So is the x-axis for a hundred directions or more.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None creates a new figure.
        line_kw : dict, default=None
            Keyword arguments of matplotlib's `plot` for the eigenvalues.
        """
        values = self.eigenvalues
        # Summed from the smallest, so that rounding of the total does not affect small tails.
        tails = np.concatenate([np.cumsum(values[::-1])[::-1], [0.0]])
        threshold = tails[0] / self.n_samples
        r = self.intrinsic_dimension_ = int(np.argmax(tails <= threshold))
        ax, legend_kw = axes_for(self, ax)
        positive = values[values > 0]
        style = {"color": COLORS[0], "marker": "o", "markersize": 4, "linestyle": "none"}
        style |= {"label": r"eigenvalues $\lambda_j$"} | (line_kw or {})
        (self.eigenvalues_,) = ax.plot(1 + np.arange(len(positive)), positive, **style)
        rest = tails[1 : 1 + len(positive)]
        (self.tail_,) = ax.plot(
            1 + np.arange(len(rest)),
            np.where(rest > 0, rest, np.nan),
            color=COLORS[1],
            linestyle="--",
            label=r"sum of the eigenvalues after $\lambda_j$",
        )
        self.threshold_ = ax.axhline(
            threshold, color="0.6", linewidth=1, label="1 / N of the sum of all"
        )
        marks = {"intrinsic_dimension": (r, rf"intrinsic dimension, $\bar r$ = {r}", "black", "-")}
        if self.m is not None:
            marks["m"] = self.m, f"sketch dimension, m = {self.m}", COLORS[2], "-."
        if self.n is not None:
            marks["n"] = self.n, f"size of the coreset, n = {self.n}", COLORS[3], ":"
        self.marks_ = {
            name: ax.axvline(place, color=color, linestyle=line, linewidth=1.6, label=label)
            for name, (place, label, color, line) in marks.items()
        }
        # On a linear axis of hundreds of directions, the first few could not be told apart.
        last = max(place for place, *_ in (*marks.values(), (len(positive),)))
        ax.set(xscale="log" if last >= 100 else "linear", yscale="log")
        ax.set(xlabel="direction j, largest first", ylabel="second moment")
        ax.legend(**legend_kw)
        return self

    @classmethod
    def from_estimator(cls, selector, *, ax=None, **plot_kw):
        """Draw the spectrum of the pool of a fitted `SkMMSelector`, and return the display.

        Parameters
        ----------
        selector : SkMMSelector
            A fitted selector. Its number of features is marked as m and the size of its coreset as
            n.
        ax, **plot_kw
            As in `plot`.
        """
        check_is_fitted(selector, ["eigenvalues_", "sample_indices_", "n_samples_seen_"])
        if isinstance(selector.eigenvalues_, list):
            raise ValueError(
                f"selector={selector!r} must have one spectrum, but has "
                f"{len(selector.eigenvalues_)}, one for each stratum. Pass X to from_data instead."
            )
        sizes = {"m": int(selector.n_features_in_), "n": len(selector.sample_indices_)}
        display = cls(selector.eigenvalues_, n_samples=int(selector.n_samples_seen_), **sizes)
        return display.plot(ax, **plot_kw)

    @classmethod
    def from_data(cls, X, *, m=None, n=None, ax=None, **plot_kw):
        """Draw the spectrum of X.T @ X / N, and return the display.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Gradients, sketched or not.
        m, n
            As in the class.
        ax, **plot_kw
            As in `plot`.
        """
        X = open_samples(X).X
        return cls(spectrum(X).eigenvalues, n_samples=X.shape[0], m=m, n=n).plot(ax, **plot_kw)
