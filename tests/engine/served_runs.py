"""Recipes of small runs that are served, and inputs for them."""

from __future__ import annotations

import io
import wave
from base64 import b64encode
from typing import Any

import numpy as np
from PIL import Image

from sensorium.tests.engine.inference.test_python_api import RECIPE

RATE = 16_000
SPEECH: dict[str, Any] = {
    "inputs": {
        "audio": {
            "modality": "audio",
            "encoder": {
                "type": "wav2vec2",
                "config": {
                    "model_type": "wav2vec2",
                    "hidden_size": 16,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "intermediate_size": 16,
                    "conv_dim": [8, 8],
                    "conv_stride": [20, 16],
                    "conv_kernel": [20, 16],
                    "num_feat_extract_layers": 2,
                    "num_conv_pos_embeddings": 4,
                    "num_conv_pos_embedding_groups": 2,
                },
            },
        }
    },
    "tasks": {"transcribe": {"type": "ctc", "tokenizer": "characters"}},
    "train": {"steps": 1, "batch_size": 2},
}


def png(seed: int = 0, size: int = 8) -> bytes:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def data_uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def wav(seconds: float = 0.5, seed: int = 0) -> bytes:
    """A sound of noise."""
    noise = np.random.default_rng(seed).normal(0, 3000, int(RATE * seconds)).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(noise.tobytes())
    return file.getvalue()


QUESTION = {
    "type": "captioning",
    "prompt": "<image> {question}",
    "target": "{word}",
    "max_new_tokens": 3,
    "data": {
        "train": {
            "source": "digits",
            "split": "train",
            "limit": 4,
            "columns": {"question": "word"},
        }
    },
}
PICTURES = {**RECIPE, "tasks": {**RECIPE["tasks"], "ask": QUESTION}}
