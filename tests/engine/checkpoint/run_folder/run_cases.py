"""The recipe of the run that these tests load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {
                "type": "patches",
                "size": 8,
                "patch_size": 4,
                "dim": 12,
                "weights": "hf-hub:org/before",
                "freeze": True,
            },
            "connector": "mlp",
        }
    },
    "backbone": {
        "type": "causal",
        "name": "tiny-llama",
        "tokenizer": {"type": "bpe", "size": 300},
        "options": SMALL,
        "lora": {"r": 2},
    },
    "tasks": {
        "caption": {
            "type": "captioning",
            "prompt": "<image> {parity}:",
            "target": "{word}",
            "max_new_tokens": 4,
            "data": {
                "train": {"source": "digits", "split": "train", "limit": 16},
                "test": {"source": "digits", "split": "test", "limit": 6},
            },
        },
        "digit": {
            "type": "classification",
            "input": "image",
            "head": {"type": "mlp", "hidden": 8},
            "target": "word",
            "data": {"train": {"source": "digits", "split": "train", "limit": 40}},
        },
    },
    "train": {
        "steps": 4,
        "batch_size": 4,
        "optimizer": {"lr": 0.01},
        "max_grad_norm": None,
        "log_every": 1,
    },
}


def serve(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the hub give a folder, whatever is asked for."""
    import huggingface_hub

    patch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: str(folder))
