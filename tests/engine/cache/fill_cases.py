"""A small encoder and its identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sensorium.engine.cache import (
    encoder_identity,
)
from sensorium.modalities.base import Encoder, Features, Processor


@dataclass
class Scale(Processor):
    factor: float = 2.0
    shape: tuple[int, ...] = (2, 3)

    def prepare(self, raw: Any) -> dict[str, Tensor]:
        return {"x": torch.as_tensor(raw) * self.factor}


READ = "sensorium.modalities.image.read:read"


class Tiny(Encoder):
    dim = 4

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(3, 4)
        self.register_buffer("shift", torch.zeros(4, dtype=torch.bfloat16))
        self.processor = Scale()

    def forward(self, x: Tensor) -> Features:
        return Features.dense(self.linear(x) + self.shift)


def identity(encoder: Encoder | None = None, **changes: Any) -> dict[str, Any]:
    options = {"read": READ, "layers": (), "precision": "float32", **changes}
    return encoder_identity(encoder or Tiny(), **options)
