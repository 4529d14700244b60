"""DICOM as hospitals have it: a collection of files -> the one series that is meant, sorted.

Slices are found by position, never by file name. A file that may belong to the series and cannot
be read is refused by name; files of other series do not matter. What is not one volume is
refused with the reason: several series, echoes or components, a gap, a tilted gantry.

Legend: `I` columns, `J` rows, `K` slices, `N` volumes over time.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from ...base import ReadError
from .dicom_frames import Frame, UnusableFile, scan_file, suffix_of
from .dicom_series import select_series

EVEN = 0.05
"""Share of a slice's distance by which distances may differ."""
TILT = 0.02
"""Sine of the angle between the stack and its slices' normal that still counts as none."""
SAME_PLACE = 0.01
"""Share of the largest distance between neighbours below which two slices lie at one place."""

Member = tuple[str, Path | bytes]
"""The name of a file, for errors, and where its content is."""


def read_dicom(
    members: Sequence[Member], source: object, series: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Files -> values `[I, J, K]` or `[I, J, K, N]` and the affine to RAS in mm.

    series: the name (with `*` and `?` for a part of it), number or UID of the one that is meant.
    Raise ReadError.
    """
    frames: list[Frame] = []
    unusable: list[UnusableFile] = []
    for name, content in members:
        scanned = scan_file(content, name)
        if isinstance(scanned, UnusableFile):
            unusable.append(scanned)
        else:
            frames += scanned or []
    if not frames:
        for file in unusable:
            if file.damaged:
                raise file.error()
        raise ReadError(source, f"none of its {len(members)} files is a DICOM image", "a series")
    group = select_series(_groups(frames), source, series)
    _check_unusable(unusable, group, source, series)
    return _stacked(group, source)


def _groups(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Return the slices of each volume, in the order in which they came."""
    groups: dict[tuple[Any, ...], list[list[Frame]]] = {}
    for frame in frames:
        same_key = groups.setdefault(frame.key, [])
        group = next((g for g in same_key if g[0].same_volume(frame)), None)
        if group is None:
            same_key.append([frame])
        else:
            group.append(frame)
    return [group for same_key in groups.values() for group in same_key]


def _check_unusable(
    unusable: Sequence[UnusableFile], group: Sequence[Frame], source: object, series: Any
) -> None:
    """Raise ReadError for a file that belongs to the series, or may: one that names no series
    and lies beside its slices, damaged or named alike. The others are no part of it."""
    names = {frame.file.name for frame in group}
    folders = {PurePath(name).parent for name in names}
    suffixes = {suffix_of(name) for name in names}
    uid, others = group[0].series_uid, []
    for file in unusable:
        suffix = suffix_of(file.name)
        same_suffix = suffix in suffixes and not (file.text and not suffix)
        same_folder = PurePath(file.name).parent in folders and (file.damaged or same_suffix)
        unnamed = file.series_uid is None or (
            file.broken and (series is None or uid.startswith(file.series_uid))
        )
        if file.series_uid == uid or (unnamed and same_folder):
            raise file.error()
        if file.damaged:
            others.append(file)
    if others and series is None:
        warnings.warn(
            f"{source}: {len(others)} files that hold no slice of a volume are left out "
            f"({others[0].name}: {others[0].wrong})",
            stacklevel=4,
        )


def _stacked(group: Sequence[Frame], source: object) -> tuple[np.ndarray, np.ndarray]:
    first = group[0]
    normal = np.cross(first.along_columns, first.along_rows)
    stacks = _without_copies(_group_slices(group, normal))
    if len(stacks) < 2:
        raise ReadError(source, f"is one slice ({first.label!r})", "a volume of several slices")
    _check_counts(stacks, source)
    _check_distances(stacks, normal, source)
    _check_rescaling(group, source)
    volumes = [
        np.stack([stack[n].pixels().T for stack in stacks], -1) for n in range(len(stacks[0]))
    ]
    values = volumes[0] if len(volumes) == 1 else np.stack(volumes, -1)
    if first.inverted:
        values = values.max() - values
    start, end = stacks[0][0].position, stacks[-1][0].position
    affine = np.eye(4)
    affine[:3, 0] = first.along_columns * first.spacing[1]
    affine[:3, 1] = first.along_rows * first.spacing[0]
    affine[:3, 2] = (end - start) / (len(stacks) - 1)
    affine[:3, 3] = start
    affine[:2] *= -1  # DICOM's world is LPS
    return values, affine


def _group_slices(group: Sequence[Frame], normal: np.ndarray) -> list[list[Frame]]:
    """Return the slices of each place along the normal, in the order of time."""
    distances = np.array([frame.position @ normal for frame in group])
    order = np.argsort(distances, kind="stable")
    gaps = np.diff(distances[order])
    limit = max(1e-3, SAME_PLACE * float(gaps.max(initial=0)))
    stacks: list[list[Frame]] = [[]]
    for index, gap in zip(order, [0.0, *gaps], strict=True):
        if gap > limit:
            stacks.append([])
        stacks[-1].append(group[index])
    return [sorted(stack, key=lambda frame: frame.order) for stack in stacks]


def _without_copies(stacks: list[list[Frame]]) -> list[list[Frame]]:
    """Drop slices that were sent twice: of one place, one time and one content; of one
    place and one content alone where some places hold more slices than others, or where all
    slices of each place are copies."""
    stacks = [_unique(stack, lambda frame: frame.order) for stack in stacks]
    counts = {len(stack) for stack in stacks}
    if counts == {1}:
        return stacks
    contents = [_unique(stack, lambda frame: ()) for stack in stacks]
    copies = len(counts) > 1 or all(len(stack) == 1 for stack in contents)
    return contents if copies else stacks


def _unique(stack: list[Frame], key: Any) -> list[Frame]:
    by_key: dict[tuple[float, ...], list[Frame]] = {}
    for frame in stack:
        same_key = by_key.setdefault(key(frame), [])
        if not any(other.content() == frame.content() for other in same_key):
            same_key.append(frame)
    return [frame for same_key in by_key.values() for frame in same_key]


def _check_counts(stacks: list[list[Frame]], source: object) -> None:
    counts = {len(stack) for stack in stacks}
    if len(counts) > 1:
        raise ReadError(
            source,
            f"{max(counts)} different slices are at one position, {min(counts)} at others",
            "one a place, or the same number everywhere (a series over time)",
        )
    for stack in stacks:
        if len({frame.order for frame in stack}) < len(stack):
            raise ReadError(
                source,
                f"{len(stack)} slices are at one position, and their order is unknown",
                "TemporalPositionIdentifier, TriggerTime, AcquisitionTime or InstanceNumber",
            )


def _check_rescaling(group: Sequence[Frame], source: object) -> None:
    plain = [frame for frame in group if not frame.scaled]
    if 0 < len(plain) < len(group):
        raise ReadError(
            source,
            f"{len(plain)} of {len(group)} slices have no RescaleSlope ({plain[0].file.name})",
            "one in each slice, or in none",
        )


def _check_distances(stacks: list[list[Frame]], normal: np.ndarray, source: object) -> None:
    positions = np.array([stack[0].position for stack in stacks])  # [K, 3]
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    if float(np.abs(gaps - usual).max()) > min(max(EVEN * usual, 0.02), 0.4 * usual):
        worst = int(np.abs(gaps - usual).argmax())
        raise ReadError(
            source,
            f"slices {worst + 1} and {worst + 2} of {len(stacks)} are {gaps[worst]:.3g} mm apart, "
            f"the others {usual:.3g}: some are missing",
            "every slice of the series",
        )
    line = positions[-1] - positions[0]
    tilt = float(np.linalg.norm(np.cross(line, normal)) / np.linalg.norm(line))
    if tilt > TILT:
        raise ReadError(
            source,
            f"its slices are shifted sideways by {np.degrees(np.arcsin(min(tilt, 1))):.1f} degrees "
            "(gantry tilt)",
            "a stack along its normal; resample it first",
        )
    even = positions[0] + np.linspace(0, 1, len(stacks))[:, None] * line
    offset = np.linalg.norm(np.cross(positions - even, normal), axis=1)
    if offset.max() > 0.5 * min(stacks[0][0].spacing):
        raise ReadError(
            source,
            f"slice {int(offset.argmax()) + 1} of {len(stacks)} lies {offset.max():.3g} mm beside "
            "the others",
            "a stack along its normal",
        )
