"""Segmentation: MONAI's loss and metrics, in the space of the true mask, padding left out."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric, HausdorffDistanceMetric

from sensorium.connectors.decoders import Unetr
from sensorium.modalities.base import Features
from sensorium.tasks.batch import Batch
from sensorium.tasks.dense.mask_metrics import MaskMetrics, agreement
from sensorium.tasks.dense.rle import decode_rle, encode_rle
from sensorium.tasks.dense.segmentation import Segmentation
from sensorium.testing.context import StubContext
from sensorium.tests.tasks.dense.segmentation_cases import FINE, GRID, task_of, tokens_of


def masks_of(values: torch.Tensor, shift: float = 5.0) -> Features:
    """bool `[B, *grid]` as a stream of masks, voxels of 1 from `shift` on."""
    axes = values.ndim - 1
    affine = torch.eye(axes + 1).repeat(len(values), 1, 1)
    affine[:, :axes, axes] = shift if axes == 3 else 0.0
    return Features.dense(
        values.flatten(1)[..., None].float(),
        grid=tuple(values.shape[1:]),
        spacing=(1.0,) * axes,
        origin=(0.0,) * axes,
        affine=affine,
    )


def some_masks(rows: int, grid: tuple[int, ...] = FINE) -> torch.Tensor:
    return torch.rand(rows, *grid, generator=torch.Generator().manual_seed(1)) > 0.6


def ask(task: Segmentation, volume: Features, mask: Features | None):  # type: ignore[no-untyped-def]
    rows = len(volume.tokens)
    batch = Batch("it", [str(i) for i in range(rows)], [{}] * rows)
    if mask is not None:
        batch.features["mask"] = mask
    return batch, StubContext(lambda name, *_, **__: volume if name.startswith("volume") else mask)


@pytest.mark.parametrize(("grid", "fine"), [(GRID, FINE), ((3, 4), (6, 8))])
def test_the_loss_is_monai_s(grid: tuple[int, ...], fine: tuple[int, ...]) -> None:
    task, volume, expected = task_of(len(grid)), tokens_of(3, grid), some_masks(3, fine)
    batch, encode = ask(task, volume, masks_of(expected))
    logits = task.heads["head"](volume).tokens[..., 0].unflatten(1, fine)[:, None]
    logits = logits + math.log(0.01 / 0.99)  # where a new head begins
    known = DiceCELoss(sigmoid=True)(logits, expected[:, None].float())
    loss = task.loss(batch, encode)
    torch.testing.assert_close(loss.total / int(loss.count), known)


def test_a_mask_is_laid_over_the_volume_by_both_affines() -> None:
    """The same voxels stored from another corner on, with the affine that says so."""
    task, volume, expected = task_of(), tokens_of(2), some_masks(2)
    batch, encode = ask(task, volume, masks_of(expected))
    known = task.loss(batch, encode).total
    wider = torch.nn.functional.pad(expected, (3, 2, 1, 0, 2, 2))
    shifted = masks_of(wider)
    shifted.affine[:, :3, 3] -= torch.tensor([2.0, 1.0, 3.0])
    batch, encode = ask(task, volume, shifted)
    torch.testing.assert_close(task.loss(batch, encode).total, known)
    turned = masks_of(expected.flip(1))
    turned.affine[:, 0, 0] = -1.0
    turned.affine[:, 0, 3] = 5.0 + FINE[0] - 1
    batch, encode = ask(task, volume, turned)
    torch.testing.assert_close(task.loss(batch, encode).total, known)


def test_padded_tokens_count_for_nothing() -> None:
    task, volume, expected = task_of(), tokens_of(2), some_masks(2)
    real = torch.ones(2, *GRID, dtype=torch.bool)
    real[1, 2:] = False
    volume = volume.replace(mask=real.flatten(1))
    batch, encode = ask(task, volume, masks_of(expected))
    known = task.loss(batch, encode).total
    noise = volume.tokens.masked_fill(~volume.mask[..., None], 1e3)
    other = expected.clone()
    other[1, 4:] = ~other[1, 4:]
    batch, encode = ask(task, volume.replace(tokens=noise), masks_of(other))
    torch.testing.assert_close(task.loss(batch, encode).total, known)
    predictions = task.predict(batch, encode)
    assert not decode_rle(predictions[1]["mask"])[0][4:].any()


def test_scores_are_monai_s_in_mm() -> None:
    result, expected = torch.zeros(2, 12, 10, 8, dtype=torch.bool)
    result[2:6, 3:7, 2:5], expected[3:8, 3:6, 2:6] = True, True
    edges = (1.0, 2.0, 4.0)
    dice, distance = DiceMetric(), HausdorffDistanceMetric(percentile=95)
    a, b = result[None, None].float(), expected[None, None].float()
    dice(a, b)
    distance(a, b, spacing=edges)
    scores = agreement(result, expected, edges)
    assert scores["dice"] == pytest.approx(float(dice.aggregate()))
    assert scores["hd95"] == pytest.approx(float(distance.aggregate()))


def test_scores_of_equal_and_of_empty_masks() -> None:
    full, empty = torch.ones(4, 4, 4, dtype=torch.bool), torch.zeros(4, 4, 4, dtype=torch.bool)
    full[0] = False
    assert agreement(full, full, (1, 1, 1)) == {"dice": 1, "hd95": 0, "found": 48, "wanted": 48}
    missed, alarm = agreement(empty, full, (1, 1, 1)), agreement(full, empty, (1, 1, 1))
    assert missed["dice"] == 0 and missed["hd95"] is alarm["dice"] is alarm["hd95"] is None
    metrics = MaskMetrics()
    same, quiet = agreement(full, full, (1, 1, 1)), agreement(empty, empty, (1, 1, 1))
    metrics.update([{"scores": s} for s in (same, missed, alarm, quiet)], [{}] * 4)
    assert metrics.compute() == {"dice": 0.5, "hd95": 0.0, "missed": 0.5, "false_alarms": 0.5}


def test_metrics_without_rows_or_masks_say_so() -> None:
    with pytest.raises(ValueError, match="no row was accumulated"):
        MaskMetrics().compute()
    with pytest.raises(ValueError, match="predicted without its mask"):
        MaskMetrics().update([{"mask": {}}], [{}])


@pytest.mark.parametrize("fill", [0.0, 0.3, 1.0])
def test_runs_and_back(fill: float) -> None:
    mask, matrix = torch.rand(3, 4, 5) < fill, torch.randn(4, 4)
    messages = json.loads(json.dumps(encode_rle(mask, matrix)))
    again, place = decode_rle(messages)
    assert torch.equal(again, mask)
    torch.testing.assert_close(place, matrix)


def fit(task: Segmentation, batch: Batch, encode: Any, rate: float, steps: int) -> None:
    optimizer = torch.optim.AdamW(task.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        (task.loss(batch, encode).total / len(batch)).backward()
        optimizer.step()


@pytest.mark.slow
@pytest.mark.parametrize("axes", [2, 3])
def test_it_learns_a_mask_and_scores_it_in_its_own_space(axes: int) -> None:
    """Tokens of two codes; the mask is where one of them stands, on a grid twice as fine."""
    grid = (4,) * axes
    coarse = torch.rand(8, *grid, generator=torch.Generator().manual_seed(2)) > 0.7
    expected = coarse
    for axis in range(1, axes + 1):
        expected = expected.repeat_interleave(2, axis)
    volume = tokens_of(8, grid)
    code = torch.where(coarse.flatten(1)[..., None], 1.0, -1.0) * torch.arange(16).sin()
    volume, task = volume.replace(tokens=volume.tokens * 0.1 + code), task_of(axes)
    batch, encode = ask(task, volume, masks_of(expected))
    fit(task, batch, encode, 1e-2, 60)
    predictions, metrics = task.predict(batch, encode), task.metrics()
    assert json.loads(json.dumps(predictions)) == predictions
    metrics.update(predictions, batch.references)
    assert metrics.compute()["dice"] > 0.95
    voxels = decode_rle(predictions[0]["mask"])[0].sum()
    assert predictions[0]["size"] == pytest.approx(float(voxels))  # voxels of 1 x 1 x 1


@pytest.mark.slow
@pytest.mark.quick_share(2)
@pytest.mark.parametrize(("prior", "learned"), [(0.01, True), (0.5, False)])
def test_a_small_mask_is_given_up_by_a_head_that_begins_at_a_half(
    prior: float, learned: bool
) -> None:
    grid = (6, 6, 6)
    place = torch.randint(216, (8,), generator=torch.Generator().manual_seed(3))
    one = torch.nn.functional.one_hot(place, 216).bool()
    volume, fine = tokens_of(8, grid), one.unflatten(1, grid)
    for axis in (1, 2, 3):
        fine = fine.repeat_interleave(2, axis)
    volume = volume.replace(tokens=volume.tokens * 0.5 + one[..., None] * torch.arange(16).sin())
    task = task_of(prior=prior)
    batch, encode = ask(task, volume, masks_of(fine))
    fit(task, batch, encode, 3e-3, 120)
    rows = task.predict(batch, encode)
    assert (sum(row["scores"]["dice"] for row in rows) / 8 > 0.3) is learned


def test_without_the_answer_it_predicts_and_does_not_score() -> None:
    task, volume = task_of(), tokens_of(2)
    batch, encode = ask(task, volume, None)
    predictions = task.predict(batch, encode)
    assert all("scores" not in row for row in predictions)
    values, matrix = task.export_maps(predictions[0])["mask"]
    assert tuple(values.shape) == FINE
    torch.testing.assert_close(matrix[:3, 3], torch.full((3,), 5.0))


def test_hidden_layers_are_asked_for() -> None:
    task, volume = task_of(), tokens_of(1)
    task.heads["head"] = Unetr(16, 1, ups=2, width=16, layers=[1, 2])
    requested = {}

    def encode(name: str, view: str = "main", **options: object) -> Features:
        requested[name] = options
        return volume.replace(hidden_states=(volume, volume))

    task.predict(Batch("it", ["0"], [{}]), StubContext(encode))
    assert requested == {"volume.encoder": {"hidden_states": (1, 2)}}
    task.heads["head"] = Unetr(16, 1, ups=2, layers=[1])
    with pytest.raises(ValueError, match="got 0 hidden layers, expected 1"):
        task.heads["head"](volume)
    with pytest.raises(ValueError, match="3 layers join at 2 doublings"):
        Unetr(16, 1, ups=2, layers=[1, 2, 3])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"dice": 0.0, "ce": 0.0}, "dice"),
        ({"threshold": 1.0}, "threshold"),
        ({"prior": 0.0}, "prior"),
        ({"mask": "x"}, "mask"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}.*found|^{named}: is"):
        Segmentation(input="x", **options)


def test_a_head_that_decodes_no_grid_is_named() -> None:
    task = task_of()
    task.heads["head"] = Unetr(16, 2, ups=1)
    batch, encode = ask(task, tokens_of(1), masks_of(some_masks(1)))
    with pytest.raises(ValueError, match="expected one number a voxel"):
        task.loss(batch, encode)
