"""Rows with a signal of any modality, and labels for every task."""

from __future__ import annotations

from typing import Any

import numpy as np

from sensorium.engine.recipe import find, load
from sensorium.modalities.base import Source

WORDS = ("red", "green", "blue")


class PairRows(Source):
    """Columns: `x`, the modality's own example; `text`, `word`, `number`, `action [4, 2]`,
    `expert [4, 2]`, `box` (pixels or mm) and `mask`, of the left half of a picture or volume."""

    columns = ("x", "text", "word", "number", "action", "expert", "box", "mask")

    def __init__(self, *, modality: str, rows: int = 4) -> None:
        self.modality, self.rows = modality, rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng(index)
        word = WORDS[index % len(WORDS)]
        signal = find("modality", self.modality, "modality")
        motion = rng.random((4, 2)).astype(np.float32)
        return {
            "x": load(signal.example)(np.random.default_rng(index)),
            "text": f"a {word} one",
            "word": word,
            "number": float(index),
            "action": motion,
            "expert": motion,
            "box": [2.0, 2.0, 20.0, 30.0] if self.modality == "image" else [-20.0] * 3 + [20.0] * 3,
            "mask": {
                "array": (np.arange(24**3).reshape(24, 24, 24) % 2).astype(np.uint8),
                "affine": np.eye(4),
            },
        }

    def fingerprint(self) -> str:
        return f"pairs of {self.modality}, {self.rows}"
