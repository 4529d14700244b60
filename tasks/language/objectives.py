"""Objectives of language modelling: each turns the ids of a text into a source and a target.

A target is learned after its source: on a causal backbone both are one row, on an encoder-decoder
the source is the encoder's. Ids that the vocabulary lacks are negative here (`Markers`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from ...modalities.base import Tokenizer
from .spans import (
    Phrases,
    Span,
    corrupt_groups,
    corrupt_spans,
    identifier_groups,
    move_middle,
    occurrences,
    restore_middle,
    restore_spans,
    sample_spans,
    token_places,
)

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
    which objectives find words among the ids. phrases: chosen by statistics of the training texts.
    keyphrases: of this text, where the data have them."""

    rate: float
    mean_span: float
    markers: Markers
    tokenizer: Tokenizer | None = None
    phrases: Phrases = field(default_factory=Phrases)
    keyphrases: Sequence[str] | None = None


Corrupt = Callable[[list[int], Noise, np.random.Generator], Pair]
Restore = Callable[[Sequence[int], Sequence[int], Noise], list[int]]


@dataclass(frozen=True)
class Objective:
    """corrupt: ids -> (source, target). restore: the text of a source and a target, which may also
    be a decoder's. markers: names of the special tokens, beside sentinels. encoder: whether an
    encoder-decoder can learn it. keeps_end: the target ends as the text. phrases: whether it needs
    statistics of the training texts."""

    corrupt: Corrupt
    restore: Restore
    markers: tuple[str, ...] = ()
    sentinels: bool = False
    encoder: bool = True
    keeps_end: bool = False
    phrases: bool = False


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


def collocations(ids: list[int], noise: Noise, rng: np.random.Generator) -> Pair:
    """Return the text with runs of words that belong together masked, drawn until `rate` of its
    tokens are, and the runs. A text without any has none masked."""
    assert noise.tokenizer is not None
    spans = noise.phrases.collocations(noise.tokenizer.decode(ids))
    places = token_places(ids, noise.tokenizer, spans)
    drawn: list[Span] = []
    masked = 0
    sentinels = noise.markers.sentinels
    for number in rng.permutation(len(places)).tolist()[: len(sentinels) - 1]:
        if masked >= max(1, noise.rate * len(ids)):
            break
        drawn.append(places[number])
        masked += places[number][1] - places[number][0]
    return corrupt_spans(ids, sorted(drawn), sentinels)


def keyphrases(ids: list[int], noise: Noise, rng: np.random.Generator) -> Pair:
    """Return the text with its keyphrases masked, and all of them, those of the text in their
    order first, with a `;` between."""
    tokenizer, sentinels = noise.tokenizer, noise.markers.sentinels
    assert tokenizer is not None
    text, names = tokenizer.decode(ids), noise.keyphrases
    spans = noise.phrases.keyphrases(text) if names is None else occurrences(text, names)
    places = token_places(ids, tokenizer, sorted(spans[: len(sentinels) - 1]))
    source, _ = corrupt_spans(ids, places, sentinels)
    phrases = [ids[start:stop] for start, stop in places]
    present = {tokenizer.decode(p).strip().lower() for p in phrases}
    phrases += [tokenizer.encode(n) for n in names or () if n.strip().lower() not in present]
    between = tokenizer.encode(";")
    return source, [i for k, p in enumerate(phrases) for i in (*(between if k else ()), *p)]


def restore_keyphrases(source: Sequence[int], target: Sequence[int], noise: Noise) -> list[int]:
    assert noise.tokenizer is not None
    between, phrases = noise.tokenizer.encode(";"), [list[int]()]
    place = 0
    while place < len(target):
        if list(target[place : place + len(between)]) == between:
            phrases.append([])
            place += len(between)
        else:
            phrases[-1].append(target[place])
            place += 1
    numbers = {sentinel: k for k, sentinel in enumerate(noise.markers.sentinels)}
    return [
        i
        for token in source
        for i in ([token] if token not in numbers else (phrases[numbers[token] :] or [[]])[0])
    ]


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


def restore_appended(source: Sequence[int], target: Sequence[int], noise: Noise) -> list[int]:
    return [*source, *target]


def restore_sentinels(source: Sequence[int], target: Sequence[int], noise: Noise) -> list[int]:
    return restore_spans(source, target, noise.markers.sentinels)


def restore_moved(source: Sequence[int], target: Sequence[int], noise: Noise) -> list[int]:
    markers = noise.markers.ids(INFILLING)
    return restore_middle(target, markers) if set(markers) <= set(target) else [*target]


def restore_ul2(source: Sequence[int], target: Sequence[int], noise: Noise) -> list[int]:
    mode, *rest = source
    appended = mode == noise.markers.ids(["S"])[0]
    return (restore_appended if appended else restore_sentinels)(rest, target, noise)


OBJECTIVES = {
    "causal": Objective(causal, restore_appended, encoder=False, keeps_end=True),
    "prefix": Objective(prefix, restore_appended, keeps_end=True),
    "span_corruption": Objective(span_corruption, restore_sentinels, sentinels=True),
    "identifiers": Objective(identifiers, restore_sentinels, sentinels=True),
    "collocations": Objective(collocations, restore_sentinels, sentinels=True, phrases=True),
    "keyphrases": Objective(keyphrases, restore_keyphrases, sentinels=True, phrases=True),
    "fill_in_the_middle": Objective(fill_in_the_middle, restore_moved, INFILLING, encoder=False),
    "ul2": Objective(ul2, restore_ul2, MODES, sentinels=True),
}


def markers_of(names: Collection[str], sentinels: int) -> Markers:
    """Return the special tokens that some objectives need."""
    objectives = [OBJECTIVES[name] for name in names]
    needed = dict.fromkeys(marker for each in objectives for marker in each.markers)
    count = sentinels if any(each.sentinels for each in objectives) else 0
    return Markers((*needed, *map(str, range(count))))
