"""Comparison of a prediction with its references, with differing words marked."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape

Normalize = Callable[[str], str]
"""Normalizes a text as the metrics of its task do (`Task.comparable`)."""


def unspaced(text: str) -> str:
    """Return the text with single spaces between its words."""
    return " ".join(text.split())


@dataclass(frozen=True)
class Comparison:
    """correct: None if a prediction is neither right nor wrong (a number, no reference). words:
    words that differ after `normalize` are marked, in the prediction and in the nearest
    reference."""

    prediction: str
    references: list[str] = field(default_factory=list)
    correct: bool | None = None
    note: str = ""
    words: bool = False
    normalize: Normalize = unspaced

    @property
    def prediction_html(self) -> Markup:
        """Return the prediction as HTML; computed for the rows shown alone."""
        return self._compared()[0] if self.words else escape(self.prediction)

    @property
    def references_html(self) -> list[Markup]:
        """Return the references as HTML."""
        return self._compared()[1] if self.words else [escape(text) for text in self.references]

    def _compared(self) -> tuple[Markup, list[Markup]]:
        words = [_words(text, self.normalize) for text in (self.prediction, *self.references)]
        return compare(words[0], words[1:])


Words = list[tuple[str, str]]
"""The words of a text: as shown, and as compared."""


def _words(text: str, normalize: Normalize) -> Words:
    """Return a text's words if each can be normalized alone, else those of the normalized text; a
    word that normalizes to nothing (a dash) is shown with the word before it."""
    words: Words = []
    for word in text.split():
        key = normalize(word)
        if key or not words:
            words.append((word, key))
        else:
            words[-1] = (f"{words[-1][0]} {word}", words[-1][1])
    normalized = normalize(text)
    keys = [key for _, key in words if key]
    if keys == normalized.split() and len(keys) == len(words):
        return words
    return [(word, word) for word in normalized.split()]


def compare(words: Words, references: Sequence[Words]) -> tuple[Markup, list[Markup]]:
    """Compare a prediction with its references: words that the nearest reference lacks are marked,
    `…` marks missing ones, and in the reference the words that the prediction lacks."""
    keys = [key for _, key in words]
    matchers = [
        difflib.SequenceMatcher(None, keys, [key for _, key in reference], autojunk=False)
        for reference in references
    ]
    nearest = max(range(len(matchers)), key=lambda i: matchers[i].ratio())
    marked: list[Markup] = []
    nearest_words: list[Markup] = []
    for kind, a, b, c, d in matchers[nearest].get_opcodes():
        same, other = _join(words[a:b]), _join(references[nearest][c:d])
        marked.append(escape(same) if kind == "equal" else _mark(same or "…"))
        nearest_words += (
            [escape(other) if kind == "equal" else _mark(other, "lost")] if other else []
        )
    texts = [escape(_join(reference)) for reference in references]
    texts[nearest] = Markup(" ").join(nearest_words)
    return Markup(" ").join(marked), texts


def _join(words: Words) -> str:
    return " ".join(word for word, _ in words)


def _mark(text: str, kind: str = "") -> Markup:
    name = Markup(' class="{}"').format(kind) if kind else Markup("")
    return Markup("<mark{}>{}</mark>").format(name, text)


def format_value(value: Any) -> str:
    """Format a JSON value: short numbers, names before their values."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {format_value(v)}" for name, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(format_value, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
