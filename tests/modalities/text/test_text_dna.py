"""DNA at the resolution of a base: hybrid state-space decoders, and their state behind an echo."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.backbones.base import Backbone
from sensorium.engine.recipe import ComponentPath, Section, find, plan_part
from sensorium.modalities.text.characters import Nucleotides
from sensorium.tests.tasks.language.tiny import backbone_of

SHARED = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
BAMBA = {
    "model_type": "bamba", **SHARED, "intermediate_size": 32, "num_hidden_layers": 3,
    "attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8,
    "mamba_expand": 2, "mamba_chunk_size": 16, "max_position_embeddings": 131072,
}  # fmt: skip
JAMBA = {
    "model_type": "jamba", **SHARED, "intermediate_size": 32, "num_hidden_layers": 2,
    "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1, "num_experts_per_tok": 1,
    "use_mamba_kernels": False, "max_position_embeddings": 131072,
}  # fmt: skip
HYBRID = {"bamba": BAMBA, "jamba": JAMBA}


def dna(length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, 8, (1, length), generator=generator)


def model(kind: str) -> Backbone:
    return backbone_of("causal", HYBRID[kind], tokenizer="nucleotides")


@pytest.mark.parametrize("kind", HYBRID)
def test_a_base_changes_no_base_before_it(kind: str) -> None:
    backbone, ids = model(kind), dna(40)
    assert isinstance(backbone.tokenizer, Nucleotides)
    changed = ids.clone()
    changed[0, 25] = 4 + (changed[0, 25] - 3) % 4
    with torch.no_grad():
        first, second = (backbone(backbone.embed(i)) for i in (ids, changed))
    torch.testing.assert_close(first[:, :25], second[:, :25], atol=1e-5, rtol=1e-4)
    assert (first[:, 25:] - second[:, 25:]).abs().amax(-1).min() > 1e-6  # and every one after


@pytest.mark.slow
def test_a_long_sequence_trains_causally() -> None:
    """16,384 bases in one row: a far base reaches the last one, and a gradient the far base."""
    backbone, ids = model("bamba"), dna(16_384)
    embeds = backbone.embed(ids).detach().requires_grad_()
    hidden: Any = backbone(embeds)
    hidden[0, -1].square().sum().backward()
    assert embeds.grad is not None and bool(embeds.grad[0, 0].abs().max() > 0)
    assert bool(hidden.isfinite().all())


@pytest.mark.slow
def test_a_motif_is_learned_and_random_dna_is_not() -> None:
    values = []
    for rows in (torch.tensor([[4, 5, 6, 6, 7] * 6]), dna(30)):
        torch.manual_seed(0)
        backbone = model("bamba")
        optimizer = torch.optim.Adam(backbone.parameters(), lr=1e-2)
        held_out = rows if not values else dna(30, seed=1)
        for step in range(61):
            ids = rows if step < 60 else held_out
            logits = backbone.logits(backbone(backbone.embed(ids[:, :-1])))
            loss = torch.nn.functional.cross_entropy(logits[0], ids[0, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        values.append(float(loss))
    assert values[0] < 0.3 and values[1] > 1.3  # log 4 = 1.386


@pytest.mark.parametrize("echo", [True, False])
def test_behind_an_echo_every_base_has_seen_the_last_one(echo: bool) -> None:
    """The feature of classification; without the echo, only the last base has."""
    options = {
        "type": "causal_lm", "config": BAMBA, "tokenizer": "nucleotides", "max_length": 32,
        "echo": echo, "weights": "none",
    }  # fmt: skip
    section = Section.model_validate(options)
    part = find("text_encoder", "causal_lm", "x")
    torch.manual_seed(0)
    encoder = plan_part(part, section, "text_encoder", ComponentPath("encoder")).build().eval()
    texts = ["ACGTACGGTA", "ACGTACGGTC"]
    batch = encoder.collate([encoder.processor.prepare(text) for text in texts])
    with torch.no_grad():
        tokens = encoder(**batch).tokens
    changed = (tokens[0] - tokens[1]).abs().amax(-1) > 1e-6
    assert changed.all() if echo else not changed[:10].any()
