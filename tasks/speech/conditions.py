"""What is known of a row beforehand (its language, what is asked of it), as places in a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...modalities.base import Fittable
from ..base import Row


class CategoryEncoder(Fittable):
    """The values of some columns, which its task names by `bind`; learned from the training split.

    Place 0 of a column stands for "not known", the values follow in sorted order.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.values)

    def bind(self, columns: Sequence[str]) -> None:
        """Read these columns; ValueError where others were fitted."""
        if self.values and list(self.values) != list(columns):
            raise ValueError(
                f"condition: was fitted on {', '.join(self.values)}, the task names "
                f"{', '.join(columns) or 'none'}; train again, or name the old columns"
            )
        self.values = self.values or {column: [] for column in columns}

    def fit(self, rows: Iterable[Row]) -> None:
        if not self.values:
            return
        found: dict[str, set[str]] = {column: set() for column in self.values}
        for row in rows:
            for column, seen in found.items():
                if column not in row:
                    raise ValueError(
                        f"condition: the column {column!r} is not in the row, which has "
                        f"{', '.join(map(repr, row))}; map it in `columns`"
                    )
                seen.add(str(row[column]))
        self.values = {column: sorted(seen) for column, seen in found.items()}

    def state(self) -> dict[str, Any]:
        return {"values": self.values}

    def load_state(self, state: Mapping[str, Any]) -> None:
        bound, self.values = list(self.values), {k: list(v) for k, v in state["values"].items()}
        if bound:
            self.bind(bound)

    def read(self, row: Row) -> dict[str, int]:
        """The places of a row's values, without the columns that it lacks. ValueError for a value
        that the training split did not have."""
        return {column: self._place(column, row[column]) for column in self.values if column in row}

    def _place(self, column: str, value: object) -> int:
        known = self.values[column]
        if str(value) not in known:
            raise ValueError(
                f"condition: {value!r} in the column {column!r} was not in the training split, "
                f"which has {', '.join(map(repr, known[:10]))}; leave it out where it is not known"
            )
        return known.index(str(value)) + 1
