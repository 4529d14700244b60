"""Words under the times at which they were heard, beneath a spectrogram: an SVG to be scrolled."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any

SCALE, NARROWEST = 85, 320
"""px of a second, and of a short sound."""
LETTER, GAP = 7.5, 6
"""px of a letter, and between two words of a row."""
ROW, AXIS = 18, 16
"""px of a row of words, and of the seconds below the picture."""
INK, SOFT = "var(--ink, #1b1f24)", "var(--soft, #59636e)"
COLOURS = ("var(--c0, #0b62c4)", "var(--c1, #b35900)")

Word = Sequence[Any]
"""A word, its first and last second."""


def width(seconds: float) -> int:
    """px of a sound's picture with its words."""
    return max(NARROWEST, round(seconds * SCALE))


def draw(image: str, words: Sequence[Word], seconds: float, height: int, caption: str) -> str:
    """HTML of the picture at an address, the seconds, and the words that lie in it."""
    across = width(seconds)
    audible = sorted((w for w in words if w[1] < seconds), key=lambda word: (word[1], word[2]))
    rows = assign_rows(audible, across, seconds)
    total_height = height + AXIS + ROW * (max(rows, default=0) + 1) + 4
    alt = html.escape(f"spectrogram, {caption}; {' '.join(str(word[0]) for word in audible)}")
    parts = [
        f'<image href="{image}" width="{across}" height="{height}" preserveAspectRatio="none"/>'
    ]
    parts += _seconds(seconds, across, height)
    for number, (word, row) in enumerate(zip(audible, rows, strict=True)):
        parts += _word(word, row, (across, seconds), height, COLOURS[number % 2])
    return (
        f'<div style="overflow-x:auto"><svg viewBox="0 0 {across} {total_height}" width="{across}" '
        f'height="{total_height}" role="img" aria-label="{alt}" style="display:block;'
        f'max-width:none;font:13px system-ui,sans-serif">{"".join(parts)}</svg></div>'
    )


def assign_rows(words: Sequence[Word], across: float, seconds: float) -> list[int]:
    """Return the row of each word: the first in which it touches no other."""
    ends: list[float] = []
    rows = []
    for word in words:
        left, right = _reach(word, across, seconds)
        row = next((i for i, end in enumerate(ends) if end + GAP <= left), len(ends))
        ends[row : row + 1] = [right]
        rows.append(row)
    return rows


def _reach(word: Word, across: float, seconds: float) -> tuple[float, float]:
    """Return the px that a word's text covers, within the picture."""
    middle, half = (word[1] + word[2]) / 2 / seconds * across, len(str(word[0])) * LETTER / 2
    middle = min(max(middle, half), across - half)
    return middle - half, middle + half


def _seconds(seconds: float, across: float, top: float) -> Iterator[str]:
    for second in range(int(seconds) + 1):
        x = second / seconds * across
        anchor = "start" if second == 0 else "middle"
        yield f'<path d="M{x:.1f} {top}v4" style="stroke:{SOFT}"/>'
        if x < across - 12:
            yield (
                f'<text x="{x:.1f}" y="{top + 13}" text-anchor="{anchor}" '
                f'style="fill:{SOFT};font-size:11px">{second} s</text>'
            )


def _word(
    word: Word, row: int, size: tuple[float, float], top: float, colour: str
) -> Iterator[str]:
    """Yield where it begins and ends, on the picture, and its text in its row. size: px and
    seconds."""
    scale = size[0] / size[1]
    first, last = word[1] * scale, max(word[2] * scale, word[1] * scale + 2)
    y = top + AXIS + ROW * row
    yield (
        f'<rect x="{first:.1f}" y="0" width="{last - first:.1f}" height="{top}" '
        f'style="fill:{colour};fill-opacity:.13"/>'
        f'<path d="M{first:.1f} {top}H{last:.1f}" style="stroke:{colour};stroke-width:3"/>'
    )
    left, right = _reach(word, *size)
    yield (
        f'<text x="{(left + right) / 2:.1f}" y="{y + 13}" text-anchor="middle" '
        f'style="fill:{INK}">{html.escape(str(word[0]))}'
        f"<title>{word[1]:.2f} to {word[2]:.2f} s</title></text>"
    )
