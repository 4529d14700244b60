"""Volumes become samples, and what is found in a sample goes back into the source's own space."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImage, Orientation
from torch import Tensor

from sensorium.modalities.base import ReadError
from sensorium.modalities.mri.io import read
from sensorium.modalities.mri.processor import VolumeProcessor, lookup, pull
from sensorium.modalities.mri.write import box_of, save, to_source
from sensorium.testing.common import copy_for_worker

TURN = np.array([[0.8, -0.6, 0, 5], [0.6, 0.8, 0, -7], [0, 0, 1, 3], [0, 0, 0, 1]])
AFFINES = {
    "ras": np.diag([2.0, 2, 3, 1]),
    "lps": np.diag([-2.0, -2, 3, 1]),
    "psl": np.array([[0.0, 0, -2, 9], [-2, 0, 0, 8], [0, 2, 0, 7], [0, 0, 0, 1]]),
    "oblique": TURN @ np.diag([-2.0, 2, 3, 1]),
}


def resample_mask(mask: Tensor, affine: Tensor, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A mask `[C, U, V, W]` of one space in another, by the nearest voxel: `[C, X, Y, Z]`."""
    return pull(mask, lookup(like, shape, affine, tuple(mask.shape[1:])), mode="nearest")


def scan(affine: np.ndarray, shape: tuple[int, ...] = (24, 20, 16)) -> Any:
    """A smooth body in air."""
    axes = [np.linspace(-1, 1, n) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    values = 1000 * np.exp(-2 * (x**2 + y**2 + z**2)) + 50 * np.sin(5 * x) ** 2
    values[x**2 + y**2 + z**2 > 0.8] = 0
    return read({"array": values.astype(np.float32), "affine": affine})


def brightest(sample: dict[str, Tensor]) -> Tensor:
    """The centre of mass of what is bright, in mm."""
    weight = sample["volume"][0].clamp(min=1.0) - 1.0
    places = weight.nonzero().double()
    share = weight[weight > 0].double()
    middle = (places * share[:, None]).sum(0) / share.sum()
    affine = sample["affine"].double()
    return affine[:3, :3] @ middle + affine[:3, 3]


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("spacing", [None, (2.0, 2.0, 2.0), (3.0, 2.5, 4.0)])
def test_the_body_stays_where_it_is_in_the_world(name: str, spacing: Any) -> None:
    raw = scan(AFFINES[name])
    sample = VolumeProcessor(size=(20, 20, 20), spacing=spacing).prepare(raw)
    assert sample["volume"].shape == (1, 20, 20, 20) and sample["affine"].shape == (4, 4)
    middle = (torch.tensor(raw.shape[1:]).double() - 1) / 2
    expected = raw.affine[:3, :3] @ middle + raw.affine[:3, 3]
    assert float((brightest(sample) - expected).norm()) < 1.0


def test_the_foreground_has_mean_0_and_deviation_1_and_the_rest_is_0() -> None:
    sample = VolumeProcessor(size=(40, 40, 40)).prepare(scan(AFFINES["ras"]))
    volume, inside = sample["volume"][0], sample["inside"]
    body = volume != 0
    assert abs(float(volume[body].mean())) < 1e-4 and abs(float(volume[body].std()) - 1) < 1e-3
    assert not body[~inside].any() and not inside.all()


def test_the_airs_noise_is_not_body_and_black_fluid_inside_is() -> None:
    rng, axes = np.random.default_rng(0), [np.arange(n) - n / 2 for n in (40, 36, 30)]
    apart = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    clean = np.where((apart < 11) & (apart > 3), 1000.0, 0.0)
    noisy = np.hypot(*(clean * share + rng.normal(0, 30, clean.shape) for share in (1, 0)))
    raw = read({"array": noisy.astype(np.float32), "affine": np.eye(4)})
    body = VolumeProcessor(size=(40, 36, 30), crop=False).prepare(raw)["volume"][0] != 0
    expected = torch.from_numpy(apart < 11)
    assert float((body & ~expected).sum() / expected.sum()) < 0.01
    assert float((body & expected).sum() / expected.sum()) > 0.99


def test_scaling_a_scan_changes_nothing() -> None:
    processor, raw = VolumeProcessor(size=(16, 16, 16)), scan(AFFINES["ras"])
    expected = processor.prepare(raw)["volume"]
    result = processor.prepare(read({"array": raw[0].numpy() * 7, "affine": raw.affine}))["volume"]
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)


def test_absent_contrasts_are_zeros_with_a_mask() -> None:
    raw = read([scan(AFFINES["ras"]), None, scan(AFFINES["ras"])])
    sample = VolumeProcessor(size=(16, 16, 16), contrasts=4).prepare(raw)
    assert sample["contrasts"].tolist() == [True, False, True, False]
    assert sample["volume"].shape[0] == 4 and not sample["volume"][[1, 3]].any()
    torch.testing.assert_close(sample["volume"][0], sample["volume"][2])
    with pytest.raises(ReadError, match=r"has 3 channels; expected at most 2 \(contrasts: 3"):
        VolumeProcessor(size=(16, 16, 16), contrasts=2).prepare(raw)


def test_an_axis_that_shrinks_by_more_than_2_warns_with_the_factor() -> None:
    raw = scan(AFFINES["ras"])
    with pytest.warns(UserWarning, match=r"axis y shrinks by 2.5 \(20 voxels of 2 mm to 5 mm\)"):
        VolumeProcessor(size=(16, 16, 16), spacing=(4.0, 5.0, 6.0)).prepare(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VolumeProcessor(size=(16, 16, 16), spacing=(4.0, 4.0, 6.0)).prepare(raw)


@pytest.mark.parametrize("name", AFFINES)
def test_a_mask_returns_to_the_sources_own_space(tmp_path: Path, name: str) -> None:
    """Written by a tool that knows nothing of ours, read back by another."""
    affine, shape = AFFINES[name], (24, 20, 16)
    values = np.asarray(scan(np.eye(4))[0])
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "scan.nii.gz")
    lesion = np.zeros(shape, dtype=np.uint8)
    lesion[4:9, 10:15, 5:9] = 1
    raw = read(tmp_path / "scan.nii.gz")
    sample = VolumeProcessor(size=(26, 26, 26)).prepare(raw)
    cell = read({"array": lesion, "affine": affine})
    resampled = (
        resample_mask(cell.as_tensor(), cell.affine, sample["affine"], (26, 26, 26))[0] > 0.5
    )
    assert int(resampled.sum()) == int(lesion.sum())
    save(tmp_path / "mask.nii.gz", resampled, sample["affine"], raw)
    back = nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(back.dataobj), lesion)
    np.testing.assert_allclose(back.affine, affine, atol=1e-5)


@pytest.mark.parametrize("name", AFFINES)
def test_a_box_is_the_same_in_both_spaces(name: str) -> None:
    raw = scan(AFFINES[name])
    sample = VolumeProcessor(size=(26, 26, 26)).prepare(raw)
    mask = torch.zeros(raw.shape[1:], dtype=torch.bool)
    mask[3:8, 9:12, 5:9] = True
    resampled = (
        resample_mask(mask[None].float(), raw.affine, sample["affine"], (26, 26, 26))[0] > 0.5
    )
    source_box, result = box_of(mask, raw.affine), box_of(resampled, sample["affine"])
    assert source_box is not None and result is not None
    torch.testing.assert_close(result, source_box, atol=1e-3, rtol=0)
    assert box_of(mask & False, raw.affine) is None


def test_a_resampled_mask_returns_nearly_whole() -> None:
    raw = scan(AFFINES["oblique"], (40, 36, 30))
    sample = VolumeProcessor(size=(48, 48, 48), spacing=(1.5, 1.5, 1.5)).prepare(raw)
    mask = torch.zeros(raw.shape[1:])
    mask[10:24, 12:25, 8:20] = 1
    resampled = resample_mask(mask[None], raw.affine, sample["affine"], (48, 48, 48))[0] > 0.5
    back = to_source(resampled, sample["affine"], raw)
    turned = read({"array": back.float().numpy(), "affine": raw.meta["original_affine"]})[0] > 0.5
    overlap = 2 * float((turned & (mask > 0.5)).sum()) / float(turned.sum() + mask.sum())
    assert overlap > 0.95


def test_reading_a_space_in_itself_changes_nothing() -> None:
    values, affine = torch.randn(2, 5, 6, 7), torch.from_numpy(AFFINES["oblique"])
    grid = lookup(affine, (5, 6, 7), affine, (5, 6, 7))
    torch.testing.assert_close(pull(values, grid), values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 40, 2)])
def test_any_size_fits(size: tuple[int, int, int]) -> None:
    sample = VolumeProcessor(size=size).prepare(scan(AFFINES["lps"], (3, 4, 5)))
    assert sample["volume"].shape == (1, *size) and bool(sample["volume"].isfinite().all())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"size": (0, 4, 4)}, "size, spacing: found"),
        ({"size": (4, 4, 4), "spacing": (1.0, 0.0, 1.0)}, "size, spacing: found"),
        ({"size": (4, 4, 4), "percentiles": (99.0, 1.0)}, "percentiles: found 99.0 and 1.0"),
    ],
)
def test_settings_are_checked(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        VolumeProcessor(**options)


def test_it_travels_to_workers_and_says_its_settings() -> None:
    processor = VolumeProcessor(size=(8, 8, 8), contrasts=2)
    assert copy_for_worker(processor) == processor
    assert processor.settings()["contrasts"] == 2


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("wide", [(10, 11, 8), (11, 10, 7)])
@pytest.mark.parametrize("size", [(20, 21, 22), (21, 22, 19)])
@pytest.mark.parametrize("share", [None, 1.0, 0.5])
def test_a_mask_goes_to_the_sample_and_back(
    name: str, wide: tuple[int, ...], size: tuple[int, int, int], share: float | None
) -> None:
    """At the source's own spacing no voxel is a mean of others, whatever body and size are odd."""
    values = np.random.default_rng(0).normal(0, 0.001, (24, 20, 16))
    body = tuple(slice(4, 4 + w) for w in wide)
    values[body] = np.random.default_rng(1).normal(1, 0.1, wide)
    raw = read({"array": values.astype(np.float32), "affine": AFFINES[name]})
    edges = [float(edge) * (share or 1) for edge in raw.pixdim]
    whole = tuple(int(n / (share or 1)) for n in size)
    sample = VolumeProcessor(whole, share and tuple(edges), percentiles=(0, 100)).prepare(raw)
    lesion = np.zeros(values.shape, dtype=np.float32)
    lesion[tuple(slice(5, 3 + w) for w in wide)] = 1
    cell = read({"array": lesion, "affine": AFFINES[name]})
    moved = resample_mask(cell.as_tensor(), cell.affine, sample["affine"], whole)[0] > 0.5
    assert np.array_equal(to_source(moved, sample["affine"], raw).numpy(), lesion > 0.5)
    if share != 0.5:
        pair = torch.stack([sample["volume"][0][moved], raw.as_tensor()[cell.as_tensor() > 0.5]])
        assert float(torch.corrcoef(pair)[0, 1]) > 1 - 1e-4


def test_what_is_cut_off_is_said() -> None:
    raw = scan(np.diag([1.0, 1, 1, 1]), (40, 48, 36))
    with pytest.warns(UserWarning, match=r"size: 24 x 24 x 24 voxels of 1 x 1 x 1 mm hold .*%"):
        VolumeProcessor((24, 24, 24)).prepare(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VolumeProcessor((40, 48, 36)).prepare(raw)
        VolumeProcessor((24, 24, 24), spacing=(2.0, 2.0, 2.0)).prepare(raw)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIL", "SRA"])
def test_a_mask_of_a_volume_that_monai_has_turned_fits_the_file(tmp_path: Path, axes: str) -> None:
    affine = np.diag([-2.0, -2, 3, 1])
    affine[:3, 3] = 60, 80, -30
    values = np.random.default_rng(0).random((30, 35, 20)).astype(np.float32) + 1
    values[5:10, 20:28, 3:8] = 5
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "scan.nii")
    turned = Compose([LoadImage(ensure_channel_first=True), Orientation(axes)])
    raw = read(turned(str(tmp_path / "scan.nii")))
    sample = VolumeProcessor((38, 38, 38)).prepare(raw)
    save(tmp_path / "mask.nii", sample["volume"][0] > 2, sample["affine"], raw)
    mask = nibabel.load(tmp_path / "mask.nii")
    assert np.array_equal(np.asarray(mask.dataobj) > 0, values > 4)
    assert np.allclose(mask.affine, affine)


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0)])
def test_a_body_larger_than_the_sample_is_held_or_cut_with_a_word(
    spacing: tuple[float, float, float] | None, crop: bool
) -> None:
    """The default holds the whole body, coarser; a spacing that is given stays as it is."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in (45, 54, 45)], indexing="ij"), -1)
    body = (((index - np.array([22, 27, 20])) / np.array([17, 22, 17])) ** 2).sum(-1) < 1
    raw = read({"array": (10.0 * body).astype(np.float32), "affine": np.eye(4)})
    processor = VolumeProcessor((24, 24, 24), spacing, crop=crop)
    with pytest.warns(UserWarning, match=r"size: 24 x 24 x 24 voxels of 1 x 1 x 1 mm hold \d+%"):
        sample = processor.prepare(raw)
    edges = np.linalg.norm(sample["affine"][:3, :3].numpy(), axis=0)
    mask = resample_mask(
        torch.from_numpy(body)[None].float(), raw.affine, sample["affine"], (24, 24, 24)
    )
    volume = float(mask.sum()) * float(np.prod(edges))
    if spacing is None:
        assert np.ptp(edges) < 1e-4 and 1.7 < edges[0] < 2.5  # one shape, coarser
        assert volume == pytest.approx(float(body.sum()), rel=0.05)
    else:
        assert np.allclose(edges, 1) and volume < 0.8 * body.sum()


def test_a_body_that_fits_keeps_the_spacing_of_its_source() -> None:
    volume = np.zeros((20, 20, 20), np.float32)
    volume[4:16, 4:16, 4:16] = 1
    raw = read({"array": volume, "affine": np.diag([1.5, 2.0, 1.0, 1.0])})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample = VolumeProcessor((12, 12, 12)).prepare(raw)
    assert np.allclose(np.diag(sample["affine"].numpy())[:3], [1.5, 2.0, 1.0])
