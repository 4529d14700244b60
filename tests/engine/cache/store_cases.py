"""Records, and what the tests of the store fill it with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sensorium.engine.cache import Store


def expected(i: int) -> np.ndarray:
    return np.full((i % 5 + 1, 4), i, np.float32)


def fill_some(root: Path, count: int = 20, shards: int = 1) -> Store:
    store = Store(root, "features", {"of": "test"})
    with store.writer() as writer:
        for i in range(count):
            writer.put(f"k{i}", {"tokens": expected(i)})
            if (i + 1) % (count // shards) == 0:
                writer.flush()
    return store


def shards_of(store: Store) -> list[Path]:
    return sorted(store.folder.glob("*.safetensors"))
