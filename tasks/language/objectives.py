"""Objectives of language modelling: each turns the ids of a text into a source and a target.

A target is learned after its source: on a causal backbone both are one row, on an encoder-decoder
the source is the encoder's. Ids that the vocabulary lacks are negative here (`Markers`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from ...modalities.base import Tokenizer
from .corruptions import corrupt_spans, move_middle, sample_spans
from .places import corrupt_groups, identifier_groups

INFILLING = ("PRE", "SUF", "MID")
MODES = ("R", "S", "X")
LONG_SPAN, HIGH_RATE = 32.0, 0.5
"""The two kinds of UL2's extreme denoiser: long spans, and many tokens."""

Pair = tuple[list[int], list[int]]


PRETRAINED = {
    "PRE": ("<fim_prefix>", "<|fim_prefix|>", "<fim-prefix>"),
    "SUF": ("<fim_suffix>", "<|fim_suffix|>", "<fim-suffix>"),
    "MID": ("<fim_middle>", "<|fim_middle|>", "<fim-middle>"),
    "R": ("[NLU]",),
    "S": ("[S2S]",),
    "X": ("[NLG]",),
}
"""Special tokens that pretrained models have for a marker: StarCoder's and Qwen's, UL2's."""


@dataclass(frozen=True)
class Markers:
    """Special tokens of the objectives, by name: those that a pretrained vocabulary has are reused,
    the others are added. The id of the k-th is -1 - k until the vocabulary is known
    (`resolve`)."""

    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def ids(self, names: Collection[str]) -> list[int]:
        return [-1 - self.names.index(name) for name in names]

    @property
    def sentinels(self) -> list[int]:
        return [-1 - k for k, name in enumerate(self.names) if name.isdecimal()]

    def pretrained(self, tokenizer: Tokenizer) -> list[int | None]:
        """Return the ids that a tokenizer has for the markers: T5's `<extra_id_0>`, CodeGen2's
        `<mask_1>` and those of `PRETRAINED`; None for the others."""

        def find(name: str) -> int | None:
            number = int(name) if name.isdecimal() else 0
            numbered = (f"<extra_id_{number}>", f"<mask_{number + 1}>")
            ids = (tokenizer.special_id(t) for t in PRETRAINED.get(name, numbered))
            return next((i for i in ids if i is not None), None)

        return [find(name) for name in self.names]

    @staticmethod
    def resolve(ids: Tensor, table: Tensor) -> Tensor:
        """Return ids of the vocabulary; table `[markers]` has the id of each marker."""
        if not len(table):
            return ids
        return ids.where(ids >= 0, table[(-1 - ids).clamp(min=0)])


@dataclass(frozen=True)
class Noise:
    """Of span corruption. rate: fraction of the tokens. mean_span: tokens of a span. tokenizer: by
    which objectives find words among the ids."""

    rate: float
    mean_span: float
    markers: Markers
    tokenizer: Tokenizer | None = None


Corrupt = Callable[[list[int], Noise, np.random.Generator], Pair]


@dataclass(frozen=True)
class Objective:
    """corrupt: ids -> (source, target). markers: names of the special tokens, beside sentinels.
    encoder: whether an encoder-decoder can learn it. keeps_end: the target ends as the text."""

    corrupt: Corrupt
    markers: tuple[str, ...] = ()
    sentinels: bool = False
    encoder: bool = True
    keeps_end: bool = False


def causal(ids: list[int], noise: Noise, rng: np.random.Generator) -> Pair:
    """Return all of the text as target."""
    return [], ids


def prefix(ids: list[int], noise: Noise, rng: np.random.Generator) -> Pair:
    """Return the text before and after a random place; a text of one token is all target."""
    place = int(rng.integers(1, len(ids))) if len(ids) > 1 else 0
    return ids[:place], ids[place:]


def span_corruption(ids: list[int], noise: Noise, rng: np.random.Generator) -> Pair:
    sentinels = noise.markers.sentinels
    spans = sample_spans(len(ids), noise.rate, noise.mean_span, rng, len(sentinels) - 1)
    return corrupt_spans(ids, spans, sentinels)


def identifiers(ids: list[int], noise: Noise, rng: np.random.Generator) -> Pair:
    """Return the text with the names of a program masked, drawn until `rate` of its tokens are, and
    the names; a name is the same sentinel everywhere. A text without names has none masked."""
    assert noise.tokenizer is not None
    sentinels = noise.markers.sentinels
    groups = identifier_groups(ids, noise.tokenizer)
    drawn: list[int] = []
    masked = 0
    for number in rng.permutation(len(groups)).tolist()[: len(sentinels) - 1]:
        if masked >= max(1, noise.rate * len(ids)):
            break
        drawn.append(number)
        masked += sum(stop - start for start, stop in groups[number])
    return corrupt_groups(ids, [groups[number] for number in sorted(drawn)], sentinels)


def fill_in_the_middle(ids: list[int], noise: Noise, rng: np.random.Generator) -> Pair:
    """Return all of the text as target, its middle at the end. Both ends of the middle are uniform
    among all places."""
    start, stop = sorted(int(place) for place in rng.integers(0, len(ids) + 1, 2))
    return [], move_middle(ids, (start, stop), noise.markers.ids(INFILLING))


def ul2(ids: list[int], noise: Noise, rng: np.random.Generator) -> Pair:
    """Return the example of one of three denoisers, chosen with equal chances, behind its mode
    token: R, span corruption; S, prefix; X, span corruption with long spans or many tokens."""
    mode = MODES[int(rng.integers(len(MODES)))]
    if mode == "X":
        long = rng.random() < 0.5
        rate, span = (noise.rate, LONG_SPAN) if long else (HIGH_RATE, noise.mean_span)
        noise = replace(noise, rate=rate, mean_span=span)
    source, target = (prefix if mode == "S" else span_corruption)(ids, noise, rng)
    return [*noise.markers.ids([mode]), *source], target


OBJECTIVES = {
    "causal": Objective(causal, encoder=False, keeps_end=True),
    "prefix": Objective(prefix, keeps_end=True),
    "span_corruption": Objective(span_corruption, sentinels=True),
    "identifiers": Objective(identifiers, sentinels=True),
    "fill_in_the_middle": Objective(fill_in_the_middle, INFILLING, encoder=False),
    "ul2": Objective(ul2, MODES, sentinels=True),
}


def markers_of(names: Collection[str], sentinels: int) -> Markers:
    """Return the special tokens that some objectives need."""
    objectives = [OBJECTIVES[name] for name in names]
    needed = dict.fromkeys(marker for each in objectives for marker in each.markers)
    count = sentinels if any(each.sentinels for each in objectives) else 0
    return Markers((*needed, *map(str, range(count))))
