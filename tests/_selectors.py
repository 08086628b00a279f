"""Find and construct the selectors that several test modules run on."""

import inspect

from sklearn.linear_model import LogisticRegression

import sklearn_skmm
from sklearn_skmm.base import BaseSelector


def selector_classes():
    """Return all public selector classes."""
    return [
        member
        for _, member in inspect.getmembers(sklearn_skmm, inspect.isclass)
        if issubclass(member, BaseSelector)
    ]


def make(cls, n_to_select=0.5, random_state=0, **params):
    """Construct a selector, with `random_state` and `estimator` if its signature has them."""
    signature = inspect.signature(cls).parameters
    if "random_state" in signature:
        params["random_state"] = random_state
    if "estimator" in signature:
        params.setdefault("estimator", LogisticRegression())
    return cls(n_to_select, **params)


# Selectors that do not look at the values of X, discovered: `fit` takes what the others refuse.
UNREADING = {cls.__name__ for cls in selector_classes() if not cls._reads_values}

# Roundings of SkMMSelector.
ROUNDINGS = [
    "cells",
    "exemplar",
    "cube",
    "spread",
    "local_cube",
    "recombine",
    "systematic",
    "choice",
]
