"""What estimators share around validation: constraints, seeds, and a `fit` that fails cleanly."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from sklearn import config_context

# scikit-learn keeps its constraint classes private; the package imports them from here only.
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

__all__ = [
    "MAX_SEED",
    "HasMethods",
    "Interval",
    "StrOptions",
    "all_or_nothing",
    "computing_in_numpy",
]

MAX_SEED = np.iinfo(np.int32).max


def computing_in_numpy():
    """Have scikit-learn convert what it validates to NumPy, also with array API dispatch."""
    return config_context(array_api_dispatch=False)


@contextmanager
def all_or_nothing(estimator) -> Iterator[None]:
    """Put the estimator back as it was if the body raises."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
