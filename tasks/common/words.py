"""Words of a text by its ids, and the log-probability of each that a decoder wrote.

Legend: `B` rows, `L` ids of the text, `U` words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ...backbones.base import Backbone
from ...backbones.visibility import Attention
from ...modalities.base import Features, Tokenizer
from ..base import Unit


def words_of(
    tokenizer: Tokenizer, ids: Sequence[int], *, apart: bool = False
) -> list[tuple[str, int, int]]:
    """Return the words of a text with the index of their first token and that behind their last.

    apart: each token is of one word: one that holds letters of two is of the first of them, and one
    without letters of the word before it (those in front, of the first word).
    """
    text = tokenizer.decode(ids)
    spans = character_spans(tokenizer, ids)
    words: list[tuple[str, int, int]] = []
    token = 0
    for match in re.finditer(r"\S+", text):
        while token < len(spans) and spans[token][1] <= match.start():
            token += 1
        behind = token
        while behind < len(spans) and spans[behind][0] < match.end():
            behind += 1
        if behind > token:
            words.append((match[0], token, behind))
            token = behind - 1  # it may hold the beginning of the next word too
    if apart:
        starts = [0, *(max(a[2], b[1]) for a, b in pairwise(words))]
        ends = [*starts[1:], len(ids)]
        words = [(w, a, b) for (w, _, _), a, b in zip(words, starts, ends, strict=False)]
    return words


REPLACEMENT = "\ufffd"
"""The replacement of bytes that are no letter yet."""


def character_spans(tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Return the characters of the text, first and behind the last, that each token is a part of. A
    token that holds some bytes of a letter is a part of that letter."""
    text = tokenizer.decode(ids)
    ends, offset = [], 0
    for piece, within in _pieces(tokenizer, ids):
        offset += len(piece)
        ends.append((offset, within))
    if offset != len(text):  # the pieces depend on their neighbours
        ends, offset = [], 0
        for count in range(1, len(ids) + 1):
            prefix = tokenizer.decode(ids[:count])
            while offset < min(len(prefix), len(text)) and prefix[offset] == text[offset]:
                offset += 1
            ends.append((offset, offset < len(prefix)))
    starts = [0, *(end for end, _ in ends)][: len(ends)]
    return [
        (start, max(end + within, start + 1))
        for start, (end, within) in zip(starts, ends, strict=True)
    ]


def _pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> Iterator[tuple[str, bool]]:
    """Yield the letters that each token completes, and whether it ends within one. Only the tokens
    since the last that did not are decoded again, and those of the piece before them."""
    before = since = emitted = 0
    for count in range(1, len(ids) + 1):
        previous, current = tokenizer.decode(ids[before:since]), tokenizer.decode(ids[before:count])
        piece = current.rstrip(REPLACEMENT)[len(previous) + emitted :]
        within = current.endswith(REPLACEMENT)
        yield piece, within
        emitted += len(piece)
        if not within and emitted:
            before, since, emitted = since, count, 0


def text_units(tokenizer: Tokenizer, ids: Sequence[int]) -> list[Unit]:
    """Return the words of a text. target: all ids of the text, and the places of the word's."""
    whole = tuple(ids)
    words = words_of(tokenizer, whole, apart=True)
    return [Unit(word, (whole, tuple(range(start, end)))) for word, start, end in words]


def text_unit_scores(
    decoder: Backbone, context: Features, units: Sequence[Unit], attention: Attention = "causal"
) -> Tensor:
    """Return `[B, U]` the log-probability of each word after the context and the words before it;
    every row is scored on the same text."""
    rows, device = len(context.tokens), context.tokens.device
    ids = torch.tensor(units[0].target[0], device=device).expand(rows, -1)  # [B, L]
    mask = torch.ones_like(ids, dtype=torch.bool)
    hidden = decoder.teacher_force(context, ids, mask, attention)
    log_probs = decoder.logits(hidden).float().log_softmax(-1)
    chosen = log_probs.gather(-1, ids[..., None]).squeeze(-1)  # [B, L]
    return torch.stack([chosen[:, list(unit.target[1])].sum(1) for unit in units], 1)
