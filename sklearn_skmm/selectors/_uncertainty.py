"""Selection by a classifier's uncertainty."""

from typing import ClassVar

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.utils._sklearn import HasMethods, StrOptions


def entropy(proba):
    """Return the entropy of each row, in nats."""
    return -np.sum(proba * np.log(np.where(proba > 0, proba, 1.0)), axis=1)


def margin(proba):
    """Return minus the difference of the two largest probabilities of each row."""
    if proba.shape[1] < 2:
        return np.zeros(len(proba))
    top = np.partition(proba, -2, axis=1)[:, -2:]
    return top[:, 0] - top[:, 1]


def least_confidence(proba):
    """Return one minus the largest probability of each row."""
    return 1.0 - proba.max(axis=1)


CRITERIA = {"entropy": entropy, "margin": margin, "least_confidence": least_confidence}


class UncertaintySelector(BaseSelector):
    """Select the n samples that a classifier is least certain of.

    Uncertainty sampling [1]_. It looks at one sample at a time, so that it may pick n versions of
    the same one.

    Parameters
    ----------
    n_to_select : int or float
        How many samples to select; a float in (0, 1] is a share of the samples.
    estimator : classifier
        With `predict_proba`. A fitted one is used as it is; of another, a clone is fitted on the
        data of `fit`, which takes y.
    criterion : {"entropy", "margin", "least_confidence"}, default="entropy"
        The measure of uncertainty.
    stratify : bool, default=False
        Select within each class of y, in proportion to its size.

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_to_select,), dtype int
        Positions of the selected samples, most uncertain first, ties by position.
    sample_weight_ : ndarray of shape (n_to_select,)
        N / n for each.
    uncertainties_ : ndarray of shape (N,)
        The measure for each sample of `fit`.
    n_samples_seen_ : int
        Number of samples in `fit`.
    strata_ : ndarray
        Classes of y, with `stratify=True` only.
    n_features_in_ : int
        Number of features in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X has string column names.

    Raises
    ------
    ValueError
        In `fit`, if the estimator is not fitted and there is no y.

    Notes
    -----
    O(N) time for N samples after the classifier's probabilities, which are asked for once. Next to
    X in double precision, memory for three arrays like these, at least 16 MiB and two vectors of N
    entries, and what the classifier itself takes.

    References
    ----------
    .. [1] B. Settles. "Active learning literature survey". University of Wisconsin–Madison, 2009.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_skmm import UncertaintySelector
    >>> X, y = np.array([[-3.0], [-0.1], [2.0], [3.0]]), [0, 0, 1, 1]
    >>> UncertaintySelector(1, LogisticRegression()).fit_transform(X, y)
    array([1])
    """

    _kept: ClassVar[float] = 2.0
    _parameter_constraints: ClassVar[dict[str, list]] = {
        **BaseSelector._parameter_constraints,
        "estimator": [HasMethods(["fit", "predict_proba"])],
        "criterion": [StrOptions(set(CRITERIA))],
    }

    def __init__(self, n_to_select, estimator, *, criterion="entropy", stratify=False):
        self.n_to_select = n_to_select
        self.estimator = estimator
        self.criterion = criterion
        self.stratify = stratify

    def _peak_bytes(self, n_samples, n_features, n, itemsize):
        # Three arrays like the probabilities. Before a fit nobody knows how many classes there are.
        return 24 * n_samples * len(getattr(self.estimator, "classes_", (0, 1)))

    def _needs_y(self):
        try:
            check_is_fitted(self.estimator)
        except (NotFittedError, TypeError):
            return True
        return False

    def _select(self, X, n, reference, rng, step):
        classifier = reference.whole.learn(
            "classifier",
            lambda X, y: clone(self.estimator).fit(X, y) if self._needs_y() else self.estimator,
        )
        proba = np.asarray(classifier.predict_proba(X))
        if proba.ndim != 2 or len(proba) != X.shape[0] or not np.isfinite(proba).all():
            raise ValueError(
                f"The 'estimator' parameter must have a predict_proba that gives finite numbers of "
                f"shape ({X.shape[0]}, n_classes), got shape {proba.shape} with "
                f"{np.count_nonzero(~np.isfinite(proba))} that are not, from {self.estimator!r}."
            )
        scores = CRITERIA[self.criterion](proba)
        return Selection(
            np.argsort(-scores, kind="stable")[:n], per_sample={"uncertainties_": scores}
        )
