"""The one step in which rows leave Arrow: every value as plain Python, of the type it had.

🤗 datasets stores a column of mixed types as JSON texts (its feature `Json`), at any depth; other
features keep their stored form (`{"path":, "bytes":}` of pictures and sounds).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import datasets

from ....modalities.base import Unreadable
from .json_rows import decode_json

Decode = Callable[[Any], Any]


class Decoder:
    """Rows as Arrow returns them -> rows as they were before they were stored."""

    def __init__(self, features: Mapping[str, Any] | None) -> None:
        decoders = {name: decoder_of(feature) for name, feature in (features or {}).items()}
        self.decoders = {name: decode for name, decode in decoders.items() if decode is not None}

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        for name, decode in self.decoders.items():
            if name in row:
                try:
                    row[name] = decode(row[name])
                except ValueError as error:
                    row[name] = Unreadable(f"column {name!r}: {error}")
        return row


def arrow_row(table: Any, index: int) -> dict[str, Any]:
    """Return a row of a table of 🤗 datasets whose format is Arrow."""
    row: dict[str, Any] = table[index].to_pylist()[0]
    return row


def decoder_of(feature: Any) -> Decode | None:
    """Return what turns a stored value of a feature into the original; None if nothing does."""
    if isinstance(feature, datasets.Json):
        return lambda value: None if value is None else decode_json(value)
    if isinstance(feature, Mapping):
        inner = {name: decoder_of(part) for name, part in feature.items()}
        active = {name: decode for name, decode in inner.items() if decode is not None}
        return _struct(active) if active else None
    item = getattr(feature, "feature", None)
    if item is None and isinstance(feature, (list, tuple)) and len(feature) == 1:
        item = feature[0]
    decode = None if item is None else decoder_of(item)
    return None if decode is None else _list(decode)


def _struct(decoders: Mapping[str, Decode]) -> Decode:
    def decode(value: Any) -> Any:
        if value is None:
            return None
        return {
            name: decoders[name](inner) if name in decoders else inner
            for name, inner in value.items()
        }

    return decode


def _list(decode: Decode) -> Decode:
    return lambda value: None if value is None else [decode(item) for item in value]
