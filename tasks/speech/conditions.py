"""Conditions of a row (its language, its task) as indices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...modalities.base import Fittable
from ..base import Row


class CategoryEncoder(Fittable):
    """Encodes the values of the columns named by `set_columns`; fitted on the training split.

    Index 0 of a column is an unknown value; the values follow in sorted order.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.values)

    def set_columns(self, columns: Sequence[str]) -> None:
        """Set the columns. Raise ValueError if others were fitted."""
        if self.values and list(self.values) != list(columns):
            raise ValueError(
                f"condition: was fitted on {', '.join(self.values)}, the task names "
                f"{', '.join(columns) or 'none'}; train again, or name the old columns"
            )
        self.values = self.values or {column: [] for column in columns}

    def fit(self, rows: Iterable[Row]) -> None:
        if not self.values:
            return
        values_of: dict[str, set[str]] = {column: set() for column in self.values}
        for row in rows:
            for column, values in values_of.items():
                if column not in row:
                    raise ValueError(
                        f"condition: the column {column!r} is not in the row, which has "
                        f"{', '.join(map(repr, row))}; map it in `columns`"
                    )
                values.add(str(row[column]))
        self.values = {column: sorted(values) for column, values in values_of.items()}

    def state(self) -> dict[str, Any]:
        return {"values": self.values}

    def load_state(self, state: Mapping[str, Any]) -> None:
        bound, self.values = list(self.values), {k: list(v) for k, v in state["values"].items()}
        if bound:
            self.set_columns(bound)

    def read(self, row: Row) -> dict[str, int]:
        """Return the indices of a row's values, without missing columns. Raise ValueError for a
        value that the training split did not have."""
        return {column: self._index(column, row[column]) for column in self.values if column in row}

    def _index(self, column: str, value: object) -> int:
        values = self.values[column]
        if str(value) not in values:
            raise ValueError(
                f"condition: {value!r} in the column {column!r} was not in the training split, "
                f"which has {', '.join(map(repr, values[:10]))}; leave it out where it is not known"
            )
        return values.index(str(value)) + 1
