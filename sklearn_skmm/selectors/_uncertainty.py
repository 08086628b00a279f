"""Selection by a classifier's uncertainty."""

from typing import ClassVar

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from sklearn_skmm.base import BaseSelector, Selection
from sklearn_skmm.utils._sklearn import HasMethods, StrOptions, _num_samples


def entropy(proba):
    """Return the entropy of each row, in nats."""
    return -np.sum(proba * np.log(np.where(proba > 0, proba, 1.0)), axis=1)


def margin(proba):
    """Return minus the difference between the two largest probabilities of each row."""
    if proba.shape[1] < 2:
        return np.zeros(len(proba))
    top = np.partition(proba, -2, axis=1)[:, -2:]
    return top[:, 0] - top[:, 1]


def least_confidence(proba):
    """Return one minus the largest probability of each row."""
    return 1.0 - proba.max(axis=1)


CRITERIA = {"entropy": entropy, "margin": margin, "least_confidence": least_confidence}


class UncertaintySelector(BaseSelector):
    """Select the n samples that a classifier is least certain about.

    This is uncertainty sampling [1]_. Use it to choose what to label next, given a classifier. Each
    sample is judged alone, so the n selected samples may be near-duplicates of each other.

    X is passed to the classifier as it is: a data frame with its columns, text, single precision,
    any sparse format, tensors. What it must be is for the classifier to say.

    Parameters
    ----------
    {n_to_select}
    estimator : classifier
        A classifier with `predict_proba`. If it is fitted, it is used as it is. Otherwise a clone
        is fitted on the data of `fit`, which then requires y.
    criterion : {"entropy", "margin", "least_confidence"}, default="entropy"
        The measure of uncertainty.
    {stratify}

    Attributes
    ----------
    sample_indices_ : ndarray of shape (n_to_select,), dtype int
        Positions of the selected samples, most uncertain first. Ties are in order of position.
    {sample_weight_equal}
    uncertainties_ : ndarray of shape (N,)
        Uncertainty of each sample of `fit`.
    {fitted}

    Raises
    ------
    ValueError
        In `fit`, if the estimator is not fitted and y is None.

    Notes
    -----
    O(N) time for N samples, after the classifier's probabilities, which are computed once. Next to
    X, memory is needed for three arrays like the probabilities, or for 16 MiB and two vectors of N
    entries, whichever is more, and for what the classifier itself needs. `score` needs rows of
    finite numbers, and raises an error if X of `fit` or of `score` is anything else.

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

    _dtypes: ClassVar[list[type]] = [np.float64, np.float32]
    _ordered: ClassVar[bool] = True
    _kept: ClassVar[float] = 2.0
    _reads_values: ClassVar[bool] = False
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
        # Three arrays like the probabilities. Without a fitted classifier, assume two classes.
        return 24 * n_samples * len(getattr(self.estimator, "classes_", (0, 1)))

    def _open_unread(self, X, y, **options):
        # Gathered if it is a Dask array: the classifier reads it. It also checks the features.
        return super()._open_unread(X, y, **{"lazy": False, "features": False, **options})

    def _needs_y(self):
        try:
            check_is_fitted(self.estimator)
        except (NotFittedError, TypeError):
            return True
        return False

    def _select(self, X, n, reference, rng, step, *, selected=None):
        classifier = reference.whole.learn(
            "classifier",
            lambda X, y: clone(self.estimator).fit(X, y) if self._needs_y() else self.estimator,
        )
        proba, n_samples = np.asarray(classifier.predict_proba(X)), _num_samples(X)
        if proba.ndim != 2 or len(proba) != n_samples or not np.isfinite(proba).all():
            raise ValueError(
                "The 'estimator' parameter of UncertaintySelector must be a classifier whose "
                f"predict_proba returns finite numbers of shape ({n_samples}, n_classes). Got "
                f"shape {proba.shape} with {np.count_nonzero(~np.isfinite(proba))} non-finite "
                f"numbers from {self.estimator!r} instead."
            )
        scores = CRITERIA[self.criterion](proba)
        order = np.argsort(-scores, kind="stable")
        if selected is not None:
            order = order[~np.isin(order, selected)]
        return Selection(order[:n], per_sample={"uncertainties_": scores})

    def __sklearn_tags__(self):
        """Return the tags: the input is what the classifier takes."""
        tags = super().__sklearn_tags__()
        if hasattr(self.estimator, "__sklearn_tags__"):
            tags.input_tags = get_tags(self.estimator).input_tags
        return tags
