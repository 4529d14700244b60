"""The slices of DICOM files: an instance is one frame, an enhanced instance many.

`scan_file` never raises: a file that holds no slice is described by an `UnusableFile`, since only
the choice of a series decides whether that file matters.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.pixels.processing import apply_modality_lut
from pydicom.uid import UID

from ...base import ReadError
from .dicom_tags import (
    acquisition_order,
    complex_component,
    frame_label,
    rescale_number,
    series_identity,
    tag_numbers,
    tag_words,
    to_float,
    value_of,
)

GREY = ("", "MONOCHROME1", "MONOCHROME2")
PREAMBLE = 128
"""Bytes ahead of the magic `DICM`."""


class DicomFile:
    """A DICOM file on disk or in memory, decoded once. name: how errors call it."""

    def __init__(self, content: Path | bytes, name: str) -> None:
        self.content, self.name = content, name

    def head(self) -> bytes:
        """Return its first 4096 bytes."""
        if isinstance(self.content, bytes):
            return self.content[:4096]
        with self.content.open("rb") as file:
            return file.read(4096)

    def dataset(self, **options: Any) -> Dataset:
        source = io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content
        return pydicom.dcmread(source, **options)

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """`[J, I]`, or `[frames, J, I]`. Raise ReadError where they cannot be decoded."""
        syntax = None
        try:
            data = self.dataset()
            syntax = getattr(data.file_meta, "TransferSyntaxUID", None)
            pixels: np.ndarray = data.pixel_array
        except (AttributeError, NotImplementedError, RuntimeError, ImportError) as error:
            if syntax is not None and syntax.is_compressed and not _has_decoder(syntax):
                raise ReadError(
                    self.name,
                    f"its pixels are compressed ({syntax.name}) and no decoder is installed",
                    "one: pip install 'sensorium[dicom]'",
                ) from error
            raise self._damaged(error) from error
        except Exception as error:  # pydicom and its decoders have an error class a fault
            raise self._damaged(error) from error
        return pixels

    def _damaged(self, error: Exception) -> ReadError:
        reason = f"its pixels cannot be read ({one_line(error)})"
        return ReadError(self.name, reason, "the whole file")


@dataclass
class Frame:
    """One slice. position, along_columns, along_rows: mm and directions in DICOM's world (LPS);
    `along_columns` is where the column index grows. spacing: between rows and between columns,
    mm. key: what slices of one volume share exactly; echo: its echo time in ms. tags: the words
    by which a series is chosen. order: sorts the slices of one place in time. inverted: white is
    the lowest value (MONOCHROME1). scaled: True where the file names a slope or an intercept."""

    file: DicomFile
    number: int | None
    series_uid: str
    key: tuple[Any, ...]
    echo: float
    label: str
    tags: tuple[str, ...]
    position: np.ndarray
    along_columns: np.ndarray
    along_rows: np.ndarray
    spacing: tuple[float, float]
    order: tuple[float, ...]
    slope: float
    intercept: float
    inverted: bool
    scaled: bool = False
    lookup: Dataset | None = None

    def same_volume(self, other: Frame) -> bool:
        """Return True where both may be slices of one volume: equal keys, and equal echo time,
        spacing and orientation up to the rounding of their text."""
        return (
            self.key == other.key
            and abs(self.echo - other.echo) <= 5e-3 + 1e-3 * abs(self.echo)
            and np.allclose(self.spacing, other.spacing, rtol=1e-3)
            and np.allclose(self.along_columns, other.along_columns, atol=0.01)
            and np.allclose(self.along_rows, other.along_rows, atol=0.01)
        )

    def pixels(self) -> np.ndarray:
        """Return `[J, I]` float32, rescaled."""
        pixels = self.file.pixels
        image = pixels[self.number or 0] if pixels.ndim > 2 else pixels
        if self.lookup is not None:
            return np.asarray(apply_modality_lut(image, self.lookup), dtype=np.float32)
        scaled = np.asarray(image, dtype=np.float32) * np.float32(self.slope)
        return scaled + np.float32(self.intercept)

    def content(self) -> bytes:
        """Return its pixels, to be compared."""
        return self.pixels().tobytes()


@dataclass(frozen=True)
class UnusableFile:
    """A file without a slice. series_uid: the series that it belongs to; None where it does not
    say. damaged: True where it is a DICOM file, or begins as one; False if its content has
    no sign, so that only its name shows whether it should have been a slice."""

    name: str
    wrong: str
    right: str
    series_uid: str | None = None
    damaged: bool = True
    broken: bool = False  # its header is cut or altered, so that its UID may be too
    text: bool = False

    def error(self) -> ReadError:
        return ReadError(self.name, self.wrong, self.right)


def _has_decoder(syntax: UID) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:  # pydicom knows none
        return False


def one_line(error: Exception) -> str:
    """Return the start of an error's message, without line breaks."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def scan_file(content: Path | bytes, name: str) -> list[Frame] | UnusableFile | None:
    """Return the slices of one file; None for a DICOM file that is no image (a report, a
    directory)."""
    file = DicomFile(content, name)
    try:
        head = file.head()
        if head[PREAMBLE : PREAMBLE + 4] != b"DICM":
            return _no_dicom(head, name)
        data = file.dataset(stop_before_pixels=True)
    except Exception as error:  # pydicom has an error class a fault
        return UnusableFile(name, f"its header is damaged ({one_line(error)})", "a whole file")
    series_uid = None
    try:
        series_uid = str(data.get("SeriesInstanceUID") or "") or None
        return _frames(file, data, series_uid)
    except ReadError as error:
        return UnusableFile(name, error.wrong, error.right, series_uid)
    except Exception as error:  # a value that is not of its tag's kind
        wrong = f"its header is damaged ({one_line(error)})"
        return UnusableFile(name, wrong, "a whole file", series_uid, broken=True)


def _no_dicom(head: bytes, name: str) -> UnusableFile:
    if not head:
        return UnusableFile(name, "is empty", "a DICOM file", damaged=False)
    if head[:4] in (b"\2\0\0\0", b"\2\0\1\0") or (head[:2] == b"\x08\0" and head[3:4] == b"\0"):
        wrong = "has no DICOM preamble (128 bytes and the letters DICM)"
        return UnusableFile(name, wrong, "a whole DICOM file; store it again with its preamble")
    try:
        text = b"\0" not in head and bool(head.decode("utf-8", errors="strict"))
    except UnicodeDecodeError as error:
        text = b"\0" not in head and error.start > len(head) - 4  # a letter cut at the end
    return UnusableFile(name, "is no DICOM file", "a DICOM file", damaged=False, text=text)


def _frames(file: DicomFile, data: Dataset, series_uid: str | None) -> list[Frame] | None:
    storage = data.get("SOPClassUID") or data.file_meta.get("MediaStorageSOPClassUID")
    if "Rows" not in data or "Columns" not in data:
        name = str(getattr(storage, "name", storage))
        if name != str(storage) and "Image Storage" not in name:
            return None  # a directory, a report, a presentation state
        raise ValueError("it ends before the size of the image")
    grey = str(data.get("PhotometricInterpretation", "") or "").strip()
    samples = int(data.get("SamplesPerPixel", 1) or 1)
    if samples != 1 or grey not in GREY:
        raise ReadError(
            file.name,
            f"holds colour ({samples} values a pixel, {grey})",
            "grey values; leave screenshots out",
        )
    if "MOSAIC" in tag_words(data.get("ImageType")):
        raise ReadError(
            file.name, "holds all slices of a volume in one picture (mosaic)", "one slice a frame"
        )
    count = int(data.get("NumberOfFrames", 1) or 1)
    groups = data.get("PerFrameFunctionalGroupsSequence") or []
    if count != (len(groups) or 1):
        raise ReadError(
            file.name,
            f"has {count} frames and positions for {len(groups)}",
            "the place of each (enhanced MR)",
        )
    if not groups:
        return [_frame(file, data, None, Dataset(), series_uid)]
    return [
        _frame(file, data, number, frame_groups, series_uid)
        for number, frame_groups in enumerate(groups)
    ]


def _frame(
    file: DicomFile, data: Dataset, number: int | None, frame_data: Dataset, series_uid: str | None
) -> Frame:
    lookup = functools.partial(value_of, data, frame_data)
    image = f"image {data.get('InstanceNumber', '')}" if number is None else f"frame {number + 1}"
    if number is not None:
        image += f" of {int(data.get('NumberOfFrames', 1) or 1)}"
    position, orientation, spacing = _geometry(file.name, image, lookup)
    component = complex_component(lookup("FrameType", "MRImageFrameTypeSequence", None), data)
    echo = to_float(lookup("EffectiveEchoTime", "MREchoSequence", data.get("EchoTime")))
    inverted = str(data.get("PhotometricInterpretation", "")).strip() == "MONOCHROME1"
    label, tags = frame_label(data, echo, component, inverted, orientation)
    slope, intercept = (
        lookup(tag, "PixelValueTransformationSequence")
        for tag in ("RescaleSlope", "RescaleIntercept")
    )
    return Frame(
        file=file,
        number=number,
        series_uid=series_uid or "",
        key=(*series_identity(data), component, inverted, int(data.Rows), int(data.Columns)),
        echo=echo,
        label=label,
        tags=tags,
        position=position,
        along_columns=orientation[:3],
        along_rows=orientation[3:],
        spacing=spacing,
        order=acquisition_order(data, lookup, number),
        slope=rescale_number(slope, 1.0),
        intercept=rescale_number(intercept, 0.0),
        inverted=inverted,
        scaled=slope not in (None, "") or intercept not in (None, ""),
        lookup=data if data.get("ModalityLUTSequence") else None,
    )


def _geometry(
    name: str, image: str, lookup: Any
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Position `[3]`, orientation `[6]` and (row, column) spacing. Raise ReadError."""
    position = lookup("ImagePositionPatient", "PlanePositionSequence")
    orientation = lookup("ImageOrientationPatient", "PlaneOrientationSequence")
    spacing = lookup("PixelSpacing", "PixelMeasuresSequence")
    tags = "ImagePositionPatient, ImageOrientationPatient and PixelSpacing"
    if not position or not orientation or not spacing:
        raise ReadError(name, f"its {image.strip()} has no position in space", tags)
    origin, axes, edges = (np.array(tag_numbers(v)) for v in (position, orientation, spacing))
    finite = all(np.isfinite(values).all() for values in (origin, axes, edges))
    if (origin.size, axes.size, edges.size) != (3, 6, 2) or not finite:
        raise ReadError(name, "its place is not of 3, 6 and 2 numbers", tags)
    if edges.min() <= 0:
        raise ReadError(name, f"its pixels measure {edges[0]:g} x {edges[1]:g} mm", "sizes above 0")
    lengths = np.linalg.norm(axes.reshape(2, 3), axis=1)
    if abs(lengths - 1).max() > 0.05 or abs(axes[:3] @ axes[3:]) > 0.05:
        raise ReadError(
            name,
            "its ImageOrientationPatient is not two directions at a right angle",
            "unit vectors",
        )
    return origin, axes, (float(edges[0]), float(edges[1]))


def suffix_of(name: str) -> str:
    """Return the ending of a file's name, lower-cased; none where it is a number (`IM.0001`, a
    UID)."""
    suffix = PurePath(name).suffix.lower()
    return "" if suffix[1:].isdigit() else suffix
