"""`ImageAugment`: keyed by its generator, never in place, and right about where things go."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sensorium.modalities.image.augment import ImageAugment

MOVES = {"flip": True, "shift": 0.1, "rotate": 10, "scale": 0.1}
ALL = {**MOVES, "brightness": 0.2, "contrast": 0.2, "noise": 0.1, "erase": 1.0}
PICTURE = torch.randn(3, 24, 32, generator=torch.Generator().manual_seed(0))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("options", [{k: v} for k, v in ALL.items()] + [ALL])
def test_same_generator_same_values_and_never_in_place(options: dict[str, float]) -> None:
    augment, sample = ImageAugment(**options), {"pixel_values": PICTURE.clone()}
    results = [augment(sample, rng(s))["pixel_values"] for s in (5, 5, 6, 7, 8, 9)]
    assert torch.equal(sample["pixel_values"], PICTURE)
    assert torch.equal(results[0], results[1])
    assert any(not torch.equal(results[0], other) for other in results[2:])
    assert all(r.shape == PICTURE.shape and r.isfinite().all() for r in results)


def test_nothing_asked_nothing_changed() -> None:
    remaining = {"pixel_values": PICTURE, "other": torch.ones(2)}
    result = ImageAugment()(remaining, rng())
    assert torch.equal(result["pixel_values"], PICTURE)
    assert result["other"] is remaining["other"]


def test_flip_mirrors_about_half() -> None:
    augment = ImageAugment(flip=True)
    generator = rng()
    flipped = [augment({"pixel_values": PICTURE}, generator)["pixel_values"] for _ in range(200)]
    count = sum(torch.equal(f, PICTURE.flip(-1)) for f in flipped)
    assert count + sum(torch.equal(f, PICTURE) for f in flipped) == 200
    assert 70 < count < 130


def centre(picture: torch.Tensor) -> tuple[float, float]:
    weight = picture[0].double()
    y, x = torch.meshgrid(*(torch.arange(s) for s in weight.shape), indexing="ij")
    total = weight.sum()
    return float((weight * y).sum() / total), float((weight * x).sum() / total)


def test_shift_moves_at_most_its_share() -> None:
    spot = torch.zeros(1, 40, 80)
    spot[0, 18:22, 38:42] = 1
    generator, moves = rng(), []
    for _ in range(100):
        moved = ImageAugment(shift=0.1)({"pixel_values": spot}, generator)["pixel_values"]
        y, x = centre(moved)
        moves.append((abs(y - 19.5), abs(x - 39.5)))
    far = np.max(moves, axis=0)
    assert 3 < far[0] <= 4.01
    assert 6 < far[1] <= 8.02


def test_a_turn_keeps_distances_in_a_picture_that_is_not_square() -> None:
    spot = torch.zeros(1, 60, 120)
    spot[0, 28:32, 88:92] = 1  # 30 px to the right of the centre
    generator = rng()
    for _ in range(20):
        turned = ImageAugment(rotate=40)({"pixel_values": spot}, generator)["pixel_values"]
        y, x = centre(turned)
        assert np.hypot(y - 29.5, x - 59.5) == pytest.approx(30, abs=0.5)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"shift 1\.5"):
        ImageAugment(shift=1.5)
    with pytest.raises(ValueError, match="not negative"):
        ImageAugment(noise=-1)
    with pytest.raises(ValueError, match=r"found \(16, 192\)"):
        ImageAugment(flip=True)({"pixel_values": torch.zeros(16, 192)}, rng())
