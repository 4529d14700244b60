"""Words with times as subtitles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Word = Sequence[Any]
"""A word, its start and its end in s."""

MAX_SECONDS = 6.0
MAX_CHARACTERS = 80
PAUSE = 0.8
"""Seconds without a word after which a new subtitle begins."""


def segments(words: Sequence[Word]) -> list[dict[str, Any]]:
    """Return words as segments of at most 6 s and 80 characters: `start`, `end`, `text`."""
    result: list[dict[str, Any]] = []
    for word, start, end in words:
        last = result[-1] if result else None
        if (
            last is not None
            and start - last["end"] < PAUSE
            and end - last["start"] <= MAX_SECONDS
            and len(last["text"]) + 1 + len(word) <= MAX_CHARACTERS
        ):
            last["text"], last["end"] = f"{last['text']} {word}", end
        else:
            result.append({"id": len(result), "start": start, "end": end, "text": word})
    return result


def as_srt(words: Sequence[Word]) -> str:
    """Return words as SubRip text."""
    blocks = [
        f"{s['id'] + 1}\n{_clock(s['start'], ',')} --> {_clock(s['end'], ',')}\n{s['text']}\n"
        for s in segments(words)
    ]
    return "\n".join(blocks)


def as_vtt(words: Sequence[Word]) -> str:
    """Return words as WebVTT text."""
    blocks = [
        f"{_clock(s['start'], '.')} --> {_clock(s['end'], '.')}\n"
        f"{s['text'].replace('&', '&amp;').replace('<', '&lt;')}\n"
        for s in segments(words)
    ]
    return "WEBVTT\n\n" + "\n".join(blocks)


def _clock(seconds: float, point: str) -> str:
    total = round(seconds * 1000)
    minutes, milliseconds = divmod(total, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
