"""Whether padding changes a text's features is seen in a trial of the built module."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.modalities.groups import collate, encode_by_group, try_batch_invariance
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.modalities.text.transformers import TransformersText

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, tuple[dict[str, Any], bool]] = {  # whether padding leaves features as they are
    "bert": ({}, True),
    "roberta": ({}, True),
    "electra": ({"embedding_size": 32}, True),
    "t5": ({"d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2, "d_kv": 16}, True),
    "fnet": ({}, False),
    "convbert": ({"embedding_size": 32, "conv_kernel_size": 3}, False),
    "nystromformer": ({"num_landmarks": 4, "segment_means_seq_len": 4}, False),
    "yoso": ({}, False),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_padding_is_tried(kind: str) -> None:
    more, invariant = FAMILIES[kind]
    options = more if kind == "t5" else {**SMALL, **more}
    torch.manual_seed(0)
    config = {"model_type": kind, **options}
    encoder = TransformersText(config=config, tokenizer=Bytes(), max_length=32)
    before = torch.random.get_rng_state()
    try_batch_invariance(encoder.train())
    assert encoder.batch_invariant is invariant
    assert encoder.training and torch.equal(before, torch.random.get_rng_state())
    samples = [encoder.processor.prepare(text) for text in ("a dog", "two dogs on a beach")]
    with torch.no_grad():
        batch, run = collate(encoder.eval(), samples), lambda tensors, rows: encoder(**tensors)
        together = encode_by_group(batch, run)
        for row, sample in enumerate(samples):
            alone = encoder(**encoder.collate([sample]))
            tokens = together.tokens[row][together.mask[row]]
            assert torch.allclose(alone.tokens[0], tokens, atol=1e-5)
