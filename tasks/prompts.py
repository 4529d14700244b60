"""Prompts: a template of text, streams and columns, and the packed context made of it.

`"<image> <state> {instruction} Describe:"`: `<name>` is a stream, `{column}` a cell of the
row (`{age:.1f}` with a format); `{{`, `}}` and `<<name>>` stand for `{`, `}` and `<name>`.
Every character outside these, each space too, is text; what the data say is never parsed.

Legend: `B` rows, `S` streams of the template (a stream may stand in it twice), `T` tokens,
`D` width of the decoder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from ..backbones.base import Backbone
from ..modalities.base import Features
from .base import Encode, Row

_TOKEN = re.compile(
    r"(?P<brace>\{\{|\}\})"
    r"|<<(?P<angle>[A-Za-z_][A-Za-z0-9_]*)>>"
    r"|<(?P<stream>[A-Za-z_][A-Za-z0-9_]*)>"
    r"|\{(?P<column>[^{}:]+)(?::(?P<spec>[^{}]*))?\}"
    r"|(?P<stray>[{}])"
)

_Piece = str | tuple[str, str]
"""A text, or the name and format of a column."""


class Prompt:
    """streams: the streams of the template, in order. columns: its columns, each once."""

    def __init__(self, template: str) -> None:
        self.template = template
        self.streams, self._gaps = _parse(template)
        cells = [piece for gap in self._gaps for piece in gap if isinstance(piece, tuple)]
        self.columns = tuple(dict.fromkeys(column for column, _ in cells))
        self.formats = dict(sorted(cells, key=lambda cell: len(cell[1])))

    def render(self, row: Row) -> list[str]:
        """The `S + 1` texts before, between and after the streams, filled from a row.

        Raises ValueError where the row lacks a column, or its cell is not one value.
        """
        return ["".join(self._fill(row, piece) for piece in gap) for gap in self._gaps]

    def _fill(self, row: Row, piece: _Piece) -> str:
        if isinstance(piece, str):
            return piece
        column, spec = piece
        where = f"{self.template!r}: the column {column!r}"
        if column not in row:
            known = ", ".join(map(repr, row)) or "no column"
            raise ValueError(
                f"{where} is not in the row, which has {known}; give it, or map one in `columns`"
            )
        value = row[column]
        if value is None or (hasattr(value, "__iter__") and not isinstance(value, str)):
            kind = "empty" if value is None else f"a {type(value).__name__}"
            raise ValueError(f"{where} is {kind}; expected one text or number a row")
        try:
            return format(value, spec)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{where} holds {value!r}, which the format {spec!r} does not fit ({error})"
            ) from None


def _parse(template: str) -> tuple[tuple[str, ...], list[list[_Piece]]]:
    """The streams of a template, and the pieces of the gaps around them."""
    streams: list[str] = []
    gaps: list[list[_Piece]] = [[]]
    end = 0
    for match in _TOKEN.finditer(template):
        if match.start() > end:
            gaps[-1].append(template[end : match.start()])
        end = match.end()
        found = match.groupdict()
        if found["stray"]:
            raise ValueError(
                f"{template!r}: a brace without its partner at character {match.start() + 1}; "
                "write {column} or {column:.2f}, and {{ or }} for a brace of the text"
            )
        if found["stream"]:
            streams.append(found["stream"])
            gaps.append([])
        elif found["column"]:
            gaps[-1].append((found["column"], found["spec"] or ""))
        else:
            gaps[-1].append(found["brace"][0] if found["brace"] else f"<{found['angle']}>")
    if end < len(template):
        gaps[-1].append(template[end:])
    return tuple(streams), gaps


def assemble(
    streams: Sequence[str], texts: Sequence[Sequence[str]], encode: Encode, backbone: Backbone
) -> Features:
    """The context of a batch: texts and streams in the order of the template, packed.

    streams: `S` names. texts: `B` rows of `S + 1` texts (`Prompt.render`). The tokenizer's
    `bos` stands first where it has one. Gives `tokens [B, T, D]`, real ones to the left.
    Raises ValueError where a stream's width is not the decoder's, or there is nothing to read.
    """
    inputs = [encode(stream) for stream in streams]
    device = inputs[0].tokens.device if inputs else next(backbone.parameters()).device
    gaps = [
        _embed([row[place] for row in texts], backbone, device, first=place == 0)
        for place in range(len(streams) + 1)
    ]
    for stream, found in zip(streams, inputs, strict=True):
        _check_width(stream, found, backbone)
    segments = [s for pair in zip_longest(gaps, inputs) for s in pair if s is not None]
    if not segments:
        raise ValueError("the prompt is empty; write some text or a stream in it")
    # The decoder's own precision, which its embeddings have: a connector may compute in another.
    dtype = next((gap.tokens.dtype for gap in gaps if gap is not None), segments[0].tokens.dtype)
    return _pack(segments, dtype)


def _check_width(stream: str, found: Features, backbone: Backbone) -> None:
    if found.dim != backbone.dim:
        raise ValueError(
            f"inputs.{stream}.connector: gives tokens {found.dim} wide, the backbone reads "
            f"{backbone.dim}; give the stream a connector that ends in {backbone.dim}"
        )


def _embed(
    texts: Sequence[str], backbone: Backbone, device: torch.device, *, first: bool
) -> Features | None:
    """Embedded texts `[B, T, D]`; equal texts are embedded once; None where all are empty."""
    tokenizer = backbone.tokenizer
    bos = [tokenizer.bos_id] if first and tokenizer.bos_id is not None else []
    known = {text: [*bos, *tokenizer.encode(text)] for text in dict.fromkeys(texts)}
    width = max(len(ids) for ids in known.values())
    if not width:
        return None
    padded = [ids + [tokenizer.pad_id] * (width - len(ids)) for ids in known.values()]
    tokens = backbone.embed(torch.tensor(padded, device=device))
    lengths = torch.tensor([len(known[text]) for text in texts], device=device)
    mask = torch.arange(width, device=device) < lengths[:, None]
    if len(known) == 1:
        return Features(tokens.expand(len(texts), -1, -1), mask)
    places = {text: place for place, text in enumerate(known)}
    return Features(tokens[torch.tensor([places[t] for t in texts], device=device)], mask)


def _pack(segments: Sequence[Features], dtype: torch.dtype) -> Features:
    """Segments one after another, the real tokens of each row moved to its left.

    The width is the sum of the segments' widths: nothing is read back from the device.
    """
    tokens = torch.cat([s.tokens.to(dtype) for s in segments], dim=1)  # [B, T, D]
    mask = torch.cat([s.mask for s in segments], dim=1)  # [B, T]
    if len(segments) == 1:
        return Features(tokens, mask)
    order = mask.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
    index: Tensor = order.unsqueeze(-1).expand_as(tokens)
    return Features(tokens.gather(1, index), mask.gather(1, order))


def example_row(prompts: Sequence[Prompt], text: str) -> dict[str, Any]:
    """A row with every column of some prompts: the text, or a number where a format wants one."""
    row: dict[str, Any] = {}
    for column, spec in (cell for prompt in prompts for cell in prompt.formats.items()):
        try:
            format(text, spec)
            row.setdefault(column, text)
        except ValueError:
            row[column] = len(text)
    return row
