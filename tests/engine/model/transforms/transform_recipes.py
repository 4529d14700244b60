"""A recipe of a text encoder and a decoder, whose parts transforms change."""

from __future__ import annotations

import copy
from typing import Any

LLAMA = {
    "type": "causal",
    "name": "tiny-llama",
    "tokenizer": "bytes",
    "weights": "none",
    "options": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
}
TEXT = {"type": "transformers", "config": BERT, "tokenizer": "bytes", "max_length": 16}


def recipe(
    backbone: Any = None, encoder: Any = None, connector: Any = None, **sections: Any
) -> dict[str, Any]:
    """A text encoder whose tokens a decoder reads."""
    stream = {
        "modality": "text",
        "encoder": {**TEXT, **(encoder or {})},
        "connector": connector or "linear",
    }
    task = {
        "type": "captioning",
        "prompt": "<text> so:",
        "target": "{answer}",
        "data": {"train": {"source": "json", "path": "rows.jsonl"}},
    }
    values = {
        "inputs": {"text": stream},
        "backbone": {**LLAMA, **(backbone or {})},
        "tasks": {"say": task},
        "train": {"steps": 2, "batch_size": 4, "num_workers": 0},
    }
    return copy.deepcopy({**values, **sections})
