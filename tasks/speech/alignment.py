"""Times of words: torchaudio's forced alignment of a text to CTC frames.

Legend: `T` frames, `V` classes, the blank among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torchaudio.functional import forced_align, merge_tokens

from ...modalities.base import Tokenizer


@dataclass(frozen=True)
class FrameTimes:
    """step: duration of a frame, origin: centre of the first, both in seconds."""

    step: float
    origin: float

    def at(self, frame: int) -> float:
        """Return the second at which a frame begins."""
        return max(0.0, self.origin + (frame - 0.5) * self.step)


def words_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[str, int, int]]:
    """Return the words of a text with the index of their first token and that behind their last."""
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


def word_times(
    log_probs: Tensor, ids: Sequence[int], blank: int, tokenizer: Tokenizer, clock: FrameTimes
) -> list[tuple[str, float, float]]:
    """Return each word of `ids` with its first and last second, from frames `[T, V]`.

    There must be at least as many frames as tokens, and one more within each pair of equal tokens.
    """
    words = words_of(tokenizer, ids)
    if not words:
        return []
    frames = log_probs.float().cpu()[None]
    targets = torch.tensor([list(ids)], dtype=torch.int32)
    path, scores = forced_align(frames, targets, blank=blank)
    spans = merge_tokens(path[0], scores[0], blank=blank)
    return [
        (word, clock.at(spans[first].start), clock.at(spans[behind - 1].end))
        for word, first, behind in words
    ]


def split_at_pauses(
    words: Sequence[tuple[int, int]], frames: int, limit: int
) -> list[tuple[int, int]]:
    """Return spans that cover `frames`, cut half-way between two words, of at most `limit` frames
    unless a word or pause is longer. words: first frame and the frame behind the last of each."""
    if frames <= limit:
        return [(0, frames)]
    between = [(a[1] + b[0]) // 2 for a, b in pairwise(words)]
    spans, start, last = [], 0, 0
    for frame in [*between, frames]:
        if frame - start > limit and last > start:
            spans.append((start, last))
            start = last
        last = frame
    return [*spans, (start, frames)]
