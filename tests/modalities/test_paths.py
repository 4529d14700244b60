"""The files behind a cell: every file that `read` opens is listed, and each makes another cell."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.engine.data import open_section
from sensorium.engine.data.sources import Json
from sensorium.engine.recipe import DataSection, find, load, registered
from sensorium.modalities.base import Modality
from sensorium.modalities.paths import cell_files, cell_identity, cell_paths, map_paths, stamp

R = np.random.default_rng(0)


def picture(folder: Path) -> Any:
    from PIL import Image

    Image.fromarray(R.integers(0, 256, (4, 5, 3), np.uint8)).save(folder / "a.png")
    return "a.png"


def sound(folder: Path) -> Any:
    import soundfile

    soundfile.write(folder / "a.wav", R.uniform(-0.5, 0.5, 400), 16000)
    return {"path": "a.wav", "start": 0.0, "end": 0.01, "bytes": None}


def motion(folder: Path) -> Any:
    (folder / "a.csv").write_text("timestamp,x\n0.0,1.0\n0.1,2.0\n")
    return {"path": "a.csv", "columns": ["x"]}


def text(folder: Path) -> Any:
    (folder / "a.txt").write_text("some words")
    return Path("a.txt")


def nifti(folder: Path, name: str = "a.nii") -> Any:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(R.random((4, 5, 6), np.float32), np.eye(4)), folder / name)
    return name


def zipped(folder: Path) -> Any:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.write(folder / nifti(folder), "a.nii")
    (folder / "a.nii").unlink()
    return "a.zip"


def contrasts(folder: Path) -> Any:
    return [nifti(folder, "t1.nii"), None, nifti(folder, "t2.nii")]


def series(folder: Path) -> Any:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    (folder / "scan" / "inner").mkdir(parents=True)
    for place in range(4):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        slice_ = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        slice_.SOPClassUID, slice_.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        slice_.SeriesInstanceUID, slice_.Modality, slice_.SeriesDescription = "1.2.3", "MR", "T1"
        slice_.Rows, slice_.Columns, slice_.PixelSpacing = 5, 7, [1.5, 2.0]
        slice_.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        slice_.ImagePositionPatient, slice_.SliceThickness = [0.0, 0.0, 3.0 * place], 3
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, 16, 15
        slice_.PixelRepresentation = 1
        slice_.PixelData = R.integers(0, 900, (5, 7)).astype(np.int16).tobytes()
        name = "inner/last.dcm" if place == 3 else f"{place}.dcm"
        slice_.save_as(folder / "scan" / name, enforce_file_format=True)
    return {"path": "scan", "series": "T1"}


def itk(name: str, header: str | None = None) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        simple = pytest.importorskip("SimpleITK")
        image = simple.GetImageFromArray(R.random((6, 5, 4), np.float32))
        simple.WriteImage(image, str(folder / name))
        if header is not None:  # the same values, each slice in a file of its own
            lines = (folder / name).read_text().splitlines()
            raw = np.fromfile(folder / "a.raw", np.float32).reshape(6, 20)
            for place, values in enumerate(raw):
                values.tofile(folder / f"slice{place}.raw")
            (folder / "a.raw").unlink()
            remaining = [
                line for line in lines if not line.lower().startswith(("element", "data file"))
            ]
            remaining += [line for line in lines if line.startswith("ElementType")]
            listed = "\n".join(f"slice{place}.raw" for place in range(6))
            (folder / name).write_text("\n".join([*remaining, header.replace("$", listed)]) + "\n")
        return name

    return make


CELLS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "picture": ("image", picture),
    "sound": ("audio", sound),
    "motion": ("action", motion),
    "text": ("text", text),
    "nifti": ("mri", nifti),
    "zip": ("mri", zipped),
    "contrasts": ("mri", contrasts),
    "dicom": ("mri", series),
    "mask": ("mri_mask", series),
    "mha": ("mri", itk("a.mha")),
    "mhd": ("mri", itk("a.mhd")),
    "mhd list": ("mri", itk("a.mhd", "ElementDataFile = LIST\n$")),
    "mhd pattern": ("mri", itk("a.mhd", "ElementDataFile = slice%d.raw 0 5 1")),
    "nrrd": ("mri", itk("a.nrrd")),
    "nhdr": ("mri", itk("a.nhdr")),
}
"""Cell -> its modality, and what writes its files into a folder and returns it, relative."""


def numbers(raw: Any) -> np.ndarray:
    if isinstance(raw, str):
        return np.frombuffer(raw.encode(), np.uint8)
    return np.asarray(getattr(raw, "samples", raw))


@pytest.mark.parametrize("name", CELLS)
class TestEveryKindOfCell:
    @pytest.fixture
    def case(self, name: str, tmp_path: Path) -> tuple[Modality, Any]:
        kind, make = CELLS[name]
        pytest.importorskip({"audio": "soundfile", "mri": "monai"}.get(kind[:3], "PIL"))
        cell = map_paths(make(tmp_path), lambda path: type(path)(tmp_path / path))
        (tmp_path / "unrelated.bin").write_bytes(b"else")
        return find("modality", kind, "modality"), cell

    def test_what_is_listed_is_all_that_is_read(
        self, case: tuple[Modality, Any], tmp_path: Path
    ) -> None:
        modality, cell = case
        read, files = load(modality.read), load(modality.files)(cell)
        before = numbers(read(cell))
        assert len(set(files)) == len(files)
        assert all(file.is_absolute() for file in files)
        for file in [f for f in tmp_path.rglob("*") if f.is_file() and f not in files]:
            file.unlink()
        np.testing.assert_array_equal(numbers(read(cell)), before)

    def test_each_file_tells_it_from_others(
        self, case: tuple[Modality, Any], tmp_path: Path
    ) -> None:
        modality, cell = case
        lister = load(modality.files)
        identity = cell_identity(cell, lister)
        assert identity
        for file in lister(cell):
            status = file.stat()
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
            changed = cell_identity(cell, lister)
            assert changed != identity
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
            restored = cell_identity(cell, lister)  # of another file with the same time, perhaps
            assert restored not in (identity, changed)
            identity = restored
        (tmp_path / "unrelated.bin").write_bytes(b"another")
        assert cell_identity(cell, lister) == identity

    def test_a_table_notices_another_file(
        self, name: str, case: tuple[Modality, Any], tmp_path: Path
    ) -> None:
        modality, cell = case
        if isinstance(cell, Path):
            pytest.skip("JSON holds no Path")
        (tmp_path / "rows.jsonl").write_text(json.dumps({"cell": cell, "note": "x"}))
        path = {"source": "json", "path": str(tmp_path / "rows.jsonl"), "limit": 1}
        section = DataSection.model_validate({**path, "columns": {"here": "cell"}})
        lister = load(modality.files)
        before = open_section(section, "data").cell_key(0, "here", lister)
        file = lister(cell)[-1]
        shutil.copyfile(file, tmp_path / "beside")
        os.utime(tmp_path / "beside", ns=(0, 1))
        (tmp_path / "beside").replace(file)
        assert open_section(section, "data").cell_key(0, "here", lister) != before


@pytest.mark.parametrize(
    "pair",
    [("a.hdr", "a.img"), ("A.HDR", "A.IMG"), ("a.hdr.gz", "a.img.gz"), ("a.hdr", "a.img.gz")],
)
def test_pairs_of_header_and_values(tmp_path: Path, pair: tuple[str, str]) -> None:
    lister = load(find("modality", "mri", "modality").files)
    files = [tmp_path / name for name in pair]
    for file in files:
        file.write_bytes(b"x")
    for file in files:
        assert set(lister(str(file))) == set(files)


@pytest.mark.parametrize("name", registered("modality"))
def test_cells_that_name_no_file(name: str, tmp_path: Path) -> None:
    lister = load(find("modality", name, "modality").files)
    for cell in (None, 3, "no such file", "x" * 9000, b"\0", {"bytes": b"x", "path": __file__}):
        assert list(lister(cell)) == []
        assert cell_identity(cell, lister) is None


def test_a_text_is_no_file_though_one_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("same").write_text("x")
    (tmp_path / "rows.jsonl").write_text('{"word": "same"}\n{"word": "./same"}\n')
    source = Json(path="rows.jsonl")
    lister = load(find("modality", "text", "modality").files)
    assert source.cell_key(0, "word", lister) != source.cell_key(1, "word", lister)
    before = source.cell_key(0, "word", lister)
    Path("same").write_text("other")
    assert source.cell_key(0, "word", lister) == before
    assert load(Modality().files)("same") == []


def test_what_else_a_cell_says(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    path = str(tmp_path / "a")
    cells: list[Any] = [
        path,
        {"path": path, "start": 0.0},
        {"path": path, "start": 1.0},
        {"path": path, "series": "T1"},
        {"path": path, "columns": ["x", "y"]},
        {"path": path, "columns": ["y", "x"]},
        [path],
        [path, None],
        [None, path],
        [path, b"bytes"],
        [path, b"others"],
        [path, np.zeros(2)],
        [path, np.zeros((2, 1))],
    ]
    identities = [cell_identity(cell) for cell in cells]
    assert None not in identities
    assert len(set(identities)) == len(cells)
    # Where a table fills what a cell does not say, and however the file is named.
    assert cell_identity({"path": path, "start": 0.0, "end": None}) == identities[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for cell, identity in zip(cells, identities, strict=True):
            relative = map_paths(cell, lambda name: os.path.relpath(name, tmp_path))
            assert cell_identity(relative) == identity
    assert cell_identity([path, object()]) is None


def test_paths_are_those_that_are_there(tmp_path: Path) -> None:
    for name in ("a", "scan/b", "scan/c/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    cell = [str(tmp_path / "a"), None, {"path": tmp_path / "scan"}, str(tmp_path / "gone"), 3]
    assert cell_paths(cell) == [tmp_path / "a", tmp_path / "scan"]
    assert cell_files(cell) == [tmp_path / name for name in ("a", "scan/b", "scan/c/d")]


def test_a_file_that_is_replaced_with_the_same_size_and_time_is_another(tmp_path: Path) -> None:
    """As `cp -p`, `rsync -t` and archives replace them."""
    file, other = tmp_path / "a", tmp_path / "b"
    for each in (file, other):
        each.write_bytes(each.name.encode() * 5)
        os.utime(each, ns=(10**18, 10**18))
    before = stamp(file)
    assert stamp(file) == before
    other.replace(file)
    assert stamp(file) != before
