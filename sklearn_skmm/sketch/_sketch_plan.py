"""The sketch plan: how the gradient of each layer is computed and sketched."""

from typing import Any, NamedTuple

# Gradients with up to this many entries are formed and multiplied by a Gaussian Γ. Larger ones get
# a product sketch, at a fraction of the cost and up to twice the spread, or sparse signs.
MAX_FORMED_ENTRIES = 4096


class PlannedParameter(NamedTuple):
    """How the gradient of one parameter is computed and sketched."""

    name: str
    layer: str  # name of the module that owns it
    kind: str  # class of that module
    shape: tuple[int, int]  # (rows, cols) of the gradient
    source: str  # "hooks", "torch.func" or "loop"
    method: str  # "product", "gaussian" or "sparse_sign"
    positions: int  # tokens or pixels per sample, as observed on the first samples
    partner: str | None  # the weight whose product sketch this bias joins
    projection: Any  # the rows of Γ for this parameter
    signature: Any = None  # how it was used when autograd confirmed its hooks

    @property
    def r(self) -> int:
        """Number of entries of the gradient."""
        return self.shape[0] * self.shape[1]

    @property
    def cost(self) -> int:
        """Multiply-adds per sample to form and sketch the gradient."""
        if self.method == "product" and self.source == "hooks":
            width = self.projection.m * self.projection.terms
            return 0 if self.partner else self.positions * (sum(self.shape) + 1) * width
        return self.r * (self.positions + self.projection.per_row)


class PlannedLayer(NamedTuple):
    """One row of the plan: the parameters of a layer that are treated alike."""

    layer: str
    kind: str
    r: int  # entries of the gradient
    source: str
    method: str
    cost: int  # multiply-adds per sample


class SketchPlan(tuple[PlannedLayer, ...]):
    """The rows of the sketch plan, printed as a table.

    Examples
    --------
    >>> SketchPlan([PlannedLayer("head", "Linear", 100548, "hooks", "product", 363008)])
    layer  kind         r  source  method      cost
    head   Linear  100548  hooks   product   363008
    """

    def __repr__(self):
        """Return the table as text."""
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
        """Return a plan with one row for the parameters of a layer that are treated alike."""
        rows: dict[tuple, list[int]] = {}
        for p in parameters:
            row = rows.setdefault((p.layer, p.kind, p.source, p.method), [0, 0])
            row[0] += p.r
            row[1] += p.cost
        return cls(
            PlannedLayer(layer, kind, r, source, method, cost)
            for (layer, kind, source, method), (r, cost) in rows.items()
        )


class Plan(NamedTuple):
    """What `fit` decides, and `transform` needs."""

    parameters: list[PlannedParameter]  # of a model; empty without one
    projection: Any  # Γ
    table: SketchPlan
    seed: int
