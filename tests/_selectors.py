"""What several test modules share."""

import inspect

import sklearn_skmm
from sklearn_skmm._base import BaseSelector


def selector_classes():
    """Every public selector, discovered."""
    return [
        member
        for _, member in inspect.getmembers(sklearn_skmm, inspect.isclass)
        if issubclass(member, BaseSelector)
    ]


def make(cls, n_to_select=0.5, random_state=0, **params):
    """Build a selector that is ready to fit."""
    return cls(n_to_select, random_state=random_state, **params)
