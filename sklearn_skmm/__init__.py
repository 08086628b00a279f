"""Coreset selection by Sketchy Moment Matching, for scikit-learn."""

from sklearn_skmm._baselines import UniformSelector
from sklearn_skmm._coreset import CoresetEstimator
from sklearn_skmm._sketch import GradientSketcher
from sklearn_skmm._skmm import SkMMSelector

__version__ = "0.1.0.dev0"

__all__ = ["CoresetEstimator", "GradientSketcher", "SkMMSelector", "UniformSelector"]
