"""The methods of the comparison, and the data that they select from."""

import dataclasses
import sys
from functools import cached_property
from pathlib import Path

import baselines
import numpy as np
import torch
import train
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin

import sklearn_skmm as s

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from _methods import paper_skmm

# These use sketched gradients and no labels.
LABEL_FREE = {
    "uniform": lambda n, r: s.UniformSelector(n, random_state=r),
    "herding": lambda n, r: s.HerdingSelector(n),
    "k-center": lambda n, r: s.KCenterSelector(n, random_state=r),
    "adaptive": lambda n, r: s.AdaptiveSelector(n, random_state=r),
    "t-leverage": lambda n, r: s.TruncatedLeverageSelector(n, random_state=r),
    "r-leverage": lambda n, r: s.RidgeLeverageSelector(n, random_state=r),
    "k-means": lambda n, r: s.KMeansSelector(n, random_state=r),
    "facility-location": lambda n, r: s.FacilityLocationSelector(n, random_state=r),
    "skmm-paper": paper_skmm,
    "skmm": lambda n, r: s.SkMMSelector(n, random_state=r),
}
# These use a model trained on all labels, which are not available in practice before labelling.
UNCERTAINTY = {
    "entropy": "entropy",
    "margin": "margin",
    "least-confidence": "least_confidence",
}
CLASSES_ONLY = (*UNCERTAINTY, "contextual-diversity", "glister", "forgetting", "deepfool")
CLASSIFICATION = (*LABEL_FREE, *CLASSES_ONLY, "gradnorm")
REGRESSION = (*LABEL_FREE, "gradnorm")
PILOT_EPOCHS = 10


class GivenProbabilities(ClassifierMixin, BaseEstimator):
    """Classifier that returns X as the predicted probabilities."""

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y=None):
        """Do nothing."""
        return self

    def predict_proba(self, X):
        """Return X."""
        return X


class Rows(torch.utils.data.Dataset):
    """Features that are read from their file on access."""

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        return train.as_tensor(self.X[index], "cpu")


class Candidates:
    """Inputs of the methods for one seed, each computed when it is first needed."""

    def __init__(self, X, y, make_tail, *, recipe, m, target, seed, device):
        self.X, self.y, self.make_tail, self.recipe = X, y, make_tail, recipe
        self.m, self.target, self.seed, self.device = m, target, seed, device

    def _sketch(self, model, target):
        sketcher = s.GradientSketcher(
            self.m,
            model=model,
            loss="squared_error" if self.recipe is None else "cross_entropy",
            target=target,
            device=self.device,
            random_state=self.seed,
        )
        y = None
        if target == "label":
            y = self.y[:, None].astype(np.float32) if self.recipe is None else self.y
        return sketcher.fit_transform(Rows(self.X), y)

    @cached_property
    def sketch(self):
        """Sketched gradients of the model before it is finetuned."""
        return self._sketch(self.make_tail(self.seed), self.target)

    @cached_property
    def _training(self):
        """Pilot tail, and for each epoch and sample whether it was correct before that step."""
        recipe = self.recipe and dataclasses.replace(self.recipe, epochs=PILOT_EPOCHS)
        correct = np.zeros((PILOT_EPOCHS, len(self.y)), dtype=bool)

        def watch(epoch, batch, output):
            correct[epoch, batch] = output.argmax(axis=1) == self.y[batch]

        tail = train.fit(
            self.make_tail(self.seed),
            self.X,
            self.y,
            recipe=recipe,
            seed=self.seed,
            device=self.device,
            watch=watch,
        )
        return tail, correct

    @property
    def pilot(self):
        """Tail trained briefly on all samples and their labels."""
        return self._training[0]

    @cached_property
    def forgetting(self):
        """Number of times that the pilot forgot each sample."""
        return baselines.forgetting(self._training[1])

    @cached_property
    def deepfool(self):
        """Distance of each sample to where the pilot's prediction changes."""
        return baselines.deepfool(self.pilot, self.X, device=self.device)

    @cached_property
    def output(self):
        """Outputs of the pilot."""
        return train.predict(self.pilot, self.X, device=self.device)

    @cached_property
    def last_inputs(self):
        """Inputs of the pilot's last layer."""
        return train.last_inputs(self.pilot, self.X, device=self.device)

    @cached_property
    def label_sketch(self):
        """Sketched gradients of the pilot's loss at the labels."""
        return self._sketch(self.pilot, "label")


def prepare(method, candidates):
    """Compute what is shared or does not depend on n, so that no method's time includes it."""
    needed = {"gradnorm": "label_sketch", "forgetting": "forgetting", "deepfool": "deepfool"}
    if method in LABEL_FREE:
        candidates.sketch  # noqa: B018
    else:
        getattr(candidates, needed.get(method, "output"))
    if method == "glister":
        candidates.last_inputs  # noqa: B018


def select(method, n, candidates):
    """Return the positions of the n selected training samples."""
    c = candidates
    if method in UNCERTAINTY:
        selector = s.UncertaintySelector(n, GivenProbabilities(), criterion=UNCERTAINTY[method])
        return selector.fit_transform(softmax(c.output, axis=1))
    if method == "contextual-diversity":
        return baselines.contextual_diversity(log_softmax(c.output, axis=1), n, c.seed)
    if method == "glister":
        return baselines.glister(c.last_inputs, c.output, c.y, n, eta=c.recipe.lr)
    if method == "forgetting":
        return baselines.highest(c.forgetting, n, c.seed)
    if method == "deepfool":
        return baselines.highest(-c.deepfool, n, c.seed)
    if method == "gradnorm":
        return s.GradNormSelector(n).fit_transform(c.label_sketch)
    return LABEL_FREE[method](n, c.seed).fit_transform(c.sketch)
