"""Samples, columns and labels that every selector must reject, or convert and accept."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError

from tests._rejection import (
    BAD_COLUMNS,
    BAD_X,
    FRAME,
    SELECTORS,
    N,
    X,
    Y,
    assert_rejected,
    first_fit,
    fitted,
    is_refused,
    quietly,
)
from tests._selectors import make

# All selectors read X in the same way, except those two.
QUICK = ("SkMMSelector", "UniformSelector", "UncertaintySelector")


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        pytest.param(cls, name, marks=[pytest.mark.slow] * (cls not in QUICK))
        for cls in SELECTORS
        for name in BAD_X
        if is_refused(cls, name)
    ],
)
def test_selectors_reject_bad_X(cls, name):
    bad, error, match = BAD_X[name]
    selector = fitted(cls)
    for method in ("fit", "fit_transform", "fit_resample"):
        assert_rejected(lambda m=method: getattr(selector, m)(bad, Y), match, selector, error=error)
    unfitted = make(SELECTORS[cls], 5)
    assert_rejected(lambda: unfitted.fit(bad, Y), match, unfitted, error=error)
    if isinstance(bad, pd.DataFrame):
        return  # its columns also differ from those seen in fit
    for method in ("transform", "score"):
        assert_rejected(lambda m=method: getattr(selector, m)(bad), match, selector, error=error)


# Containers of the values of X, up to rounding that does not change the selection.
GOOD_X = {
    "list": X.tolist(),
    "tuple of arrays": tuple(X),
    "objects": X.astype(object),
    "long doubles": X.astype(np.longdouble),
    "big-endian": X.astype(">f8"),
    "masked, but nothing": np.ma.masked_array(X, mask=False),
    "frame": pd.DataFrame(X, columns=list("abc")),
    "nullable frame": pd.DataFrame(X, columns=list("abc")).convert_dtypes(),
    "read-only": np.frombuffer(X.tobytes()).reshape(X.shape),
    "reversed twice": X[::-1][::-1],
    **{
        kind: getattr(sparse, f"{kind}_array")(X)
        for kind in ("coo", "csc", "lil", "dok", "bsr", "dia")
    },
}


@pytest.mark.parametrize("name", GOOD_X)
@pytest.mark.parametrize("cls", SELECTORS)
def test_containers_of_the_same_values_give_the_same_selection(cls, name):
    expected = first_fit(cls, False).sample_indices_
    selected = quietly(make(SELECTORS[cls], 5).fit_transform, GOOD_X[name], Y)
    np.testing.assert_array_equal(selected, expected)


SPARSE = [
    f"{kind}_{of}"
    for kind in ("csr", "csc", "coo", "bsr", "dia", "dok", "lil")
    for of in ("array", "matrix")
]


@pytest.mark.parametrize("kind", SPARSE)
@pytest.mark.parametrize("cls", ["SkMMSelector", "UniformSelector"])
def test_the_rows_of_every_sparse_format_come_back(cls, kind):
    pool = getattr(sparse, kind)(X)
    for stratify in (False, True):
        selector = make(SELECTORS[cls], 5, stratify=stratify)
        rows, labels = quietly(selector.fit_resample, pool, Y)
        np.testing.assert_array_equal(rows.toarray(), X[selector.sample_indices_])
        np.testing.assert_array_equal(labels, Y[selector.sample_indices_])
        assert isinstance(rows, sparse.sparray) == kind.endswith("array")
        without_rows = pool.format in ("coo", "bsr", "dia")
        assert rows.format == ("csr" if without_rows else pool.format)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float16])
@pytest.mark.parametrize("cls", SELECTORS)
def test_other_numeric_dtypes_are_converted_to_float(cls, dtype):
    rows = (np.abs(X) * 3).astype(dtype)
    expected = quietly(make(SELECTORS[cls], 5).fit_transform, rows.astype(float), Y)
    np.testing.assert_array_equal(quietly(make(SELECTORS[cls], 5).fit_transform, rows, Y), expected)


@pytest.mark.parametrize("name", BAD_COLUMNS)
@pytest.mark.parametrize("cls", SELECTORS)
def test_transform_rejects_other_columns(cls, name):
    selector = quietly(make(SELECTORS[cls], 5).fit, FRAME, Y)
    frame, match = BAD_COLUMNS[name]
    assert_rejected(lambda: selector.transform(frame), match, selector)


@pytest.mark.parametrize("cls", SELECTORS)
def test_unfitted_selectors_raise_not_fitted_error(cls):
    selector = make(SELECTORS[cls], 5)
    for method, args in (("transform", (X,)), ("score", (X,)), ("get_support", ())):
        assert_rejected(
            lambda m=method, a=args: getattr(selector, m)(*a),
            f"{cls} instance is not fitted yet",
            selector,
            error=NotFittedError,
        )


# name: (y, error, message), for stratify=True
BAD_Y = {
    "None": (None, ValueError, "requires y"),
    "short": (Y[:-1], ValueError, r"inconsistent numbers of samples: \[24, 23\]"),
    "long": (np.append(Y, 0), ValueError, r"inconsistent numbers of samples: \[24, 25\]"),
    "NaN": (np.where(Y, np.nan, 0.0), ValueError, "contains NaN"),
    "infinity": (np.where(Y, np.inf, 0.0), ValueError, "contains infinity"),
    "scalar": (3, (ValueError, TypeError), "Singleton|scalar|0D|Expected|shape"),
    "two columns": (np.c_[Y, Y], ValueError, r"1d array, got an array of shape \(24, 2\)"),
    "3-d": (np.zeros((N, 1, 1)), ValueError, "dim 3"),
    "ragged": ([[0], [1, 2]] * (N // 2), ValueError, "inhomogeneous"),
    "complex": (Y + 1j, ValueError, "Complex data"),
    "sparse": (sparse.csr_array(Y[None]), TypeError, "[Ss]parse"),
}


@pytest.mark.parametrize("name", BAD_Y)
@pytest.mark.parametrize("cls", SELECTORS)
def test_stratified_selectors_reject_bad_labels(cls, name):
    bad, error, match = BAD_Y[name]
    selector = fitted(cls, stratify=True)
    assert_rejected(lambda: selector.fit(X, bad), match, selector, error=error)
    assert_rejected(lambda: selector.transform(X, bad), match, selector, error=error)


@pytest.mark.parametrize("cls", SELECTORS)
def test_transform_rejects_new_classes_and_accepts_absent_ones(cls):
    selector = fitted(cls, stratify=True)
    assert_rejected(
        lambda: selector.transform(X, np.where(Y, 7, 0)), r"not seen in fit: \[7\]", selector
    )
    # An empty stratum is accepted: its part of n_to_select goes to the other strata.
    selected = quietly(selector.transform, X, np.zeros(N, dtype=int))
    assert len(np.unique(selected)) == 5


@pytest.mark.parametrize("cls", SELECTORS)
def test_column_vector_of_labels_warns_and_is_flattened(cls):
    selector = make(SELECTORS[cls], 5, stratify=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with pytest.warns(DataConversionWarning, match="column-vector"):
            selected = selector.fit_transform(X, Y[:, None])
        np.testing.assert_array_equal(selected, selector.fit_transform(X, Y))
