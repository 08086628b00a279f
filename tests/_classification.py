"""A small classification problem, and a pipeline, a network and a classifier for it."""

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.pipeline import make_pipeline

from sklearn_skmm import GradientSketcher, SkMMSelector


def classification_data():
    return make_classification(200, 12, n_informative=6, n_classes=3, random_state=0)


def pipeline(n=40, m=6, **params):
    """Sketch to `m` dimensions and select `n` samples with SkMMSelector."""
    return make_pipeline(
        GradientSketcher(m=m, random_state=0), SkMMSelector(n, random_state=0, **params)
    )


def network(n_in=12, n_out=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(n_in, 8), torch.nn.ReLU(), torch.nn.Linear(8, n_out)
        )


class RecordingClassifier(ClassifierMixin, BaseEstimator):
    """A classifier that stores the arguments of fit and predicts the first class."""

    def fit(self, X, y, sample_weight=None):
        self.X_, self.y_, self.sample_weight_ = X, y, sample_weight
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


def partly_labelled(y, rows=()):
    """Return the labels of these rows, with NaN for every other sample."""
    given = np.full(len(y), np.nan)
    given[list(rows)] = y[list(rows)]
    return given
