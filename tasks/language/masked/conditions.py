"""Vectors of a row's columns that are added to an encoder's states before the vocabulary: the
prediction knows the language, the encoder need not (LangSAMP, 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ....modalities.messages import did_you_mean
from ...base import Row
from ...batch import Batch


class Conditions(nn.Module):
    """values: of each column, in the order of their vectors."""

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        for column, names in values.items():
            if len(set(names)) < max(1, len(names)):
                raise ValueError(
                    f"conditions.{column}: found {', '.join(names) or 'no value'}, expected one "
                    "different value or more"
                )
        self.values = {column: list(names) for column, names in values.items()}
        self.tables = nn.ModuleDict()

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.values)

    def build(self, dim: int) -> None:
        """Create a vector `[dim]` for each value."""
        for column, names in self.values.items():
            table = nn.Embedding(len(names), dim)
            nn.init.normal_(table.weight, std=0.02)
            self.tables[column] = table

    def prepare(self, row: Row) -> dict[str, Tensor]:
        """Return the number of each value. Raise ValueError for one that is not listed."""
        labels: dict[str, Tensor] = {}
        for column, names in self.values.items():
            if column not in row:
                continue
            if row[column] not in names:
                raise ValueError(
                    f"{column}: found {row[column]!r}, which conditions.{column} does not list"
                    f"{did_you_mean(str(row[column]), names)}"
                )
            labels[f"condition.{column}"] = torch.tensor(names.index(row[column]))
        return labels

    def add(self, states: Tensor, batch: Batch) -> Tensor:
        """Return states `[B, L, D]` plus the vectors of each row; a column that no row has adds
        nothing."""
        for column, table in self.tables.items():
            key = f"condition.{column}"
            if key in batch.labels or key in batch.missing:
                numbers = batch.label(key, f"has no column {column}")
                states = states + table(numbers.to(states.device))[:, None]
        return states
