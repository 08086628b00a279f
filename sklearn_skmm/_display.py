"""Plots of what a selection is worth, of what it picked, and of the moments it matches."""

from sklearn_skmm._display_coreset import CoresetDisplay
from sklearn_skmm._display_curve import SelectionCurveDisplay
from sklearn_skmm._display_moments import MomentMatchDisplay
from sklearn_skmm._display_profile import PerformanceProfileDisplay
from sklearn_skmm._display_spectrum import SpectrumDisplay

__all__ = [
    "CoresetDisplay",
    "MomentMatchDisplay",
    "PerformanceProfileDisplay",
    "SelectionCurveDisplay",
    "SpectrumDisplay",
]
