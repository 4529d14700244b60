"""The choice of one series among those of a collection of DICOM files."""

from __future__ import annotations

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
        chosen = [g for g in groups if matches(g[0], str(series))]
    if len(chosen) == 1:
        return chosen[0]
    labels = "; ".join(sorted(f"{g[0].label!r} ({len(g)} slices)" for g in groups))
    if series is not None:
        problem = (
            f"{len(chosen)} series answer to {series!r}" if chosen else f"no series {series!r}"
        )
        raise ReadError(source, f"{problem}: {labels}", EXPECTED)
    if not chosen:
        raise ReadError(source, f"only localizers: {labels}", "a volume, or series: <name>")
    raise ReadError(source, f"holds {len(chosen)} series: {labels}", "{path: ..., series: <name>}")


def matches(frame: Frame, series: str) -> bool:
    """Return True where the words of a series (its name, number, UID, echo, component) are all
    found among those of the frame, whole: `T1`, `4, echo 80 ms, phase`, `T2*`."""
    series = series.strip()
    tags = [tag.lower() for tag in frame.tags]
    if series.lower() in (*tags, frame.label.lower()):
        return True
    return all(_matches(tags, word.strip().lower()) for word in series.split(","))


def _matches(tags: Sequence[str], word: str) -> bool:
    if not word:
        return False
    if "*" in word or "?" in word:
        return fnmatchcase(tags[0], word)
    return word in tags
