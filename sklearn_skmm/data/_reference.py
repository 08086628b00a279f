"""What a selection is matched to."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from sklearn_skmm.core._moments import Spectrum, spectrum


class Reference:
    """What the selection is matched to: the data seen in `fit`, kept as its moments.

    Every quantity is computed when it is first used, which is during `fit`. Then the data is
    released, and `transform` on another pool uses the quantities that were kept.

    Parameters
    ----------
    X : {ndarray, CSR} of shape (n_samples, n_features)
        Data of `fit`, or of one stratum of it. What the user passed if the selector reads no
        values.
    y : ndarray of shape (n_samples,) or None, default=None
        Labels, if the selector needs them.
    weight : ndarray of shape (n_samples,) or None, default=None
        Weights of the samples; None means equal ones.
    whole : Reference or None, default=None
        Reference of all strata together; None means that this is it.

    Attributes
    ----------
    whole : Reference
        Reference of all strata together.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_skmm.base import Reference
    >>> Reference(np.array([[1.0, 0.0], [3.0, 0.0]])).mean
    array([2., 0.])
    """

    def __init__(self, X, y=None, weight=None, whole=None):
        if weight is not None and not weight.any():
            weight = None  # a stratum of given samples that weigh nothing
        self._X, self._y, self._weight = X, y, weight
        self._whole = whole  # None rather than itself, which not every format can save
        self._learned: dict[str, Any] = {}

    @property
    def whole(self) -> "Reference":
        """Reference of all strata together."""
        return self if self._whole is None else self._whole

    @cached_property
    def spectrum(self) -> Spectrum:
        """Eigenvalues and eigenvectors of the second moment XᵀX / N above rounding error."""
        return spectrum(self._X, self._weight)

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean of the rows, of shape (n_features,)."""
        if self._weight is None:
            return np.asarray(self._X.mean(axis=0)).ravel()
        return np.asarray(self._weight @ self._X).ravel() / self._weight.sum()

    def is_of(self, X) -> bool:
        """Whether X is the data itself, which has not been released."""
        return self._X is X

    def learn(self, name: str, function: Callable) -> Any:
        """Return ``function(X, y)`` on the data of `fit`, computed once.

        Parameters
        ----------
        name : str
            Name under which the result is kept.
        function : callable
            Takes the data and the labels.

        Returns
        -------
        result : object
            What the function returned when it was called.
        """
        if name not in self._learned:
            self._learned[name] = function(self._X, self._y)
        return self._learned[name]

    def release(self) -> None:
        """Release the data and keep what was computed from it."""
        self._X = self._y = self._weight = None
