"""Check that bad input raises a built-in or scikit-learn error and changes nothing.

`assert_rejected` checks the type and the message of the error, and that estimators, models and
directories are unchanged afterwards. The dictionaries of bad input have one entry for each case.
"""

import copy
import functools
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from tests._selectors import make, selector_classes

N = 24
X = np.random.RandomState(0).normal(size=(N, 3))
Y = np.arange(N) % 2
SELECTORS = {cls.__name__: cls for cls in selector_classes()}


def state_of(thing):
    """Return what a failed call must not change in an estimator, a torch model or a directory."""
    if isinstance(thing, str | os.PathLike):
        paths = sorted(Path(thing).rglob("*"))
        return {str(path): path.read_bytes() if path.is_file() else None for path in paths}
    if not hasattr(thing, "named_modules"):
        state = dict(vars(thing))
        # The identity and the contents of each attribute.
        return {name: (id(value), repr(value)) for name, value in state.items()}
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "values": {name: value.clone() for name, value in thing.state_dict().items()},
        "gradients": {name: p.grad for name, p in thing.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in thing.named_parameters()},
        "devices": {name: p.device for name, p in thing.named_parameters()},
        "modes": {name: module.training for name, module in thing.named_modules()},
        "hooks": {name: [len(getattr(m, h)) for h in hooks] for name, m in thing.named_modules()},
    }


def assert_unchanged(before, after):
    if "values" not in before:
        assert after == before
        return
    values, same = before.pop("values"), after.pop("values")
    assert after == before
    assert values.keys() == same.keys()
    for name, value in values.items():
        # A model on the meta device has no values.
        assert value.is_meta or np.array_equal(value.numpy(), same[name].numpy(), equal_nan=True)


def assert_rejected(call, match, *watched, error=ValueError):
    """Check that `call` raises this error and changes no watched estimator, model or directory."""
    before = [state_of(thing) for thing in watched]
    with pytest.raises(error, match=match) as caught:
        call()
    assert type(caught.value).__module__.split(".")[0] in ("builtins", "sklearn")
    for thing, state in zip(watched, before, strict=True):
        assert_unchanged(state, state_of(thing))


def quietly(function, *args):
    """Call a function without warnings of non-convergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return function(*args)


@functools.cache
def first_fit(cls, stratify):
    """Return a fitted selector that all tests share and none may change."""
    return quietly(make(SELECTORS[cls], 5, stratify=stratify).fit, X, Y)


def fitted(cls, stratify=False):
    """Return a copy of the shared fitted selector."""
    return copy.deepcopy(first_fit(cls, stratify))


MASKED_X = np.ma.masked_array(X, mask=np.eye(N, 3) == 1)
# name: (X, error, message)
BAD_X = {
    "None": (None, ValueError, "Expected 2D array, got scalar"),
    "text": ("text", ValueError, "could not convert string to float: 'text'"),
    "scalar": (3.0, ValueError, "Expected 2D array, got scalar"),
    "1-d": (X[:, 0], ValueError, "Expected 2D array, got 1D"),
    "3-d": (X[None], ValueError, "dim 3"),
    "series": (pd.Series(X[:, 0]), ValueError, "Expected a 2-dimensional container"),
    "ragged": ([[1, 2], [3]] * (N // 2), ValueError, "inhomogeneous"),
    "no rows": (X[:0], ValueError, r"0 sample\(s\)"),
    "no columns": (X[:, :0], ValueError, r"0 feature\(s\)"),
    "NaN": (np.where(X > 1, np.nan, X), ValueError, "X contains NaN"),
    "infinity": (np.where(X > 1, np.inf, X), ValueError, "X contains infinity"),
    "minus infinity": (np.where(X > 1, -np.inf, X), ValueError, "X contains infinity"),
    "both infinities": (np.copysign(np.inf, X), ValueError, "X contains (infinity|NaN)"),
    "squares overflow": (X * 1e200, ValueError, r"largest entry of X is .*e\+200"),
    "squares underflow": (X * 1e-200, ValueError, r"largest entry of X is .*e-200"),
    "subnormals": (np.full((N, 3), 5e-324), ValueError, r"largest entry of X is .*e-324"),
    "text in columns": ([["a", "b", "c"]] * N, ValueError, "string to float: 'a'"),
    "objects": (np.array([["a", 1, 2]] * N, dtype=object), ValueError, "string to float: 'a'"),
    "None in objects": (np.array([[None, 1]] * N, dtype=object), ValueError, "X contains NaN"),
    "complex": (X + 1j, ValueError, "Complex data not supported"),
    "masked": (MASKED_X, ValueError, "masked array with 3 masked entries"),
    "dates": (np.zeros((N, 3), "M8[s]"), ValueError, r"numbers, got dtype datetime64\[s\]"),
    "durations": (np.zeros((N, 3), "m8[s]"), ValueError, r"numbers, got dtype timedelta64\[s\]"),
    "records": (np.zeros(N, dtype=[("a", float)]), ValueError, "Expected 2D array"),
    "long doubles": (X * np.longdouble("1e400"), ValueError, "X contains (infinity|NaN)|largest"),
    "set": ({1, 2}, TypeError, "'set'"),
    "dict": ({"a": [1]}, TypeError, "'dict'"),
    "generator": ((row for row in X), TypeError, "'generator'"),
    "text in a frame": (pd.DataFrame({"a": ["x"] * N}), ValueError, "string to float: 'x'"),
    "categories": (pd.DataFrame({"a": pd.Categorical(["x"] * N)}), ValueError, "float: 'x'"),
    "missing integers": (
        pd.DataFrame({"a": pd.array([1, None] * (N // 2), dtype="Int64")}),
        ValueError,
        "X contains NaN",
    ),
    "mixed column names": (pd.DataFrame(X, columns=["a", 1, "c"]), TypeError, "Feature names"),
    "sparse NaN": (sparse.coo_array(np.where(X > 1, np.nan, X)), ValueError, "X contains NaN"),
    "sparse infinity": (sparse.csr_array(np.where(X > 1, np.inf, X)), ValueError, "infinity"),
    "sparse complex": (sparse.csr_array(X + 1j), ValueError, "Complex data not supported"),
    "sparse 1-d": (
        sparse.coo_array(X[:, 0]),
        ValueError,
        "Expected 2D|1d sparse array",  # the second by SciPy before 1.15
    ),
}


# What `fit` and `transform` take if they do not look at the values; `score` refuses it.
NEED_NOT_BE_READ = {
    *("3-d", "ragged", "NaN", "infinity", "minus infinity", "both infinities"),
    *("squares overflow", "squares underflow", "subnormals", "long doubles"),
    *("text in columns", "objects", "None in objects", "text in a frame", "categories"),
    *("masked", "dates", "durations", "missing integers", "sparse NaN", "sparse infinity"),
}
# What the classifier in `UncertaintySelector` takes, or refuses in its own words.
THE_CLASSIFIER_DECIDES = {
    *("3-d", "squares overflow", "squares underflow", "subnormals", "long doubles"),
    *("both infinities", "text in columns", "dates", "durations"),
}


def is_refused(cls, name):
    """Whether a selector refuses an entry of `BAD_X`, with the message given there."""
    if cls == "UncertaintySelector":
        return name not in THE_CLASSIFIER_DECIDES
    return SELECTORS[cls]._reads_values or name not in NEED_NOT_BE_READ


FRAME = pd.DataFrame(X, columns=list("abc"))
# name: (frame, message)
BAD_COLUMNS = {
    "unseen": (FRAME.rename(columns={"c": "d"}), "feature names should match"),
    "another order": (FRAME[["b", "a", "c"]], "Feature names must be in the same order"),
    "missing": (FRAME[["a", "b"]], "feature names|features"),
    "more": (FRAME.assign(d=1.0), "feature names|features"),
}
