"""`data.where`: which rows of a source are used, by the values of their columns.

    where:
      language: en                      # equal
      label: [cat, dog]                 # one of
      seconds: {min: 1, max: 20}        # a range, both ends included
      caption: {not: null}              # anything but; also {not: [a, b]}

A row is used if it meets all conditions. Null meets `null` and `not` alone. A cell that cannot be
compared (a text with a number) makes the row one that cannot be read: reported or counted.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from ...modalities.base import Source, StreamingSource, Unreadable
from ...modalities.messages import did_you_mean, short_repr
from ..utils import ConfigError
from .row_errors import FAILURES
from .wrappers import Subset, column_names

BOUNDS = ("min", "max", "not")
_TIMES = ("a date", "a time", "a time with its zone")


_NAME = re.compile(r"[\w.-]*")
_COMPARISON = re.compile(r"\[?\s*(\w+)(?:\s*(==?|!=|>=?|<=?)\s*|\s+(is|in)\s+)(.+?)\s*\]?")
_SIGNED = re.compile(r"\s*(!=|[<>]=?|==?)\s*(\S.*?)\s*")
_WRITTEN = {
    "!=": "{{not: {0}}}",
    ">=": "{{min: {0}}}",
    "<=": "{{max: {0}}}",
    ">": "{{min: {0}, not: {0}}}",  # bounds are included
    "<": "{{max: {0}, not: {0}}}",
}


@contextlib.contextmanager
def split_errors(split: object) -> Iterator[None]:
    """Add how rows are chosen to an error about a `split` that is no name (`label=3`, a slice of a
    source without slices, a mapping)."""
    try:
        yield
    except ConfigError as error:
        text = str(error)
        about = ".split: " in text or (isinstance(split, str) and split in text)
        if split is None or (isinstance(split, str) and _NAME.fullmatch(split)):
            raise
        if not about or "where:" in text:
            raise
        written = _as_where(split)
        cure = f"; split: is a name; choose rows by their values with where: {written}, or some of "
        raise ConfigError(f"{text}{cure}them with limit: or holdout:") from error


def _as_where(split: object) -> str:
    """Return a filter that was written as a split, `n >= 5`, as `where` has it, `{n: {min: 5}}`; an
    example if it is none."""
    if isinstance(split, Mapping):
        pairs = ", ".join(f"{key}: {value}" for key, value in split.items())
        return f"{{{pairs}}}"
    match = _COMPARISON.fullmatch(split.strip()) if isinstance(split, str) else None
    if match is None:
        return "{column: value}"
    column, sign, _, value = match.groups()
    return f"{{{column}: {_WRITTEN.get(sign, '{}').format(value)}}}"


class Condition:
    """The condition on the cells of one column. Raise ValueError for one that is invalid."""

    def __init__(self, column: str, value: Any) -> None:
        self.column, self.low, self.high = column, None, None
        self.one_of: list[Any] | None = None
        self.none_of: list[Any] = []
        if not isinstance(value, Mapping):
            self.one_of = self._values(value)
            signed = _SIGNED.fullmatch(value) if isinstance(value, str) else None
            if signed is not None:
                written = _WRITTEN.get(signed[1], "{0}").format(signed[2])
                raise ValueError(f"where.{column}: found {value!r}; write {written}")
            return
        for key in value:
            if key not in BOUNDS:
                near = did_you_mean(str(key), BOUNDS)
                raise ValueError(f"where.{column}: there is no {key!r}{near}")
        if not value:
            raise ValueError(f"where.{column}: is empty, expected {', '.join(BOUNDS)}")
        self.low, self.high = value.get("min"), value.get("max")
        if "not" in value:
            self.none_of = self._values(value["not"])
        for key, bound in (("min", self.low), ("max", self.high)):
            if key in value and _kind(bound) not in ("a number", "a text", *_TIMES):
                raise ValueError(
                    f"where.{column}.{key}: found {bound!r}, expected a number, text or date"
                )

    def _values(self, value: Any) -> list[Any]:
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        wrong = [v for v in values if v is not None and _kind(v) not in _PLAIN]
        if wrong or not values:
            invalid = short_repr(wrong[0]) if wrong else "an empty list"
            raise ValueError(f"where.{self.column}: found {invalid}, expected texts or numbers")
        return values

    def holds(self, cell: Any) -> bool:
        """Return whether a cell meets the condition. Raise ValueError if it cannot be compared."""
        if isinstance(cell, Unreadable):
            raise ValueError(cell.reason)
        cell = cell.item() if isinstance(cell, np.generic) else cell
        bounded = self.low is not None or self.high is not None
        if cell is None or (isinstance(cell, float) and cell != cell):  # null, or NaN
            meets = self.one_of is None or None in self.one_of
            return meets and not bounded and None not in self.none_of
        for other in (*(self.one_of or ()), *self.none_of, self.low, self.high):
            if other is not None and _kind(other) != _kind(cell):
                raise ValueError(
                    f"where.{self.column}: the cell is {_kind(cell)} ({short_repr(cell)!s}), the "
                    f"condition names {_kind(other)} ({other!r})"
                )
        if self.one_of is not None and cell not in self.one_of:
            return False
        above = self.low is None or cell >= self.low
        return above and (self.high is None or cell <= self.high) and cell not in self.none_of


_PLAIN = ("a number", "a text", "true or false", *_TIMES)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float, Decimal)):
        return "a number"
    if isinstance(value, datetime):
        return "a time" if value.tzinfo is None else "a time with its zone"
    if isinstance(value, date):
        return "a date"
    return "a text" if isinstance(value, str) else f"a {type(value).__name__}"


def filter_rows(source: Source, where: Mapping[str, Any]) -> tuple[np.ndarray, dict[int, str]]:
    """Return the rows that meet all conditions, and of those that cannot be compared the reason.
    A row that cannot be read or compared is among both: it fails when it is used."""
    conditions = _conditions(source, where)
    rows, faults = [], {}
    for index in range(len(source)):
        try:
            if all(c.holds(source.cell(index, c.column)) for c in conditions):
                rows.append(index)
        except FAILURES as error:
            rows.append(index)
            faults[index] = source.faults.get(index, str(error))
    if not rows:
        raise ValueError(f"where: no row of {len(source)} meets {dict(where)}")
    return np.array(rows, np.int64), faults


def filtered(source: Source, where: Mapping[str, Any]) -> Source:
    """Return the rows of a source that meet all conditions, also of a stream."""
    if isinstance(source, StreamingSource):
        return FilteredStream(source, where)
    return Subset(source, *filter_rows(source, where))


class FilteredStream(StreamingSource):
    """The rows of a stream that meet all conditions."""

    def __init__(self, source: StreamingSource, where: Mapping[str, Any]) -> None:
        self.source, self.columns, self.where = source, source.columns, dict(where)
        self._conditions = _conditions(source, where)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.source:
            try:
                if all(c.holds(row[c.column]) for c in self._conditions):
                    yield row
            except FAILURES as error:
                yield dict.fromkeys(row, Unreadable(str(error)))

    def shards(self) -> Sequence[StreamingSource]:
        return [FilteredStream(shard, self.where) for shard in self.source.shards()]

    def fingerprint(self) -> str:
        return f"{self.source.fingerprint()}{sorted(self.where.items())}"


def _conditions(source: Source, where: Mapping[str, Any]) -> list[Condition]:
    columns = column_names(source)
    for column in where:
        if column not in columns:
            near = did_you_mean(column, columns)
            raise ValueError(f"where.{column}: there is no such column{near}")
    return [Condition(column, value) for column, value in where.items()]
