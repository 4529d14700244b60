"""Reading of text cells."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..base import Annotations, ReadError, only_read_errors

WORDS = ("a", "the", "small", "red", "seven", "robot", "sound", "push", "above", "naïve", "猫")


class LanguageText(str):
    """A text that names its language, for encoders with parameters of each language (X-MOD)."""

    language: str

    def __new__(cls, text: str, language: str) -> Self:
        self = super().__new__(cls, text)
        self.language = language
        return self

    def __radd__(self, prompt: str) -> Self:
        return type(self)(prompt + str(self), self.language)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.language)


@only_read_errors("a text")
def read(source: Any) -> str:
    """Return the text of a cell: a `str` is the text, `bytes` are UTF-8, a `Path` is a file, and
    `{"text": ..., "language": ...}` a text of a language, by the name that the encoder has for it.

    Raise ReadError for a missing value (None, NaN), an empty text, a number, or invalid UTF-8. A
    text file is named by a `Path`, never by a `str`: a caption may look like a file name.
    """
    if isinstance(source, Mapping):
        if set(source) != {"text", "language"} or not isinstance(source["language"], str):
            raise ReadError(source, f"a mapping of {sorted(map(str, source))}", "text and language")
        return LanguageText(read(source["text"]), source["language"])
    text = _decode(source)
    if not text:
        raise ReadError(source, "the text is empty", "at least one character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ReadError(
            source, f"half a surrogate pair at {error.start}", "valid Unicode"
        ) from None
    return text


def _decode(source: Any) -> str:
    if isinstance(source, str):
        return str(source)  # numpy's str_ is a subclass of str
    if isinstance(source, Path):
        try:
            return _decode(source.read_bytes())
        except OSError as error:
            wrong = error.strerror or str(error)
        except ReadError as error:
            wrong = error.wrong
        raise ReadError(source, wrong, "a UTF-8 text file")
    if isinstance(source, (bytes, bytearray)):
        try:
            return bytes(source).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            wrong = f"byte {error.start} is not UTF-8"
        raise ReadError(source, wrong, "bytes in UTF-8")
    if source is None or (isinstance(source, (float, np.floating)) and math.isnan(source)):
        raise ReadError(source, "the text is missing", "a str")
    raise ReadError(source, f"a {type(source).__name__} is no text", "str, UTF-8 bytes or a Path")


def files(source: Any) -> list[Path]:
    """Return the file that a `Path` names; a `str` is the text itself."""
    return [source.absolute()] if isinstance(source, Path) else []


def example(rng: np.random.Generator) -> str:
    """Return a few words, for dry runs."""
    return " ".join(rng.choice(WORDS, size=int(rng.integers(3, 9))))


def preview(text: str, marks: Annotations | None = None) -> str:
    """Return one paragraph of escaped HTML. Annotations are ignored."""
    return f"<p>{html.escape(text)}</p>"
