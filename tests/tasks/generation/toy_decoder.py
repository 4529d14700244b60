"""The smallest decoder: a linear map from the mean of the condition, with noise of a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sensorium.modalities.base import Decoder, Features, Loss

WIDTH = 16


class Toy(Decoder):
    """Each token of the target is the map's output."""

    dim = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(WIDTH, WIDTH)

    def loss(self, condition: Features, target: Mapping[str, Tensor]) -> Loss:
        error = (self.map(condition.mean())[:, None] - target["values"]).square().mean(-1)
        return Loss((error * target["mask"]).sum(), len(error))

    @torch.no_grad()
    def generate(self, condition: Features, *, seeds: Sequence[int], **options: Any) -> Tensor:
        noise = [torch.randn(1, generator=torch.Generator().manual_seed(s)) for s in seeds]
        mean: Tensor = self.map(condition.mean()) + torch.stack(noise)
        return mean[:, None]

    def as_json(self, generated: Tensor) -> list[dict[str, Any]]:
        return [{"values": row.tolist()} for row in generated]
