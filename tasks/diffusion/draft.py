"""A hypothesis as a canvas: what is sure stays, what is not becomes masks with room beside them.

dLLM-ASR (arXiv 2601.17902) begins denoising at a CTC hypothesis, which anchors the length:
`G = ceil(length_factor * m) + length_margin` positions for `m` tokens. The positions beyond `m` are
placed behind uncertain words, one each (a misheard word seldom has as many tokens as the right
one), the rest at the end. A position that is left over holds the `gap` token, which is no text; so
the tokens that stay need not move if a word between them changes its length.

Legend: `m` tokens of a hypothesis, `G` places of its canvas, `n` tokens of the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

from ...modalities.base import Tokenizer
from ..speech import CTCHypothesis, words_of


@dataclass(frozen=True)
class Draft:
    """text: what was heard first. ids: its tokens for the decoder. sure: of each token how sure
    the recogniser is of its word. words: of each token the place of its word."""

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
        """`G` for a hypothesis of so many tokens."""
        return math.ceil(round(self.length_factor * tokens, 6)) + self.length_margin


@dataclass(frozen=True)
class DraftLayout:
    """A canvas of one row. tokens: `G` ids, None for a mask. head: places before the slack at
    the end. least: places before which no text ends."""

    tokens: list[int | None]
    head: int
    least: int


def prior_of(heard: CTCHypothesis, spelling: Tokenizer, tokenizer: Tokenizer) -> Draft:
    """A recogniser's tokens as the decoder's, each as sure as the least sure part of its word."""
    text = " ".join(spelling.decode(heard.ids).split())
    ids = tokenizer.encode(text)
    shares = [min(heard.scores[a:b]) for _, a, b in words_of(spelling, heard.ids)]
    spans = words_of(tokenizer, ids)
    if len(spans) != len(shares):  # a tokenizer that does not give the words back
        shares = [min(shares, default=0.0)] * len(spans)
    sure, words = [0.0] * len(ids), [0] * len(ids)
    for word, (share, (_, start, stop)) in enumerate(zip(shares, spans, strict=True)):
        for place in range(start, stop):
            sure[place], words[place] = share, word
    return Draft(text, ids, sure, words)


def layout_draft(prior: Draft, config: DraftConfig) -> DraftLayout:
    """The canvas of a hypothesis."""
    doubtful = {
        w: s for w, s in zip(prior.words, prior.sure, strict=True) if s < config.min_confidence
    }
    spare = config.length(len(prior.ids)) - config.length_margin - len(prior.ids)
    roomy = set(sorted(doubtful, key=doubtful.__getitem__)[:spare])
    tokens: list[int | None] = []
    for place, (token, word) in enumerate(zip(prior.ids, prior.words, strict=True)):
        tokens.append(None if word in doubtful else token)
        last = place + 1 == len(prior.ids) or prior.words[place + 1] != word
        tokens += [None] * (last and word in roomy)
    head = len(tokens)
    tokens += [None] * (config.length(len(prior.ids)) - head)
    return DraftLayout(tokens, head, int(config.min_length_ratio * head))


def align_targets(
    slots: DraftLayout, truth: Sequence[int], eos_id: int, gap_id: int
) -> tuple[list[int], list[bool]]:
    """What each of the `G` places should hold, and which of them can be learned.

    The tokens that stay and are right (the longest common runs with the truth) hold their place;
    the truth between two of them stands to the left of the places between, gaps behind it, and
    `eos` to the end behind the last. Places between that are too few for their truth are not
    learned, and neither is a token of the truth that the canvas has no place for.
    """
    kept = [(place, t) for place, t in enumerate(slots.tokens) if t is not None]
    matcher = SequenceMatcher(None, [token for _, token in kept], list(truth), autojunk=False)
    anchors = [(-1, -1)]
    for block in matcher.get_matching_blocks():
        anchors += [(kept[block.a + i][0], block.b + i) for i in range(block.size)]
    wanted: list[int] = []
    learned: list[bool] = []
    for (place, at), (next_place, next_at) in pairwise([*anchors, (len(slots.tokens), len(truth))]):
        room, inner = next_place - place - 1, list(truth[at + 1 : next_at])
        last = next_place == len(slots.tokens)
        filler = eos_id if last else gap_id
        wanted += (inner + [filler] * room)[:room]
        learned += [last or len(inner) <= room] * room
        if not last:
            wanted.append(truth[next_at])
            learned.append(True)
    return wanted, learned


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
