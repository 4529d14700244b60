"""T5Gemma 2 reads itself and its encoder in one attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture
def merged() -> Any:
    from transformers.models.t5gemma2 import configuration_t5gemma2 as configuration
    from transformers.models.t5gemma2 import modeling_t5gemma2 as modeling

    config = configuration.T5Gemma2DecoderConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        vocab_size=40,
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    return modeling.T5Gemma2MergedAttention(config, layer_idx=0).eval()


@torch.no_grad()
def test_merged_attention_is_a_joint_softmax_over_both_sets_of_keys(merged: Any) -> None:
    tokens, memory = torch.randn(1, 3, 32), torch.randn(1, 5, 32)
    positions = torch.ones(1, 3, 8), torch.zeros(1, 3, 8)  # rotations by zero
    out, *_ = merged(tokens, positions, None, memory)

    def heads(linear: Any, states: Tensor) -> Tensor:
        return linear(states).unflatten(-1, (-1, 8)).transpose(1, 2)

    query = merged.q_norm(heads(merged.q_proj, tokens))
    keys = [merged.k_norm(heads(merged.k_proj, each)) for each in (tokens, memory)]
    values = [heads(merged.v_proj, each) for each in (tokens, memory)]
    key, value = (torch.cat(each, 2).repeat_interleave(2, 1) for each in (keys, values))
    weights = (query @ key.transpose(2, 3) * merged.scaling).softmax(-1)
    assert weights.shape[-1] == 3 + 5
    expected = merged.o_proj((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
    alone = merged.o_proj(
        ((query @ key[:, :, :3].transpose(2, 3) * merged.scaling).softmax(-1) @ value[:, :, :3])
        .transpose(1, 2)
        .flatten(2)
    )
    assert not torch.allclose(out, alone, atol=1e-3)  # the encoder's keys take part
