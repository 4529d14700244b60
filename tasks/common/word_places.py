"""Where the words of a text lie among the ids of an encoder."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...modalities.base import Tokenizer


def word_places(
    tokenizer: Tokenizer, text: str, prompt: str = ""
) -> tuple[list[tuple[str, int, int]], int]:
    """Return the words of a text, separated by spaces, each with the index of its first id and of
    the one behind its last among those of an encoder, and the number of special ids at the end.

    prompt: what the stream puts before the text; none of its words. A word without ids has an empty
    range. Raise ValueError if an id belongs to two words.
    """
    begin = len(prompt)
    words = [(begin + m.start(), begin + m.end()) for m in re.finditer(r"\S+", text)]
    text = prompt + text
    ids, plain = tokenizer.encode(text, special=True), tokenizer.encode(text)
    head = _find(ids, plain)
    ends = _ends_by_piece(tokenizer, text, words, plain) or _ends_by_prefix(
        tokenizer, text, words, plain
    )
    places, begin = [], 0
    for (first, last), (skipped, behind) in zip(words, ends, strict=True):
        places.append((text[first:last], head + begin + skipped, head + behind))
        begin = behind
    return places, len(ids) - head - len(plain)


Ends = list[tuple[int, int]]
"""Of each word the ids of the spaces before it, and the index behind its last id."""


def _find(ids: Sequence[int], plain: Sequence[int]) -> int:
    """Return where the plain ids begin among those with special ids."""
    for begin in range(len(ids) - len(plain) + 1):
        if list(ids[begin : begin + len(plain)]) == list(plain):
            return begin
    raise ValueError("words: the tokenizer's special ids are not at the ends of a text")


def _ends_by_piece(
    tokenizer: Tokenizer, text: str, words: Sequence[tuple[int, int]], plain: Sequence[int]
) -> Ends | None:
    """Encode each word with the spaces before it; None if that yields other ids than the text."""
    ends: Ends = []
    joined: list[int] = []
    previous = 0
    for first, last in words:
        piece = tokenizer.encode(text[previous:last])
        before = text[previous:first]
        skipped = max(_prefix(tokenizer, part, piece) for part in (before, before.rstrip()))
        joined += piece
        ends.append((skipped, len(joined)))
        previous = last
    return ends if joined == list(plain[: len(joined)]) else None


def _prefix(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> int:
    """Return the number of ids of a text if others begin with them, else 0."""
    before = tokenizer.encode(text) if text else []
    return len(before) if len(before) < len(ids) and list(ids[: len(before)]) == before else 0


def _ends_by_prefix(
    tokenizer: Tokenizer, text: str, words: Sequence[tuple[int, int]], plain: Sequence[int]
) -> Ends:
    """Encode the text up to the end of each word."""
    ends: Ends = []
    for first, last in words:
        prefix = tokenizer.encode(text[:last])
        if prefix != list(plain[: len(prefix)]):
            raise ValueError(
                f"words: the tokenizer joins {text[first:last]!r} and the word after it; take "
                "another tokenizer"
            )
        skipped = 0 if ends else _prefix(tokenizer, text[:first].rstrip(), prefix)
        ends.append((skipped, len(prefix)))
    return ends
