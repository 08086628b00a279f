"""Displays, in scikit-learn's convention: `plot` draws, class methods ``from_*`` prepare and draw.

Matplotlib is imported only here, and only when drawing. May import everything but `sketch` and
`cli`.
"""

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
