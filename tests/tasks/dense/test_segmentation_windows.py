"""Segmentation of windows of a volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sensorium.modalities.base import Features
from sensorium.modalities.groups import ShapeGroups
from sensorium.tasks.batch import Batch
from sensorium.tasks.dense.sliding_window import random_window, sliding_window_features
from sensorium.testing.context import StubContext
from sensorium.tests.tasks.dense.segmentation_cases import task_of, tokens_of


def voxelwise(tensors: dict[str, torch.Tensor]) -> Features:
    """A decoder without any reach: each voxel is its own logit."""
    volume, inside = tensors["volume"], tensors["inside"]
    return Features(
        volume.flatten(1)[..., None] * inside.flatten(1)[..., None],
        inside.flatten(1),
        grid=tuple(volume.shape[2:]),
        spacing=(1.0,) * 3,
        origin=(0.0,) * 3,
        affine=tensors["affine"],
    )


def volume_of(rows: int, size: tuple[int, ...]) -> dict[str, torch.Tensor]:
    inside = torch.ones(rows, *size, dtype=torch.bool)
    inside[0, :2] = False
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])).repeat(rows, 1, 1)
    return {
        "volume": torch.randn(rows, 1, *size),
        "inside": inside,
        "contrasts": torch.ones(rows, 1, dtype=torch.bool),
        "affine": affine,
    }


@pytest.mark.parametrize("window", [[4, 4, 4], [8, 6, 4], [12, 12, 12]])
def test_windows_make_the_whole(window: list[int]) -> None:
    """Where nothing reaches across voxels it does not matter how the volume is cut."""
    tensors = volume_of(2, (9, 8, 10))
    result, known = sliding_window_features(tensors, window, 0.5, voxelwise), voxelwise(tensors)
    torch.testing.assert_close(result.tokens, known.tokens)
    assert torch.equal(result.mask, known.mask)
    assert (result.grid, result.spacing, result.origin) == (known.grid, known.spacing, known.origin)
    assert torch.equal(result.affine, known.affine)


def test_windows_of_volumes_that_are_encoded_apart() -> None:
    task = task_of(window=[4, 4, 4])
    task.heads["head"] = torch.nn.Identity()
    parts = [([0, 2], volume_of(2, (9, 8, 10))), ([1], volume_of(1, (6, 8, 5)))]
    batch = Batch("it", ["a", "b", "c"], [{}] * 3, streams={"volume": {"main": ShapeGroups(parts)}})
    context = StubContext(lambda name, view, **_: voxelwise(batch.streams["volume"][view]))
    result = task._sliding_output(batch, context)
    assert result.grid == (9, 8, 10)
    for rows, tensors in parts:
        alone = voxelwise(tensors)
        for place, row in enumerate(rows):
            expected = alone.tokens[place][alone.mask[place]] + task.start
            torch.testing.assert_close(result.tokens[row][result.mask[row]], expected)


def test_a_window_keeps_its_place() -> None:
    sample = {key: value[0] for key, value in volume_of(1, (9, 8, 10)).items()}
    part = random_window(sample, [4, 5, 6], np.random.default_rng(0))
    assert part["volume"].shape == (1, 4, 5, 6) and part["inside"].shape == (4, 5, 6)
    low = ((part["affine"] - sample["affine"])[:3, 3] / 2).round().long().tolist()
    whole = sample["volume"][:, low[0] :, low[1] :, low[2] :]
    torch.testing.assert_close(part["volume"], whole[:, :4, :5, :6])
    task = task_of(window=[4, 5, 6])
    assert task.streams["volume"].views and not task.streams["mask"].views
    assert not task_of().streams["volume"].views
    with pytest.raises(ValueError, match="hold no affine"):
        random_window({"volume": sample["volume"]}, [4, 4, 4], np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"window: \[3, 3, 3\] voxels come back as"):
        sliding_window_features(
            volume_of(1, (6, 6, 6)),
            [3, 3, 3],
            0.0,
            lambda t: tokens_of(1).replace(spacing=(2,) * 3),
        )
