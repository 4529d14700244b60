"""Tokens have to lie where an encoder places them, whatever else all of them react to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.modalities.base import Features, Sample
from sensorium.testing.geometry import check_places

GRID, PATCH = 8, 8


class Contract:
    """What `check_places` reads of a contract, of an encoder that averages patches."""

    name = "Patches"

    def __init__(self, order: Callable[[Tensor], Tensor], border: float = 0.0) -> None:
        self.encoder = nn.Identity()
        self.order, self.border = order, border
        generator = torch.Generator().manual_seed(0)
        size = GRID * PATCH
        self.samples = [{"pixel_values": torch.randn(3, size, size, generator=generator)}]
        self.features = self.encode(self.samples)

    def encode(self, samples: Sequence[Sample]) -> Features:
        pixels = torch.stack([sample["pixel_values"] for sample in samples])
        patches = F.avg_pool2d(pixels, PATCH)  # [B, 3, 8, 8]
        edge = F.pad(torch.zeros(GRID - 2, GRID - 2), (1, 1, 1, 1), value=self.border)
        patches = self.order(patches + edge * patches.mean((2, 3), keepdim=True))
        return Features.dense(
            patches.flatten(2).mT,
            grid=(GRID, GRID),
            spacing=(float(PATCH), float(PATCH)),
            origin=(PATCH / 2, PATCH / 2),
        )


@pytest.mark.parametrize("border", [0.0, 200.0])
def test_tokens_at_their_places_pass(border: float) -> None:
    """Also where every spot changes the tokens at the border the most."""
    contract: Any = Contract(lambda patches: patches, border)
    check_places(contract, "image")


@pytest.mark.parametrize("border", [0.0, 200.0])
@pytest.mark.parametrize("order", [lambda x: x.mT, lambda x: x.flip(2), lambda x: x.roll(3, 3)])
def test_tokens_in_another_order_do_not(order: Any, border: float) -> None:
    contract: Any = Contract(order, border)
    with pytest.raises(AssertionError, match="the token that changes most lies"):
        check_places(contract, "image")
