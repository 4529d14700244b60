"""What texts go through before their errors are counted.

`unicode` suits every script; `basic` and `english` are Whisper's. `EnglishTextNormalizer` writes
spelled-out numbers as numerals ('one two' becomes '12', one wrong digit makes the whole number
wrong): it suits references that hold numerals. `BasicTextNormalizer` writes a space for every
combining mark, so that the vowel signs of Hindi, Tamil or Thai do not count and words fall apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

Normalizer = Literal["unicode", "basic", "english", "none"]

_BRACKETS = re.compile(r"[<\[][^>\]]*[>\]]|\([^)]+?\)")
ZERO_WIDTH_SPACE = "\u200b"
"""Stands between words of scripts that write no space."""
TATWEEL = "\u0640"
"""Stretches an Arabic word, and is no letter of it."""


def normalizer_of(name: Normalizer) -> Callable[[str], str]:
    """Return a function that normalizes a text to words with single spaces between. `english` is
    used without its table of British spellings, which comes only with Whisper's weights."""
    if name == "none":
        return lambda text: " ".join(text.split())
    if name == "unicode":
        return normalize_unicode
    # Imported when a score is computed: it takes a second, and `check` computes none.
    from transformers.models.whisper import english_normalizer as whisper

    makers: dict[str, Callable[[], Callable[[str], str]]] = {
        "basic": whisper.BasicTextNormalizer,
        "english": lambda: whisper.EnglishTextNormalizer({}),
    }
    if name not in makers:
        known = ", ".join(["unicode", *makers, "none"])
        raise ValueError(f"normalizer: found {name!r}, expected one of {known}")
    normalize = makers[name]()
    return lambda text: " ".join(normalize(text).split())


def normalize_unicode(text: str) -> str:
    """Return the text in lower case, composed (NFC), without punctuation, symbols and what stands
    in brackets, as `BasicTextNormalizer` does; but marks stay with their letters, and invisible
    joiners leave no gap."""
    text = _BRACKETS.sub("", unicodedata.normalize("NFC", text).lower())
    letters: list[str] = []
    for char in unicodedata.normalize("NFC", "".join(map(_compatible, text))):
        kind = unicodedata.category(char)
        if kind[0] == "M":
            # A variation selector or mark without its letter (e.g. of an emoji) is no word.
            enclosing = kind == "Me" or _is_selector(char)
            if letters and letters[-1] != " " and not enclosing:
                letters.append(char)
        elif kind == "Cf" or char == TATWEEL:
            letters += [" "] if char == ZERO_WIDTH_SPACE else []
        else:
            letters.append(" " if kind[0] in "PSZC" else char)
    return " ".join("".join(letters).lower().split())


def _compatible(char: str) -> str:
    """Return a full-width letter, ligature or styled digit as plain ones (NFKC), unless a mark
    would come out of it: Thai's and Lao's vowel AM are letters."""
    if not unicodedata.decomposition(char).startswith("<"):
        return char
    plain = unicodedata.normalize("NFKC", char)
    return char if any(unicodedata.category(c)[0] == "M" for c in plain) else plain


def _is_selector(char: str) -> bool:
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"
