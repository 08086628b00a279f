"""A plot of the second moments of a coreset; Matplotlib is imported when drawing."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklearn_skmm.core._moments import directional_energies, spectrum
from sklearn_skmm.data import open_samples
from sklearn_skmm.plots._style import COLORS, axes_for
from sklearn_skmm.utils._sklearn import _num_samples

KINDS = ("ratio", "moment")


class MomentMatchDisplay:
    r"""Plot of the second moment of a coreset along each eigenvector of the target's.

    Use it to see which directions a coreset represents too weakly.

    For :math:`\Sigma = \sum_j \lambda_j v_j v_j^\top` and the coreset's :math:`\Sigma_S` it shows
    :math:`v_j^\top \Sigma_S v_j` next to :math:`\lambda_j`. The constraint
    :math:`\Sigma \preceq c_S \Sigma_S` requires at least :math:`\lambda_j / c_S` along each
    eigenvector. It also applies to all directions between the eigenvectors, which the plot does not
    show; see `diagnostics.effective_c_S`.

    Parameters
    ----------
    target : array-like of shape (k,)
        Positive eigenvalues of the target's second moment.
    coreset : array-like of shape (k,)
        Mean squares of the coreset along the same directions.
    weighted : array-like of shape (k,), default=None
        The same for the weighted coreset. None omits it.
    c_S : float, default=None
        Constant of the constraint. None means 1.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and figure of the plot.
    target_ : matplotlib Line2D
        Second moment that each direction should reach, :math:`\lambda_j / c_S`.
    coreset_ : matplotlib Line2D
        The moments of the coreset.
    weighted_ : matplotlib Line2D, or None
        The moments of the weighted coreset.
    uncovered_ : matplotlib Line2D
        Rings around the directions in which the coreset reaches less than half of that.

    Raises
    ------
    ValueError
        If lengths differ, moments are not finite and non-negative, those of the target are not
        positive, or an option is unknown. In `from_estimator` and `from_indices`, also if the data
        do not fit.

    See Also
    --------
    SpectrumDisplay : Plots the eigenvalues alone.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm import MomentMatchDisplay
    >>> X = np.diag([2.0, 1.0])
    >>> display = MomentMatchDisplay.from_indices(X, [0])
    >>> display.target.tolist(), display.coreset.tolist()
    ([2.0, 0.5], [4.0, 0.0])
    >>> display.uncovered_.get_xdata().tolist()
    [2]
    """

    def __init__(self, target, coreset, *, weighted=None, c_S=None):
        arrays = {"target": target, "coreset": coreset}
        if weighted is not None:
            arrays["weighted"] = weighted
        arrays = {name: np.asarray(values, dtype=float) for name, values in arrays.items()}
        k = arrays["target"].size
        for name, values in arrays.items():
            fits = values.shape == (k,) and k and np.isfinite(values).all() and (values >= 0).all()
            if not fits or (name == "target" and not values.all()):
                bound = "> 0" if name == "target" else f">= 0, as many as target's {k}"
                raise ValueError(f"{name}={values!r} must be finite numbers {bound}.")
        if c_S is not None and not 0 < c_S < np.inf:
            raise ValueError(f"c_S={c_S!r} must be a positive number.")
        self.target, self.coreset = arrays["target"], arrays["coreset"]
        self.weighted, self.c_S = arrays.get("weighted"), c_S

    def plot(self, ax=None, *, kind="ratio", coreset_kw=None, weighted_kw=None):
        """Draw the moments, and return the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None creates a new figure.
        kind : {"ratio", "moment"}, default="ratio"
            Whether to draw the moments relative to the target's, or the moments themselves on a
            logarithmic axis, which omits moments of zero.
        coreset_kw, weighted_kw : dict, default=None
            Keyword arguments of matplotlib's `plot` for the coreset and for the weighted coreset.
        """
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r} must be one of {KINDS}.")
        ax, legend_kw = axes_for(self, ax)
        unit = self.target if kind == "ratio" else np.ones_like(self.target)
        j, floor = 1 + np.arange(len(unit)), self.target / (self.c_S or 1.0)
        label = r"target, $\lambda_j$" if self.c_S is None else rf"$\lambda_j$ / {self.c_S:g}"
        (self.target_,) = ax.plot(j, floor / unit, color="black", linewidth=1.2, label=label)
        style = {"color": COLORS[0], "marker": "o", "markersize": 4.5, "linestyle": "none"}
        style |= {"label": "coreset"} | (coreset_kw or {})
        (self.coreset_,) = ax.plot(j, self.coreset / unit, **style)
        self.weighted_ = None
        if self.weighted is not None:
            style = {"color": COLORS[1], "marker": "x", "markersize": 5.5, "linestyle": "none"}
            style |= {"label": "coreset, weighted"} | (weighted_kw or {})
            (self.weighted_,) = ax.plot(j, self.weighted / unit, **style)
        short = self.coreset < 0.5 * floor
        # A logarithmic axis cannot show zero, so the ring marks the moment to reach instead.
        place = (
            np.where(self.coreset > 0, self.coreset, floor) if kind == "moment" else self.coreset
        )
        (self.uncovered_,) = ax.plot(
            j[short],
            (place / unit)[short],
            color=COLORS[3],
            marker="o",
            markersize=10,
            markerfacecolor="none",
            linestyle="none",
            label="below half of the target" if short.any() else "_nolegend_",
        )
        if kind == "moment":
            ax.set(yscale="log", ylabel="second moment along the direction")
        else:
            ax.set_ylabel("second moment relative to the target's")
            # Start the axis at zero, but let later drawings on it or on shared axes extend it.
            self.coreset_.sticky_edges.y.append(0.0)
            ax.update_datalim([(1, 0)])
            ax.autoscale_view()
        ax.set_xlabel("eigen-direction of the target, largest first")
        ax.legend(**legend_kw)
        return self

    @classmethod
    def from_estimator(cls, selector, X, *, ax=None, **plot_kw):
        """Draw how a fitted selector matches the pool on which it was fitted; return the display.

        Parameters
        ----------
        selector : selector
            A fitted selector. If it has a `c_S`, this sets the line to reach. The weighted moments
            are drawn if its weights differ.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The pool on which it was fitted.
        ax, **plot_kw
            As in `plot`.
        """
        check_is_fitted(selector, ["sample_indices_", "sample_weight_", "n_samples_seen_"])
        if (N := _num_samples(X)) != selector.n_samples_seen_:
            raise ValueError(f"X has {N} samples, but the selector saw {selector.n_samples_seen_}.")
        weight = selector.sample_weight_
        options = {"c_S": getattr(selector, "c_S", None), "ax": ax}
        options["sample_weight"] = None if np.ptp(weight) == 0.0 else weight
        return cls.from_indices(X, selector.sample_indices_, **options, **plot_kw)

    @classmethod
    def from_indices(
        cls, X, indices, *, sample_weight=None, reference=None, c_S=None, ax=None, **plot_kw
    ):
        """Draw how the samples at given positions match a target; return the display.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The pool.
        indices : array-like of shape (n,), dtype int
            Positions of the selected samples in the pool.
        sample_weight : array-like of shape (n,), default=None
            Non-negative weights of the selected samples.
        reference : {array-like, sparse matrix} of shape (n_reference, n_features), default=None
            Samples of the population to match. None means the pool.
        c_S : float, default=None
            As in the class.
        ax, **plot_kw
            As in `plot`.
        """
        X, indices = open_samples(X).X, np.asarray(indices)
        whole = indices.size and indices.ndim == 1 and indices.dtype.kind in "iu"
        if not whole or indices.min() < 0 or indices.max() >= X.shape[0]:
            raise ValueError(f"indices={indices!r} must be positions from 0 to {X.shape[0] - 1}.")
        reference = X if reference is None else open_samples(reference, name="reference").X
        if reference.shape[1] != X.shape[1]:
            raise ValueError(
                f"reference has {reference.shape[1]} features, but X has {X.shape[1]}."
            )
        eigenvalues, directions = spectrum(reference)
        if not eigenvalues.size:
            raise ValueError("The second moment to match is zero in all directions.")
        energies = directional_energies(X[indices], directions)
        weighted = None
        if sample_weight is not None:
            weight = np.asarray(sample_weight, dtype=float)
            ok = weight.shape == indices.shape and (weight >= 0).all() and 0 < weight.sum() < np.inf
            if not ok:
                raise ValueError(
                    f"sample_weight={weight!r} must be {indices.size} non-negative numbers with a "
                    "positive sum."
                )
            weighted = weight @ energies / weight.sum()
        display = cls(eigenvalues, energies.mean(axis=0), weighted=weighted, c_S=c_S)
        return display.plot(ax, **plot_kw)
