"""Values of a row of data besides its signal, as columns of a table: scalars and texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..utils import RuntimeFailure
from .base import DATA, FILES, IDENTITY, KEY, RESERVED_COLUMNS, ROW, SPLIT, VECTOR, Entry, Scalar
from .forms import VectorForm

TYPES: dict[type, Any] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
}


def columns_of(row: Mapping[str, Any]) -> tuple[dict[str, Scalar | None], list[str]]:
    """Return the scalars and texts of a row, and the names of the other columns (a list, a picture)
    or would take the place of a column that every index has. A `Path` names a signal, as a
    picture's pixels do, and is neither; so is the split, which has its own column."""
    scalars: dict[str, Scalar | None] = {}
    dropped: list[str] = []
    for name, value in row.items():
        if isinstance(value, Path) or name == SPLIT:
            continue
        scalar = _to_scalar(value)
        if (
            name in RESERVED_COLUMNS
            or name.startswith("_row")
            or (scalar is None and value is not None)
        ):
            dropped.append(name)
        else:
            scalars[name.replace(".", "_")] = scalar
    return scalars, dropped


def _to_scalar(value: Any) -> Scalar | None:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return text(value)
    return value if isinstance(value, (bool, int, float)) else None


def text(value: str) -> str:
    """As UTF-8 can hold it: a file's name need not be."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def check_unique(entries: Sequence[Entry]) -> None:
    """Raise RuntimeFailure where two rows of one data set have one key: an index would keep one of
    them."""
    row_of: dict[tuple[str, str], int] = {}
    for entry in entries:
        other = row_of.setdefault((entry.data, text(entry.key)), entry.row)
        if other != entry.row:
            raise RuntimeFailure(same_key_message(other, entry.row, entry.key))


def same_key_message(first: int, second: int, key: str) -> str:
    """Return one line about two rows of one key."""
    return f"rows {first} and {second} are both called {key!r}; a row's key must be its own"


def new_fields(entries: Sequence[Entry], schema: Any) -> list[Any]:
    """Fields for columns that the schema lacks; one without any value is left for later."""
    existing = set(schema.names)
    types: dict[str, Any] = {}
    for entry in entries:
        for name, value in entry.columns.items():
            if name in existing or value is None:
                continue
            type_ = TYPES[type(value)]
            if types.get(name) == pa.int64() and type_ == pa.float64():
                types[name] = type_
            types.setdefault(name, type_)
    return [pa.field(name, kind) for name, kind in types.items()]


def arrow_table(entries: Sequence[Entry], schema: Any, form: VectorForm) -> Any:
    """Return rows as a table of the schema; RuntimeFailure for a value that its column cannot
    take."""
    reserved: dict[str, list[Any]] = {
        KEY: [text(e.key) for e in entries],
        SPLIT: [e.split for e in entries],
        DATA: [e.data for e in entries],
        ROW: [e.row for e in entries],
        IDENTITY: [e.identity for e in entries],
        FILES: [[text(path) for path in e.files] for e in entries],
    }
    arrays = {
        VECTOR: form.array([entry.vector for entry in entries]),
        **{f.name: _array(entries, f, reserved.get(f.name)) for f in schema if f.name != VECTOR},
    }
    return pa.Table.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _array(entries: Sequence[Entry], field: Any, values: list[Any] | None) -> Any:
    cells = values or [entry.columns.get(field.name) for entry in entries]
    try:
        return _exact_array(cells, field.type)
    except (pa.ArrowException, OverflowError, ValueError) as error:
        bad = next(_misfits(entries, cells, field), "")
        raise RuntimeFailure(
            f"{bad}the column {field.name!r} holds {field.type}: {error}; map another column "
            "to it, or begin a new index"
        ) from error


def _exact_array(values: Sequence[Any], kind: Any) -> Any:
    """Return values as an array of a type, each equal to the original: Arrow cuts 1.5 to 1 where a
    column holds integers. Raise ValueError."""
    array = pa.array(values, type=kind)
    for value, stored in zip(values, array.to_pylist(), strict=True):
        # What is no number is not equal to itself.
        if stored != value and not (value != value and stored != stored):
            raise ValueError(f"{value!r} would become {stored!r}")
    return array


def _misfits(entries: Sequence[Entry], values: Sequence[Any], field: Any) -> Iterator[str]:
    for entry, value in zip(entries, values, strict=True):
        try:
            _exact_array([value], field.type)
        except (pa.ArrowException, OverflowError, ValueError):
            yield f"row {entry.key}: "
