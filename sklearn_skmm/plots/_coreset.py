"""A plot of the pool and the coreset; Matplotlib is imported when drawing."""

import numpy as np
from scipy.sparse import issparse
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.utils.validation import check_is_fitted

from sklearn_skmm.data import open_samples
from sklearn_skmm.plots._style import COLORS, axes_for
from sklearn_skmm.utils._sklearn import _num_samples


class CoresetDisplay:
    """Scatter plot of the pool and the coreset, in two dimensions.

    Use it to see where the selected samples lie among all samples.

    Parameters
    ----------
    points : array-like of shape (n_samples, 2)
        Coordinates of the samples of the pool.
    indices : array-like of shape (n_to_select,), dtype int
        Positions of the selected samples in the pool.
    weights : array-like of shape (n_to_select,), default=None
        Number of samples that each selected sample represents.
    labels : array-like of shape (n_samples,), dtype int, default=None
        Position in `indices` of the selected sample that represents each sample, or -1.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        The axes and figure of the plot.
    pool_, coreset_ : matplotlib PathCollection
        The points of the pool, and those of the selected samples.
    lines_ : matplotlib LineCollection
        The lines from samples to those that represent them. Only with ``lines``.

    Raises
    ------
    ValueError
        If `points` does not have two columns, `indices` are not positions in it, `weights` are not
        one non-negative number per selected sample, with a positive sum, or `labels` are not one
        integer per sample, from -1 to n_to_select - 1.

    See Also
    --------
    SelectionCurveDisplay : Plots the scores of models trained on coresets.

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

    def __init__(self, points, indices, *, weights=None, labels=None):
        points = open_samples(points, name="points", sparse=False).X
        indices = np.asarray(indices)
        if points.shape[1] != 2:
            raise ValueError(f"points must have two columns. Got shape {points.shape} instead.")
        N, n = len(points), indices.size
        whole = n and indices.ndim == 1 and indices.dtype.kind in "iu"
        if not whole or indices.min() < 0 or indices.max() >= N:
            raise ValueError(f"indices={indices!r} must be positions from 0 to {N - 1}.")
        if weights is not None:
            weights = np.asarray(weights, dtype=float)
            if weights.shape != (n,) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
                raise ValueError(
                    f"weights={weights!r} must be {n} non-negative numbers with a positive sum."
                )
        if labels is not None:
            labels = np.asarray(labels)
            whole = labels.shape == (N,) and labels.dtype.kind in "iu"
            if not whole or labels.min() < -1 or labels.max() >= n:
                raise ValueError(f"labels={labels!r} must be {N} integers from -1 to {n - 1}.")
        self.points, self.indices, self.weights, self.labels = points, indices, weights, labels

    def plot(self, ax=None, *, pool_kw=None, coreset_kw=None, weight_area=False, lines=False):
        """Draw the pool, and the coreset on top of it, and return the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None creates a new figure.
        pool_kw, coreset_kw : dict, default=None
            Keyword arguments of matplotlib's `scatter` for the pool and for the coreset. Set
            colours with `c`.
        weight_area : bool, default=False
            Whether to make the areas of the selected samples proportional to their weights, with
            an unchanged mean.
        lines : bool or int, default=False
            Whether to draw a line from each sample to the selected one that represents it. With an
            int, only for the selected sample ``indices[lines]``.
        """
        draw_lines = lines is not False
        if draw_lines and self.labels is None:
            raise ValueError(f"lines={lines!r} needs labels. Got labels=None instead.")
        if weight_area and self.weights is None:
            raise ValueError("weight_area=True needs weights. Got weights=None instead.")
        ax, legend_kw = axes_for(self, ax)
        pool, coreset = self.points, self.points[self.indices]
        style = {"linewidths": 0, "label": f"pool, N = {len(pool)}"}
        pool_kw = {"s": 8, "c": "0.75"} | style | (pool_kw or {})
        style = {"edgecolors": "white", "linewidths": 0.5, "label": f"coreset, n = {len(coreset)}"}
        coreset_kw = {"s": 30, "c": COLORS[0]} | style | (coreset_kw or {})
        if weight_area:
            coreset_kw["s"] = coreset_kw["s"] * self.weights / self.weights.mean()
        self.pool_ = ax.scatter(*pool.T, **pool_kw)
        if draw_lines:
            from matplotlib.collections import LineCollection

            shown = self.labels >= 0 if lines is True else self.labels == lines
            ends = np.stack([pool[shown], coreset[self.labels[shown]]], axis=1)
            collection = LineCollection(ends, colors=COLORS[0], linewidths=0.5, alpha=0.5, zorder=0)
            self.lines_ = ax.add_collection(collection)
        self.coreset_ = ax.scatter(*coreset.T, **coreset_kw)
        ax.legend(**legend_kw)
        return self

    @classmethod
    def from_selector(cls, selector, X, *, components="pca", ax=None, **plot_kw):
        """Draw the selection of a fitted selector, and return the display.

        Parameters
        ----------
        selector : selector
            A fitted selector.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The pool on which it was fitted.
        components, ax, **plot_kw
            As in `from_indices`.
        """
        check_is_fitted(selector, ["sample_indices_", "sample_weight_", "n_samples_seen_"])
        if (N := _num_samples(X)) != selector.n_samples_seen_:
            raise ValueError(f"X has {N} samples, but the selector saw {selector.n_samples_seen_}.")
        plot_kw |= {
            "sample_weight": selector.sample_weight_,
            "labels": getattr(selector, "labels_", None),
            "components": components,
            "ax": ax,
        }
        return cls.from_indices(X, selector.sample_indices_, **plot_kw)

    @classmethod
    def from_indices(
        cls, X, indices, *, sample_weight=None, labels=None, components="pca", ax=None, **plot_kw
    ):
        """Draw the samples at given positions as the coreset, and return the display.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The pool.
        indices, sample_weight, labels
            As `indices`, `weights` and `labels` of the class.
        components : "pca" or pair of int, default="pca"
            What to draw: the first two principal components, which are not centred if X is sparse,
            or the features at these two positions. With "pca", one or two features are drawn
            unchanged.
        ax, **plot_kw
            As in `plot`.
        """
        X = open_samples(X).X
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
        display = cls(points, indices, weights=sample_weight, labels=labels).plot(ax, **plot_kw)
        display.ax_.set(**dict(zip(("xlabel", "ylabel"), names, strict=False)))
        return display
