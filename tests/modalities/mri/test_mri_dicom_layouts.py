"""Every layout of a DICOM folder that hospitals send, read in every way: the volume itself, or a
line that names the file. No slice is lost without a word."""

from __future__ import annotations

import io
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_series import dataset, numbers, series
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from sensorium.modalities.base import ReadError
from sensorium.modalities.mri.io import read

Layout = tuple[Callable[[Path], Any], "np.ndarray | str"]
"""Writes the folder; the values that are read (0 to 2 axes of the file flipped), or the error."""

VALUES = numbers()


def edited(edit: Callable[[Dataset, int], None], **options: Any) -> Callable[[Path], Any]:
    return lambda folder: series(folder, VALUES, edit=edit, **options)


def without(tag: str) -> Callable[[Path], Any]:
    return edited(lambda data, k: data.__delattr__(tag))


def with_file(spoil: Callable[[bytes], bytes], place: int, name: str = "") -> Callable[[Path], Any]:
    """The slice `place` (in the order of position) is rewritten, under its own name or another."""

    def write(folder: Path) -> None:
        series(folder, VALUES, SeriesDescription="T1")
        files = sorted(folder.iterdir(), key=lambda f: pydicom.dcmread(f).ImagePositionPatient[2])
        content = files[place].read_bytes()
        (folder / (name or files[place].name)).write_bytes(spoil(content))

    return write


def beside(name: str, content: bytes | None) -> Callable[[Path], Any]:
    """A whole series, and a file of pydicom's (content None) or of such content."""

    def write(folder: Path) -> None:
        series(folder, VALUES, SeriesDescription="T1")
        if content is None:
            shutil.copy(get_testdata_file(name, download=False), folder / "foreign.dcm")
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    return write


def over_time(tag: str, times: list[Any]) -> Callable[[Path], Any]:
    """Two volumes, the later one first in the order of file names, with a tag that tells."""

    def write(folder: Path) -> None:
        folder.mkdir()
        for name, offset, time in zip("ab", (1, 0), times, strict=True):
            tags: dict[str, Any] = {} if time is None else {tag: time}
            part = series(folder / name, VALUES + offset, uid="1.2.3", **tags)
            for file in part.iterdir():
                shutil.move(file, folder / f"{name}{file.name}")
            part.rmdir()

    return write


def jitter(data: Dataset, k: int) -> None:
    along = [1.0, 0.00499 + 2e-5 * (k % 2), 0.0]
    data.ImageOrientationPatient = [*along, -along[1], 1.0, 0.0]
    data.EchoTime = 4.6 + 1e-7 * (k % 2)
    data.PixelSpacing = [2.0 + 1e-5 * (k % 2), 1.5]
    data.ImagePositionPatient = [-10.0, -20.0, 5.0 + 3.0 * k + 1e-4 * (k % 2)]


def slopes(data: Dataset, k: int) -> None:
    data.RescaleSlope, data.RescaleIntercept = k + 1.0, 0.0


def reversed_numbers(data: Dataset, k: int) -> None:
    if k != 2:
        data.InstanceNumber = 10 - k


def thin(data: Dataset, k: int) -> None:
    data.ImagePositionPatient = [0.0, 0.0, 0.025 * k]


def aside(data: Dataset, k: int) -> None:
    x = -10.0 + (8.0 if k == 2 else 0.0)
    data.ImagePositionPatient = [x, -20.0, 5.0 + 3.0 * k]


def cut_in_uid(content: bytes) -> bytes:
    uid = pydicom.dcmread(io.BytesIO(content)).SeriesInstanceUID.encode()
    return content[: content.index(uid) + len(uid) - 6]


SCALED = VALUES * np.arange(1, 7)
TWO = np.stack([VALUES, VALUES + 1], -1)
GOOD: dict[str, tuple[Callable[[Path], Any], np.ndarray]] = {
    "plain": (edited(lambda data, k: None), VALUES),
    "one UID for all": (edited(lambda data, k: setattr(data, "SOPInstanceUID", "1.2.3")), VALUES),
    "no UID": (without("SOPInstanceUID"), VALUES),
    "no series UID": (without("SeriesInstanceUID"), VALUES),
    "no instance number": (without("InstanceNumber"), VALUES),
    "numbers reversed": (edited(reversed_numbers), VALUES),
    "rounding": (edited(jitter), VALUES),
    "thin slices": (edited(thin), VALUES),
    "slope by slice": (edited(slopes), SCALED),
    "MONOCHROME1": (
        lambda folder: series(folder, VALUES, PhotometricInterpretation="MONOCHROME1"),
        VALUES.max() - VALUES,
    ),
    "colour beside": (beside("SC_rgb_small_odd.dcm", None), VALUES),
    "dose beside": (beside("rtdose.dcm", None), VALUES),
    "report beside": (beside("test-SR.dcm", None), VALUES),
    "Mac's shadow": (beside("._slice.dcm", b"\0\5\x16\7"), VALUES),
    "Mac's folder": (beside("__MACOSX/slice.dcm", b"\0\5\x16\7"), VALUES),
    "notes": (beside("README", b"brought by the patient"), VALUES),
    "pdf": (beside("report.pdf", b"%PDF-1.7\0\1\2"), VALUES),
    "temporal position": (over_time("TemporalPositionIdentifier", [2, 1]), TWO),
    "trigger time": (over_time("TriggerTime", [700.0, 20.0]), TWO),
    "acquisition time": (over_time("AcquisitionTime", ["101500.5", "095959.75"]), TWO),
    "acquisition date and time": (
        over_time("AcquisitionDateTime", ["20240102000001", "20240101235959"]),
        TWO,
    ),
    "instance number": (over_time("InstanceNumber", [10, 9]), TWO),
}
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing tells times apart": (over_time("StudyID", [None, None]), "their order is unknown"),
    "colour table": (edited(lambda d, k: setattr(d, "PhotometricInterpretation", "PALETTE COLOR")),
                     "holds colour"),
    "mosaic": (edited(lambda d, k: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"])),
               "mosaic"),
    "slice aside": (edited(aside), "slice 3 of 6 lies 8 mm beside"),
    "no place in one": (
        edited(lambda data, k: data.__delattr__("ImagePositionPatient") if k == 5 else None),
        "has no position in space",
    ),
    "missing thin slice": (
        edited(lambda data, k: setattr(data, "ImagePositionPatient", [0, 0, 0.01 * (k + (k > 2))])),
        "some are missing",
    ),
}  # fmt: skip
for position, place in {"first": 0, "inner": 3, "last": -1}.items():
    BAD |= {
        f"{position} empty": (with_file(lambda b: b"", place), "is empty"),
        f"{position} cut in the meta header": (with_file(lambda b: b[:200], place), "header"),
        f"{position} cut in its header": (with_file(lambda b: b[:420], place), "header|whole"),
        f"{position} cut in its UID": (with_file(cut_in_uid, place), "header is damaged"),
        f"{position} cut in its pixels": (with_file(lambda b: b[:-9], place), "pixels cannot"),
        f"{position} without preamble": (with_file(lambda b: b[132:], place), "preamble"),
        f"{position} of zeros": (with_file(lambda b: bytes(len(b)), place), "no DICOM file"),
        f"{position} an error page": (with_file(lambda b: b"<html>404", place), "no DICOM file"),
    }


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"study/{file.relative_to(folder)}")
    return path


WAYS: dict[str, Callable[[Path], Any]] = {
    "folder": str,
    "zip": zipped,
    "zip in memory": lambda folder: {"bytes": zipped(folder).read_bytes(), "path": "x.zip"},
    "zip as a file": lambda folder: io.BytesIO(zipped(folder).read_bytes()),
}


def selected(source: Any, **keys: Any) -> Any:
    if isinstance(source, dict):
        return {**source, **keys}
    return {"bytes" if isinstance(source, bytes) else "path": source, **keys}


@pytest.mark.quick_share(4)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", GOOD)
def test_the_whole_volume_is_read(tmp_path: Path, layout: str, way: str) -> None:
    write, values = GOOD[layout]
    write(tmp_path / "s")
    source = WAYS[way](tmp_path / "s")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of files that are left out
        volume = read(selected(source, volume="channels"))
    expected = np.moveaxis(values[..., None] if values.ndim == 3 else values, 3, 0)
    # Rows and columns run towards left and posterior, RAS axes towards right and anterior.
    np.testing.assert_allclose(volume.numpy(), expected[:, ::-1, ::-1], rtol=1e-6)


@pytest.mark.quick_share(4)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", BAD)
def test_what_may_be_a_slice_is_never_left_out(tmp_path: Path, layout: str, way: str) -> None:
    write, pattern = BAD[layout]
    write(tmp_path / "s")
    source = WAYS[way](tmp_path / "s")
    with pytest.raises(ReadError, match=pattern) as caught:
        read(source)
    assert "\n" not in str(caught.value)
    if " " in layout and layout.split()[0] in ("first", "inner", "last"):
        with pytest.raises(ReadError, match=pattern):
            read(selected(source, series="T1"))


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("seed", range(60))
def test_a_slice_cut_anywhere_is_noticed(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    files = sorted(series(tmp_path / "s", VALUES, SeriesDescription="T1").iterdir())
    file = files[rng.integers(len(files))]
    file.write_bytes(file.read_bytes()[: rng.integers(file.stat().st_size)])
    for source in (tmp_path / "s", {"path": tmp_path / "s", "series": "T1"}):
        with pytest.raises(ReadError):
            read(source)


@pytest.mark.parametrize("foreign", ["SC_rgb_small_odd.dcm", "rtdose.dcm", "JPEG2000.dcm"])
def test_a_foreign_file_does_not_refuse_the_named_series(tmp_path: Path, foreign: str) -> None:
    beside(foreign, None)(tmp_path / "s")
    assert read({"path": tmp_path / "s", "series": "T1"}).shape == (1, 4, 5, 6)
    with pytest.warns(UserWarning, match=r"1 files that hold no slice .*foreign\.dcm"):
        read(tmp_path / "s")


def test_a_damaged_file_of_another_folder_or_series_does_not_matter(tmp_path: Path) -> None:
    series(tmp_path / "s", VALUES, SeriesDescription="T1")
    (tmp_path / "s" / "other").mkdir()
    (tmp_path / "s" / "other" / "x.dcm").write_bytes(b"")
    assert read({"path": tmp_path / "s", "series": "T1"}).shape == (1, 4, 5, 6)
    other = dataset()
    other.SeriesInstanceUID, other.Rows = "1.2.9", 4
    other.save_as(tmp_path / "s" / "y.dcm", enforce_file_format=True)
    assert read({"path": tmp_path / "s", "series": "T1"}).shape == (1, 4, 5, 6)


NAMED: list[tuple[list[dict[str, Any]], Any, int | str]] = [
    # The series in the folder, what is asked for, and which it is.
    ([{"SeriesDescription": "T2w", "SeriesNumber": 12}], 2, "no series 2"),
    ([{"SeriesDescription": "T2w", "SeriesNumber": 12}], "T2", "no series 'T2'"),
    ([{"SeriesDescription": "T2w", "SeriesNumber": 12}], "t2W", 0),
    ([{"SeriesDescription": "T2w", "SeriesNumber": 12}], "T2*", 0),
    ([{"SeriesDescription": "T2w", "SeriesNumber": 12}], 12, 0),
    ([{"SeriesDescription": "DWI", "SeriesNumber": 7, "EchoTime": 5.0}], 5, "no series 5"),
    ([{"SeriesDescription": "DWI", "SeriesNumber": 7, "EchoTime": 5.0}], "7, echo 5 ms", 0),
    ([{"SeriesDescription": "A", "SeriesNumber": 1}, {"SeriesNumber": 10}], 1, 0),
    ([{"SeriesDescription": "T1"}, {"SeriesDescription": "T1 post"}], "T1", 0),
    ([{"SeriesDescription": "T1"}, {"SeriesDescription": "T1 post"}], "T1 post", 1),
    ([{"SeriesDescription": "T1"}, {"SeriesDescription": "T1 post"}], "T1*", "2 series answer"),
    ([{"SeriesDescription": "T1, axial"}, {"SeriesDescription": "T1"}], "T1, axial", 0),
]  # fmt: skip


@pytest.mark.parametrize("tags,requested,answer", NAMED)
def test_a_series_is_named_whole(
    tmp_path: Path, tags: list[dict[str, Any]], requested: Any, answer: int | str
) -> None:
    for number, options in enumerate(tags):
        series(tmp_path / "s", VALUES + number, **options)
    source = {"path": tmp_path / "s", "series": requested}
    if isinstance(answer, str):
        with pytest.raises(ReadError, match=answer):
            read(source)
    else:
        assert float(read(source).min()) == VALUES.min() + answer
