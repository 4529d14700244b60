"""Facts extracted from texts, and how many of them are right.

A fact is the groups of a pattern's match in a text. The fraction of the stated facts that the
references state too is the precision; the other way round, the recall; `fact_f1` is their harmonic
mean over all facts and texts. A wrong fact counts in both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Fact = tuple[str | None, ...]


class Facts:
    """patterns: regular expressions with a group, by name. tolerance: for numeric facts, the
    allowed relative error. Raise ValueError for an invalid option."""

    def __init__(
        self, patterns: Mapping[str, str], tolerance: Mapping[str, float] | None = None
    ) -> None:
        self.patterns = {name: _pattern(name, text) for name, text in patterns.items()}
        self.tolerance = dict(tolerance or {})
        for name, share in self.tolerance.items():
            if name not in self.patterns:
                raise ValueError(f"fact_tolerance.{name}: there is no fact {name!r} among facts")
            if share < 0:
                raise ValueError(
                    f"fact_tolerance.{name}: found {share}, expected a share of at least 0"
                )

    def scores(self, texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Return `fact_<name>`: of the references that state a fact, the fraction whose text states
        the same; NaN if none does; and `fact_f1` over all facts."""
        if not self.patterns:
            return {}
        scores, right, stated_count, reference_count = {}, 0, 0, 0
        stated = [(self.of(t), self.of(r)) for t, r in zip(texts, references, strict=True)]
        for name in self.patterns:
            pairs = [(predicted.get(name), reference.get(name)) for predicted, reference in stated]
            same = sum(self._same(name, predicted, reference) for predicted, reference in pairs)
            reference = sum(reference is not None for _, reference in pairs)
            scores[f"fact_{name}"] = same / reference if reference else float("nan")
            right, reference_count = right + same, reference_count + reference
            stated_count += sum(predicted is not None for predicted, _ in pairs)
        return {
            **scores,
            "fact_f1": 2 * right / (stated_count + reference_count)
            if stated_count + reference_count
            else float("nan"),
        }

    def of(self, text: str) -> dict[str, Fact]:
        """Return the facts that a text states."""
        matches = {name: _groups(pattern, text) for name, pattern in self.patterns.items()}
        return {name: groups for name, groups in matches.items() if groups is not None}

    def agreeing(self, predicted: Mapping[str, Fact], reference: Mapping[str, Fact]) -> int:
        """Return how many facts of one text another states too, both as returned by `of`."""
        return sum(
            self._same(name, groups, reference.get(name)) for name, groups in predicted.items()
        )

    def _same(self, name: str, predicted: Fact | None, reference: Fact | None) -> bool:
        if predicted is None or reference is None:
            return False
        tolerance = self.tolerance.get(name)
        if tolerance is None:
            return predicted == reference
        return all(_near(a, b, tolerance) for a, b in zip(predicted, reference, strict=True))


def _groups(pattern: re.Pattern[str], text: str) -> Fact | None:
    match = pattern.search(text)
    return None if match is None else match.groups()


def _near(predicted: str | None, reference: str | None, tolerance: float) -> bool:
    try:
        value, target = float(predicted or ""), float(reference or "")
    except ValueError:
        return predicted == reference
    return abs(value - target) <= tolerance * abs(target)


def _pattern(name: str, text: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(text)
    except re.error as error:
        raise ValueError(f"facts.{name}: {text!r} is no pattern: {error}") from None
    if not compiled.groups:
        raise ValueError(f"facts.{name}: {text!r} has no group; write (...) round the fact")
    return compiled
