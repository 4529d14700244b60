"""Rows of several pictures each, and a task on them; laid beside a recipe by the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.modalities.base import Loss, Source
from sensorium.tasks.base import Context, Row, Task
from sensorium.tasks.batch import Batch, Example
from sensorium.tasks.uses import StreamUse

COUNTS = (2, 0, 5, 1, 0, 3)
"""Pictures of each row."""


def picture(row: int, item: int) -> np.ndarray:
    return np.random.default_rng((row, item)).integers(0, 255, (9, 9, 3), np.uint8)


class Bags(Source):
    """Rows of several pictures each, some of none, with their mean brightness."""

    columns = ("image", "light")

    def __init__(self, *, counts: list[int] = [*COUNTS]) -> None:  # noqa: B006
        self.counts = counts

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        items = [picture(index, item) for item in range(self.counts[index])]
        return {"image": items, "light": float(np.mean([i.mean() for i in items] or [0.0]) / 255)}

    def fingerprint(self) -> str:
        return f"bags {self.counts}"


class Sizes:
    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, predictions: Sequence[Any], references: Sequence[Mapping[str, Any]]) -> None:
        pairs = zip(predictions, references, strict=True)
        self.errors += [(p["light"] - r["light"]) ** 2 for p, r in pairs]

    def compute(self) -> dict[str, float]:
        return {"error": float(np.mean(self.errors))}


class Light(Task):
    """Predicts the brightness of a bag from the sum of its pictures' vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.streams = {"image": StreamUse(many=True)}

    def columns(self) -> tuple[str, ...]:
        return ("light",)

    def prepare(self, row: Row, tools: Any, rng: Any) -> Example:
        light = {"light": row["light"]} if "light" in row else {}
        return Example({k: torch.tensor(v) for k, v in light.items()}, light)

    def bags(self, batch: Batch, ctx: Context) -> Tensor:
        """`[B]` a number of each row."""
        vectors, items = ctx.encode("image").pool(), batch.items["image"]
        rows = torch.arange(len(items)).repeat_interleave(items)
        return vectors.new_zeros(len(items), vectors.shape[1]).index_add(0, rows, vectors).mean(1)

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        errors = self.bags(batch, ctx) - batch.label("light", "has no light")
        return Loss(errors.square().sum(), len(batch))

    def predict(self, batch: Batch, ctx: Context, **options: Any) -> list[Any]:
        items = batch.items["image"].tolist()
        built = zip(self.bags(batch, ctx).tolist(), items, strict=True)
        return [{"light": light, "pictures": count} for light, count in built]

    def metrics(self) -> Sizes:
        return Sizes()

    def example_rows(self) -> list[dict[str, Any]]:
        return [{"light": 0.5}, {"light": 0.25}]
