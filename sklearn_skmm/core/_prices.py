"""Prices of candidates, and what a budget pays for."""

from typing import NamedTuple

import numpy as np


class Prices(NamedTuple):
    """What candidates cost, and how much may be spent on those that are selected."""

    price: np.ndarray  # (N,), positive
    budget: float
    relative: bool  # whether gains are compared per price

    def unaffordable(self, bought: list[int]) -> np.ndarray:
        """Return a mask of the candidates that what is left does not pay for."""
        left = self.budget * (1.0 + 1e-12) - self.price[bought].sum()
        return self.price > left


def affordable(cost: np.ndarray, budget: float) -> int:
    """Return how many samples the budget pays for at most: those that cost least.

    `cost` has shape (N,).

    Raises
    ------
    ValueError
        If the budget is below the smallest cost.

    Examples
    --------
    >>> import numpy as np
    >>> affordable(np.array([5.0, 1.0, 2.0]), 3.5)
    2
    """
    n = int(np.searchsorted(np.cumsum(np.sort(cost)), budget * (1.0 + 1e-12), side="right"))
    if not n:
        raise ValueError(
            f"budget={budget:g} must be at least the smallest cost of a sample that can be "
            f"selected, which is {cost.min():g}."
        )
    return n
