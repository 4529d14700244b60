"""The recipe whose model the analyses look into: one encoder, a decoder, two tasks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from sensorium.engine.evaluation.analyses import Subject

Subjects = Callable[..., Subject]

DATA = {"train": {"source": "digits", "split": "train", "limit": 60}}
DATA["test"] = {"source": "digits", "split": "test", "limit": 40}
LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {"type": "timm", "name": "test_vit", "weights": "none", "freeze": True},
            "connector": "linear",
        }
    },
    "backbone": {
        "type": "causal",
        "name": "tiny-llama",
        "tokenizer": "bytes",
        "weights": "none",
        "options": LLAMA,
    },
    "tasks": {
        "caption": {"type": "captioning", "prompt": "<image> It is:", "data": DATA},
        "digit": {"type": "classification", "input": "image", "target": "word", "data": DATA},
    },
    "train": {"steps": 20, "batch_size": 16, "optimizer": {"lr": 0.01}},
}


def recipe(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(RECIPE), **changes}
