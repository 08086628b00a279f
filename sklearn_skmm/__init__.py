"""Coreset selection by Sketchy Moment Matching, for scikit-learn."""

from sklearn_skmm.meta._compare import compare_selectors
from sklearn_skmm.meta._coreset_estimator import CoresetEstimator
from sklearn_skmm.meta._query import SelectorQuery
from sklearn_skmm.meta._sampler import CoresetSampler
from sklearn_skmm.meta._scorers import SelectionScorer
from sklearn_skmm.plots import (
    CoresetDisplay,
    MomentMatchDisplay,
    PerformanceProfileDisplay,
    SelectionCurveDisplay,
    SpectrumDisplay,
)
from sklearn_skmm.selectors._adaptive import AdaptiveSelector
from sklearn_skmm.selectors._facility_location import FacilityLocationSelector
from sklearn_skmm.selectors._grad_norm import GradNormSelector
from sklearn_skmm.selectors._herding import HerdingSelector
from sklearn_skmm.selectors._k_center import KCenterSelector
from sklearn_skmm.selectors._k_means import KMeansSelector
from sklearn_skmm.selectors._ridge_leverage import RidgeLeverageSelector
from sklearn_skmm.selectors._skmm import SkMMSelector
from sklearn_skmm.selectors._truncated_leverage import TruncatedLeverageSelector
from sklearn_skmm.selectors._uncertainty import UncertaintySelector
from sklearn_skmm.selectors._uniform import UniformSelector
from sklearn_skmm.selectors._v_optimal import VOptimalSelector
from sklearn_skmm.sketch._sketcher import GradientSketcher

__version__ = "0.1.0.dev0"

__all__ = [
    "AdaptiveSelector",
    "CoresetDisplay",
    "CoresetEstimator",
    "CoresetSampler",
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
    "SelectionScorer",
    "SelectorQuery",
    "SkMMSelector",
    "SpectrumDisplay",
    "TruncatedLeverageSelector",
    "UncertaintySelector",
    "UniformSelector",
    "VOptimalSelector",
    "compare_selectors",
]
