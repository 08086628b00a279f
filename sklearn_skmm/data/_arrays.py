"""Arrays, lists, data frames, sparse matrices and memory maps: what scikit-learn validates."""

from typing import Any

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from sklearn_skmm.data._checks import check_fits, check_range, check_values
from sklearn_skmm.data._samples import Reader, Samples, Source
from sklearn_skmm.data._tensors import in_numpy_dtype
from sklearn_skmm.utils._validation import computing_in_numpy


class ArraySource(Source):
    """Everything that scikit-learn's validation takes, or refuses with its own message."""

    @staticmethod
    def recognises(X: Any, reader: Reader) -> bool:
        """Whether this is for scikit-learn to judge: always."""
        return True

    @staticmethod
    def open(X: Any, reader: Reader) -> Samples:
        """Return rows of finite numbers, or the numeric inputs of a model."""
        X = in_numpy_dtype(X, reader.name)
        if not reader.rows:
            return Samples(_numeric(X, reader))
        if (
            reader.peak_bytes is not None
            and isinstance(X, np.ndarray)
            and X.dtype.kind in "biuf"
            and X.ndim == 2
            and X.size
        ):
            check_fits(reader.estimator, X.shape, reader.peak_bytes(X))
        check_values(X, reader.name)
        options = {
            "accept_sparse": "csr" if reader.sparse else False,
            "dtype": list(reader.dtypes),
            "order": "C" if reader.contiguous else None,
        }
        # scikit-learn looks for infinities after a cast, in a sum that may be inf - inf.
        with computing_in_numpy(), np.errstate(invalid="ignore", over="ignore"):
            if reader.estimator is None:
                X = check_array(X, input_name=reader.name, **options)
            else:
                X = validate_data(reader.estimator, X, reset=reader.reset, **options)
        if reader.squares:
            check_range(X, reader.name)
        return Samples(X)


def _numeric(X: Any, reader: Reader) -> np.ndarray:
    """Return an array of any numeric dtype: tokens are integers, images have four dimensions."""
    check_values(X, reader.name)
    if getattr(X, "ndim", 2) <= 2:  # data frames, too
        return validate_data(reader.estimator, X, reset=reader.reset, dtype="numeric")
    return check_array(
        X, allow_nd=True, dtype="numeric", input_name=reader.name, estimator=reader.estimator
    )
