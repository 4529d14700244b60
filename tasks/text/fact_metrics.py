"""Facts parsed back from texts, and how many of them are right.

A fact is what the groups of a pattern find in a text. Of all facts that the texts state, the
share that their references state too is the precision; the other way round, the recall; `fact_f1`
is their harmonic mean over all facts and texts. A stated fact that is another counts in both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Found = tuple[str | None, ...]


class Facts:
    """patterns: regular expressions with a group, by name. within: for facts that are numbers, the
    share of the reference's by which they may be off. Raises ValueError for what cannot be used."""

    def __init__(
        self, patterns: Mapping[str, str], within: Mapping[str, float] | None = None
    ) -> None:
        self.patterns = {name: _pattern(name, text) for name, text in patterns.items()}
        self.within = dict(within or {})
        for name, share in self.within.items():
            if name not in self.patterns:
                raise ValueError(f"fact_tolerance.{name}: there is no fact {name!r} among facts")
            if share < 0:
                raise ValueError(
                    f"fact_tolerance.{name}: found {share}, expected a share of at least 0"
                )

    def scores(self, texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """`fact_<name>`: of the references that state a fact, the share whose text states the
        same; NaN where none does. `fact_f1`: over all facts."""
        if not self.patterns:
            return {}
        found, right, said, wanted = {}, 0, 0, 0
        stated = [(self.of(t), self.of(r)) for t, r in zip(texts, references, strict=True)]
        for name in self.patterns:
            pairs = [(made.get(name), known.get(name)) for made, known in stated]
            same = sum(self._same(name, made, known) for made, known in pairs)
            known = sum(known is not None for _, known in pairs)
            found[f"fact_{name}"] = same / known if known else float("nan")
            right, wanted = right + same, wanted + known
            said += sum(made is not None for made, _ in pairs)
        return {**found, "fact_f1": 2 * right / (said + wanted) if said + wanted else float("nan")}

    def of(self, text: str) -> dict[str, Found]:
        """The facts that a text states."""
        found = {name: _groups(pattern, text) for name, pattern in self.patterns.items()}
        return {name: groups for name, groups in found.items() if groups is not None}

    def agreeing(self, made: Mapping[str, Found], known: Mapping[str, Found]) -> int:
        """How many facts of one text the other states too, by what `of` gives of both."""
        return sum(self._same(name, groups, known.get(name)) for name, groups in made.items())

    def _same(self, name: str, made: Found | None, known: Found | None) -> bool:
        if made is None or known is None:
            return False
        share = self.within.get(name)
        if share is None:
            return made == known
        return all(_near(a, b, share) for a, b in zip(made, known, strict=True))


def _groups(pattern: re.Pattern[str], text: str) -> Found | None:
    found = pattern.search(text)
    return None if found is None else found.groups()


def _near(made: str | None, known: str | None, share: float) -> bool:
    try:
        value, wanted = float(made or ""), float(known or "")
    except ValueError:
        return made == known
    return abs(value - wanted) <= share * abs(wanted)


def _pattern(name: str, text: str) -> re.Pattern[str]:
    try:
        found = re.compile(text)
    except re.error as error:
        raise ValueError(f"facts.{name}: {text!r} is no pattern: {error}") from None
    if not found.groups:
        raise ValueError(f"facts.{name}: {text!r} has no group; write (...) round the fact")
    return found
