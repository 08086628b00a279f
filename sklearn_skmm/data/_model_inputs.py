"""Inputs of a torch model that are not for NumPy to read: tensors, mappings, data sets, loaders."""

import sys
from typing import Any

from sklearn_skmm.data._checks import check_values
from sklearn_skmm.data._samples import Reader, Samples, Source


class ModelInputSource(Source):
    """What torch reads better than NumPy. `sketch._torch` makes batches of it."""

    @staticmethod
    def recognises(X: Any, reader: Reader) -> bool:
        """Whether X is the input of a model, and neither a list nor an array of NumPy's kind."""
        if reader.rows or isinstance(X, list):
            return False
        torch = sys.modules.get("torch")
        return not hasattr(X, "__array__") or (torch is not None and isinstance(X, torch.Tensor))

    @staticmethod
    def open(X: Any, reader: Reader) -> Samples:
        """Return X as it is."""
        check_values(X, reader.name)
        return Samples(X)
