"""The classes of a column, fitted on the training split."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from ...modalities.base import Fittable
from ..base import Row

Label = int | str | bool


class LabelEncoder(Fittable):
    """Encodes the column named by `set_columns`. A cell is one label (text, integer or truth
    value), or a list of them. Classes are sorted.

    `fit` raises ValueError for fewer than two classes, labels of different types, or texts that
    differ by their Unicode form or by spaces alone; `index` for a
    label that the training split did not have.
    """

    def __init__(self) -> None:
        self.column = ""
        self._places: dict[Label, int] = {}

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def classes(self) -> list[Label]:
        """The classes in order. Raise ValueError before they are known."""
        if not self._places:
            raise ValueError(f"labels: the column {self.column!r} was not fitted yet; call `fit`")
        return list(self._places)

    def set_columns(self, column: str) -> None:
        """Set the column. Raise ValueError if another one was fitted."""
        if self._places and self.column != column:
            raise ValueError(
                f"labels: were fitted on the column {self.column!r}, the target is {column!r}; "
                "train again, or name the old column"
            )
        self.column = column

    def check_example(self, example: Row) -> None:
        self.read(example)

    def fit(self, rows: Iterable[Row]) -> None:
        labels_of_type: dict[type, set[Label]] = {}
        for row in rows:
            for label in self.read(row):
                labels_of_type.setdefault(type(label), set()).add(label)
        if len(labels_of_type) > 1:
            kinds = " and ".join(
                f"{kind.__name__} ({min(known)!r})" for kind, known in labels_of_type.items()
            )
            raise ValueError(
                f"labels: the column {self.column!r} mixes {kinds}; make them of one type"
            )
        classes = sorted(*labels_of_type.values()) if labels_of_type else []
        if len(classes) < 2:
            raise ValueError(
                f"labels: the column {self.column!r} of the training split has {len(classes)} "
                f"classes {classes}, expected at least 2"
            )
        self._check_alike(classes)
        self._places = {label: place for place, label in enumerate(classes)}

    def _check_alike(self, classes: Iterable[Label]) -> None:
        """Raise ValueError for two classes that look alike."""
        first: dict[str, Label] = {}
        for label in classes:
            text = " ".join(unicodedata.normalize("NFC", str(label)).split())
            other = first.setdefault(text, label)
            if other != label:
                raise ValueError(
                    f"labels: the column {self.column!r} has the classes {other!a} and {label!a}, "
                    "which differ by their Unicode form or by spaces alone; write both alike"
                )

    def state(self) -> dict[str, Any]:
        return {"column": self.column, "classes": list(self._places)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        bound, self.column = self.column, state["column"]
        self._places = {label: place for place, label in enumerate(state["classes"])}
        self.set_columns(bound or self.column)

    def read(self, row: Row) -> list[Label]:
        """Return the labels of a row's cell, as plain Python values. Raise ValueError if it has
        none."""
        if self.column not in row:
            known = ", ".join(map(repr, row)) or "no column"
            raise ValueError(
                f"labels: the column {self.column!r} is not in the row, which has {known}; "
                "map it in `columns`"
            )
        cell = row[self.column]
        return [self._to_json(v) for v in (cell if isinstance(cell, (list, tuple)) else [cell])]

    def index(self, label: Label) -> int:
        """Return the index of a class. Raise ValueError for one that the training split did not
        have."""
        if label not in self._places or type(label) is not type(next(iter(self._places))):
            known = ", ".join(map(repr, self.classes[:10]))
            more = ", ..." if len(self) > 10 else ""
            raise ValueError(
                f"labels: {label!r} in the column {self.column!r} was not in the training split, "
                f"which has {len(self)} classes ({known}{more}); relabel the row, or train with it"
            )
        return self._places[label]

    def _to_json(self, value: Any) -> Label:
        plain = value.item() if hasattr(value, "item") else value  # a numpy scalar
        if not isinstance(plain, (bool, int, str)):
            raise ValueError(
                f"labels: the column {self.column!r} holds {value!r} ({type(value).__name__}), "
                "expected a text, an integer or a truth value"
            )
        return plain
