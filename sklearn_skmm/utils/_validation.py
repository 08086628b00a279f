"""Seeds, array API dispatch, and estimators that stay unchanged if `fit` fails."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from sklearn import config_context

MAX_SEED = np.iinfo(np.int32).max


def computing_in_numpy():
    """Return a context in which scikit-learn converts validated arrays to NumPy.

    This overrides array API dispatch if the user has enabled it.
    """
    return config_context(array_api_dispatch=False)


@contextmanager
def all_or_nothing(estimator) -> Iterator[None]:
    """Restore the attributes of the estimator if the body raises."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
