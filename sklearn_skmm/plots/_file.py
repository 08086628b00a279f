"""Plots that are written to files, for programs without a display."""

from typing import BinaryIO

from sklearn_skmm.plots._coreset import CoresetDisplay


def save_coreset_plot(file: BinaryIO, format: str, selector, X) -> None:
    """Write a plot of the pool and the selected samples to an open file.

    Parameters
    ----------
    file : binary file object
        Open for writing.
    format : {"png", "pdf", "svg"}
        Format of the plot.
    selector : selector
        A fitted selector.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        The pool that it was fitted on.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not a pyplot figure, which would start the user's backend.
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    display = CoresetDisplay.from_selector(selector, X, ax=figure.subplots())
    # Beside the points, because the search for a free place among them is slow.
    display.ax_.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    figure.savefig(file, format=format)
