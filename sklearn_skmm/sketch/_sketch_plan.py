"""What is done with the parameters of a model, one row for each layer."""

from typing import Any, NamedTuple

# A gradient with so many entries is formed and multiplied by a Gaussian Γ. Of larger ones a product
# sketch is taken, at a fraction of the cost and up to twice the spread, or sparse signs.
MAX_FORMED_ENTRIES = 4096


class PlannedParameter(NamedTuple):
    """How the gradient of one parameter is found and sketched."""

    name: str
    layer: str  # name of the module that holds it
    kind: str  # class of that module
    shape: tuple[int, int]  # (rows, cols) of the gradient
    source: str  # "hooks", "torch.func" or "loop"
    method: str  # "product", "gaussian" or "sparse_sign"
    positions: int  # tokens or pixels per sample, seen on the first samples
    partner: str | None  # the weight whose product sketch this bias joins
    projection: Any  # its rows of Γ
    signature: Any = None  # how it was used when its hooks were confirmed

    @property
    def r(self) -> int:
        """Number of entries."""
        return self.shape[0] * self.shape[1]

    @property
    def cost(self) -> int:
        """Multiply-adds per sample for forming and sketching the gradient."""
        if self.method == "product" and self.source == "hooks":
            width = self.projection.m * self.projection.terms
            return 0 if self.partner else self.positions * (sum(self.shape) + 1) * width
        return self.r * (self.positions + self.projection.per_row)


class PlannedLayer(NamedTuple):
    """One row of the plan: a layer, or what of it is treated alike."""

    layer: str
    kind: str
    r: int  # entries of the gradient
    source: str
    method: str
    cost: int  # multiply-adds per sample


class SketchPlan(tuple[PlannedLayer, ...]):
    """The rows of the plan; prints as a table.

    Examples
    --------
    >>> SketchPlan([PlannedLayer("head", "Linear", 100548, "hooks", "product", 363008)])
    layer  kind         r  source  method      cost
    head   Linear  100548  hooks   product   363008
    """

    def __repr__(self):
        """Return the table."""
        rows = [PlannedLayer._fields, *(tuple(map(str, row)) for row in self)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        numbers = (2, 5)
        return "\n".join(
            "  ".join(
                cell.rjust(w) if i in numbers else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )

    @classmethod
    def of(cls, parameters: list[PlannedParameter]) -> "SketchPlan":
        """Sum up parameters of one layer that are treated alike."""
        rows: dict[tuple, list[int]] = {}
        for p in parameters:
            row = rows.setdefault((p.layer, p.kind, p.source, p.method), [0, 0])
            row[0] += p.r
            row[1] += p.cost
        return cls(
            PlannedLayer(layer, kind, r, source, method, cost)
            for (layer, kind, source, method), (r, cost) in rows.items()
        )
