"""The classes of a column, learned from the training split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...modalities.base import Fittable
from ..base import Row

Label = int | str | bool


class LabelEncoder(Fittable):
    """Reads one column, which its task names by `bind` before it is fitted. A cell is one label
    (text, integer or truth value), or a list of them. Classes stand in sorted order.

    `fit` raises ValueError where there are fewer than two classes, or labels of different
    types; `index` where a label was not in the training split.
    """

    def __init__(self) -> None:
        self.column = ""
        self._places: dict[Label, int] = {}

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def classes(self) -> list[Label]:
        """The classes in order; ValueError before they are known."""
        if not self._places:
            raise ValueError(f"labels: the column {self.column!r} was not fitted yet; call `fit`")
        return list(self._places)

    def bind(self, column: str) -> None:
        """Read this column; ValueError where another one was fitted."""
        if self._places and self.column != column:
            raise ValueError(
                f"labels: were fitted on the column {self.column!r}, the target is {column!r}; "
                "train again, or name the old column"
            )
        self.column = column

    def fit(self, rows: Iterable[Row]) -> None:
        found: dict[type, set[Label]] = {}
        for row in rows:
            for label in self.read(row):
                found.setdefault(type(label), set()).add(label)
        if len(found) > 1:
            kinds = " and ".join(
                f"{kind.__name__} ({min(known)!r})" for kind, known in found.items()
            )
            raise ValueError(
                f"labels: the column {self.column!r} mixes {kinds}; make them of one type"
            )
        classes = sorted(*found.values()) if found else []
        if len(classes) < 2:
            raise ValueError(
                f"labels: the column {self.column!r} of the training split has {len(classes)} "
                f"classes {classes}, expected at least 2"
            )
        self._places = {label: place for place, label in enumerate(classes)}

    def state(self) -> dict[str, Any]:
        return {"column": self.column, "classes": list(self._places)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        bound, self.column = self.column, state["column"]
        self._places = {label: place for place, label in enumerate(state["classes"])}
        self.bind(bound or self.column)

    def read(self, row: Row) -> list[Label]:
        """The labels of a row's cell, as plain Python values; ValueError where it has none."""
        if self.column not in row:
            known = ", ".join(map(repr, row)) or "no column"
            raise ValueError(
                f"labels: the column {self.column!r} is not in the row, which has {known}; "
                "map it in `columns`"
            )
        cell = row[self.column]
        return [self._plain(v) for v in (cell if isinstance(cell, (list, tuple)) else [cell])]

    def index(self, label: Label) -> int:
        """The place of a class; ValueError for one that the training split did not have."""
        if label not in self._places or type(label) is not type(next(iter(self._places))):
            known = ", ".join(map(repr, self.classes[:10]))
            more = ", ..." if len(self) > 10 else ""
            raise ValueError(
                f"labels: {label!r} in the column {self.column!r} was not in the training split, "
                f"which has {len(self)} classes ({known}{more}); relabel the row, or train with it"
            )
        return self._places[label]

    def _plain(self, value: Any) -> Label:
        found = value.item() if hasattr(value, "item") else value  # a numpy scalar
        if not isinstance(found, (bool, int, str)):
            raise ValueError(
                f"labels: the column {self.column!r} holds {value!r} ({type(value).__name__}), "
                "expected a text, an integer or a truth value"
            )
        return found
