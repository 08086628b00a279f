"""Data frames of pandas and polars."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge

from sklearn_skmm import CoresetEstimator, GradientSketcher, SkMMSelector
from tests._classification import pipeline
from tests._selectors import make, selector_classes


def test_fit_resample_keeps_duplicate_pandas_row_labels(data):
    X, y = data
    index = pd.MultiIndex.from_arrays([np.arange(200) // 100, np.arange(200) % 50])
    frame = pd.DataFrame(X, index=index, columns=[f"x{i}" for i in range(12)])
    frame = frame.convert_dtypes()
    selector = SkMMSelector(40, random_state=0)
    X_part, y_part = selector.fit_resample(frame, pd.Series(y, index=index, name="class"))
    rows = SkMMSelector(40, random_state=0).fit_transform(X)
    pd.testing.assert_frame_equal(X_part, frame.iloc[rows])
    pd.testing.assert_series_equal(y_part, pd.Series(y, index=index, name="class").iloc[rows])


def test_set_output_names_sketch_columns_and_keeps_row_labels(data):
    X, _ = data
    frame = pd.DataFrame(X, index=[f"row{i}" for i in range(200)])
    frame.columns = [f"x{i}" for i in range(12)]
    sketcher = GradientSketcher(m=3, random_state=0).set_output(transform="pandas")
    expected = pd.DataFrame(
        GradientSketcher(m=3, random_state=0).fit_transform(X),
        index=frame.index,
        columns=["gradientsketcher0", "gradientsketcher1", "gradientsketcher2"],
    )
    pd.testing.assert_frame_equal(sketcher.fit_transform(frame), expected)
    pd.testing.assert_frame_equal(clone(sketcher).fit(frame).transform(frame), expected)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_selectors_return_arrays_whatever_transform_output_is(data, library):
    X, y = data
    expected = pipeline().fit_transform(X)
    with sklearn.config_context(transform_output=library):
        selected = pipeline().fit_transform(X)
        model = CoresetEstimator(LogisticRegression(), pipeline()).fit(X, y)
    assert type(selected) is np.ndarray
    np.testing.assert_array_equal(selected, expected)
    np.testing.assert_array_equal(model.sample_indices_, expected)
    assert not hasattr(SkMMSelector(40), "set_output")


@pytest.mark.parametrize("cls", selector_classes(), ids=lambda cls: cls.__name__)
def test_fit_resample_returns_polars_rows(data, cls):
    import polars as pl

    X, y = data
    frame = pl.DataFrame(X, schema=[f"x{i}" for i in range(12)])
    selector = make(cls, 40)
    X_part, y_part = selector.fit_resample(frame, pl.Series("class", y))
    rows = make(cls, 40).fit_transform(X, y)
    np.testing.assert_array_equal(selector.sample_indices_, rows)
    assert X_part.equals(frame[rows.tolist()])
    assert y_part.equals(pl.Series("class", y[rows]))
    assert list(selector.feature_names_in_) == frame.columns


def test_polars_and_numpy_give_the_same_sketch_and_model(data):
    import polars as pl

    X, y = data
    frame = pl.DataFrame(X, schema=[f"x{i}" for i in range(12)])
    model = CoresetEstimator(LogisticRegression(), pipeline()).fit(frame, pl.Series(y))
    expected = CoresetEstimator(LogisticRegression(), pipeline()).fit(X, y)
    np.testing.assert_array_equal(model.sample_indices_, expected.sample_indices_)
    np.testing.assert_array_equal(model.estimator_.coef_, expected.estimator_.coef_)
    sketcher = GradientSketcher(m=3, random_state=0).set_output(transform="polars")
    sketch = sketcher.fit_transform(frame)
    assert sketch.columns == ["gradientsketcher0", "gradientsketcher1", "gradientsketcher2"]
    np.testing.assert_array_equal(
        sketch.to_numpy(), GradientSketcher(m=3, random_state=0).fit_transform(X)
    )


def test_ridge_uses_the_weights_of_a_pandas_coreset(data):
    X, y = data
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(12)])
    selector = SkMMSelector(40, rounding="exemplar", random_state=0)
    model = CoresetEstimator(Ridge(), selector, use_sample_weight=True).fit(frame, pd.Series(y))
    fitted = clone(selector).fit(X)
    assert len(set(fitted.sample_weight_.tolist())) > 1
    rows = fitted.sample_indices_
    expected = Ridge().fit(X[rows], y[rows], sample_weight=fitted.sample_weight_)
    np.testing.assert_allclose(model.estimator_.coef_, expected.coef_, rtol=1e-9)
