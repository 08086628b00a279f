"""Input that the displays must reject."""

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

import sklearn_skmm as skmm
from tests._rejection import X, assert_rejected

pyplot = pytest.importorskip("matplotlib.pyplot")
RESULTS = pd.DataFrame({"selector": ["a", "a"], "n": [1, 2], "score": [0.1, 0.2]})
# name: (call, error, message)
BAD_DISPLAYS = {
    "points": (lambda: skmm.CoresetDisplay(X, [0]), ValueError, "two columns"),
    "positions": (lambda: skmm.CoresetDisplay(X[:, :2], [99]), ValueError, "0 to 23"),
    "weights": (
        lambda: skmm.CoresetDisplay(X[:, :2], [0], weights=[-1.0]),
        ValueError,
        "weights=",
    ),
    "unfitted": (
        lambda: skmm.CoresetDisplay.from_selector(skmm.UniformSelector(5), X),
        NotFittedError,
        "not fitted",
    ),
    "another pool": (
        lambda: skmm.CoresetDisplay.from_selector(
            skmm.UniformSelector(5, random_state=0).fit(X), X[:9]
        ),
        ValueError,
        "X has 9 samples",
    ),
    "no frame": (lambda: skmm.SelectionCurveDisplay([1]), ValueError, "DataFrame"),
    "no columns": (
        lambda: skmm.SelectionCurveDisplay(RESULTS[["n"]]),
        ValueError,
        "columns selector",
    ),
    "no rows": (lambda: skmm.SelectionCurveDisplay(RESULTS[:0]), ValueError, "must have rows"),
    "no style": (
        lambda: skmm.SelectionCurveDisplay(RESULTS).plot(std_display_style="bars"),
        ValueError,
        "std_display_style='bars'",
    ),
    "no scale": (
        lambda: skmm.SelectionCurveDisplay(RESULTS).plot(log_scale="x"),
        ValueError,
        "log_scale='x'",
    ),
    "no eigenvalues": (
        lambda: skmm.SpectrumDisplay([np.nan], n_samples=3),
        ValueError,
        "eigenvalues",
    ),
    "no losses": (lambda: skmm.PerformanceProfileDisplay([1.0]), ValueError, "DataFrame"),
    "no constant": (
        lambda: skmm.MomentMatchDisplay([1.0], [1.0], c_S=-1.0),
        ValueError,
        "c_S=-1.0",
    ),
}


@pytest.mark.parametrize("name", BAD_DISPLAYS)
def test_displays_reject_bad_input(name):
    call, error, match = BAD_DISPLAYS[name]
    assert_rejected(call, match, error=error)
    assert not pyplot.get_fignums()
