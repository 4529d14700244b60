"""DICOM as hospitals have it: shuffled names, several series, copies, gaps, tilts."""

from __future__ import annotations

import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_series import ORIENT, dataset, numbers, series
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import (
    EnhancedMRImageStorage,
    JPEG2000Lossless,
    generate_uid,
)

from sensorium.modalities.base import ReadError
from sensorium.modalities.mri.io import read

SAGITTAL = [0.0, 1, 0, 0, 0, -1]
TILTED = [1.0, 0, 0, 0, 0.9, -0.43588989]


@pytest.mark.parametrize("orient", [ORIENT, SAGITTAL, TILTED])
def test_slices_are_sorted_by_where_they_lie(tmp_path: Path, orient: list[float]) -> None:
    values = numbers()
    result = read(series(tmp_path / "s", values, orient=orient))
    turn = np.array(orient)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = turn[:3] * 1.5, turn[3:] * 2.0
    affine[:3, 2], affine[:3, 3] = 3 * np.cross(turn[:3], turn[3:]), (-10, -20, 5)
    affine[:2] *= -1
    expected = read({"array": values, "affine": affine})
    np.testing.assert_array_equal(result.numpy(), expected.numpy())
    np.testing.assert_allclose(result.affine.numpy(), expected.affine.numpy(), atol=1e-5)
    assert nibabel.aff2axcodes(result.affine.numpy()) == ("R", "A", "S")


def test_values_are_rescaled(tmp_path: Path) -> None:
    folder = series(tmp_path / "s", numbers(), RescaleSlope=2.0, RescaleIntercept=-7.0)
    plain = read(series(tmp_path / "p", numbers()))
    np.testing.assert_allclose(read(folder).numpy(), plain.numpy() * 2 - 7)


def test_a_zip_and_stray_files_are_fine(tmp_path: Path) -> None:
    folder = series(tmp_path / "s", numbers())
    (folder / "README.txt").write_text("not an image")
    expected = read(folder)
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"patient/{file.name}")
    np.testing.assert_array_equal(read(tmp_path / "s.zip").numpy(), expected.numpy())


def test_series_echoes_and_phases_are_told_apart(tmp_path: Path) -> None:
    folder, uid = tmp_path / "s", generate_uid()
    series(folder, numbers(), SeriesDescription="T1w", SeriesNumber=3)
    parts = {"magnitude": "M", "phase": "P"}
    for echo in (20.0, 80.0):
        for kind in parts.values():
            tags = {"EchoTime": echo, "ImageType": ["ORIGINAL", "PRIMARY", kind]}
            series(folder, numbers(), uid=uid, SeriesDescription="GRE", SeriesNumber=4, **tags)
    with pytest.raises(ReadError, match="holds 5 series") as caught:
        read(folder)
    messages = str(caught.value)
    assert "T1w, series 3" in messages and "GRE, series 4, echo 80 ms, phase" in messages
    for expected in ("T1w", "3", "echo 80 ms, phase"):
        assert read({"path": folder, "series": expected}).shape == (1, 4, 5, 6)
    with pytest.raises(ReadError, match="4 series answer to 'GRE'"):
        read({"path": folder, "series": "GRE"})
    with pytest.raises(ReadError, match="no series 'FLAIR'"):
        read({"path": folder, "series": "FLAIR"})


def test_localizers_are_left_out_by_name(tmp_path: Path) -> None:
    folder = series(tmp_path / "s", numbers(), SeriesDescription="T2w")
    series(folder, numbers(), SeriesDescription="3-plane LOCALIZER")
    series(folder, numbers(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert read(folder).shape == (1, 4, 5, 6)
    only = series(tmp_path / "only", numbers(), SeriesDescription="AAHead_Scout")
    with pytest.raises(ReadError, match="only localizers"):
        read(only)


def test_copies_of_a_slice_count_once(tmp_path: Path) -> None:
    folder = series(tmp_path / "s", numbers())
    expected = read(folder)
    first = pydicom.dcmread(next(folder.iterdir()))
    first.save_as(folder / "sent twice.dcm")
    first.SOPInstanceUID = generate_uid()
    first.save_as(folder / "sent twice under another name.dcm")
    np.testing.assert_array_equal(read(folder).numpy(), expected.numpy())
    pixels = first.pixel_array.copy()
    first.PixelData, first.SOPInstanceUID = (pixels + 1).tobytes(), generate_uid()
    first.save_as(folder / "another.dcm")
    with pytest.raises(ReadError, match="2 different slices are at one position, 1 at others"):
        read(folder)


def test_a_series_over_time_has_volumes(tmp_path: Path) -> None:
    folder, uid = tmp_path / "s", generate_uid()
    for time in (2, 1):
        series(folder, numbers() + time, uid=uid, TemporalPositionIdentifier=time)
    with pytest.raises(ReadError, match="holds 2 volumes"):
        read(folder)
    later, first = (read({"path": folder, "volume": n}).numpy() for n in (1, 0))
    np.testing.assert_array_equal(later, first + 1)


def test_gaps_tilts_and_colour_are_refused(tmp_path: Path) -> None:
    folder = series(tmp_path / "gap", numbers())
    slices = sorted(folder.iterdir(), key=lambda f: pydicom.dcmread(f).ImagePositionPatient[2])
    slices[2].unlink()
    with pytest.raises(ReadError, match="slices 2 and 3 of 5 are 6 mm apart, the others 3"):
        read(folder)
    with pytest.raises(ReadError, match=r"shifted sideways by 18\.4 degrees \(gantry tilt\)"):
        read(series(tmp_path / "tilt", numbers(), step=[0, 1, 3]))
    with pytest.raises(ReadError, match="is one slice"):
        read(series(tmp_path / "one", numbers((4, 5, 1))))
    with pytest.raises(ReadError, match=r"its pixels measure 0 x 1\.5 mm"):
        read(series(tmp_path / "zero", numbers(), PixelSpacing=[0.0, 1.5]))
    colour = get_testdata_file("SC_rgb_small_odd.dcm", download=False)
    with pytest.raises(ReadError, match="holds colour"):
        read(colour)


def test_cut_pixels_and_absent_tags_are_refused(tmp_path: Path) -> None:
    folder = series(tmp_path / "s", numbers())
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.PixelData = data.PixelData[:-10]
        data.save_as(file)
    with pytest.raises(ReadError, match="its pixels cannot be read"):
        read(folder)
    nowhere = series(tmp_path / "n", numbers())
    for file in nowhere.iterdir():
        data = pydicom.dcmread(file)
        del data.ImagePositionPatient
        data.save_as(file)
    with pytest.raises(ReadError, match="has no position in space"):
        read(nowhere)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match="none of its 0 files is a DICOM image"):
        read(tmp_path / "empty")


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (False, r"JPEG 2000.*no decoder.*sensorium\[dicom\]"),
        (True, r"its pixels cannot be read \(Unable to decode"),  # the bytes are damaged
    ],
)
def test_a_compressed_file_that_is_not_decoded_says_why(
    decoder: bool, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = series(tmp_path / "s", numbers())
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = JPEG2000Lossless
        data.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51"])
        data["PixelData"].VR = "OB"
        data.save_as(file)

    def absent(self: Dataset) -> np.ndarray:
        raise RuntimeError("Unable to decode as exceptions were raised by all the plugins")

    monkeypatch.setattr(Dataset, "pixel_array", property(absent))
    monkeypatch.setattr(type(get_decoder(JPEG2000Lossless)), "is_available", decoder)
    with pytest.raises(ReadError, match=message):
        read(folder)


def test_an_enhanced_file_is_a_series_in_one(tmp_path: Path) -> None:
    values = numbers()
    data = dataset(EnhancedMRImageStorage)
    data.SeriesInstanceUID, data.NumberOfFrames = generate_uid(), values.shape[2]
    data.Rows, data.Columns = values.shape[1], values.shape[0]
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [2.0, 1.5]
    plane.ImageOrientationPatient = ORIENT
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    data.SharedFunctionalGroupsSequence = [shared]
    order, groups = np.random.default_rng(0).permutation(values.shape[2]), []
    for k in order:
        frame_groups, place, scale = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [-10.0, -20.0, 5.0 + 3 * float(k)]
        scale.RescaleSlope, scale.RescaleIntercept = 2.0, 1.0
        frame_groups.PlanePositionSequence, frame_groups.PixelValueTransformationSequence = (
            [place],
            [scale],
        )
        groups.append(frame_groups)
    data.PerFrameFunctionalGroupsSequence = groups
    data.PixelData = b"".join(np.ascontiguousarray(values[:, :, k].T).tobytes() for k in order)
    data.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    result = read(tmp_path / "enhanced.dcm")
    expected = read(series(tmp_path / "s", values))
    np.testing.assert_array_equal(result.numpy(), expected.numpy() * 2 + 1)
    np.testing.assert_allclose(result.affine.numpy(), expected.affine.numpy(), atol=1e-5)


REAL = ["MR_small.dcm", "MR_truncated.dcm", "rtstruct.dcm", "badVR.dcm", "liver_1frame.dcm"]


@pytest.mark.parametrize("name", REAL)
def test_real_files_that_are_no_volume_give_a_line(name: str) -> None:
    with pytest.raises(ReadError) as caught:
        read(get_testdata_file(name, download=False))
    assert "\n" not in str(caught.value)
