"""Localization: boxes of any number of axes, matched, measured and learned."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch
from monai.data.box_utils import box_giou
from torch.nn import functional as F

from sensorium.connectors.queries import Detr
from sensorium.tasks.batch import Batch
from sensorium.tasks.common import grid_to_world, transform_points
from sensorium.tasks.dense import BoxMetrics
from sensorium.tasks.dense.boxes import cxcywh_to_world, unit_to_world, world_to_cxcywh
from sensorium.tasks.dense.detection import Detection
from sensorium.testing.context import StubContext, prepare_batch
from sensorium.tests.tasks.dense.box_cases import some_boxes, volumes

CUBE = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]


def task_of(axes: int = 3, **options: object) -> Detection:
    torch.manual_seed(0)
    task = Detection(input="volume", axes=axes, **options)
    task.heads["head"] = Detr(16, 1 + 2 * axes, queries=4, width=32)
    return task


def batch_of(task: Detection, cells: list[object]) -> Batch:
    return prepare_batch(task, [{"box": cell} for cell in cells])


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
    presence = F.binary_cross_entropy_with_logits(raw[0, 0, 0], torch.tensor(1.0))
    loss = task.loss(batch, StubContext(lambda *_: features))
    torch.testing.assert_close(
        loss.total, 5 * near + 2 * (1 - over) + presence, rtol=1e-4, atol=1e-4
    )


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
