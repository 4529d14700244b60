"""Words of a text, as its measures count them."""

from __future__ import annotations

import unicodedata

JOINERS = "\u200c\u200d"
"""Invisible characters within a word."""
ZERO_WIDTH_SPACE = "\u200b"
"""Stands between words of scripts that write no space."""


def visible(text: str) -> str:
    """Return what is seen of a text, composed (NFC): without marks of direction, soft hyphens and
    the mark of an encoding; a space without width is one with."""
    seen = (
        " " if char == ZERO_WIDTH_SPACE else char
        for char in unicodedata.normalize("NFC", text)
        if char in (*JOINERS, ZERO_WIDTH_SPACE) or unicodedata.category(char) != "Cf"
    )
    return " ".join("".join(seen).split())


def words(text: str) -> list[str]:
    """Split a text into words in lower case, composed (NFC); punctuation marks are words. Combining
    marks (vowel signs of Hindi or Thai) belong to their letter."""
    tokens: list[str] = []
    before = ""  # the kind of the last character: a word, a symbol, or a space
    for char in unicodedata.normalize("NFC", visible(text).lower()):
        if char.isspace():
            before = ""
            continue
        kind = "word" if char.isalnum() or char == "_" else "symbol"
        attached = char in JOINERS or unicodedata.category(char)[0] == "M"
        if (before and attached) or before == kind == "word":
            tokens[-1] += char
        else:
            tokens.append(char)
            before = "word" if attached else kind
    return tokens
