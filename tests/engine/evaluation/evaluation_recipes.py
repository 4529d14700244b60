"""A recipe whose models the tests evaluate."""

from __future__ import annotations

from typing import Any

PARTS = """
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from sensorium.modalities.base import Encoder, Features, Processor


@dataclass
class Grey(Processor):
    def prepare(self, raw):
        return {"pixels": torch.from_numpy(np.asarray(raw.convert("L"), np.float32) / 255)}


class Pixels(Encoder):
    '''The pixels, and what a mode makes of them.'''

    def __init__(self, *, mode: str = "plain") -> None:
        super().__init__()
        self.dim, self.processor, self.mode = 64, Grey(), mode
        self.batch_invariant = mode != "batch"

    def forward(self, pixels):
        tokens = pixels.flatten(1)
        if self.mode == "blind":
            tokens = tokens * 0
        if self.mode == "batch":  # its statistics are the batch's, in eval() as well
            tokens = tokens - tokens.mean(0) + len(tokens)
        return Features.dense(tokens[:, None])
"""
RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {"modality": "image", "encoder": {"type": "evaluated_parts:Pixels"}},
    },
    "tasks": {
        "digit": {
            "type": "classification",
            "input": "image",
            "data": {
                "train": {"source": "digits", "split": "train", "limit": 300},
                "test": {"source": "digits", "split": "test", "limit": 100},
                "writer": {"source": "digits", "split": "test", "order": "writer", "limit": 20},
            },
        },
        "ink": {
            "type": "regression",
            "input": "image",
            "target": "label",
            "data": {
                "train": {"source": "digits", "split": "train", "limit": 50},
                "test": {"source": "digits", "split": "test", "limit": 30},
            },
        },
    },
    "train": {"steps": 80, "batch_size": 32, "optimizer": {"lr": 0.03}, "log_every": 40},
}
