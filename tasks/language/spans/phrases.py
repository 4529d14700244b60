"""Phrases of a text by the statistics of the training texts: collocations and keyphrases.

Collocations: words that stand together more often than by chance, by pointwise mutual information
`log p(a b) / (p(a) p(b))`, as DALE (Ghosh et al. 2023) masks them. Keyphrases: runs of words by the
sum of their tf-idf, for KBIR and KeyBART (Kulkarni et al. 2021) where the data have none.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

from ....modalities.base import Fittable, PositiveFloat, PositiveInt
from .corruptions import Span

WORD = re.compile(r"\w+(?:[-'\u2019]\w+)*")


class Phrases(Fittable):
    """min_count: texts in which a pair of words must stand to be a collocation. min_pmi: its least
    pointwise mutual information, in nats. common: a word of more than this share of the texts is no
    part of a keyphrase. max_words: of a keyphrase. most: keyphrases of a text."""

    def __init__(
        self,
        *,
        min_count: PositiveInt = 3,
        min_pmi: PositiveFloat = 2.0,
        common: PositiveFloat = 0.2,
        max_words: PositiveInt = 3,
        most: PositiveInt = 5,
    ) -> None:
        self.min_count, self.min_pmi, self.common = min_count, min_pmi, common
        self.max_words, self.most = max_words, most
        self.enabled = True
        self.texts = 0
        self.words: Counter[str] = Counter()
        self.pairs: Counter[str] = Counter()

    def check_example(self, example: Any) -> None:
        if not isinstance(example, str):
            raise ValueError(f"phrases: fits on texts, found {type(example).__name__}")

    def fit(self, rows: Iterable[Any]) -> None:
        """Count the texts in which each word stands, and each pair of neighbours. A task that
        chooses no phrases sets `enabled` to False, so that nothing is read."""
        self.texts, self.words, self.pairs = 0, Counter(), Counter()
        if not self.enabled:
            return
        for text in rows:
            words = [word for word, _, _ in words_of(text)]
            self.texts += 1
            self.words.update(set(words))
            self.pairs.update({f"{a} {b}" for a, b in _neighbours(text)})
        self.pairs = Counter({p: n for p, n in self.pairs.items() if n >= self.min_count})

    def state(self) -> dict[str, Any]:
        return {"texts": self.texts, "words": dict(self.words), "pairs": dict(self.pairs)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.texts = state["texts"]
        self.words, self.pairs = Counter(state["words"]), Counter(state["pairs"])

    def pmi(self, first: str, second: str) -> float:
        """Return the pointwise mutual information of a pair in a text; -inf of one that was seen
        in fewer than `min_count` texts."""
        together = self.pairs[f"{first} {second}"]
        if not together:
            return -math.inf
        return math.log(together * self.texts / (self.words[first] * self.words[second]))

    def collocations(self, text: str) -> list[Span]:
        """Return the characters of each run of words whose neighbours belong together, in order."""
        words = list(words_of(text))
        bound = [
            _adjoin(text, a, b) and self.pmi(a[0], b[0]) >= self.min_pmi for a, b in pairwise(words)
        ]
        spans, place = [], 0
        for joined, group in groupby([*bound, False]):
            count = len(list(group))
            if joined:
                spans.append((words[place][1], words[place + count][2]))
            place += count
        return spans

    def keyphrases(self, text: str) -> list[Span]:
        """Return the characters of the first occurrence of each of the best phrases, the best one
        first; no two share a word."""
        counts = Counter(word for word, _, _ in words_of(text))
        scored: dict[str, tuple[float, Span]] = {}
        for run in self._runs(text):
            for size in range(1, self.max_words + 1):
                for start in range(len(run) - size + 1):
                    part = run[start : start + size]
                    name = " ".join(word for word, _, _ in part)
                    score = sum(counts[word] * self._idf(word) for word, _, _ in part)
                    scored.setdefault(name, (score / size**0.5, (part[0][1], part[-1][2])))
        chosen: list[Span] = []
        taken: set[str] = set()
        for name, (_, span) in sorted(scored.items(), key=lambda item: (-item[1][0], item[1][1])):
            if len(chosen) < self.most and not taken & set(name.split()):
                chosen.append(span)
                taken |= set(name.split())
        return chosen

    def _idf(self, word: str) -> float:
        return math.log((1 + self.texts) / (1 + self.words[word]))

    def _runs(self, text: str) -> Iterator[list[tuple[str, int, int]]]:
        """Yield runs of neighbouring words that are not common."""
        run: list[tuple[str, int, int]] = []
        for word in words_of(text):
            common = self.words[word[0]] > self.common * self.texts or len(word[0]) < 3
            if run and (common or not _adjoin(text, run[-1], word)):
                yield run
                run = []
            if not common:
                run.append(word)
        if run:
            yield run


def words_of(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield each word in lower case, with its first character and the one after its last."""
    for match in WORD.finditer(text):
        yield match.group().lower(), match.start(), match.end()


def _adjoin(text: str, first: tuple[str, int, int], second: tuple[str, int, int]) -> bool:
    return text[first[2] : second[1]].isspace()


def _neighbours(text: str) -> Iterator[tuple[str, str]]:
    for first, second in pairwise(words_of(text)):
        if _adjoin(text, first, second):
            yield first[0], second[0]


def occurrences(text: str, phrases: Sequence[str]) -> list[Span]:
    """Return the characters of the first occurrence of each phrase as whole words, in whatever
    case, of those that stand in the text and share none with one before."""
    spans: list[Span] = []
    for phrase in phrases:
        match = re.search(rf"(?<!\w){re.escape(phrase.strip())}(?!\w)", text, re.IGNORECASE)
        if phrase.strip() and match is not None:
            start, stop = match.span()
            if all(stop <= a or start >= b for a, b in spans):
                spans.append((start, stop))
    return spans


def keyphrases_of(column: str, cell: Any) -> list[str]:
    """Return the keyphrases of a cell: a list of texts, or a text with `;` between."""
    names = cell.split(";") if isinstance(cell, str) else cell
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{column}: found {cell!r}, expected a list of texts")
    return [name.strip() for name in names if name.strip()]
