"""Colours, markers, line styles and axes that the displays share."""

from sklearn_skmm.utils._sklearn import check_matplotlib_support

# The colour-blind safe colours of Okabe and Ito, without yellow, which is too faint for a line.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = "os^DvPX<>*p"
LINES = ("-", "--", "-.", ":")


def check_results(results):
    """Raise an error unless the results are a table as `compare_selectors` returns it."""
    if not hasattr(results, "groupby"):
        raise ValueError(f"results={results!r} must be a pandas DataFrame.")
    if missing := [c for c in ("selector", "n", "score") if c not in results.columns]:
        raise ValueError(f"results must have the columns selector, n, score; it lacks {missing}.")


def axes_for(display, ax):
    """Set the display's axes and return them, with options that put the legend beside new axes."""
    check_matplotlib_support(f"{type(display).__name__}.plot")
    import matplotlib.pyplot as plt

    legend_kw = {}
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 4.8), layout="constrained")
        legend_kw = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
    display.ax_, display.figure_ = ax, ax.figure
    return ax, legend_kw
