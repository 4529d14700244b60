"""Boxes: overlaps, their place in a grid, and their matching."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from monai.data.box_utils import box_giou, box_iou
from torchvision.ops import generalized_box_iou

from sensorium.modalities.base import Features
from sensorium.modalities.groups import merge
from sensorium.tasks.common import grid_coordinates, grid_to_world, resample_grid, transform_points
from sensorium.tasks.dense.boxes import cxcywh_to_world, giou, iou, unit_to_world, world_to_cxcywh
from sensorium.tasks.dense.matching import hungarian_match
from sensorium.tests.tasks.dense.box_cases import GRID, some_boxes, volumes

CUBE = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]


def test_giou_of_a_box_with_itself_is_1() -> None:
    boxes = some_boxes(20)
    torch.testing.assert_close(giou(boxes, boxes), torch.ones(20))


@pytest.mark.parametrize("axis", range(3))
def test_unit_cubes_with_a_gap_of_1(axis: int) -> None:
    """`0 - (3 - 2) / 3`."""
    one = torch.tensor(CUBE)
    other = one.clone()
    other[[axis, axis + 3]] += 2
    torch.testing.assert_close(giou(one, other), torch.tensor(-1 / 3))
    assert iou(one, other) == 0


def test_overlaps_are_those_of_the_libraries() -> None:
    a, b = some_boxes(7), some_boxes(5, seed=1)
    torch.testing.assert_close(giou(a[:, None], b[None]), box_giou(a, b), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(iou(a[:, None], b[None]), box_iou(a, b), rtol=1e-4, atol=1e-5)
    a, b = some_boxes(7, 2), some_boxes(5, 2, seed=1)
    torch.testing.assert_close(giou(a[:, None], b[None]), generalized_box_iou(a, b))


def test_a_flat_box_has_finite_overlaps_and_gradients() -> None:
    flat = torch.zeros(6, requires_grad=True)
    giou(flat, torch.tensor(CUBE)).backward()
    assert flat.grad is not None and flat.grad.isfinite().all()
    assert giou(torch.zeros(6), torch.zeros(6)).isfinite()


def test_shares_of_a_grid_and_back() -> None:
    """Exact, however the volume lies; the whole grid is the unit cube."""
    features = volumes(4)
    unit = unit_to_world(grid_to_world(features, "test"), features.extents())
    boxes = some_boxes(3).expand(4, -1, -1)
    torch.testing.assert_close(
        cxcywh_to_world(world_to_cxcywh(boxes, unit), unit), boxes, rtol=1e-4, atol=1e-3
    )
    corner = transform_points(unit, torch.zeros(4, 1, 3))
    voxel = transform_points(features.affine, torch.full((4, 1, 3), -0.5))
    torch.testing.assert_close(corner, voxel)  # outer edge of the first voxel


def test_tokens_lie_where_their_affine_says() -> None:
    features = volumes(2)
    result = transform_points(
        grid_to_world(features, "test"), grid_coordinates(GRID, features.tokens).expand(2, -1, -1)
    )
    first = features.affine @ torch.tensor([3.5, 3.5, 3.5, 1.0])
    torch.testing.assert_close(result[:, 0], first[:, :3])
    last = torch.tensor([3.5 + 8 * (n - 1) for n in GRID] + [1.0])
    torch.testing.assert_close(result[:, -1], (features.affine @ last)[:, :3])


@pytest.mark.parametrize("grid", [(4, 5, 3), (4, 1, 3), (6, 2)])
def test_values_laid_over_their_own_grid_are_themselves(grid: tuple[int, ...]) -> None:
    features = volumes(3, grid=grid)
    values = features.tokens.transpose(1, 2).unflatten(2, grid)
    matrix = grid_to_world(features, "test")
    torch.testing.assert_close(resample_grid(values, matrix, matrix, grid), values)
    mixed = resample_grid(values, matrix, matrix, grid, "bilinear")
    torch.testing.assert_close(mixed, values, rtol=1e-3, atol=1e-3)


def test_features_that_lie_nowhere_are_named() -> None:
    with pytest.raises(ValueError, match="have no geometry"):
        grid_to_world(Features.dense(torch.zeros(1, 4, 2)), "test")


@pytest.mark.parametrize("shape", [(4, 2), (3, 3), (2, 5), (4, 0)])
def test_the_matching_is_a_cheapest_permutation(shape: tuple[int, int]) -> None:
    cost = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    rows, columns = hungarian_match(cost)
    assert len(rows) == len(set(rows.tolist())) == len(set(columns.tolist())) == min(shape)
    wide = cost if shape[0] <= shape[1] else cost.T
    every = itertools.permutations(range(wide.shape[1]), wide.shape[0])
    least = min(sum(float(wide[i, j]) for i, j in enumerate(p)) for p in every)
    assert float(cost[rows, columns].sum()) == pytest.approx(least)


def test_a_cost_that_is_no_number_is_dearer_than_any() -> None:
    rows, columns = hungarian_match(torch.tensor([[math.nan], [5.0], [math.inf]]))
    assert (rows.tolist(), columns.tolist()) == ([1], [0])


def test_shares_are_of_a_samples_own_grid() -> None:
    """A volume padded beside a larger one has the unit cube that it has alone."""
    place: dict[str, Any] = {
        "spacing": (2.0,) * 3,
        "origin": (0.5,) * 3,
        "affine": torch.eye(4)[None],
    }
    small, large = (
        Features.dense(torch.randn(1, math.prod(g), 4), grid=g, **place)
        for g in ((2, 3, 4), (4, 3, 2))
    )
    both = merge([([0], small), ([1], large)])
    units = unit_to_world(grid_to_world(both, "test"), both.extents())
    for row, alone in enumerate((small, large)):
        unit = unit_to_world(grid_to_world(alone, "test"), alone.extents())
        assert torch.equal(units[row], unit[0])
