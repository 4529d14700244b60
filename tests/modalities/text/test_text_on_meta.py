"""Text encoders of transformers on the meta device, where `check` walks them without values."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.modalities.text.tokenizers import Bytes
from sensorium.modalities.text.transformers import TransformersText

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "big_bird": {"attention_type": "original_full"},
    "clip_text_model": {},
    "deberta-v2": {},
    "electra": {},
    "ibert": {},
    "longformer": {"attention_window": [8, 8]},
    "roformer": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_shape_is_that_of_a_real_run(kind: str) -> None:
    """Some look into masks or positions, which have no values there; the shape must still be told,
    with every parameter in the graph."""
    config = {"model_type": kind, **SIZES, **KINDS[kind]}
    options: dict[str, Any] = {"config": config, "tokenizer": Bytes(), "max_length": 32}
    real = TransformersText(**options).eval()
    batch = real.collate([real.processor.prepare(text) for text in ("a dog", "two")])
    expected = real(**batch)
    with torch.device("meta"):
        outlined = TransformersText(**options)
    result = outlined(**{key: value.to("meta") for key, value in batch.items()})
    assert result.tokens.shape == expected.tokens.shape
    result.tokens.sum().backward()
    assert any(p.grad is not None for block in outlined.blocks() for p in block.parameters())
