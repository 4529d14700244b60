"""Prompts: a template of text, streams and columns, and the packed context made of it.

In `"<image> <state> {instruction} Describe:"`, `<name>` is a stream and `{column}` a cell of the
row (`{age:.1f}` with a format); `{{`, `}}` and `<<name>>` are escapes of `{`, `}` and `<name>`. All
other characters, spaces included, are text; cells are never parsed.

Legend: `B` rows, `S` streams of the template (a stream may occur in it twice), `T` tokens, `D`
width of the decoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...backbones.base import Backbone
from ...modalities.base import Features, Tokenizer
from ..base import Context, Row
from ..batch import Batch
from ..uses import BACKBONE

_TOKEN = re.compile(
    r"(?P<brace>\{\{|\}\})"
    r"|<<(?P<angle>[^\s<>{}]+)>>"
    r"|<(?P<stream>[^\s<>{}]+)>"
    r"|\{(?P<column>[^{}:]+)(?::(?P<spec>[^{}]*))?\}"
    r"|(?P<stray>[{}])"
)

"""`<name>` is a stream where the name is an identifier, as a recipe demands; else a text."""

_STREAM_MARK = "\ue000\ue001"
"""Stands for a stream while a chat template is applied: private-use characters."""

_Piece = str | tuple[str, str]
"""A text, or the name and format of a column."""


class Prompt:
    """streams: the streams of the template, in order. columns: its columns, each once. has_text:
    whether there is text or a column before each stream, and after the last."""

    def __init__(self, template: str) -> None:
        self.template = template
        self.streams, self._gaps = _parse(template)
        cells = [piece for gap in self._gaps for piece in gap if isinstance(piece, tuple)]
        self.columns = tuple(dict.fromkeys(column for column, _ in cells))
        self.has_text = tuple(map(bool, self._gaps))
        self.formats = dict(sorted(cells, key=lambda cell: len(cell[1])))

    def render(self, row: Row) -> list[str]:
        """Return the `S + 1` texts before, between and after the streams, filled from a row.

        Raise ValueError if the row lacks a column, or its cell is not one value.
        """
        return ["".join(self._fill(row, piece) for piece in gap) for gap in self._gaps]

    def encode(self, row: Row, tokenizer: Tokenizer, name: str = "prompt") -> dict[str, Tensor]:
        """Return the labels of a row's prompt: the ids of its `S + 1` texts, `prompt.0` to
        `prompt.S`. The tokenizer's `bos`, if it has one, precedes the first."""
        ids = [tokenizer.encode(text) for text in self.render(row)]
        if tokenizer.bos_id is not None:
            ids[0] = [tokenizer.bos_id, *ids[0]]
        return {f"{name}.{i}": torch.tensor(row, dtype=torch.long) for i, row in enumerate(ids)}

    def _fill(self, row: Row, piece: _Piece) -> str:
        if isinstance(piece, str):
            return piece
        column, spec = piece
        where = f"{self.template!r}: the column {column!r}"
        if column not in row:
            columns = ", ".join(map(repr, row)) or "no column"
            raise ValueError(
                f"{where} is not in the row, which has {columns}; give it, or map one in `columns`"
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


class ChatPrompt(Prompt):
    """A conversation, rendered by the chat template of the decoder's tokenizer.

    messages: `[{role: user, content: "<image> {question}"}]`; each content is a template. The
    template ends where the assistant's answer begins.
    """

    def __init__(self, messages: Sequence[Mapping[str, str]]) -> None:
        for index, message in enumerate(messages):
            if set(message) != {"role", "content"}:
                raise ValueError(
                    f"chat: message {index + 1} has {', '.join(message) or 'no key'}, expected "
                    "role and content"
                )
        self.roles = [message["role"] for message in messages]
        self.contents = [Prompt(message["content"]) for message in messages]
        self.template = " ".join(content.template for content in self.contents)
        self.streams = tuple(s for content in self.contents for s in content.streams)
        self.columns = tuple(dict.fromkeys(c for p in self.contents for c in p.columns))
        self.formats = {k: v for content in self.contents for k, v in content.formats.items()}

    def render(self, row: Row) -> list[str]:
        """Return the texts of all messages, without the chat template."""
        return [text for content in self.contents for text in content.render(row)]

    def encode(self, row: Row, tokenizer: Tokenizer, name: str = "prompt") -> dict[str, Tensor]:
        contents = [_STREAM_MARK.join(content.render(row)) for content in self.contents]
        messages = [{"role": r, "content": c} for r, c in zip(self.roles, contents, strict=True)]
        texts = tokenizer.chat(messages).split(_STREAM_MARK)
        if len(texts) != len(self.streams) + 1:
            raise ValueError(
                f"prompt: the chat template kept {len(texts) - 1} of {len(self.streams)} streams; "
                "write the prompt as one text"
            )
        ids = [tokenizer.encode_chat(text) for text in texts]
        return {f"{name}.{i}": torch.tensor(row, dtype=torch.long) for i, row in enumerate(ids)}


def parse_prompt(prompt: str | Mapping[str, Any]) -> Prompt:
    """Return the prompt of a recipe: one template, or `{chat: [messages]}`."""
    try:
        if isinstance(prompt, str):
            return Prompt(prompt)
        if set(prompt) != {"chat"} or not isinstance(prompt["chat"], Sequence):
            raise ValueError(f"found {', '.join(prompt)}, expected a text or chat: [messages]")
        return ChatPrompt(prompt["chat"])
    except ValueError as error:
        raise ValueError(f"prompt: {error}") from None


def parse_target(option: str, template: str) -> Prompt:
    """Return the template of a text to learn. Raise ValueError if it names a stream, or no
    column."""
    try:
        target = Prompt(template)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None
    if target.streams or not target.columns:
        raise ValueError(
            f"{option}: {template!r} must be made of columns, such as {{caption}}, without streams"
        )
    return target


def require_streams(prompt: Prompt) -> tuple[str, ...]:
    """Return the streams of a prompt, each once. Raise ValueError if it names none."""
    if not prompt.streams:
        raise ValueError(
            f"prompt: {prompt.template!r} names no stream; write <image> where the input called "
            "image is to stand"
        )
    return tuple(dict.fromkeys(prompt.streams))


def _parse(template: str) -> tuple[tuple[str, ...], list[list[_Piece]]]:
    """Return the streams of a template, and the pieces of the gaps around them."""
    streams: list[str] = []
    gaps: list[list[_Piece]] = [[]]
    end = 0
    for match in _TOKEN.finditer(template):
        if match.start() > end:
            gaps[-1].append(template[end : match.start()])
        end = match.end()
        groups = match.groupdict()
        name = groups["stream"] or groups["angle"]
        if name and not name.isidentifier():
            gaps[-1].append(match.group())
            continue
        if groups["stray"]:
            raise ValueError(
                f"{template!r}: a brace without its partner at character {match.start() + 1}; "
                "write {column} or {column:.2f}, and {{ or }} for a brace of the text"
            )
        if groups["stream"]:
            streams.append(groups["stream"])
            gaps.append([])
        elif groups["column"]:
            gaps[-1].append((groups["column"], groups["spec"] or ""))
        else:
            gaps[-1].append(groups["brace"][0] if groups["brace"] else f"<{groups['angle']}>")
    if end < len(template):
        gaps[-1].append(template[end:])
    return tuple(streams), gaps


def assemble(
    streams: Sequence[str],
    batch: Batch,
    ctx: Context,
    decoder: str = BACKBONE,
    name: str = "prompt",
    texts_only: bool = False,
) -> Features:
    """Return the context of a batch: texts and streams in the order of the template, packed.

    streams: the `S` streams of the template. The texts are the batch's labels, made by
    `Prompt.encode`. A stream with several items a cell has all of them, in order. texts_only:
    leave the streams out.
    The result has `tokens [B, T, D]`, real ones to the left. Raise ValueError if the width of a
    stream is not the decoder's, or the prompt is empty.
    """
    backbone = ctx.decoder(decoder)
    inputs = [] if texts_only else [_stream(stream, batch, ctx, backbone) for stream in streams]
    device = inputs[0].tokens.device if inputs else next(backbone.parameters()).device
    segments: list[Features] = []
    for index in range(len(streams) + 1):
        ids = batch.label(f"{name}.{index}", "has no prompt").to(device)
        if ids.shape[1]:
            mask = batch.label_masks[f"{name}.{index}"].to(device)
            segments.append(Features(backbone.embed(ids), mask))
        segments += inputs[index : index + 1]
    if not segments:
        raise ValueError(
            f"the {name} is empty; write some text{'' if texts_only else ' or a stream'} in it"
        )
    # The decoder's own precision, which its embeddings have: a connector may compute in another.
    return _pack(segments, backbone.embed(torch.zeros(1, dtype=torch.long, device=device)).dtype)


def _stream(stream: str, batch: Batch, ctx: Context, backbone: Backbone) -> Features:
    features = ctx.encode(stream)
    if features.dim != backbone.dim:
        raise ValueError(
            f"inputs.{stream}.connector: returns tokens {features.dim} wide, the decoder reads "
            f"{backbone.dim}; give the stream a connector that ends in {backbone.dim}"
        )
    return group_items(features, batch.items[stream]) if stream in batch.items else features


def group_items(features: Features, items: Tensor) -> Features:
    """Return the tokens of each row's items one after another.

    features: of all items of a batch, `[N, T, D]`. items: `[B]` their number in each row, on the
    CPU. The result has `tokens [B, max(items) * T, D]`; the padding of an item stays where it is.
    """
    most = int(items.max()) if len(items) else 0
    first = items.cumsum(0) - items
    position = torch.arange(most)
    real = position < items[:, None]  # [B, most]
    index = torch.where(real, first[:, None] + position, 0)
    device = features.tokens.device
    if not len(features.tokens):
        width = features.tokens.shape[-1]
        return Features(
            features.tokens.new_zeros(len(items), 0, width),
            features.mask.new_zeros(len(items), 0),
        )
    tokens = features.tokens[index.to(device)].flatten(1, 2)
    mask = features.mask[index.to(device)] & real[..., None].to(device)
    return _move_left(tokens, mask.flatten(1))


def _pack(segments: Sequence[Features], dtype: torch.dtype) -> Features:
    """Concatenate segments, the real tokens of each row moved to its left.

    The width is the sum of the segments' widths: nothing is read back from the device.
    """
    tokens = torch.cat([s.tokens.to(dtype) for s in segments], dim=1)  # [B, T, D]
    mask = torch.cat([s.mask for s in segments], dim=1)  # [B, T]
    return Features(tokens, mask) if len(segments) == 1 else _move_left(tokens, mask)


def _move_left(tokens: Tensor, mask: Tensor) -> Features:
    order = mask.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
    index: Tensor = order.unsqueeze(-1).expand_as(tokens)
    return Features(tokens.gather(1, index), mask.gather(1, order))


def example_row(prompts: Sequence[Prompt], text: str) -> dict[str, Any]:
    """Return a row with every column of some prompts: the text, or a number if a format requires
    one."""
    row: dict[str, Any] = {}
    for column, spec in (cell for prompt in prompts for cell in prompt.formats.items()):
        try:
            format(text, spec)
            row.setdefault(column, text)
        except ValueError:
            row[column] = len(text)
    return row
