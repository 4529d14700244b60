"""What is wrong with a single row: the errors that fail it, and the checks of its cells."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ...modalities.base import ReadError, Unreadable
from ...tasks.base import Row, Task

FAILURES = (Exception,)
"""Errors of a row: code of libraries and plug-ins may raise any."""


def readable(row: Row, used: Collection[str]) -> Row:
    """Return a row without the cells that the source could not decode. Raise ReadError if one of
    them is in a column that is used."""
    unreadable = {name: cell for name, cell in row.items() if isinstance(cell, Unreadable)}
    for name, cell in unreadable.items():
        if name in used:
            raise ReadError(f"column {name!r}", cell.reason, "a cell that can be decoded")
    return (
        {name: cell for name, cell in row.items() if name not in unreadable} if unreadable else row
    )


def check_nulls(row: Row, task: Task) -> None:
    """Raise ReadError if a column that the task reads is null, or a list with a null in it."""
    for name in task.columns():
        cell = row.get(name, "")
        null = cell is None or (isinstance(cell, (list, tuple)) and any(v is None for v in cell))
        if null and name not in task.nullable():
            wrong = "is null" if cell is None else "holds a null"
            raise ReadError(f"column {name!r}", wrong, "a value")


def cell_items(cell: Any, many: bool) -> Sequence[Any]:
    """Return the raw values of a cell: itself, or those of a list. Raise ReadError."""
    if not many:
        return (cell,)
    if not isinstance(cell, (list, tuple)):
        raise ReadError(cell, "is one value", "a list of items, which may be empty")
    return cell
