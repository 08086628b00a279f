"""Torch tensors that NumPy cannot read as they are. Torch itself is not imported here."""

import sys
from typing import Any


def in_numpy_dtype(X: Any, name: str) -> Any:
    """Return a tensor that NumPy can read, and anything else as it is.

    NumPy has no bfloat16, so that this is cast to single precision, and it reads no tensor that
    requires a gradient.

    Parameters
    ----------
    X : object
        A torch tensor, a list of tensors, or anything else.
    name : str
        The argument, as messages call it.

    Returns
    -------
    X : object
        The tensor or tensors, detached and in a dtype that NumPy has.

    Raises
    ------
    TypeError, ValueError
        If the tensor is sparse, nested or on the meta device.

    Examples
    --------
    >>> import torch
    >>> in_numpy_dtype(torch.ones(2, dtype=torch.bfloat16, requires_grad=True), "X")
    tensor([1., 1.])
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return X
    if isinstance(X, list | tuple) and X and all(isinstance(row, torch.Tensor) for row in X):
        return [in_numpy_dtype(row, name) for row in X]
    if not isinstance(X, torch.Tensor):
        return X
    check_has_values(X, name)
    X = X.detach()
    if X.is_floating_point() and X.dtype not in (torch.float16, torch.float32, torch.float64):
        return X.float()
    return X


def check_has_values(X: Any, name: str) -> None:
    """Refuse tensors that are sparse, nested or on the meta device."""
    if X.is_nested:
        raise ValueError(f"{name} has rows of unequal length, as a nested tensor.")
    if X.layout != sys.modules["torch"].strided:
        raise TypeError(
            f"Sparse data was passed for {name}, a torch tensor with layout {X.layout}, but dense "
            "data is required. Use its method to_dense, or a sparse array of SciPy where that is "
            "accepted."
        )
    if X.is_meta:
        raise ValueError(
            f"{name} must hold numbers. Got a tensor on the meta device, which has none, instead."
        )
