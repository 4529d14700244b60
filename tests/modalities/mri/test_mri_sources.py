"""One volume, handed over in every way: the same values and places, or the same refusal."""

from __future__ import annotations

import gzip
import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from sensorium.modalities.base import ReadError
from sensorium.modalities.mri.io import read, read_mask

RNG = np.random.default_rng(0)
AFFINE = np.array([[0, 0, -3.0, 9], [-1, 0, 0, 8], [0, 2, 0, 7], [0, 0, 0, 1]])
RGB = [("R", "u1"), ("G", "u1"), ("B", "u1")]


def image(values: np.ndarray, unit: str = "mm", slope: float | None = None) -> Any:
    built = nibabel.Nifti1Image(values, AFFINE)
    built.header.set_xyzt_units(unit)
    built.header.set_slope_inter(slope, None if slope is None else -3.0)
    return built


WHOLE = RNG.integers(0, 1000, (5, 6, 7)).astype(np.int16)
IMAGES: dict[str, tuple[Any, dict[str, Any], str]] = {
    # The image, the keys beside it, and what is refused.
    "plain": (image(WHOLE), {}, ""),
    "scaled": (image(WHOLE, slope=0.5), {}, ""),
    "micron": (image(WHOLE, "micron"), {}, ""),
    "meter": (image(WHOLE, "meter"), {}, ""),
    "double": (image(RNG.random((5, 6, 7))), {}, ""),
    "one of four": (image(RNG.random((5, 6, 7, 4))), {"volume": 2}, ""),
    "the last": (image(RNG.random((5, 6, 7, 4))), {"volume": -1}, ""),
    "channels": (image(RNG.random((5, 6, 7, 4))), {"volume": "channels"}, ""),
    "several": (image(RNG.random((5, 6, 7, 4))), {}, "holds 4 volumes"),
    "beyond": (image(WHOLE), {"volume": 1}, "requests volume 1 of 1"),
    "no number": (image(WHOLE), {"volume": True}, "requests volume True"),
    "complex": (image(WHOLE.astype(np.complex64)), {}, "holds complex64 values"),
    "colour": (image(np.zeros((5, 6, 7), RGB)), {}, "one grey value a voxel"),
    "not finite": (image(np.full((5, 6, 7), np.nan, np.float32)), {}, "not finite"),
}


def saved(image: Any, path: Path) -> Path:
    nibabel.save(image, path)
    return path


def members(content: bytes, size: int) -> bytes:
    parts = range(0, len(content), size)
    return b"".join(gzip.compress(content[i : i + size]) for i in parts)


def archive(folder: Path, names: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        for name, content in names.items():
            file.writestr(name, content)
    return folder / "a.zip"


def pair(image: Any, folder: Path) -> Path:
    header = image.header.copy()
    halves = nibabel.Nifti1Pair(np.asarray(image.dataobj), image.affine, header)
    if image.header.get_slope_inter() != (None, None):
        halves.header.set_slope_inter(*image.header.get_slope_inter())
    return saved(halves, folder / "a.img")


def in_folder(folder: Path, path: Path) -> Path:
    (folder / "only").mkdir()
    path.rename(folder / "only" / path.name)
    (folder / "only" / "._a.nii").write_bytes(b"\0\5\x16\7")
    (folder / "only" / "a.json").write_text("{}")
    return folder / "only"


def mac_zip(folder: Path, path: Path) -> Path:
    names = {"scan.nii": path.read_bytes(), "__MACOSX/._scan.nii": b"\0\5\x16\7", ".DS_Store": b"1"}
    return archive(folder, names)


def halves(folder: Path, image: Any) -> Path:
    files = {
        f"x/a{end}": pair(image, folder).with_suffix(end).read_bytes() for end in (".hdr", ".img")
    }
    return archive(folder, files)


WAYS: dict[str, Callable[[Path, Any], dict[str, Any]]] = {
    "path": lambda t, i: {"path": str(saved(i, t / "a.nii"))},
    "gzip": lambda t, i: {"path": saved(i, t / "a.nii.gz")},
    "gzip members": lambda t, i: {"bytes": members(saved(i, t / "a.nii").read_bytes(), 300)},
    "bytes": lambda t, i: {"bytes": saved(i, t / "a.nii").read_bytes(), "path": None},
    "bytes with a name": lambda t, i: {"bytes": saved(i, t / "a.nii").read_bytes(), "path": "b"},
    "memory view": lambda t, i: {"bytes": memoryview(saved(i, t / "a.nii.gz").read_bytes())},
    "file object": lambda t, i: {"path": io.BytesIO(saved(i, t / "a.nii").read_bytes())},
    "nibabel": lambda t, i: {"path": nibabel.load(saved(i, t / "a.nii"))},
    "pair": lambda t, i: {"path": pair(i, t)},
    "pair's header": lambda t, i: {"path": pair(i, t).with_suffix(".hdr")},
    "zip of a Mac": lambda t, i: {"path": mac_zip(t, saved(i, t / "a.nii"))},
    "zip of a pair": lambda t, i: {"path": halves(t, i)},
    "zip in memory": lambda t, i: {"bytes": mac_zip(t, saved(i, t / "a.nii")).read_bytes()},
    "folder": lambda t, i: {"path": in_folder(t, saved(i, t / "a.nii"))},
}  # fmt: skip


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", IMAGES)
def test_every_way_gives_the_same_volume(tmp_path: Path, name: str, way: str) -> None:
    built, keys, refused = IMAGES[name]
    source = {**WAYS[way](tmp_path, built), **keys}
    if refused:
        for reader in (read, read_mask):
            with pytest.raises(ReadError, match=refused) as caught:
                reader(source)
            assert "\n" not in str(caught.value)
        return
    array = np.asarray(nibabel.load(saved(built, tmp_path / "truth.nii")).dataobj)
    factor = {"micron": 1e-3, "meter": 1e3}.get(built.header.get_xyzt_units()[0], 1.0)
    affine = np.diag([factor, factor, factor, 1.0]) @ AFFINE
    expected = read({"array": array, "affine": affine, **keys})
    for _ in range(2):  # a file object may be read again, as in the next epoch
        volume = read(source)
        torch.testing.assert_close(volume.as_tensor(), expected.as_tensor())
        torch.testing.assert_close(volume.affine, expected.affine)
        if float(expected.as_tensor().min()) < 0:
            with pytest.raises(ReadError, match="holds negative numbers"):
                read_mask(source)
        elif keys.get("volume") != "channels":
            mask = read_mask(source)
            assert torch.equal(mask.as_tensor() > 0, expected.as_tensor() > 0)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("way", ["array", "tensor", "nibabel image", "metatensor"])
def test_sources_in_memory_are_checked_as_files_are(name: str, way: str) -> None:
    built, keys, refused = IMAGES[name]
    values = np.asarray(built.dataobj)
    if way != "nibabel image" and (built.header.get_xyzt_units()[0] != "mm" or values.dtype.fields):
        pytest.skip("an array has no unit and no colour")
    channels = np.moveaxis(values[..., None] if values.ndim == 3 else values, 3, 0)
    sources = {
        "array": lambda: {"array": values, "affine": AFFINE},
        "tensor": lambda: {"array": torch.from_numpy(values), "affine": torch.from_numpy(AFFINE)},
        "nibabel image": lambda: {"path": built},
        "metatensor": lambda: {"path": MetaTensor(channels.copy(), torch.from_numpy(AFFINE))},
    }
    source = {**sources[way](), **keys}
    if refused:
        with pytest.raises(ReadError, match=refused):
            read(source)
    else:
        assert read(source).shape[1:] == (7, 5, 6)


def test_an_itk_file_is_read_from_its_bytes(tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    built = itk.GetImageFromArray(WHOLE.T)
    built.SetSpacing((1.0, 2.0, 3.0))
    for name in ("v.nrrd", "v.mha"):
        itk.WriteImage(built, str(tmp_path / name))
        expected = read(tmp_path / name)
        volume = read({"bytes": (tmp_path / name).read_bytes(), "path": name})
        torch.testing.assert_close(volume.as_tensor(), expected.as_tensor())
        torch.testing.assert_close(volume.affine, expected.affine)
    itk.WriteImage(itk.GetImageFromArray(WHOLE.T + 1j), str(tmp_path / "z.nrrd"))
    with pytest.raises(ReadError, match="holds complex"):
        read(tmp_path / "z.nrrd")


def test_analyze_says_that_the_side_is_a_guess(tmp_path: Path) -> None:
    nibabel.save(nibabel.AnalyzeImage(WHOLE, None), tmp_path / "a.img")
    for way in (tmp_path / "a.img", tmp_path / "a.hdr", nibabel.load(tmp_path / "a.img")):
        with pytest.warns(UserWarning, match="does not define left and right"):
            volume = read(way)
        expected = nibabel.as_closest_canonical(nibabel.load(tmp_path / "a.img")).get_fdata()
        np.testing.assert_array_equal(volume[0].numpy(), expected)
    (tmp_path / "a.hdr").unlink()
    with pytest.raises(ReadError, match="one half of a pair"):
        read(tmp_path / "a.img")


def forms(qform: np.ndarray | None, sform: np.ndarray | None) -> Any:
    built = nibabel.Nifti1Image(WHOLE, np.eye(4))
    built.set_qform(qform, 0 if qform is None else 1)
    built.set_sform(sform, 0 if sform is None else 1)
    return built


LEFT, RIGHT = np.diag([-2.0, 2, 2, 1]), np.diag([2.0, 2, 2, 1])
TURNED = np.diag([-2.0, -2, 2, 1])
FORMS = {
    "both agree": (RIGHT, RIGHT, None, (5, 6, 7)),
    "sides": (RIGHT, LEFT, "disagree about directions", (5, 6, 7)),
    "half a turn": (RIGHT, TURNED, "disagree about directions", (5, 6, 7)),
    "qform alone": (RIGHT, None, None, (5, 6, 7)),
    "sform alone": (None, RIGHT, None, (5, 6, 7)),
    "neither": (None, None, "neither sform nor qform", (5, 6, 7)),
}


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_forms_that_leave_the_side_in_doubt_are_said(
    tmp_path: Path, name: str, loaded: bool
) -> None:
    qform, sform, pattern, shape = FORMS[name]
    path: Any = saved(forms(qform, sform), tmp_path / "v.nii")
    source = nibabel.load(path) if loaded else path
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert read(source).shape[1:] == shape
    texts = [str(warning.message) for warning in caught]
    if pattern is None:
        assert not texts
    else:
        assert len(texts) == 1 and pattern in texts[0]


def test_an_empty_sform_gives_way_to_the_qform(tmp_path: Path) -> None:
    path = saved(forms(LEFT, RIGHT), tmp_path / "v.nii")
    content = bytearray(path.read_bytes())
    content[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    path.write_bytes(content)
    for source in (path, nibabel.load(path)):
        with pytest.warns(UserWarning, match="its sform is empty; the qform is read"):
            assert read(source).pixdim.tolist() == [2, 2, 2]
    content[252:254] = bytes(2)  # qform_code
    path.write_bytes(content)
    with pytest.raises(ReadError, match="voxels measure 0 x 0 x 0 mm"):
        read(path)


MASKS: dict[str, tuple[Any, str | None]] = {
    "big labels": ({"array": np.where(WHOLE > 500, 16777217, 0).astype(np.int32)}, None),
    "tiny floats": ({"array": np.where(WHOLE > 500, 1e-300, 0.0)}, None),
    "bool": ({"array": WHOLE > 500}, None),
    "complex": ({"array": np.where(WHOLE > 500, 1j, 0)}, "holds complex128"),
    "nan": ({"array": np.where(WHOLE > 500, np.nan, 0.0)}, "not finite"),
    "text": ({"array": WHOLE.astype(str)}, "one grey value"),
    "several": ({"array": np.stack([WHOLE > 500] * 2, -1)}, "holds 2 volumes"),
    "channels": ({"array": np.stack([WHOLE > 500] * 2, -1), "volume": "channels"}, "one mask"),
    "unknown key": ({"array": WHOLE > 500, "volum": 1}, "has the keys volum"),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_are_exact_or_refused(name: str) -> None:
    source, refused = MASKS[name]
    source = {**source, "affine": np.eye(4)}
    if refused is None:
        assert np.array_equal(read_mask(source)[0].numpy() > 0, WHOLE > 500)
    else:
        with pytest.raises(ReadError, match=refused):
            read_mask(source)
    two = MetaTensor(torch.rand(2, 5, 6, 7), torch.eye(4))
    with pytest.raises(ReadError, match="holds 2 volumes"):
        read_mask(two)
    assert torch.equal(read_mask({"path": two, "volume": 1})[0] > 0, two[1] > 0)
