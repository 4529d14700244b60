"""JSON as a source: lines, or one list of objects. Every cell is the file's value, with its
type."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ....modalities.messages import did_you_mean
from .files import ALL, FileRows, Files, read_bytes, repeated

_BOM = b"\xef\xbb\xbf"
_EXPONENT = re.compile(r"\d[eE]\+?\d{3}")
"""Numbers that a float may not hold."""


class Json(Files):
    """JSON lines, or one list of objects. field: the key of the list in a larger object."""

    def __init__(
        self,
        *,
        path: str | list[str],
        split: str = ALL,
        paths: list[str] | None = None,
        root: str | None = None,
        field: str | None = None,
    ) -> None:
        self.field = field
        super().__init__(path=path, split=split, paths=paths, root=root)

    def read_file(self, file: Path) -> FileRows:
        data = read_bytes(file).removeprefix(_BOM)
        if self.field is not None or data.lstrip()[:1] == b"[":
            return JsonList(file, data, self.field)
        return JsonLines(file, data)


class JsonLines(FileRows):
    """One object a line; blank lines are no rows. The bytes stay in memory, not the objects."""

    def __init__(self, file: Path, data: bytes) -> None:
        self.data = data
        self.faults: dict[int, str] = {}
        columns: dict[str, None] = {}
        spans: list[tuple[int, int]] = []
        for number, start, end in _lines(data):
            try:
                columns |= dict.fromkeys(parse_object(data[start:end]))
            except ValueError as error:
                self.faults[len(spans)] = f"line {number}: {error}"
            spans.append((start, end))
        if spans and len(self.faults) == len(spans):
            raise ValueError(f"{file}, {_whole_file(data) or self.faults[0]}")
        self.spans = np.array(spans, np.int64).reshape(-1, 2)
        self.columns = tuple(columns)

    def __len__(self) -> int:
        return len(self.spans)

    def row(self, index: int) -> dict[str, Any]:
        start, end = self.spans[index]
        return parse_object(self.data[start:end])


class JsonList(FileRows):
    """A list of objects, in memory."""

    def __init__(self, file: Path, data: bytes, field: str | None) -> None:
        try:
            value = _decode(data)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}, line {error.lineno}: is no JSON: {error.msg}") from error
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        if field is not None:
            value = _at(value, field, file)
        if not isinstance(value, list):
            raise ValueError(f"{file}: holds {_kind(value)}, expected a list of objects")
        self.settings = (field,)
        self.faults = {
            number: f"is {_kind(item)}, expected an object"
            for number, item in enumerate(value)
            if not isinstance(item, dict)
        }
        if value and len(self.faults) == len(value):
            raise ValueError(f"{file}: its list holds {_kind(value[0])}, expected objects")
        self.rows = value
        good = (item for item in value if isinstance(item, dict))
        self.columns = tuple(dict.fromkeys(name for item in good for name in item))

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> dict[str, Any]:
        return dict(self.rows[index])


def parse_object(line: bytes) -> dict[str, Any]:
    """Return the object of a line. Raise ValueError with the problem in a few words."""
    try:
        value = _decode(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error.msg}") from error
    if not isinstance(value, dict):
        raise ValueError(f"is {_kind(value)}, expected an object")
    return value


def decode_json(data: bytes | str) -> Any:
    """Return the value of a JSON text. Raise ValueError with the problem in a few words."""
    try:
        return _decode(data.encode() if isinstance(data, str) else data)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error.msg}") from error


def _decode(data: bytes) -> Any:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start})") from error
    try:
        value = json.loads(text, object_pairs_hook=_object)
        if _EXPONENT.search(text):
            json.loads(text, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError("holds half a surrogate pair, which is no character") from error
    return value


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"holds {text}, which is too large for a number")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError(f"the key {repeated(name for name, _ in pairs)!r} appears twice")
    return value


def _lines(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of each line that is not blank."""
    start, number = 0, 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        number += 1
        if data[start:end].strip():
            yield number, start, end
        start = end + 1


def _whole_file(data: bytes) -> str | None:
    """Return the problem of a file of which no line is an object, but which is one value."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or len(list(_lines(data))) < 2 or b"\0" in data:
        return None
    lists = [name for name, item in value.items() if isinstance(item, list)]
    cure = f"set field: {lists[0]}" if lists else "expected lines of JSON, or a list of objects"
    return f"line 1: begins one object of several lines; {cure}"


def _at(value: Any, field: str, file: Path) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{file}: holds {_kind(value)}, which has no field {field!r}")
    if field not in value:
        raise ValueError(f"{file}: there is no field {field!r}{did_you_mean(field, value)}")
    return value[field]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")
