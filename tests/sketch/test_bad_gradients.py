"""Gradients that GradientSketcher must reject when model=None."""

import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

import sklearn_skmm as skmm
from tests._rejection import BAD_COLUMNS, BAD_X, FRAME, X, assert_rejected


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in BAD_X
        if n not in ("squares overflow", "squares underflow", "subnormals", "generator")
    ],
)
def test_sketcher_rejects_bad_gradients(name):
    bad, error, match = BAD_X[name]
    sketcher = skmm.GradientSketcher(2, random_state=0).fit(X)
    assert_rejected(lambda: sketcher.fit_transform(bad), match, sketcher, error=error)
    if not isinstance(bad, pd.DataFrame):
        assert_rejected(lambda: sketcher.transform(bad), match, sketcher, error=error)


def test_product_sketch_requires_a_model():
    sketcher = skmm.GradientSketcher(2, random_state=0).fit(X).set_params(sketch="product")
    assert_rejected(lambda: sketcher.fit(X), "'sketch' parameter .* model=None", sketcher)


@pytest.mark.parametrize("name", BAD_COLUMNS)
def test_transform_rejects_other_columns(name):
    frame, match = BAD_COLUMNS[name]
    sketcher = skmm.GradientSketcher(2, random_state=0).fit(FRAME)
    assert_rejected(lambda: sketcher.transform(frame), match, sketcher)


def test_unfitted_sketcher_raises_not_fitted_error():
    sketcher = skmm.GradientSketcher(2)
    assert_rejected(
        lambda: sketcher.transform(X),
        "GradientSketcher instance is not fitted yet",
        sketcher,
        error=NotFittedError,
    )
