"""Volumes as they come: NIfTI, arrays, contrasts, and what is wrong with some."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, Orientation
from nibabel.testing import data_path

from sensorium.modalities.base import ReadError
from sensorium.modalities.mri.io import read
from sensorium.modalities.mri.io.collection import folder_cells
from sensorium.modalities.mri.io.read import example

RNG = np.random.default_rng(0)
TURN = np.array([[0.8, -0.6, 0, 5], [0.6, 0.8, 0, -7], [0, 0, 1, 3], [0, 0, 0, 1]])
AFFINES = {
    "ras": np.diag([1.0, 2, 3, 1]),
    "lps": np.diag([-1.0, -2, 3, 1]),
    "psl": np.array([[0.0, 0, -3, 9], [-1, 0, 0, 8], [0, 2, 0, 7], [0, 0, 0, 1]]),
    "oblique": TURN @ np.diag([-1.0, 2, 3, 1]),
}


def written(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


def numbers(shape: tuple[int, ...] = (5, 6, 7)) -> np.ndarray:
    return RNG.integers(0, 1000, shape).astype(np.int16)


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("end", [".nii", ".nii.gz"])
def test_every_voxel_keeps_its_place_in_the_world(tmp_path: Path, name: str, end: str) -> None:
    values, affine = numbers(), AFFINES[name]
    result = read(written(tmp_path / f"v{end}", values, affine))
    assert isinstance(result, MetaTensor) and result.dtype == torch.float32
    assert nibabel.aff2axcodes(result.affine.numpy()) == ("R", "A", "S")
    back = np.linalg.inv(affine) @ result.affine.numpy()
    for voxel in [(0, 0, 0), (1, 2, 3), (4, 0, 2)]:
        indices = np.rint(back @ [*voxel, 1])[:3].astype(int)
        if all(0 <= i < n for i, n in zip(indices, values.shape, strict=True)):
            assert float(result[(0, *voxel)]) == values[tuple(indices)]
    assert sorted(result.shape[1:]) == sorted(values.shape)


@pytest.mark.parametrize("name", AFFINES)
def test_parity_with_monai(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "v.nii.gz", numbers(), AFFINES[name])
    image = LoadImage(image_only=True, ensure_channel_first=True)(path)
    expected = Orientation("RAS", labels=None)(image)
    result = read(path)
    torch.testing.assert_close(result.as_tensor(), expected.as_tensor())
    torch.testing.assert_close(result.affine, expected.affine)


def test_real_scans_equal_nibabels_reading() -> None:
    path = Path(data_path) / "anatomical.nii"
    expected = nibabel.as_closest_canonical(nibabel.load(path))
    result = read(path)
    np.testing.assert_allclose(result[0].numpy(), expected.get_fdata(), rtol=1e-6)
    np.testing.assert_allclose(result.affine.numpy(), expected.affine)


def test_a_header_scales_its_values_and_says_its_unit(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(numbers(), np.diag([0.001, 0.001, 0.002, 1]))
    image.header.set_slope_inter(2.0, 5.0)
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "v.nii.gz")
    result = read(tmp_path / "v.nii.gz")
    np.testing.assert_allclose(result.pixdim.numpy(), [1, 1, 2], rtol=1e-5)
    expected = nibabel.load(tmp_path / "v.nii.gz").get_fdata()
    np.testing.assert_allclose(result[0].numpy(), expected, rtol=1e-6)


def test_big_endian_and_nifti_2(tmp_path: Path) -> None:
    values = numbers()
    old = nibabel.Nifti1Image(values, np.eye(4)).header.as_byteswapped()
    for image in (nibabel.Nifti1Image(values, np.eye(4), old), nibabel.Nifti2Image(values, None)):
        nibabel.save(image, tmp_path / "v.nii")
        result = read(tmp_path / "v.nii").as_tensor().flatten().sort().values
        np.testing.assert_array_equal(result, np.sort(values.ravel()))


def test_the_ways_to_hand_over_a_volume(tmp_path: Path) -> None:
    path = written(tmp_path / "v.nii.gz", numbers(), AFFINES["lps"])
    expected = read(path)
    archive = tmp_path / "v.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.write(path, "a/v.nii.gz")
    image = nibabel.load(path)
    ways: list[Any] = [
        str(path),
        path.read_bytes(),
        io.BytesIO(path.read_bytes()),
        image,
        {"path": path},
        {"array": np.asarray(image.dataobj), "affine": image.affine},
        lambda: path,
        expected,
        archive,
    ]
    for way in ways:
        result = read(way)
        torch.testing.assert_close(result.as_tensor(), expected.as_tensor())
        torch.testing.assert_close(result.affine, expected.affine)
        assert tuple(result.meta["original_shape"]) == image.shape


def test_a_series_of_volumes_is_never_chosen_from_in_silence(tmp_path: Path) -> None:
    values = numbers((5, 6, 7, 3))
    path = written(tmp_path / "v.nii", values)
    with pytest.raises(ReadError, match=r"holds 3 volumes.*volume: 0\} \(to 2\)"):
        read(path)
    np.testing.assert_array_equal(read({"path": path, "volume": 1})[0], values[..., 1])
    assert read({"path": path, "volume": "channels"}).shape == (3, 5, 6, 7)
    with pytest.raises(ReadError, match="requests volume 3 of 3"):
        read({"path": path, "volume": 3})
    alone = written(tmp_path / "one.nii", values[..., :1])
    assert read(alone).shape == (1, 5, 6, 7)


def test_contrasts_become_channels(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{i}.nii.gz", numbers(), AFFINES["lps"]) for i in range(2)]
    result = read([paths[0], None, paths[1]])
    assert result.shape[0] == 3 and result.meta["contrasts"] == (True, False, True)
    torch.testing.assert_close(result[2].as_tensor(), read(paths[1])[0].as_tensor())
    assert not result[1].any()
    moved = AFFINES["lps"] + _shift(5, 0, 0)
    with pytest.raises(ReadError, match="lies up to 5 mm from the first contrast"):
        read([paths[0], written(tmp_path / "moved.nii", numbers(), moved)])
    with pytest.raises(
        ReadError, match=r"has the shape \(5, 6, 8\), the first contrast \(5, 6, 7\)"
    ):
        read([paths[0], written(tmp_path / "long.nii", numbers((5, 6, 8)), AFFINES["lps"])])
    with pytest.raises(ReadError, match="none of its contrasts"):
        read([None, None])


def damaged(path: Path) -> dict[str, tuple[Any, str]]:
    whole = written(path / "whole.nii.gz", numbers((20, 20, 20)))
    cut = path / "cut.nii.gz"
    cut.write_bytes(whole.read_bytes()[:-600])
    short = path / "short.nii"
    short.write_bytes(gzip.decompress(whole.read_bytes())[:-100])
    flat = numbers().astype(np.float32) * 0 + 7
    hole = numbers().astype(np.float32)
    hole[1, 2, 3] = np.nan
    rgb = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    text = path / "notes.txt"
    text.write_text("patient felt fine" * 50)
    lost = path / "lost.nii.gz"
    lost.write_bytes(gzip.compress(b"hello" * 200))
    return {
        "cut gzip": (cut, "gzip stream is damaged or cut short"),
        "short": (short, r"ends after 16,252 of 16,352 bytes"),
        "flat": (written(path / "flat.nii", flat), "every voxel is 7"),
        "zero": (written(path / "zero.nii", flat * 0), "every voxel is 0"),
        "nan": (written(path / "nan.nii", hole), "1 of 210 voxels are not finite"),
        "two axes": (written(path / "two.nii", numbers((5, 6))), "2 axes|three axes"),
        "one slice": (written(path / "one.nii", numbers((5, 6, 1))), "three axes longer than 1"),
        "colour": (written(path / "rgb.nii", rgb), "one grey value a voxel"),
        "text": (text, "is no volume that is known"),
        "gzipped text": (lost, "no NIfTI header"),
        "absent": (path / "absent.nii", "no such file"),
        "array alone": ({"array": numbers()}, "expected an affine"),
        "singular": ({"array": numbers(), "affine": np.ones((4, 4))}, "its affine is singular"),
        "zero spacing": ({"array": numbers(), "affine": np.diag([1, 0, 1, 1])}, "1 x 0 x 1 mm"),
        "nan affine": ({"array": numbers(), "affine": np.eye(4) * np.nan}, "not a finite 4 x 4"),
        "unknown key": ({"path": "x", "volum": 1}, "has the keys volum; expected"),
        "number": (7, "is a int; expected a path"),
    }


CASES = (
    "cut gzip", "short", "flat", "zero", "nan", "two axes", "one slice", "colour", "text",
    "gzipped text", "absent", "array alone", "singular", "zero spacing", "nan affine",
    "unknown key", "number",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, case: str) -> None:
    source, pattern = damaged(tmp_path)[case]
    with pytest.raises(ReadError, match=pattern) as caught:
        read(source)
    assert "\n" not in str(caught.value)


def test_nrrd_and_metaimage(tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    values = numbers()
    image = itk.GetImageFromArray(values.T)
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((4.0, 5.0, 6.0))
    expected = read({"array": values, "affine": np.diag([-1.0, -2, 3, 1]) + _shift(-4, -5, 6)})
    for name in ("v.nrrd", "v.mha", "v.mhd"):
        itk.WriteImage(image, str(tmp_path / name))
        result = read(tmp_path / name)
        torch.testing.assert_close(result.as_tensor(), expected.as_tensor())
        torch.testing.assert_close(result.affine, expected.affine)
    (tmp_path / "bad.nrrd").write_text("NRRD0004\ndimension: 3\n")
    with pytest.raises(ReadError, match="cannot be read"):
        read(tmp_path / "bad.nrrd")


def _shift(*place: float) -> np.ndarray:
    result = np.zeros((4, 4))
    result[:3, 3] = place
    return result


def test_the_example_is_a_volume() -> None:
    assert example(np.random.default_rng(0)).shape[0] == 1


def test_the_cells_of_a_folder(tmp_path: Path) -> None:
    """Volumes are cells, without the files that a header names; slices are one volume."""
    names = ["a.nii.gz", "sub/b.nii", "c.mhd", "c.raw", "d.hdr", "d.img", "notes.json", ".DS_Store"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"ElementDataFile = c.raw\n" if name == "c.mhd" else b"")
    cells = [str(cell.relative_to(tmp_path)) for cell in folder_cells(tmp_path)]
    assert cells == ["a.nii.gz", "c.mhd", "d.hdr", "notes.json", "sub/b.nii"]
    slices = tmp_path / "sub" / "slices"
    slices.mkdir()
    for name in ("IM1", "IM2.dcm"):
        (slices / name).write_bytes(b"")
    assert folder_cells(slices) == [slices]
