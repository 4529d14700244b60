"""The losses of self-supervision: identities of the papers, crops and masks of any axes."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.tasks.common import (
    Crop,
    cosine,
    crop_and_resize,
    ema_copy,
    ema_update,
    spatial_shape,
)
from sensorium.tasks.self_supervised import dino_losses as losses
from sensorium.tasks.self_supervised.block_mask import block_mask, block_masks


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosines(rows: int = 40, prototypes: int = 12) -> Tensor:
    return F.normalize(some(rows, 5), dim=1) @ F.normalize(some(prototypes, 5, seed=1), dim=1).T


def test_sinkhorn_rows_sum_to_one_and_prototypes_come_closer_to_even() -> None:
    result = [losses.sinkhorn(cosines(), 0.1, iterations=n) for n in (1, 2, 3, 4, 200)]
    for targets in result:
        torch.testing.assert_close(targets.sum(1), torch.ones(40))
    off = [float((t.sum(0) - 40 / 12).abs().sum()) for t in result]
    assert all(later < before for before, later in pairwise(off))
    assert off[-1] < 1e-3


def test_sinkhorn_does_not_know_the_order_or_a_prototypes_popularity() -> None:
    logits, order = cosines(), torch.randperm(40, generator=torch.Generator().manual_seed(2))
    plain = losses.sinkhorn(logits, 0.1)
    torch.testing.assert_close(losses.sinkhorn(logits[order], 0.1), plain[order])
    liked = logits + torch.linspace(0, 1, 12)  # a prototype that all rows like more: centred away
    torch.testing.assert_close(losses.sinkhorn(liked, 0.1), plain, rtol=1e-4, atol=1e-6)


def test_what_is_not_real_counts_for_nothing_in_sinkhorn() -> None:
    logits, real = cosines(), torch.arange(40) % 3 > 0
    result = losses.sinkhorn(logits, 0.1, real)
    torch.testing.assert_close(result[real], losses.sinkhorn(logits[real], 0.1))
    assert not result[~real].any()
    nothing = losses.sinkhorn(logits, 0.1, torch.zeros(40, dtype=torch.bool))
    assert not nothing.any() and losses.sinkhorn(logits[:0], 0.1).shape == (0, 12)


def test_cross_entropy_is_torchs_and_least_at_the_teachers_own() -> None:
    prediction, goal = some(6, 4), losses.sinkhorn(cosines(6, 4), 0.1)
    mine = losses.cross_entropy(prediction, goal, 0.1)
    torch.testing.assert_close(mine, F.cross_entropy(prediction / 0.1, goal, reduction="none"))
    least = losses.cross_entropy(goal.log() * 0.1, goal, 0.1)
    torch.testing.assert_close(least, losses.entropy(goal))
    assert (least <= mine).all()


def test_koleo_pushes_the_nearest_apart() -> None:
    clustered = F.normalize(torch.ones(16, 8) + 0.05 * some(16, 8), dim=1).requires_grad_()

    def smallest(vectors: Tensor) -> float:
        return float(F.pdist(F.normalize(vectors, dim=1)).min())

    losses.koleo(clustered).backward()
    assert clustered.grad is not None
    after = (clustered - 1e-3 * clustered.grad / clustered.grad.norm()).detach()
    assert smallest(after) > smallest(clustered.detach())
    nearest = torch.cdist(clustered, clustered).fill_diagonal_(9).min(1).values
    torch.testing.assert_close(losses.koleo(clustered), -nearest.log().mean(), rtol=1e-4, atol=1e-4)


def test_rank_counts_directions_and_entropy_what_is_told_apart() -> None:
    assert float(losses.rankme(torch.eye(6))) == pytest.approx(6, rel=1e-5)
    assert float(losses.rankme(torch.ones(6, 4))) == pytest.approx(1, abs=1e-3)
    assert float(losses.rankme(torch.eye(6)[[0, 0, 0, 1, 1, 1]])) == pytest.approx(2, abs=1e-3)
    even = torch.full((2, 8), 1 / 8)
    torch.testing.assert_close(losses.entropy(even), torch.full((2,), math.log(8)))
    assert not losses.entropy(torch.eye(8)).any()


def test_prototypes_are_cosines() -> None:
    head = losses.DINOHead(6, 16, 4, 9)
    result = head(some(20, 6)).detach()
    assert result.shape == (20, 9) and float(result.abs().max()) <= 1 + 1e-6
    with torch.no_grad():
        head.prototypes *= 7  # of unit length, whatever they were
    torch.testing.assert_close(head(some(20, 6)).detach(), result)


def test_an_average_follows_by_its_momentum_and_never_trains() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = ema_copy(module)
    assert not any(p.requires_grad for p in average.parameters()) and not average.training
    begin = [p.clone() for p in average.parameters()]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 1
    module(some(8, 3))  # counts batches, moves its means
    ema_update(average, module, 0.9)
    for now, before in zip(average.parameters(), begin, strict=True):
        torch.testing.assert_close(now, before + 0.1)
    for now, expected in zip(average.buffers(), module.buffers(), strict=True):
        assert torch.equal(now, expected)
    ema_update(average, module, 1.0)
    torch.testing.assert_close(next(average.parameters()), begin[0] + 0.1)


def test_the_momentum_ends_where_it_should() -> None:
    values = [cosine(0.99, 1.0, share) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert values == sorted(values)
    assert (values[0], values[2], values[-1]) == pytest.approx((0.99, 0.995, 1.0))


@pytest.mark.parametrize("grid", [(20,), (7, 5), (4, 5, 3)])
@pytest.mark.parametrize("part", [0.1, 0.5, 1.0])
def test_masks_have_as_many_tokens_as_asked(grid: tuple[int, ...], part: float) -> None:
    torch.manual_seed(0)
    count = max(1, round(part * math.prod(grid)))
    masks = [block_mask(grid, count) for _ in range(20)]
    assert all(int(mask.sum()) == count and len(mask) == math.prod(grid) for mask in masks)
    assert part == 1.0 or len({tuple(mask.tolist()) for mask in masks}) > 1


def test_masks_are_blocks() -> None:
    """More of their tokens have a masked neighbour than single tokens would have."""
    torch.manual_seed(0)
    masks = torch.stack([block_mask((12, 12), 36).unflatten(0, (12, 12)) for _ in range(50)])
    beside = (masks[:, 1:] & masks[:, :-1]).float().sum() / masks.float().sum()
    assert float(beside) > 2 * 36 / 144


def test_a_share_of_the_rows_is_masked() -> None:
    torch.manual_seed(0)
    masks = block_masks((4, 4), 10, 0.5, (0.1, 0.5))
    counts = masks.sum(1)
    assert int((counts > 0).sum()) == 5
    assert int(counts.max()) <= 8
    assert not block_masks((4, 4), 10, 0.0, (0.1, 0.5)).any()


def test_a_crop_of_a_volume_keeps_its_place_in_the_world() -> None:
    """A ramp that says where it is reads the same at the crop's own places."""
    extent, affine = (12, 10, 8), torch.eye(4)
    affine[:3] = torch.tensor([[2.0, 0, 0, -5], [0, -3, 0, 4], [0, 0, 1.5, 1]])
    axes = [torch.arange(n, dtype=torch.float32) for n in extent]
    voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    world = torch.einsum("ij,jxyz->ixyz", affine[:3, :3], voxels) + affine[:3, 3, None, None, None]
    sample = {
        "volume": world,
        "inside": torch.ones(extent, dtype=torch.bool),
        "contrasts": torch.ones(3, dtype=torch.bool),
        "affine": affine,
    }
    built = Crop([5, 4, 6], (0.2, 0.6))(sample, np.random.default_rng(0))
    assert {k: tuple(v.shape) for k, v in built.items()} == {
        "volume": (3, 5, 4, 6), "inside": (5, 4, 6), "contrasts": (3,), "affine": (4, 4)
    }  # fmt: skip
    expected = torch.stack(
        torch.meshgrid(*(torch.arange(n) for n in (5, 4, 6)), indexing="ij")
    ).float()
    other_side = torch.einsum("ij,jxyz->ixyz", built["affine"][:3, :3], expected)
    other_side = other_side + built["affine"][:3, 3, None, None, None]
    middle = (slice(None), slice(1, -1), slice(1, -1), slice(1, -1))  # borders are read clamped
    torch.testing.assert_close(built["volume"][middle], other_side[middle], rtol=1e-4, atol=1e-3)
    assert built["inside"].dtype == torch.bool and built["inside"].all()


def test_crops_are_of_pictures_too_and_follow_from_the_generator() -> None:
    sample = {"pixel_values": some(3, 16, 20)}
    assert spatial_shape(sample) == (16, 20)
    crop = Crop(8, (0.3, 0.9))
    one, again, other = (crop(sample, np.random.default_rng(s)) for s in (0, 0, 1))
    assert one["pixel_values"].shape == (3, 8, 8)
    assert torch.equal(one["pixel_values"], again["pixel_values"])
    assert not torch.equal(one["pixel_values"], other["pixel_values"])
    whole = Crop([16, 20], (1.0, 1.0))(sample, np.random.default_rng(0))
    assert torch.equal(whole["pixel_values"], sample["pixel_values"])
    exact = crop_and_resize(sample, (16, 20), (2, 3), (8, 8), (8, 8))["pixel_values"]
    assert torch.equal(exact, sample["pixel_values"][:, 2:10, 3:11])


def test_sizes_of_other_axes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"size: \[8, 8, 8\] has 3 axes, the samples have 2"):
        Crop([8, 8, 8], (1, 1))({"pixel_values": some(3, 9, 9)}, np.random.default_rng(0))
    with pytest.raises(ValueError, match="cannot be cropped"):
        Crop(8, (1, 1))({"ids": torch.arange(4)}, np.random.default_rng(0))
