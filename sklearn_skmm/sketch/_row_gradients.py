"""Gradients that are the rows of X, as in linear probing."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from sklearn_skmm.data import FLOATS, Samples, open_samples
from sklearn_skmm.sketch._projection import projection_for
from sklearn_skmm.sketch._sketch_plan import MAX_FORMED_ENTRIES, Plan, PlannedLayer, SketchPlan


class RowGradients:
    """What `GradientSketcher` sketches without a model.

    Parameters
    ----------
    dtype : {"float32", "float64"} or None
        Precision of the rows; None keeps that of X.
    """

    needs_labels = False

    def __init__(self, dtype: str | None):
        self.dtypes = FLOATS if dtype is None else (np.dtype(dtype).type,)

    def open(self, X: Any, sketcher: Any, *, reset: bool) -> Samples:
        """Open rows of numbers."""
        return open_samples(
            X,
            estimator=sketcher,
            reset=reset,
            lazy=True,
            dtypes=self.dtypes,
            # Sketching reads columns as well as rows, and squares no entries.
            contiguous=False,
            squares=False,
        )

    def plan(self, samples: Samples, y: Any, sketch: str, m: int, seed: int) -> Plan:
        """Choose the random projection."""
        r = samples.n_features
        if sketch == "product":
            raise ValueError(
                "The 'sketch' parameter can be 'product' only with a model, whose layers have an "
                "input and an output side. Got model=None."
            )
        if sketch == "auto":
            # By r alone, so that dense and sparse X have the same sketch.
            sketch = "gaussian" if r <= MAX_FORMED_ENTRIES else "sparse_sign"
        projection = projection_for(sketch, r, m, seed)
        row = PlannedLayer("X", "rows", r, "X", sketch, r * projection.per_row)
        return Plan([], projection, SketchPlan([row]), seed)

    def sketches(self, samples: Samples, y: Any, start: int, plan: Plan) -> Iterator[np.ndarray]:
        """Yield GΓ, all samples at once."""
        with np.errstate(over="ignore", invalid="ignore"):  # the sketcher has a better message
            sketch = plan.projection.apply(samples.X)
        yield sketch

    def sketch_dtype(self, X: Any) -> np.dtype:
        """Return the dtype of the sketch of an array X."""
        return X.dtype if X.dtype in self.dtypes else np.dtype(self.dtypes[0])
