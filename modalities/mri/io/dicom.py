"""DICOM as hospitals have it: a folder of files -> the one series that is meant, sorted.

Slices are found by position, not by number or name. What is not one volume is refused with
what was found: several series, echoes or phases, a gap, a tilted gantry, colour.

Legend: `I` columns, `J` rows, `K` slices, `N` volumes over time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base import ReadError
from .dicom_frames import Frame, frames

LOCALIZERS = ("localizer", "localiser", "scout", "survey")
EVEN = 0.05
"""Share of a slice's distance by which distances may differ."""
TILT = 0.02
"""Sine of the angle between the stack and its slices' normal that still counts as none."""


def dicom(files: Sequence[Any], source: object, series: Any) -> tuple[np.ndarray, np.ndarray]:
    """Paths or file objects -> values `[I, J, K]` or `[I, J, K, N]` and the affine to RAS in mm.

    series: a part of the name, the number or the UID of the one that is meant. Raises ReadError.
    """
    found = [frame for file in files for frame in frames(file, source)]
    if not found:
        raise ReadError(source, f"none of its {len(files)} files is a DICOM image", "a series")
    groups: dict[tuple[Any, ...], list[Frame]] = {}
    for frame in found:
        groups.setdefault(frame.group, []).append(frame)
    return _stacked(_meant(list(groups.values()), source, series), source)


def _meant(groups: list[list[Frame]], source: object, series: Any) -> list[Frame]:
    """The one group that is asked for, or the only one that is no localizer."""
    if series is None:
        wanted = [g for g in groups if not any(w in g[0].label.lower() for w in LOCALIZERS)]
    else:
        wanted = [g for g in groups if g[0].answers(str(series))]
    if len(wanted) == 1:
        return wanted[0]
    listed = "; ".join(sorted(f"{g[0].label!r} ({len(g)} slices)" for g in groups))
    if series is not None:
        many = f"{len(wanted)} series answer to {series!r}" if wanted else f"no series {series!r}"
        raise ReadError(source, f"{many}: {listed}", "series: <a name, number or UID of one>")
    if not wanted:
        raise ReadError(source, f"only localizers: {listed}", "a volume, or series: <name>")
    raise ReadError(source, f"holds {len(wanted)} series: {listed}", "{path: ..., series: <name>}")


def _stacked(group: list[Frame], source: object) -> tuple[np.ndarray, np.ndarray]:
    group = list({frame.uid: frame for frame in group}.values())  # the same instance twice
    first = group[0]
    normal = np.cross(first.along_columns, first.along_rows)
    places = np.array([frame.position @ normal for frame in group])
    levels, level = np.unique(places.round(2), return_inverse=True)
    if len(levels) < 2:
        raise ReadError(source, f"is one slice ({first.label!r})", "a volume of several slices")
    stacks = [
        sorted((f for f, at in zip(group, level, strict=True) if at == k), key=lambda f: f.time)
        for k in range(len(levels))
    ]
    stacks = _without_copies(stacks)
    _check_stack(stacks, levels, normal, source)
    volumes = [
        np.stack([stack[n].pixels().T for stack in stacks], -1) for n in range(len(stacks[0]))
    ]
    values = volumes[0] if len(volumes) == 1 else np.stack(volumes, -1)
    start, end = stacks[0][0].position, stacks[-1][0].position
    affine = np.eye(4)
    affine[:3, 0] = first.along_columns * first.edges[1]
    affine[:3, 1] = first.along_rows * first.edges[0]
    affine[:3, 2] = (end - start) / (len(stacks) - 1)
    affine[:3, 3] = start
    affine[:2] *= -1  # DICOM's world is LPS
    return values, affine


def _without_copies(stacks: list[list[Frame]]) -> list[list[Frame]]:
    """Slices that were sent twice under two names are one."""
    if len({len(stack) for stack in stacks}) == 1:
        return stacks
    kept = []
    for stack in stacks:
        seen: dict[bytes, Frame] = {}
        for frame in stack:
            seen.setdefault(frame.content(), frame)
        kept.append(list(seen.values()))
    return kept


def _check_stack(
    stacks: list[list[Frame]], levels: np.ndarray, normal: np.ndarray, source: object
) -> None:
    counts = {len(stack) for stack in stacks}
    if len(counts) > 1:
        crowded = max(stacks, key=len)
        raise ReadError(
            source,
            f"{len(crowded)} different slices lie at one place, {min(counts)} at others",
            "one a place, or the same number everywhere (a series over time)",
        )
    gaps = np.diff(levels)
    usual = float(np.median(gaps))
    if float(np.abs(gaps - usual).max()) > max(EVEN * usual, 0.02):
        worst = int(np.abs(gaps - usual).argmax())
        raise ReadError(
            source,
            f"slices {worst + 1} and {worst + 2} of {len(levels)} are {gaps[worst]:.3g} mm apart, "
            f"the others {usual:.3g}: some are missing",
            "every slice of the series",
        )
    way = stacks[-1][0].position - stacks[0][0].position
    tilt = float(np.linalg.norm(np.cross(way, normal)) / np.linalg.norm(way))
    if tilt > TILT:
        raise ReadError(
            source,
            f"its slices are shifted sideways by {np.degrees(np.arcsin(min(tilt, 1))):.1f} degrees "
            "(gantry tilt)",
            "a stack along its normal; resample it first",
        )
