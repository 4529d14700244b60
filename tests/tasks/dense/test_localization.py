"""Localization: boxes of any number of axes, matched, measured and learned."""

from __future__ import annotations

import itertools
import json
import math
import random
from typing import Any

import pytest
import torch
from monai.data.box_utils import box_giou, box_iou
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou

from sensorium.connectors.queries import Detr
from sensorium.modalities.base import Features
from sensorium.modalities.groups import merge
from sensorium.tasks.batch import Batch
from sensorium.tasks.common import grid_coordinates, grid_to_world, resample_grid, transform_points
from sensorium.tasks.dense import BoxMetrics
from sensorium.tasks.dense.boxes import cxcywh_to_world, giou, iou, unit_to_world, world_to_cxcywh
from sensorium.tasks.dense.detection import Detection
from sensorium.tasks.dense.matching import hungarian_match
from sensorium.testing.context import StubContext, prepare_batch

GRID = (4, 5, 3)
CUBE = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]


def some_boxes(count: int, axes: int = 3, seed: int = 0) -> torch.Tensor:
    ends = torch.rand(count, 2, axes, generator=torch.Generator().manual_seed(seed)) * 40 - 20
    return torch.cat([ends.amin(1), ends.amax(1)], -1)


def askew(rows: int) -> torch.Tensor:
    """Affines that turn, stretch and shift."""
    generator = torch.Generator().manual_seed(3)
    turn = torch.linalg.qr(torch.randn(rows, 3, 3, generator=generator))[0]
    affine = torch.eye(4).repeat(rows, 1, 1)
    affine[:, :3, :3] = turn * torch.tensor([2.0, 4.0, 3.0])
    affine[:, :3, 3] = torch.randn(rows, 3, generator=generator) * 30
    return affine


def volumes(rows: int, *, dim: int = 16, grid: tuple[int, ...] = GRID, seed: int = 0) -> Features:
    tokens = torch.randn(rows, math.prod(grid), dim, generator=torch.Generator().manual_seed(seed))
    axes = len(grid)
    affine = askew(rows) if axes == 3 else None
    return Features.dense(
        tokens, grid=grid, spacing=(8.0,) * axes, origin=(3.5,) * axes, affine=affine
    )


def task_of(axes: int = 3, **options: object) -> Detection:
    torch.manual_seed(0)
    task = Detection(input="volume", axes=axes, **options)
    task.heads["head"] = Detr(16, 1 + 2 * axes, queries=4, width=32)
    return task


def batch_of(task: Detection, cells: list[object]) -> Batch:
    return prepare_batch(task, [{"box": cell} for cell in cells])


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


def test_the_loss_is_its_formula() -> None:
    """One query, one box: no matching to be done."""
    task = task_of()
    task.heads["head"] = Detr(16, 7, queries=1, width=32)
    features, box = volumes(1), some_boxes(1)
    batch = batch_of(task, [box[0].tolist()])
    raw = task.heads["head"](features).tokens
    unit = unit_to_world(grid_to_world(features, "test"), features.extents())
    result = raw[..., 1:].sigmoid()
    near = (result - world_to_cxcywh(box[None], unit)).abs().sum()
    over = box_giou(cxcywh_to_world(result, unit)[0], box)[0, 0]
    there = F.binary_cross_entropy_with_logits(raw[0, 0, 0], torch.tensor(1.0))
    loss = task.loss(batch, StubContext(lambda *_: features))
    torch.testing.assert_close(loss.total, 5 * near + 2 * (1 - over) + there, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 0, 2]])
def test_the_order_of_boxes_does_not_matter(order: list[int]) -> None:
    task, features, boxes = task_of(), volumes(1), some_boxes(3)
    known = task.loss(batch_of(task, [boxes.tolist()]), StubContext(lambda *_: features))
    other = task.loss(batch_of(task, [boxes[order].tolist()]), StubContext(lambda *_: features))
    torch.testing.assert_close(known.total, other.total)


def test_padded_tokens_count_for_nothing() -> None:
    task, features = task_of(), volumes(2)
    features = features.replace(mask=torch.arange(60) < torch.tensor([60, 20])[:, None])
    batch = batch_of(task, [CUBE, None])
    known = task.loss(batch, StubContext(lambda *_: features)).total
    noisy = features.replace(tokens=features.tokens.masked_fill(~features.mask[..., None], 1e3))
    torch.testing.assert_close(task.loss(batch, StubContext(lambda *_: noisy)).total, known)


@pytest.mark.slow
@pytest.mark.parametrize("axes", [2, 3])
def test_it_learns_where_a_bright_place_is(axes: int) -> None:
    """Synthetic tokens: a code at one place of the grid, which differs from row to row."""
    grid, rows = (6,) * axes, 24
    random.seed(0)
    features = volumes(rows, grid=grid)
    matrix = grid_to_world(features, "test")
    code = torch.arange(16)
    tokens, cells = features.tokens * 0.1 + code.sin(), []
    for row in range(rows):
        place = [random.randrange(1, 5) for _ in range(axes)]
        flat = sum(p * math.prod(grid[i + 1 :]) for i, p in enumerate(place))
        tokens[row, flat] += 3 * code.cos()
        middle = transform_points(matrix[row : row + 1], torch.tensor([[place]]).float())[0, 0]
        cells.append([*(middle - 12).tolist(), *(middle + 12).tolist()])
    features, task = features.replace(tokens=tokens), task_of(axes)
    task.heads["head"] = Detr(16, 1 + 2 * axes, queries=1, width=32)
    batch, metrics = batch_of(task, cells), task.metrics()
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        (task.loss(batch, StubContext(lambda *_: features)).total / rows).backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
    metrics.update(task.predict(batch, StubContext(lambda *_: features)), batch.references)
    result = metrics.compute()
    assert result["box_hit"] > 0.8 and result["missed"] == 0


def test_predictions_are_sorted_and_json() -> None:
    task = task_of(threshold=0.99)
    result = task.predict(batch_of(task, [CUBE, None]), StubContext(lambda *_: volumes(2)))
    assert json.loads(json.dumps(result)) == result
    assert [len(row["boxes"]) for row in result] == [1, 1]  # the best one stays
    every = task_of(threshold=0.0).predict(
        batch_of(task, [CUBE]), StubContext(lambda *_: volumes(1))
    )
    assert every[0]["scores"] == sorted(every[0]["scores"], reverse=True)
    assert len(every[0]["boxes"]) == 4


def test_metrics_of_perfect_and_of_missing_boxes() -> None:
    boxes = some_boxes(3).tolist()
    metrics = BoxMetrics()
    metrics.update(
        [{"boxes": boxes[:2], "scores": [0.9, 0.8]}, {"boxes": [boxes[2]], "scores": [0.3]}],
        [{"boxes": boxes[1::-1]}, {"boxes": []}],
    )
    result = metrics.compute()
    assert (result["iou"], result["giou"], result["box_hit"]) == pytest.approx((1.0, 1.0, 1.0))
    assert result["centre_error"] == pytest.approx(0, abs=1e-6)
    assert result["auroc"] == 1.0 and result["missed"] == 0.0
    metrics.update([{"boxes": [], "scores": []}], [{"boxes": [boxes[0], boxes[1]]}])
    assert metrics.compute()["box_hit"] == pytest.approx(2 / 4)
    assert metrics.compute()["missed"] == pytest.approx(2 / 4)


def test_metrics_without_rows_or_targets_say_so() -> None:
    with pytest.raises(ValueError, match="no row was accumulated"):
        BoxMetrics().compute()
    with pytest.raises(ValueError, match="a row has no boxes"):
        BoxMetrics().update([{"boxes": [], "scores": []}], [{}])


@pytest.mark.parametrize(
    ("cell", "boxes"),
    [(None, []), ([], []), (CUBE, [CUBE]), ([CUBE, CUBE], [CUBE, CUBE]), (lambda: CUBE, [CUBE])],
)
def test_cells_that_hold_boxes(cell: object, boxes: list[list[float]]) -> None:
    batch = batch_of(task_of(), [cell, torch.tensor(CUBE).numpy()])
    assert batch.references == [{"boxes": boxes}, {"boxes": [CUBE]}]
    assert batch.label_masks["boxes"].sum(1).tolist() == [len(boxes), 1]


@pytest.mark.parametrize(
    ("cell", "wrong"),
    [
        ([1.0, 2.0], "expected 6 finite numbers"),
        ([*CUBE[:5], math.nan], "expected 6 finite numbers"),
        ("left", "expected a box of numbers"),
        ([1.0, 0, 0, 0.0, 1, 1], "lies above the high one"),
    ],
)
def test_cells_that_hold_none_are_named(cell: object, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong) as error:
        batch_of(task_of(), [cell])
    assert "\n" not in str(error.value)


def test_a_grid_of_other_axes_and_a_head_that_is_none_are_named() -> None:
    task = task_of(2)
    batch = batch_of(task, [None])
    with pytest.raises(ValueError, match="use axes: 3"):
        task.loss(batch, StubContext(lambda *_: volumes(1)))
    task = task_of()
    task.heads["head"] = Detr(16, 5, width=16)
    with pytest.raises(ValueError, match="expected queries of 7"):
        task.loss(batch_of(task, [None]), StubContext(lambda *_: volumes(1)))


@pytest.mark.parametrize(
    "options", [{"l1": -1.0}, {"giou": -1.0}, {"no_object_weight": 0.0}, {"threshold": 1.0}]
)
def test_wrong_options_are_named(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: found"):
        Detection(input="volume", **options)


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
