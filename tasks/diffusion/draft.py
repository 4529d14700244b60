"""The layout of a draft on a canvas: confident tokens stay, uncertain ones become masks.

dLLM-ASR (arXiv 2601.17902) begins denoising at a CTC hypothesis, which anchors the length:
`G = ceil(length_factor * m) + length_margin` positions for `m` tokens. The positions beyond `m` are
placed behind uncertain words, one each (a misheard word seldom has as many tokens as the right
one), the rest at the end. A position that is left over holds the `gap` token, which is no text; so
the tokens that stay need not move if a word between them changes its length.

Legend: `m` tokens of a hypothesis, `G` positions of its canvas, `n` tokens of the transcript.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

from ...modalities.base import Tokenizer
from ..common import words_of
from ..speech import CTCHypothesis


@dataclass(frozen=True)
class Draft:
    """text: the hypothesis. ids: its tokens for the decoder. sure: the recognizer's confidence in
    the word of each token. words: index of the word of each token."""

    text: str
    ids: list[int]
    sure: list[float]
    words: list[int]


@dataclass(frozen=True)
class DraftConfig:
    """min_confidence: words below it become masks. length_factor, length_margin: of the canvas's
    length. min_length_ratio: no text ends before this fraction of the draft's positions."""

    min_confidence: float
    length_factor: float
    length_margin: int
    min_length_ratio: float

    def __post_init__(self) -> None:
        check_fractions(min_confidence=self.min_confidence, min_length_ratio=self.min_length_ratio)
        check_positive(length_factor=self.length_factor, length_margin=self.length_margin)

    def length(self, tokens: int) -> int:
        """Return `G` for a hypothesis of so many tokens."""
        return math.ceil(round(self.length_factor * tokens, 6)) + self.length_margin


@dataclass(frozen=True)
class DraftLayout:
    """The canvas of one row. tokens: `G` ids, None for a mask. head: positions before the margin at
    the end. least: positions before which no text ends."""

    tokens: list[int | None]
    head: int
    least: int


def make_draft(hypothesis: CTCHypothesis, ctc_tokenizer: Tokenizer, tokenizer: Tokenizer) -> Draft:
    """Return a hypothesis in the decoder's tokens, each with the confidence of the least confident
    part of its word."""
    text = " ".join(ctc_tokenizer.decode(hypothesis.ids).split())
    ids = tokenizer.encode(text)
    confidences = [
        min(hypothesis.scores[a:b]) for _, a, b in words_of(ctc_tokenizer, hypothesis.ids)
    ]
    spans = words_of(tokenizer, ids)
    if len(spans) != len(confidences):  # a tokenizer that does not keep the words
        confidences = [min(confidences, default=0.0)] * len(spans)
    sure, words = [0.0] * len(ids), [0] * len(ids)
    for word, (confidence, (_, start, stop)) in enumerate(zip(confidences, spans, strict=True)):
        for index in range(start, stop):
            sure[index], words[index] = confidence, word
    return Draft(text, ids, sure, words)


def layout_draft(prior: Draft, config: DraftConfig) -> DraftLayout:
    """Return the canvas of a hypothesis."""
    doubtful = {
        w: s for w, s in zip(prior.words, prior.sure, strict=True) if s < config.min_confidence
    }
    spare = config.length(len(prior.ids)) - config.length_margin - len(prior.ids)
    roomy = set(sorted(doubtful, key=doubtful.__getitem__)[:spare])
    tokens: list[int | None] = []
    for index, (token, word) in enumerate(zip(prior.ids, prior.words, strict=True)):
        tokens.append(None if word in doubtful else token)
        last = index + 1 == len(prior.ids) or prior.words[index + 1] != word
        tokens += [None] * (last and word in roomy)
    head = len(tokens)
    tokens += [None] * (config.length(len(prior.ids)) - head)
    return DraftLayout(tokens, head, int(config.min_length_ratio * head))


def align_targets(
    slots: DraftLayout, transcript: Sequence[int], eos_id: int, gap_id: int
) -> tuple[list[int], list[bool]]:
    """Return the target of each of the `G` positions, and which of them have a loss.

    Visible tokens that are right (the longest common runs with the transcript) keep their position;
    the transcript between two of them is placed at the left of the positions between, followed by
    gaps, and by `eos` to the end behind the last. Positions that are too few for their part of the
    transcript have no loss, as have tokens for which the canvas has no position.
    """
    visible = [(position, t) for position, t in enumerate(slots.tokens) if t is not None]
    matcher = SequenceMatcher(
        None, [token for _, token in visible], list(transcript), autojunk=False
    )
    anchors = [(-1, -1)]
    for block in matcher.get_matching_blocks():
        anchors += [(visible[block.a + i][0], block.b + i) for i in range(block.size)]
    targets: list[int] = []
    learned: list[bool] = []
    for (position, at), (next_place, next_at) in pairwise(
        [*anchors, (len(slots.tokens), len(transcript))]
    ):
        available, inner = next_place - position - 1, list(transcript[at + 1 : next_at])
        last = next_place == len(slots.tokens)
        filler = eos_id if last else gap_id
        targets += (inner + [filler] * available)[:available]
        learned += [last or len(inner) <= available] * available
        if not last:
            targets.append(transcript[next_at])
            learned.append(True)
    return targets, learned


def check_fractions(**options: float) -> None:
    """Raise ValueError for an option that is not between 0 and 1."""
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: found {value}, expected 0 to 1")


def check_positive(**options: float) -> None:
    """Raise ValueError for an option below 1."""
    for name, value in options.items():
        if value < 1:
            raise ValueError(f"{name}: found {value}, expected at least 1")
