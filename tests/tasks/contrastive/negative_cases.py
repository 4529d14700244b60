"""A contrastive task with hard negatives, and vectors for its streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sensorium.modalities.base import Features
from sensorium.tasks.contrastive.contrastive import Contrastive
from sensorium.testing.context import StubContext

ROWS, DIM, SCALE = 5, 8, 20.0
NAMES = ("query", "passage", "wrong", "worse")


def task_of(**options: Any) -> Contrastive:
    if options.get("loss") != "hinge":
        options.setdefault("temperature", 1 / SCALE)
    return Contrastive(streams=["query", "passage"], dim=DIM, **options)


def vectors_of(rows: int = ROWS, names: Sequence[str] = NAMES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randn(rows, DIM, generator=generator, requires_grad=True) for n in names}


def context(vectors: dict[str, Tensor]) -> StubContext:
    return StubContext({n: Features.dense(v[:, None], pooled=v) for n, v in vectors.items()})
