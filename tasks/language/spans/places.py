"""Places of a text by what stands there: identifiers of a program, digits of a number.

Identifiers: Wang et al. 2021 (CodeT5), section 3.2, masked identifier prediction; each is one
sentinel wherever it occurs. Digits: Geva et al. 2020 (GenBERT), section 3.2.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from ....modalities.base import Tokenizer

Span = tuple[int, int]
RESERVED = frozenset({*keyword.kwlist, *dir(builtins)})
"""Words of Python that name nothing of the program's own."""
IDENTIFIER = re.compile(r"(?<![\w.])[A-Za-z_]\w*|(?<=\.)[A-Za-z_]\w*")


def encode_digits(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text in which every digit is encoded by itself."""
    return [i for piece in re.split(r"(\d)", text) if piece for i in tokenizer.encode(piece)]


def token_spans(ids: Sequence[int], tokenizer: Tokenizer) -> list[Span]:
    """Return the characters, first and one after the last, that each token adds to the text."""
    ends = [0, *(len(tokenizer.decode(ids[: i + 1])) for i in range(len(ids)))]
    return list(pairwise(ends))


def identifier_groups(ids: Sequence[int], tokenizer: Tokenizer) -> list[list[Span]]:
    """Return the token spans of each identifier, in the order of their first occurrence.

    Occurrences that are other tokens (behind a space, or not) are identifiers of their own, so that
    one sentinel always stands for the same ids. Names in which a token begins or ends that is not
    theirs alone are left out.
    """
    text = tokenizer.decode(ids)
    names = [m.span() for m in IDENTIFIER.finditer(text) if m.group() not in RESERVED]
    groups: dict[tuple[int, ...], list[Span]] = {}
    for place in token_places(ids, tokenizer, names):
        groups.setdefault(tuple(ids[slice(*place)]), []).append(place)
    return list(groups.values())


def token_places(
    ids: Sequence[int], tokenizer: Tokenizer, characters: Iterable[Span]
) -> list[Span]:
    """Return the tokens of each span of characters of `tokenizer.decode(ids)`. A span in which a
    token begins or ends that is not its alone is left out."""
    text, spans = tokenizer.decode(ids), token_spans(ids, tokenizer)
    starts = {start: i for i, (start, end) in reversed(list(enumerate(spans))) if end > start}
    ends = {end: i + 1 for i, (start, end) in enumerate(spans) if end > start}
    places = []
    for first, stop in characters:
        if first not in starts and text[first - 1 : first] == " ":
            first -= 1  # a token of many tokenizers begins with the space before a word
        if first in starts and stop in ends:
            places.append((starts[first], ends[stop]))
    return places


def corrupt_groups(
    ids: Sequence[int], groups: Sequence[Sequence[Span]], sentinels: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the text with one sentinel at every place of a group, and the tokens of each group
    behind its sentinel, with one more sentinel at the end. `restore_spans` inverts it."""
    if len(groups) >= len(sentinels):
        raise ValueError(f"identifiers: {len(sentinels)} sentinels for {len(groups)} names")
    sentinel_of = {place: s for s, group in zip(sentinels, groups, strict=False) for place in group}
    source: list[int] = []
    end = 0
    for start, stop in sorted(sentinel_of):
        source += [*ids[end:start], sentinel_of[start, stop]]
        end = stop
    target = [
        token
        for sentinel, group in zip(sentinels, groups, strict=False)
        for token in (sentinel, *ids[slice(*group[0])])
    ]
    return [*source, *ids[end:]], [*target, sentinels[len(groups)]]
