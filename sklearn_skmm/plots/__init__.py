"""Plots of what a selection is worth, of what it picked, and of the moments it matches."""

from sklearn_skmm.plots._coreset import CoresetDisplay
from sklearn_skmm.plots._curve import SelectionCurveDisplay
from sklearn_skmm.plots._moments import MomentMatchDisplay
from sklearn_skmm.plots._profile import PerformanceProfileDisplay
from sklearn_skmm.plots._spectrum import SpectrumDisplay

__all__ = [
    "CoresetDisplay",
    "MomentMatchDisplay",
    "PerformanceProfileDisplay",
    "SelectionCurveDisplay",
    "SpectrumDisplay",
]
