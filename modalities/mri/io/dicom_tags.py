"""The tags of a DICOM header about a slice: component, label, order in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pydicom.dataset import Dataset


def value_of(data: Dataset, frame: Dataset, key: str, group: str = "", default: Any = None) -> Any:
    """Return a value of the frame, of what all frames share, or of the file."""
    shared = (data.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for dataset in (frame, shared):
        items = dataset.get(group) if group else None
        if items and key in items[0]:
            return items[0].get(key)
    return data.get(key, default)


def to_float(value: Any, default: float = 0.0) -> float:
    """Return a number of a header; `default` without one."""
    try:
        return default if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return default


def rescale_number(value: Any, default: float) -> float:
    """Return a slope or an intercept; `default` without one. Raise ValueError if it is no single
    number."""
    numbers = tag_numbers(value)
    if len(numbers) > 1:
        raise ValueError(f"its rescale slope or intercept is {numbers}, not one number")
    return numbers[0] if numbers else default


def series_identity(data: Dataset) -> tuple[str, ...]:
    """Return what all files of one series share: its UID, the patient and the study; where an
    anonymized file has no UID, the series' number and names too."""
    tags = ["SeriesInstanceUID", "StudyInstanceUID", "PatientID"]
    if not data.get("SeriesInstanceUID"):
        tags += ["SeriesNumber", "SeriesDescription", "ProtocolName"]
    return tuple(str(data.get(tag) or "") for tag in tags)


def plane_of(orientation: np.ndarray) -> str:
    """Return the anatomical plane that the slices of an orientation `[6]` are nearest to."""
    normal = np.abs(np.cross(orientation[:3], orientation[3:]))
    return ("sagittal", "coronal", "axial")[int(normal.argmax())]


def tag_numbers(value: Any) -> list[float]:
    """Return the numbers of a tag that may hold one or several. Raise ValueError if it is
    none."""
    if value is None or value == "":
        return []
    return [float(v) for v in ([value] if isinstance(value, (str, int, float)) else value)]


def tag_words(types: Any) -> list[str]:
    """Return the values of a tag that may hold one or several, as upper-case words."""
    if types is None:
        return []
    return [str(word).upper() for word in ([types] if isinstance(types, str) else types)]


def complex_component(types: Any, data: Dataset) -> str:
    """Magnitude, phase, real or imaginary, if the file declares it; else empty."""
    components = {"M": "magnitude", "P": "phase", "R": "real", "I": "imaginary"}
    components |= {name.upper(): name for name in components.values()}
    words = [str(data.get("ComplexImageComponent", ""))]
    words += tag_words(data.get("ImageType") if types is None else types)[2:]
    return next((components[word] for word in words if word in components), "")


def frame_label(
    data: Dataset, echo: float, component: str, inverted: bool, orientation: np.ndarray
) -> tuple[str, tuple[str, ...]]:
    """Return the description of a series, and the words by which it can be chosen: those of the
    description, and the plane of its slices as the last one."""
    name = str(data.get("SeriesDescription") or data.get("ProtocolName") or "unnamed")
    number, uid = data.get("SeriesNumber"), str(data.get("SeriesInstanceUID", ""))
    words = [f"series {number}"] if number is not None else []
    words += [f"echo {echo:g} ms"] if echo else []
    words += ["localizer"] if "LOCALIZER" in tag_words(data.get("ImageType")) else []
    words += [component] if component else []
    words += ["MONOCHROME1"] if inverted else []
    tags = (name, uid, "" if number is None else str(number), *words, plane_of(orientation))
    return ", ".join([name, *words]), tags


def acquisition_order(
    data: Dataset, lookup: Callable[..., Any], number: int | None
) -> tuple[float, ...]:
    """Return a key that sorts the slices of one place in time: temporal position, trigger time,
    time of acquisition, then acquisition and instance number; of a file of many frames their own
    order."""
    temporal = lookup("TemporalPositionIndex", "FrameContentSequence", None)
    trigger = lookup(
        "NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence", data.get("TriggerTime")
    )
    moment = lookup("FrameAcquisitionDateTime", "FrameContentSequence", None)
    if moment is None:
        moment = data.get("AcquisitionDateTime")
    if moment:
        date, time = str(moment)[:8], str(moment)[8:]
    else:
        date, time = str(data.get("AcquisitionDate") or ""), str(data.get("AcquisitionTime") or "")
    dimensions = tag_numbers(lookup("DimensionIndexValues", "FrameContentSequence", None))
    return (
        to_float(data.get("TemporalPositionIdentifier") if temporal is None else temporal),
        to_float(trigger),
        to_float(date.replace(".", "")),
        to_float(time.split("+")[0].split("-")[0].replace(":", "")),
        to_float(data.get("AcquisitionNumber")),
        to_float(data.get("InstanceNumber")),
        *dimensions,
        float(number or 0),
    )
