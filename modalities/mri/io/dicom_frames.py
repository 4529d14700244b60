"""The slices of DICOM files: an instance is one frame, an enhanced instance many."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from ...base import ReadError


class File:
    """A DICOM file on disk or in memory, decoded once."""

    def __init__(self, source: Any, where: object) -> None:
        self.source, self.where = source, where

    def header(self) -> Dataset | None:
        """Everything but the pixels; None where it is no DICOM file."""
        try:
            return self._opened(stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            return None

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """`[J, I]`, or `[frames, J, I]`; ReadError where they cannot be decoded."""
        data = self._opened()
        try:
            found: np.ndarray = data.pixel_array
        except (AttributeError, NotImplementedError, RuntimeError, ImportError) as error:
            syntax = getattr(data.file_meta, "TransferSyntaxUID", None)
            if syntax is not None and syntax.is_compressed:
                raise ReadError(
                    self.where,
                    f"its pixels are compressed ({syntax.name}) and no decoder is installed",
                    "one: pip install 'sensorium[dicom]'",
                ) from None
            raise self._damaged(error) from None
        except (ValueError, EOFError) as error:
            raise self._damaged(error) from None
        return found

    def _opened(self, **options: Any) -> Dataset:
        if isinstance(self.source, io.BytesIO):
            self.source.seek(0)
        return pydicom.dcmread(self.source, **options)

    def _damaged(self, error: Exception) -> ReadError:
        return ReadError(self.where, f"its pixels cannot be read ({_line(error)})", "them whole")


@dataclass
class Frame:
    """One slice. position, along_columns, along_rows: mm and directions in DICOM's world (LPS);
    `along_columns` is where the column index grows. edges: between rows and between columns, mm.
    group: what slices of one volume share. label: that, for a person."""

    file: File
    number: int | None
    uid: str
    group: tuple[Any, ...]
    label: str
    names: tuple[str, ...]
    position: np.ndarray
    along_columns: np.ndarray
    along_rows: np.ndarray
    edges: tuple[float, float]
    time: tuple[float, ...]
    slope: float
    shift: float

    def answers(self, wanted: str) -> bool:
        """True where a name, number or UID of the series is asked for."""
        wanted = wanted.lower()
        return wanted in map(str.lower, self.names) or wanted in self.label.lower()

    def pixels(self) -> np.ndarray:
        """`[J, I]` float32, rescaled."""
        found = self.file.pixels
        image = found[self.number or 0] if found.ndim > 2 else found
        return np.asarray(image, dtype=np.float32) * np.float32(self.slope) + np.float32(self.shift)

    def content(self) -> bytes:
        return self.pixels().tobytes()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def frames(file: Any, where: object) -> list[Frame]:
    """The slices of one file; none where it is no DICOM image. Raises ReadError for colour, and
    for an image that does not say where it lies."""
    opened = File(file, where)
    data = opened.header()
    if data is None or "Rows" not in data or "Columns" not in data:
        return []  # no DICOM, a directory, a report, a presentation state
    if int(data.get("SamplesPerPixel", 1)) != 1:
        raise ReadError(
            where,
            f"holds colour ({data.SamplesPerPixel} values a pixel, "
            f"{data.get('PhotometricInterpretation', '')})",
            "grey values; leave screenshots out",
        )
    try:
        count = int(data.get("NumberOfFrames", 1) or 1)
        groups = data.get("PerFrameFunctionalGroupsSequence") or []
        if count != (len(groups) or 1):
            raise ReadError(
                where,
                f"has {count} frames and says of {len(groups)} where they lie",
                "the place of each (enhanced MR)",
            )
        if not groups:
            return [_frame(opened, data, None, Dataset())]
        return [_frame(opened, data, number, own) for number, own in enumerate(groups)]
    except ReadError:
        raise
    except ValueError as error:  # a value that is not of its tag's kind
        raise ReadError(where, f"its header is damaged ({_line(error)})", "a whole file") from None


def _frame(file: File, data: Dataset, number: int | None, own: Dataset) -> Frame:
    shared = (data.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]

    def ask(key: str, group: str = "", default: Any = None) -> Any:
        """A value of the frame, of what all frames share, or of the file."""
        for place in (own, shared):
            items = place.get(group) if group else None
            if items and key in items[0]:
                return items[0].get(key)
        return data.get(key, default)

    position = ask("ImagePositionPatient", "PlanePositionSequence")
    turn = ask("ImageOrientationPatient", "PlaneOrientationSequence")
    edges = ask("PixelSpacing", "PixelMeasuresSequence")
    if position is None or turn is None or edges is None:
        raise ReadError(
            file.where,
            f"its image {data.get('InstanceNumber', '')} does not say where it lies",
            "ImagePositionPatient, ImageOrientationPatient and PixelSpacing",
        )
    along = np.array(turn, dtype=np.float64)
    row, column = (float(edge) for edge in edges)
    if min(row, column) <= 0:
        raise ReadError(file.where, f"its pixels measure {row:g} x {column:g} mm", "sizes above 0")
    echo = ask("EffectiveEchoTime", "MREchoSequence", data.get("EchoTime"))
    kind = _kind(ask("FrameType", "MRImageFrameTypeSequence", data.get("ImageType")), data)
    series = str(data.get("SeriesInstanceUID", ""))
    name = str(data.get("SeriesDescription") or data.get("ProtocolName") or "unnamed")
    time = ask("TemporalPositionIndex", "FrameContentSequence", None)
    return Frame(
        file=file,
        number=number,
        uid=f"{data.get('SOPInstanceUID', id(data))}/{number}",
        group=(series, _number(echo), kind, tuple(along.round(2)), data.Rows, data.Columns),
        label=_label(name, data, echo, kind),
        names=(name, series, str(data.get("SeriesNumber", ""))),
        position=np.array(position, dtype=np.float64),
        along_columns=along[:3],
        along_rows=along[3:],
        edges=(row, column),
        time=tuple(
            _number(t)
            for t in (
                time,
                data.get("TemporalPositionIdentifier"),
                data.get("AcquisitionNumber"),
                data.get("InstanceNumber"),
            )
        ),
        slope=float(_number(ask("RescaleSlope", "PixelValueTransformationSequence", 1), 1.0)),
        shift=float(_number(ask("RescaleIntercept", "PixelValueTransformationSequence", 0))),
    )


def _kind(types: Any, data: Dataset) -> str:
    """Magnitude, phase, real or imaginary, where the file says so."""
    known = {"M": "magnitude", "P": "phase", "R": "real", "I": "imaginary"}
    known |= {name.upper(): name for name in known.values()}
    said = [str(data.get("ComplexImageComponent", ""))]
    said += [str(t) for t in types] if types is not None and not isinstance(types, str) else []
    return next((known[word] for word in said[:1] + said[3:] if word in known), "")


def _label(name: str, data: Dataset, echo: Any, kind: str) -> str:
    told = [f"series {data.get('SeriesNumber')}"] if data.get("SeriesNumber") is not None else []
    told += [f"echo {_number(echo):g} ms"] if echo is not None else []
    types = [str(t) for t in data.get("ImageType", [])] if "ImageType" in data else []
    told += ["localizer"] if "LOCALIZER" in types else []
    return ", ".join([name, *told, *([kind] if kind else [])])


def _number(value: Any, default: float = 0.0) -> float:
    try:
        return default if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return default
