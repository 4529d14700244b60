"""Transcripts from CTC frames, with word times and confidences.

Legend: `T` frames, `V` classes, the blank among them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...modalities.base import Features, Tokenizer
from ..base import Unit
from ..common import words_of
from .alignment import FrameTimes, split_at_pauses, word_times
from .decoding import CTCHypothesis, greedy, prefix_beam_search
from .lexicon import TrieNode


@dataclass(frozen=True)
class DecodeOptions:
    """Options of a transcript; see `CTC.predict`."""

    tokenizer: Tokenizer
    blank: int
    beam: int = 1
    times: bool = False
    confidence: bool = False
    tree: TrieNode | None = None


def transcribe(
    log_probs: Tensor, features: Features, options: DecodeOptions, limit: int
) -> dict[str, Any]:
    """Transcribe one row `[T, V]`. Search and alignment run span by span, cut between words, of
    about `limit` frames (0: all at once): their cost grows with the product of both lengths."""
    best = greedy(log_probs, options.blank)
    result: dict[str, Any] = {"text": _text(options.tokenizer.decode(best.ids))}
    if options.confidence:
        logs = [math.log(max(score, 1e-30)) for score in best.scores]
        result["confidence"] = math.exp(sum(logs) / len(logs)) if logs else 1.0
    if options.beam == 1 and not options.times:
        return result
    words: list[tuple[str, float, float]] = []
    texts: list[str] = []
    for start, stop in _spans(best, len(log_probs), options, limit):
        frames = log_probs[start:stop]
        ids = greedy(frames, options.blank).ids
        if options.beam > 1:
            ids = prefix_beam_search(frames, options.blank, options.beam, tree=options.tree)[0][0]
        texts.append(options.tokenizer.decode(ids))
        if options.times:
            words += word_times(
                frames, ids, options.blank, options.tokenizer, _clock(features, start)
            )
    result["text"] = _text(" ".join(texts))
    if options.times:
        result["words"] = [[word, round(a, 4), round(b, 4)] for word, a, b in words]
    return result


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
        raise ValueError("times: the stream's frames have no times; leave times out")
    step = features.spacing[0]
    return FrameTimes(step, features.origin[0] + start * step)


def path_units(log_probs: Tensor, tokenizer: Tokenizer, blank: int) -> list[Unit]:
    """Return the words of the best path of `[T, V]`. target: the word's frames and their
    classes."""
    best, path = greedy(log_probs, blank), log_probs.argmax(-1).tolist()
    units = []
    for word, first, last in words_of(tokenizer, best.ids):
        frames = range(best.spans[first][0], best.spans[last - 1][1])
        units.append(Unit(word, (tuple(frames), tuple(path[frame] for frame in frames))))
    return units


def path_scores(log_probs: Tensor, units: Sequence[Unit]) -> Tensor:
    """Return `[B, U]`, the log-probability `[B, T, V]` of each word's frames, summed."""
    scores = [log_probs[:, list(u.target[0]), list(u.target[1])].sum(1) for u in units]
    return torch.stack(scores, 1)
