"""Seeds, array API dispatch, and a `fit` that either succeeds or changes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from sklearn import config_context

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
