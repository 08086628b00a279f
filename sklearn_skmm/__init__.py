"""Coreset selection by Sketchy Moment Matching, for scikit-learn."""

from sklearn_skmm._compare import compare_selectors
from sklearn_skmm._coreset import CoresetEstimator
from sklearn_skmm._display import (
    CoresetDisplay,
    MomentMatchDisplay,
    PerformanceProfileDisplay,
    SelectionCurveDisplay,
    SpectrumDisplay,
)
from sklearn_skmm._facility_location import FacilityLocationSelector
from sklearn_skmm._grad_norm import GradNormSelector
from sklearn_skmm._herding import HerdingSelector
from sklearn_skmm._k_center import KCenterSelector
from sklearn_skmm._k_means import KMeansSelector
from sklearn_skmm._pivoting import AdaptiveSelector
from sklearn_skmm._query import SelectorQuery
from sklearn_skmm._ridge_leverage import RidgeLeverageSelector
from sklearn_skmm._sketch import GradientSketcher
from sklearn_skmm._skmm import SkMMSelector
from sklearn_skmm._truncated_leverage import TruncatedLeverageSelector
from sklearn_skmm._uncertainty import UncertaintySelector
from sklearn_skmm._uniform import UniformSelector
from sklearn_skmm._voptimal import VOptimalSelector

__version__ = "0.1.0.dev0"

__all__ = [
    "AdaptiveSelector",
    "CoresetDisplay",
    "CoresetEstimator",
    "FacilityLocationSelector",
    "GradNormSelector",
    "GradientSketcher",
    "HerdingSelector",
    "KCenterSelector",
    "KMeansSelector",
    "MomentMatchDisplay",
    "PerformanceProfileDisplay",
    "RidgeLeverageSelector",
    "SelectionCurveDisplay",
    "SelectorQuery",
    "SkMMSelector",
    "SpectrumDisplay",
    "TruncatedLeverageSelector",
    "UncertaintySelector",
    "UniformSelector",
    "VOptimalSelector",
    "compare_selectors",
]
