"""Inputs of a call as rows: single values, lists, iterators, addresses of files."""

from __future__ import annotations

import itertools
import re
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..utils import ConfigError

ADDRESS = re.compile(r"https?://", re.IGNORECASE)
MAX_BYTES = 200_000_000
SECONDS = 30.0


def rows_of(
    inputs: Mapping[str, Any], many: Collection[str] = ()
) -> tuple[list[dict[str, Any]], bool]:
    """Return columns as rows, and whether a column holds the values of several rows: a list does.

    A single value is repeated in every row. many: streams whose cells are lists; a list of lists
    holds the cells of several rows. Raise ConfigError if columns differ in length.
    """
    columns = {
        name: value
        for name, value in inputs.items()
        if isinstance(value, list) and (name not in many or _is_nested(value))
    }
    if len({len(values) for values in columns.values()}) > 1:
        counts = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
        raise ConfigError(f"inputs: lists of different lengths: {counts}")
    count = len(next(iter(columns.values()), [None]))
    rows = [{n: v[i] if n in columns else v for n, v in inputs.items()} for i in range(count)]
    return rows, bool(columns)


def _is_nested(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(item, (list, tuple)) for item in value)


def is_lazy(value: Any) -> bool:
    """Return whether a value is an iterator of cells. An open file is one cell."""
    return isinstance(value, Iterator) and not hasattr(value, "read")


def lazy_chunks(inputs: Mapping[str, Any], size: int) -> Iterator[dict[str, list[Any]]]:
    """Yield columns of at most `size` rows, read from iterators as they are needed.

    Lists are read in step, single values are repeated in every row. The shortest iterator or list
    ends them.
    """
    columns = {
        name: iter(value) if is_lazy(value) or isinstance(value, list) else itertools.repeat(value)
        for name, value in inputs.items()
    }
    rows = zip(*columns.values(), strict=False)
    while chunk := list(itertools.islice(rows, size)):
        yield {name: [row[place] for row in chunk] for place, name in enumerate(columns)}


def fetch_addresses(cell: Any, stream: str, allow: bool) -> Any:
    """Return a cell with the content of the files that it names by http(s).

    Raise ConfigError if that was not requested, or a file cannot be had.
    """

    if isinstance(cell, str) and ADDRESS.match(cell):
        if allow:
            return _content(cell, stream)
        raise ConfigError(
            f"{stream}: {cell[:120]} is an address on the network, which is not fetched; "
            "download it first, or load the model with allow_urls=True"
        )
    if isinstance(cell, Mapping) and isinstance(cell.get("path"), str) and not cell.get("bytes"):
        content = fetch_addresses(cell["path"], stream, allow)
        if content is not cell["path"]:
            return {**{k: v for k, v in cell.items() if k != "path"}, "bytes": content}
    if isinstance(cell, list):
        return [fetch_addresses(item, stream, allow) for item in cell]
    return cell


def _content(address: str, stream: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:
            content: bytes = answer.read(MAX_BYTES + 1)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise ConfigError(f"{stream}: {address[:120]} cannot be fetched: {error}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{stream}: {address[:120]} is larger than {MAX_BYTES:,} bytes")
    return content
