"""Routers of mixtures of experts: their auxiliary loss is the library's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.backbones.causal import Causal
from sensorium.modalities.base import Features

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
}
KINDS = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4},
    "olmoe": {"num_experts": 4},
    "granitemoe": {"num_local_experts": 4},
}


def build(kind: str, tokenizer: Any, **options: Any) -> Causal:
    torch.manual_seed(0)
    config = {"model_type": kind, **SIZES, **KINDS[kind]}
    return Causal(tokenizer=tokenizer, config=config, options=options)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_librarys(kind: str, tokenizer: Any) -> None:
    model = build(kind, tokenizer, output_router_logits=True, router_aux_loss_coef=0.5)
    embeds = torch.randn(2, 7, model.dim)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    expected = model.model(inputs_embeds=embeds, attention_mask=mask.long()).aux_loss
    model(embeds, mask)
    terms = model.pop_auxiliary()
    assert terms is not None
    torch.testing.assert_close(terms[0], 0.5 * expected)
    torch.testing.assert_close(terms[1]["router_balance"], expected.detach())
    assert 0.25 <= float(terms[1]["router_busiest"]) <= 1
    assert model.pop_auxiliary() is None  # each forward is counted once


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_the_routers(kind: str, tokenizer: Any) -> None:
    model = build(kind, tokenizer, output_router_logits=True)
    model(torch.randn(2, 7, model.dim))
    terms = model.pop_auxiliary()
    assert terms is not None
    terms[0].backward()
    routers = [p for n, p in model.named_parameters() if p.grad is not None and p.grad.any()]
    assert any(len(p) == 4 for p in routers)


def test_without_the_option_there_is_none(tokenizer: Any) -> None:
    model = build("mixtral", tokenizer)
    model(torch.randn(2, 7, model.dim))
    assert model.pop_auxiliary() is None


def test_nothing_is_kept_without_gradients(tokenizer: Any) -> None:
    model = build("mixtral", tokenizer, output_router_logits=True)
    with torch.no_grad():
        model(torch.randn(2, 7, model.dim))
        model.generate(Features.dense(torch.randn(1, 3, model.dim)), max_new_tokens=2)
    assert model.pop_auxiliary() is None
