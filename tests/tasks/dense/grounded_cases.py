"""Tokens, masks and sentences of grounded alignment."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sensorium.modalities.base import Features
from sensorium.tasks.batch import Batch, Example
from sensorium.testing.context import StubContext

GRID, DIM = (3, 4, 2), 8
TOKENS = 24
OPTIONS: dict[str, Any] = {"input": "scan", "text": "said", "dim": DIM}


def tokens(rows: int, seed: int = 0, padded: int = 0) -> Features:
    values = torch.randn(rows, TOKENS, DIM, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(rows, TOKENS, dtype=torch.bool)
    if padded:
        mask[:, -padded:] = False
    turned = torch.diag(torch.tensor([-2.0, 3.0, 1.0, 1.0]))
    turned[:3, 3] = torch.tensor([10.0, -4.0, 7.0])
    return Features(
        values.requires_grad_(), mask, GRID, (4.0,) * 3, (1.5,) * 3, turned.expand(rows, -1, -1)
    )


def mask_of(like: Features, chosen: list[list[int]]) -> Features:
    """Masks that cover some tokens of each row wholly, drawn on voxels of their own."""
    fine = torch.zeros(len(chosen), *(4 * n for n in GRID))
    for row, places in enumerate(chosen):
        for place in places:
            x, y, z = np.unravel_index(place, GRID)
            fine[row, 4 * x : 4 * x + 4, 4 * y : 4 * y + 4, 4 * z : 4 * z + 4] = 1
    return Features.dense(
        fine.flatten(1)[..., None],
        grid=tuple(fine.shape[1:]), spacing=(1.0,) * 3, origin=(0.0,) * 3, affine=like.affine,
    )  # fmt: skip


def texts(rows: int, seed: int = 1) -> Features:
    vectors = torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))
    return Features.dense(vectors.requires_grad_()[:, None], pooled=vectors)


def case(
    chosen: list[list[int]], references: list[dict[str, Any]] | None = None, padded: int = 0
) -> tuple[Batch, StubContext]:
    rows = len(chosen)
    scan = tokens(rows, padded=padded)
    features = {"scan": scan, "said": texts(rows), "mask": mask_of(scan, chosen)}
    batch = batch_of(references or [{}] * rows)
    batch.features = dict(features)
    return batch, StubContext(features)


def batch_of(references: list[dict[str, Any]]) -> Batch:
    """Rows as the task prepares them, from what it writes into their references."""
    examples = [
        Example({"grounded": torch.tensor(float(r.get("grounded", True)))}, r) for r in references
    ]
    return Batch.of("ground", [str(i) for i in range(len(examples))], examples)
