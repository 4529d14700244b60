"""From a recogniser's frames to words, their times and how sure it is.

Legend: `T` frames, `V` classes, the blank among them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...modalities.base import Features, Tokenizer
from .alignment import FrameTimes, split_at_pauses, word_times, words_of
from .decoding import CTCHypothesis, greedy, prefix_beam_search
from .lexicon import TrieNode


@dataclass(frozen=True)
class DecodeOptions:
    """What is asked of a transcript; see `Ctc.predict`."""

    tokenizer: Tokenizer
    blank: int
    beam: int = 1
    times: bool = False
    confidence: bool = False
    tree: TrieNode | None = None


def transcribe(
    log_probs: Tensor, features: Features, reading: DecodeOptions, limit: int
) -> dict[str, Any]:
    """One row's `[T, V]`. Search and alignment go span by span, cut between words, of about
    `limit` frames (0: the whole at once): their cost grows with the product of both lengths."""
    best = greedy(log_probs, reading.blank)
    found: dict[str, Any] = {"text": _text(reading.tokenizer.decode(best.ids))}
    if reading.confidence:
        logs = [math.log(max(score, 1e-30)) for score in best.scores]
        found["confidence"] = math.exp(sum(logs) / len(logs)) if logs else 1.0
    if reading.beam == 1 and not reading.times:
        return found
    words: list[tuple[str, float, float]] = []
    texts: list[str] = []
    for start, stop in _spans(best, len(log_probs), reading, limit):
        frames = log_probs[start:stop]
        ids = greedy(frames, reading.blank).ids
        if reading.beam > 1:
            ids = prefix_beam_search(frames, reading.blank, reading.beam, tree=reading.tree)[0][0]
        texts.append(reading.tokenizer.decode(ids))
        if reading.times:
            words += word_times(
                frames, ids, reading.blank, reading.tokenizer, _clock(features, start)
            )
    found["text"] = _text(" ".join(texts))
    if reading.times:
        found["words"] = [[word, round(a, 4), round(b, 4)] for word, a, b in words]
    return found


def _text(decoded: str) -> str:
    return " ".join(decoded.split())


def _spans(
    best: CTCHypothesis, frames: int, reading: DecodeOptions, limit: int
) -> list[tuple[int, int]]:
    if not limit or frames <= limit:
        return [(0, frames)]
    words = words_of(reading.tokenizer, best.ids)
    return split_at_pauses(
        [(best.spans[a][0], best.spans[b - 1][1]) for _, a, b in words], frames, limit
    )


def _clock(features: Features, start: int) -> FrameTimes:
    if features.spacing is None or features.origin is None:
        raise ValueError("times: the stream's frames do not say when they are; leave times out")
    step = features.spacing[0]
    return FrameTimes(step, features.origin[0] + start * step)
