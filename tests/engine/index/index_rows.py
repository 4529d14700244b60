"""Rows of an index for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sensorium.engine.index import Entry, IndexMetadata

ABOUT = IndexMetadata("runs/x", "image", "image", 16, "fp32", {"image": "a" * 64, "text": "b" * 64})


def unit(rows: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    built = np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)
    return built / np.linalg.norm(built, axis=1, keepdims=True)


def entries(vectors: np.ndarray, start: int = 0, **columns: Sequence[Any]) -> list[Entry]:
    return [
        Entry(
            f"row-{start + i}",
            "test" if (start + i) % 3 else "train",
            "{}",
            start + i,
            (start + i).to_bytes(16, "big"),
            vector,
            {name: values[i] for name, values in columns.items()},
        )
        for i, vector in enumerate(vectors)
    ]


def keys(found: list[list[Any]]) -> list[list[str]]:
    return [[hit.key for hit in hits] for hits in found]
