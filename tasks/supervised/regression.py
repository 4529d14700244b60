"""Regression of numbers from a stream, in standardized units; predictions are in the columns'
units.

Legend: `B` rows, `K` columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.regression import r2_score

from ...modalities.base import Loss
from ..base import Context, Metrics, Row, Task, Unit
from ..batch import Batch, Example, Tools
from ..common import head_output
from ..uses import HeadUse, StreamUse
from .standardizer import Standardizer

ERRORS = {"mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss}


class Regression(Task):
    """input: the stream. target: a column of numbers, or several. error: squared, or smooth L1
    (squared up to one standard deviation, absolute beyond)."""

    ability: ClassVar[str] = "regress"

    head_types: ClassVar[Mapping[str, str]] = {"head": "linear"}

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
        scale.set_columns(columns)
        self.input, self.streams = input, {input: StreamUse()}
        self.scale, self.error = scale, error

    @property
    def head_uses(self) -> Mapping[str, HeadUse]:
        return {"head": HeadUse(stream=self.input, out_dim=len(self.scale.columns))}

    def columns(self) -> tuple[str, ...]:
        return self.scale.columns

    def prepare(self, row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        """Label: `target`, `[K]` in standardized units. Reference: the numbers by column. Neither
        if the row has none of the columns."""
        if not any(column in row for column in self.scale.columns):
            return Example()
        numbers = self.scale.read(row)
        target = self.scale.encode(torch.tensor(numbers, dtype=torch.float64)).float()
        reference = dict(zip(self.scale.columns, numbers, strict=True))
        return Example({"target": target}, reference)

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        """Return the mean over columns, summed over rows, in standardized units."""
        target = batch.label("target", f"has no number; add {', '.join(self.columns())}")
        errors = ERRORS[self.error](self._output(ctx), target, reduction="none")  # [B, K]
        return Loss(errors.mean(1).sum(), len(batch))

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        """Return a number for each column, in its units."""
        numbers = self.scale.decode(self._output(ctx).cpu().double())
        return [dict(zip(self.columns(), row, strict=True)) for row in numbers.tolist()]

    def units(self, batch: Batch, ctx: Context) -> list[Unit]:
        """Return the numbers of the first row."""
        numbers = self.predict(batch, ctx)[0].items()
        return [Unit(f"{name} {number:.4g}", k) for k, (name, number) in enumerate(numbers)]

    def unit_scores(self, batch: Batch, ctx: Context, units: Sequence[Unit]) -> Tensor:
        """Return `[B, U]`, the numbers in standardized units."""
        return self._output(ctx).float()[:, [unit.target for unit in units]]

    def metrics(self) -> Metrics:
        return NumberMetrics(self.columns())

    def example_rows(self) -> list[dict[str, Any]]:
        return [dict.fromkeys(self.columns(), number) for number in (1.0, 2.5)]

    def _output(self, ctx: Context) -> Tensor:
        return head_output(self, "head", ctx.encode(self.input))


class NumberMetrics:
    """mae, rmse (in the column's units) and r2; with several columns `<column>/mae` and so on.

    r2 is NaN if it is not defined: for fewer than two rows, or a constant target.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self.predictions: list[list[float]] = []
        self.targets: list[list[float]] = []

    def update(
        self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
    ) -> None:
        """Predictions and references of the same rows. Raise ValueError if a number is missing."""
        if any(column not in row for row in references for column in self.columns):
            raise ValueError(
                f"number metrics: a row lacks {', '.join(self.columns)}; evaluate on data that "
                "has them"
            )
        self.predictions += [[row[column] for column in self.columns] for row in predictions]
        self.targets += [[row[column] for column in self.columns] for row in references]

    def compute(self) -> dict[str, float]:
        if not self.predictions:
            raise ValueError("number metrics: no row was accumulated; is the split empty?")
        predictions = torch.tensor(self.predictions, dtype=torch.float64)  # [N, K]
        targets = torch.tensor(self.targets, dtype=torch.float64)
        values = {}
        for place, column in enumerate(self.columns):
            name = f"{column}/" if len(self.columns) > 1 else ""
            a, b = predictions[:, place], targets[:, place]
            values[f"{name}mae"] = float((a - b).abs().mean())
            values[f"{name}rmse"] = float((a - b).square().mean().sqrt())
            defined = len(b) > 1 and bool((b != b[0]).any())
            values[f"{name}r2"] = float(r2_score(a, b)) if defined else float("nan")
        return values
