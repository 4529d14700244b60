"""When each word is said: torchaudio's forced alignment of a text to a recogniser's frames.

Legend: `T` frames, `V` classes, the blank among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torchaudio.functional import forced_align, merge_tokens

from ...modalities.base import Tokenizer


@dataclass(frozen=True)
class FrameTimes:
    """step: extent of a frame, origin: centre of the first, both in seconds."""

    step: float
    origin: float

    def at(self, frame: int) -> float:
        """The second at which a frame begins."""
        return max(0.0, self.origin + (frame - 0.5) * self.step)


def words_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[str, int, int]]:
    """The words of a text with the places of their first token and behind their last."""
    pieces = [tokenizer.decode([i]) for i in ids]
    if "".join(pieces) != tokenizer.decode(ids):  # pieces that are read by what stands around them
        texts = [tokenizer.decode(ids[:n]) for n in range(len(ids) + 1)]
        pieces = [text[len(before) :] for before, text in pairwise(texts)]
    found: list[tuple[str, int, int]] = []
    whole = True  # the next piece begins a word
    for place, piece in enumerate(pieces):
        parts = piece.split()
        for i, part in enumerate(parts):
            if i or whole or piece[0].isspace():
                found.append((part, place, place + 1))
            else:
                text, start, _ = found.pop()
                found.append((text + part, start, place + 1))
        whole = piece[-1:].isspace() if parts else whole or bool(piece)
    return found


def word_times(
    log_probs: Tensor, ids: Sequence[int], blank: int, tokenizer: Tokenizer, clock: FrameTimes
) -> list[tuple[str, float, float]]:
    """Each word of `ids` with its first and last second, from frames `[T, V]`.

    ids must fit the frames: at least as many as tokens, and one more within each pair.
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
    """Spans that cover `frames`, cut half-way between two words, of `limit` frames at most where
    no word or pause is longer; words: first frame and the frame behind the last of each."""
    if frames <= limit:
        return [(0, frames)]
    between = [(a[1] + b[0]) // 2 for a, b in pairwise(words)]
    found, start, last = [], 0, 0
    for place in [*between, frames]:
        if place - start > limit and last > start:
            found.append((start, last))
            start = last
        last = place
    return [*found, (start, frames)]
