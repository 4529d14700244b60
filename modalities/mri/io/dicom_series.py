"""The choice of one series among those of a collection of DICOM files."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from ...base import ReadError
from .dicom_frames import Frame

LOCALIZERS = ("localizer", "localiser", "scout", "survey")
EXPECTED = "series: <a name, number or UID of one; * matches a part of a name>"


def select_series(groups: Sequence[list[Frame]], source: object, series: Any) -> list[Frame]:
    """Return the slices of the requested series, or of the only one that is no localizer.
    Raise ReadError where none or several are."""
    if series is None:
        chosen = [g for g in groups if not any(w in g[0].label.lower() for w in LOCALIZERS)]
    else:
        chosen = [g for g in groups if is_named(g[0], str(series))]
        chosen = chosen or [g for g in groups if matches(g[0], str(series))]
    if len(chosen) == 1:
        return chosen[0]
    labels = _labels(groups)
    if series is not None:
        problem = (
            f"{len(chosen)} series answer to {series!r}" if chosen else f"no series {series!r}"
        )
        raise ReadError(source, f"{problem}: {labels}", EXPECTED)
    if not chosen:
        raise ReadError(source, f"only localizers: {labels}", "a volume, or series: <name>")
    raise ReadError(source, f"holds {len(chosen)} series: {labels}", "{path: ..., series: <name>}")


def _labels(groups: Sequence[list[Frame]]) -> str:
    """Return the descriptions of all series, with the plane where several have one description."""
    counts = Counter(group[0].label for group in groups)
    labels = []
    for group in groups:
        frame = group[0]
        plane = f", {frame.tags[-1]}" if counts[frame.label] > 1 else ""
        labels.append(f"{frame.label + plane!r} ({len(group)} slices)")
    return "; ".join(sorted(labels))


def is_named(frame: Frame, series: str) -> bool:
    """Return True where a series is called by its whole name, number, UID or description."""
    return _folded(series) in [_folded(text) for text in (*frame.tags, frame.label)]


def matches(frame: Frame, series: str) -> bool:
    """Return True where the words of a series (its name, number, UID, echo, component) are all
    found among those of the frame, whole: `T1`, `4, echo 80 ms, phase`, `T1, sagittal`, `T2*`."""
    tags = [_folded(tag) for tag in frame.tags]
    return all(_matches(tags, word.strip()) for word in _folded(series).split(","))


def _folded(text: str) -> str:
    """Return a text in lower case and composed, as equal letters may be coded in two ways."""
    return unicodedata.normalize("NFC", text.strip().lower())


def _matches(tags: Sequence[str], word: str) -> bool:
    if not word:
        return False
    if "*" in word or "?" in word:
        return fnmatchcase(tags[0], word)
    return word in tags
