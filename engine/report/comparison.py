"""What a person reads under a sample: what was said, what was wanted, and where they differ."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Comparison:
    """right: None where a prediction is neither right nor wrong (a number, no reference).
    words: the words that differ are marked, in what was said and in the nearest reference."""

    text: str
    wanted: list[str] = field(default_factory=list)
    right: bool | None = None
    note: str = ""
    words: bool = False

    @property
    def said(self) -> Markup:
        """The text as HTML; only rows that are shown come to this."""
        return self._compared()[0] if self.words else escape(self.text)

    @property
    def references(self) -> list[Markup]:
        """What was wanted, as HTML."""
        return self._compared()[1] if self.words else [escape(text) for text in self.wanted]

    def _compared(self) -> tuple[Markup, list[Markup]]:
        return compare(self.text.split(), [text.split() for text in self.wanted])


def compare(words: list[str], references: list[list[str]]) -> tuple[Markup, list[Markup]]:
    """The words said, those that the nearest reference lacks marked, `…` where it has more; and
    the references, in the nearest the words marked that were not said."""
    found = [difflib.SequenceMatcher(None, words, r, autojunk=False) for r in references]
    nearest = max(range(len(found)), key=lambda i: found[i].ratio())
    said: list[Markup] = []
    lost: list[Markup] = []
    for kind, a, b, c, d in found[nearest].get_opcodes():
        same, own = " ".join(words[a:b]), " ".join(references[nearest][c:d])
        said.append(escape(same) if kind == "equal" else _mark(same or "…"))
        lost += [escape(own) if kind == "equal" else _mark(own, "lost")] if own else []
    others = [escape(" ".join(reference)) for reference in references]
    others[nearest] = Markup(" ").join(lost)
    return Markup(" ").join(said), others


def _mark(text: str, kind: str = "") -> Markup:
    name = Markup(' class="{}"').format(kind) if kind else Markup("")
    return Markup("<mark{}>{}</mark>").format(name, text)


def format_value(value: Any) -> str:
    """A JSON value for a person: numbers short, names before their values."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {format_value(v)}" for name, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(format_value, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
