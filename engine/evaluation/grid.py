"""Grids of overrides: `inputs.x.encoder.name=a,b` is two cells."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence


def grid_cells(overrides: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the cells of a grid: a value by key for each combination, the last key fastest.

    overrides: `key=value` texts. A value's commas part it into alternatives, unless it is a list, a
    mapping or a quoted text.
    """
    axes = [
        (key, [value] if not comma else [part.strip() for part in alternatives(value)])
        for key, comma, value in (_split(text) for text in overrides)
    ]
    for values in itertools.product(*(parts for _, parts in axes)):
        yield dict(zip((key for key, _ in axes), values, strict=True))


def _split(text: str) -> tuple[str, bool, str]:
    key, _, value = text.partition("=")
    return key, len(alternatives(value)) > 1, value


def alternatives(value: str) -> list[str]:
    """Split a value at the commas that are in no bracket and no quotes."""
    parts, depth, quote = [""], 0, ""
    for char in value:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "[{(":
            depth += 1
        elif char in "]})":
            depth -= 1
        elif char == "," and not depth:
            parts.append("")
            continue
        parts[-1] += char
    return parts


def label(cell: dict[str, str]) -> str:
    """Return a cell as a name: its values, or `default` for none."""
    return ", ".join(cell.values()) or "default"
