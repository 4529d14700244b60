"""Which DICOM files make one volume, and what its slices share: patient, plane and scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_series import ORIENT, dataset, numbers, series
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ImplicitVRLittleEndian,
    RLELossless,
)

from sensorium.modalities.base import ReadError
from sensorium.modalities.mri.io import read

Write = Callable[[Path], Any]
VALUES = numbers()
TWO = np.stack([VALUES, VALUES + 1], -1)
SAGITTAL = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]


def edited(edit: Callable[[Dataset, int], Any], **tags: Any) -> Write:
    return lambda folder: series(folder, VALUES, edit=edit, **tags)


def several(*parts: dict[str, Any], uid: str | None = "1.2.3") -> Write:
    """Several stacks of one series UID (None: without one); `values` of each, by default all."""

    def write(folder: Path) -> None:
        def edit(data: Dataset, k: int) -> None:
            data.InstanceNumber = data.InstanceNumber + k
            if uid is None:
                del data.SeriesInstanceUID

        for part in parts:
            series(folder, part.get("values", VALUES), uid=uid, edit=edit, **{
                key: value for key, value in part.items() if key != "values"
            })  # fmt: skip

    return write


def stored_as(syntax: str) -> Write:
    def write(folder: Path) -> None:
        for path in series(folder, VALUES).iterdir():
            data = pydicom.dcmread(path)
            if syntax == RLELossless:
                data.compress(syntax)
            data.file_meta.TransferSyntaxUID = syntax
            data.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)

    return write


def item(**tags: Any) -> list[Dataset]:
    result = Dataset()
    for name, value in tags.items():
        setattr(result, name, value)
    return [result]


def enhanced(
    frame: Callable[[Dataset, int, int], Any] = lambda group, n, k: None,
    frames: list[tuple[np.ndarray, int]] | None = None,
    names: tuple[str, ...] = ("a.dcm",),
    **tags: Any,
) -> Write:
    """Enhanced files that share the frames (picture, place): `frame` edits each frame's groups."""
    chosen = frames or [(VALUES[:, :, k], k) for k in (3, 1, 0, 5, 4, 2)]

    def write(folder: Path) -> None:
        folder.mkdir()
        for name, part in zip(
            names, np.array_split(np.arange(len(chosen)), len(names)), strict=True
        ):
            data = dataset(EnhancedMRImageStorage)
            data.SeriesInstanceUID, data.NumberOfFrames = "1.2.3", len(part)
            data.Rows, data.Columns = VALUES.shape[1], VALUES.shape[0]
            measures, plane = item(PixelSpacing=[2.0, 1.5]), item(ImageOrientationPatient=ORIENT)
            data.SharedFunctionalGroupsSequence = item(
                PixelMeasuresSequence=measures, PlaneOrientationSequence=plane
            )
            groups = []
            for n in part:
                place = item(ImagePositionPatient=[-10.0, -20.0, 5.0 + 3 * chosen[n][1]])
                groups += item(PlanePositionSequence=place)
                frame(groups[-1], int(n), chosen[n][1])
            data.PerFrameFunctionalGroupsSequence = groups
            data.PixelData = b"".join(np.ascontiguousarray(chosen[n][0].T).tobytes() for n in part)
            for key, value in tags.items():
                setattr(data, key, value)
            data.save_as(folder / name, enforce_file_format=True)

    return write


def slope_of_most(group: Dataset, n: int, k: int) -> None:
    if k != 2:
        group.PixelValueTransformationSequence = item(RescaleSlope=2.0, RescaleIntercept=0.0)


def slope_of_each(group: Dataset, n: int, k: int) -> None:
    group.PixelValueTransformationSequence = item(RescaleSlope=k + 1.0, RescaleIntercept=0.0)


def time_of_each(group: Dataset, n: int, k: int) -> None:
    group.FrameContentSequence = item(TemporalPositionIndex=2 - n // 6)


def high_bits(data: Dataset, k: int) -> None:
    data.BitsStored, data.HighBit = 12, 11
    data.PixelData = (np.frombuffer(data.PixelData, np.uint16) | 0x8000).tobytes()


def private(data: Dataset, k: int) -> None:
    data.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 0.5)
    data.add_new(0x00291010, "UN", b"\xff" * 33)


LATER = [(VALUES[:, :, k] + 1, k) for k in range(6)] + [(VALUES[:, :, k], k) for k in range(6)]
TOP = {"start": (-10.0, -20.0, 14.0), "values": VALUES[:, :, 3:]}
BOTTOM = {"values": VALUES[:, :, :3]}
READ: dict[str, tuple[Write, dict[str, Any], np.ndarray]] = {
    "all slices twice, numbered on": (
        several({"InstanceNumber": 1}, {"InstanceNumber": 7}), {}, VALUES),
    "some slices twice": (
        several({}, {"values": VALUES[:, :, 2:4], "start": (-10.0, -20.0, 11.0)}), {}, VALUES),
    "one of two planes": (
        several({"SeriesDescription": "T1"}, {"SeriesDescription": "T1", "orient": SAGITTAL}),
        {"series": "T1, axial"}, VALUES),
    "one of two anonymized series": (
        several({"SeriesDescription": "T1"}, {"SeriesDescription": "T2"}, uid=None),
        {"series": "T1"}, VALUES),
    "a name in decomposed letters": (
        several({"SpecificCharacterSet": "ISO_IR 192", "SeriesDescription": "Scha\u0308del"}),
        {"series": "Sch\u00e4del"}, VALUES),
    "an overlay in the unused bits": (edited(high_bits), {}, VALUES),
    "private tags": (edited(private), {}, VALUES),
    "a negative distance": (
        edited(lambda data, k: setattr(data, "SpacingBetweenSlices", -3.0)), {}, VALUES),
    "RLE": (stored_as(RLELossless), {}, VALUES),
    "deflated": (stored_as(DeflatedExplicitVRLittleEndian), {}, VALUES),
    "implicit": (stored_as(ImplicitVRLittleEndian), {}, VALUES),
    "enhanced, a slope a frame": (enhanced(slope_of_each), {}, VALUES * np.arange(1, 7)),
    "enhanced, one slope": (enhanced(RescaleSlope=3.0), {}, VALUES * 3),
    "enhanced, in two files": (enhanced(names=("a.dcm", "b.dcm")), {}, VALUES),
    "enhanced, two times": (enhanced(time_of_each, LATER), {}, TWO),
    "enhanced, a frame twice": (
        enhanced(frames=[(VALUES[:, :, k], k) for k in (0, 1, 2, 3, 4, 5, 2)]), {}, VALUES),
}  # fmt: skip
REFUSED: dict[str, tuple[Write, str]] = {
    "two patients of one UID": (several(BOTTOM | {"PatientID": "a"}, TOP | {"PatientID": "b"}),
                                "holds 2 series"),
    "two patients without a UID": (
        several(BOTTOM | {"PatientID": "a"}, TOP | {"PatientID": "b"}, uid=None), "holds 2 series"),
    "two studies of one UID": (
        several(BOTTOM | {"StudyInstanceUID": "1.1"}, TOP | {"StudyInstanceUID": "1.2"}),
        "holds 2 series"),
    "two planes": (several({}, {"orient": SAGITTAL}), "'unnamed, axial' .*'unnamed, sagittal'"),
    "a slope in all slices but one": (
        edited(lambda data, k: setattr(data, "RescaleSlope", 2.0) if k != 2 else None),
        "1 of 6 slices have no RescaleSlope"),
    "a slope of two numbers": (
        edited(lambda data, k: setattr(data, "RescaleSlope", [1.0, 2.0])), "not one number"),
    "a negative size": (
        edited(lambda data, k: setattr(data, "PixelSpacing", [-2.0, 1.5])), "measure -2 x 1.5 mm"),
    "enhanced, a slope in all frames but one": (enhanced(slope_of_most), "no RescaleSlope"),
    "enhanced, a frame without place": (
        enhanced(lambda group, n, k: k == 2 and group.__delattr__("PlanePositionSequence")),
        "frame 6 of 6 has no position"),
    "enhanced, a frame in another plane": (
        enhanced(lambda group, n, k: setattr(
            group, "PlaneOrientationSequence", item(ImageOrientationPatient=SAGITTAL)
        ) if k == 2 else None), "holds 2 series"),
    "enhanced, of fewer frames": (enhanced(NumberOfFrames=5), "5 frames and positions for 6"),
    "enhanced, cut": (enhanced(PixelData=bytes(200)), "pixels cannot be read"),
}  # fmt: skip


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("name", READ)
def test_slices_of_one_volume_are_read_once(tmp_path: Path, name: str) -> None:
    write, keys, values = READ[name]
    write(tmp_path / "s")
    volume = read({"path": tmp_path / "s", "volume": "channels", **keys})
    expected = np.moveaxis(values[..., None] if values.ndim == 3 else values, 3, 0)
    np.testing.assert_allclose(volume.numpy(), expected[:, ::-1, ::-1], rtol=1e-6)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("name", REFUSED)
def test_slices_that_do_not_belong_together_are_refused(tmp_path: Path, name: str) -> None:
    write, pattern = REFUSED[name]
    write(tmp_path / "s")
    with pytest.raises(ReadError, match=pattern) as caught:
        read(tmp_path / "s")
    assert "\n" not in str(caught.value)
