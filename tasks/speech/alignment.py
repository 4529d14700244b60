"""Times of words: torchaudio's forced alignment of a text to CTC frames.

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
from ..common import words_of


@dataclass(frozen=True)
class FrameTimes:
    """step: duration of a frame, origin: centre of the first, both in seconds."""

    step: float
    origin: float

    def at(self, frame: int) -> float:
        """Return the second at which a frame begins."""
        return max(0.0, self.origin + (frame - 0.5) * self.step)


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
