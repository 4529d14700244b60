"""Regression: numbers from a stream, learned in standardised units, told in the columns' own.

Legend: `B` rows, `K` columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.regression import r2_score

from ..backbones.base import Backbone
from ._heads import head_output
from .base import Batch, Encode, Loss, Metrics, Row, Task
from .standardizer import Standardizer

ERRORS = {"mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss}


class Regression(Task):
    """input: the stream. target: a column of numbers, or several. error: squared, or smooth L1
    (squared up to one standard deviation, absolute beyond)."""

    head_names: ClassVar[tuple[str, ...]] = ("head",)

    def __init__(
        self,
        *,
        input: str,
        target: str | list[str],
        scale: Standardizer,
        error: Literal["smooth_l1", "mse"] = "smooth_l1",
    ) -> None:
        super().__init__()
        columns = [target] if isinstance(target, str) else target
        if not columns or len(set(columns)) < len(columns):
            raise ValueError(f"target: found {target!r}, expected one column or more, each once")
        scale.bind(columns)
        self.streams = (input,)
        self.scale, self.error = scale, error

    def head_widths(self) -> dict[str, tuple[str, int]]:
        return {"head": (self.streams[0], len(self.scale.columns))}

    def columns(self) -> tuple[str, ...]:
        return self.scale.columns

    def targets(self, row: Row) -> dict[str, Any]:
        """The numbers by column; nothing where the row has none of the columns."""
        if not any(column in row for column in self.scale.columns):
            return {}
        return dict(zip(self.scale.columns, self.scale.read(row), strict=True))

    def loss(self, batch: Batch, encode: Encode, backbone: Backbone | None) -> Loss:
        """Mean over columns, sum over rows, in standardised units."""
        for key, target in zip(batch.keys, batch.targets, strict=True):
            if not target:
                raise ValueError(f"row {key!r}: has no number; add {', '.join(self.columns())}")
        rows = [[target[column] for column in self.columns()] for target in batch.targets]
        wanted = self.scale.encode(torch.tensor(rows, dtype=torch.float64)).float()
        found = self._found(encode)  # [B, K]
        each = ERRORS[self.error](found, wanted.to(found.device), reduction="none")
        return Loss(each.mean(1).sum(), len(batch))

    def predict(
        self, batch: Batch, encode: Encode, backbone: Backbone | None, **options: Any
    ) -> list[dict[str, float]]:
        """A number a column, in the column's units."""
        found = self.scale.decode(self._found(encode).cpu().double())
        return [dict(zip(self.columns(), row, strict=True)) for row in found.tolist()]

    def metrics(self) -> Metrics:
        return NumberMetrics(self.columns())

    def example(self) -> list[dict[str, Any]]:
        return [dict.fromkeys(self.columns(), number) for number in (1.0, 2.5)]

    def _found(self, encode: Encode) -> Tensor:
        return head_output(self, "head", encode(self.streams[0]))


class NumberMetrics:
    """mae, rmse (in the column's units) and r2; with several columns `<column>/mae` and so on.

    r2 is nan where it is not defined: fewer than two rows, or a target that never changes.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self.found: list[list[float]] = []
        self.wanted: list[list[float]] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]
    ) -> None:
        """Predictions and targets of the same rows; ValueError where a target is missing."""
        if any(column not in target for target in targets for column in self.columns):
            raise ValueError(
                f"number metrics: a row lacks {', '.join(self.columns)}; evaluate on data that "
                "has them"
            )
        self.found += [[row[column] for column in self.columns] for row in predictions]
        self.wanted += [[row[column] for column in self.columns] for row in targets]

    def compute(self) -> dict[str, float]:
        if not self.found:
            raise ValueError("number metrics: no row was accumulated; is the split empty?")
        found = torch.tensor(self.found, dtype=torch.float64)  # [N, K]
        wanted = torch.tensor(self.wanted, dtype=torch.float64)
        values = {}
        for place, column in enumerate(self.columns):
            name = f"{column}/" if len(self.columns) > 1 else ""
            a, b = found[:, place], wanted[:, place]
            values[f"{name}mae"] = float((a - b).abs().mean())
            values[f"{name}rmse"] = float((a - b).square().mean().sqrt())
            defined = len(b) > 1 and bool((b != b[0]).any())
            values[f"{name}r2"] = float(r2_score(a, b)) if defined else float("nan")
        return values
