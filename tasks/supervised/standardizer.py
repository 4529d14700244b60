"""Mean and standard deviation of columns of numbers, fitted on the training split.

Legend: `B` rows, `K` columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...modalities.base import Fittable
from ..base import Row


class Standardizer(Fittable):
    """Standardizes the columns named by `set_columns`.

    `encode`: (value - mean) / deviation, and `decode` back. A constant column has deviation 1, so
    that it is only shifted.
    """

    def __init__(self) -> None:
        self.columns: tuple[str, ...] = ()
        self.mean: list[float] = []
        self.std: list[float] = []

    def set_columns(self, columns: Sequence[str]) -> None:
        """Set the columns. Raise ValueError if others were fitted."""
        if self.mean and self.columns != tuple(columns):
            raise ValueError(
                f"scale: was fitted on {', '.join(self.columns)}, the target is "
                f"{', '.join(columns)}; train again, or name the old columns"
            )
        self.columns = tuple(columns)

    def check_example(self, example: Row) -> None:
        self.read(example)

    def fit(self, rows: Iterable[Row]) -> None:
        values = torch.tensor([self.read(row) for row in rows], dtype=torch.float64)  # [N, K]
        if not len(values):
            raise ValueError(f"scale: no row to learn {', '.join(self.columns)} from")
        std = values.std(0, unbiased=False)
        # By rounding, a constant column has a deviation of about 1e-16 of its size.
        constant = std <= 1e-12 * values.abs().amax(0)
        self.mean, self.std = values.mean(0).tolist(), std.masked_fill(constant, 1.0).tolist()

    def state(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "mean": self.mean, "std": self.std}

    def load_state(self, state: Mapping[str, Any]) -> None:
        bound, self.columns = self.columns, tuple(state["columns"])
        self.mean, self.std = list(state["mean"]), list(state["std"])
        self.set_columns(bound or self.columns)

    def read(self, row: Row) -> list[float]:
        """Return the `K` numbers of a row. Raise ValueError if one is missing or not finite."""
        return [self._number(row, column) for column in self.columns]

    def encode(self, values: Tensor) -> Tensor:
        """Standardize `[B, K]`."""
        return (values - values.new_tensor(self.mean)) / values.new_tensor(self.std)

    def decode(self, values: Tensor) -> Tensor:
        """Return `[B, K]` in the columns' units."""
        return values * values.new_tensor(self.std) + values.new_tensor(self.mean)

    def _number(self, row: Row, column: str) -> float:
        if column not in row:
            known = ", ".join(map(repr, row)) or "no column"
            raise ValueError(
                f"the column {column!r} is not in the row, which has {known}; map it in `columns`"
            )
        try:
            number = float(row[column])
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(
                f"the column {column!r} holds {row[column]!r}, expected a finite number; leave "
                "the row out, or fill it in"
            )
        return number
