"""Taps see the attention of any library, and mute what they are asked to."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.engine.evaluation.analyses.circuits import head_maps
from sensorium.engine.evaluation.taps import hooked_activations, muted_feed_forwards
from sensorium.engine.model.attention_tap import AttentionTap, attention_weights
from sensorium.engine.model.transforms.context import TransformContext
from sensorium.engine.model.transforms.layers import attention_of, find_stack
from sensorium.engine.model.transforms.layers.heads import prune_heads

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 40,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 40},
    "opt": {
        "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "word_embed_proj_dim": 32, "vocab_size": 40,
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=[*CONFIGS])
def model(request: pytest.FixtureRequest) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **CONFIGS[request.param])
    result: nn.Module = AutoModelForCausalLM.from_config(config).eval()
    return result


def blocks(model: Any) -> list[nn.Module]:
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == 2]
    return list(lists[0])


IDS = torch.arange(12).view(2, 6) + 1


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_weights_are_those_that_transformers_returns(model: Any, implementation: str) -> None:
    model.set_attn_implementation("eager")
    expected = model(IDS, output_attentions=True).attentions
    model.set_attn_implementation(implementation)
    with AttentionTap(blocks(model)) as tap:
        model(IDS)
    for layer, weights in enumerate(expected):
        (seen,) = tap.seen.weights[layer]
        torch.testing.assert_close(seen, weights, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_a_muted_head_is_one_that_is_pruned(model: Any, implementation: str) -> None:
    heads = [(0, 1), (0, 3), (1, 0), (1, 2)]
    pruned = copy.deepcopy(model)
    prune_heads(pruned, TransformContext(), heads=heads)
    model.set_attn_implementation(implementation)
    with AttentionTap(blocks(model), heads):
        muted = model(IDS).logits
    torch.testing.assert_close(muted, pruned(IDS).logits, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(muted, model(IDS).logits, atol=1e-4)


@torch.no_grad()
def test_nothing_muted_changes_nothing(model: Any) -> None:
    before = model(IDS).logits
    with AttentionTap(blocks(model)), muted_feed_forwards(blocks(model), []):
        assert torch.equal(model(IDS).logits, before)
    assert torch.equal(model(IDS).logits, before)


@torch.no_grad()
def test_a_muted_feed_forward_adds_nothing(model: Any) -> None:
    seen: dict[int, Tensor] = {}

    def zero(layer: int, values: Tensor) -> Tensor:
        seen[layer] = values
        return values

    with hooked_activations(blocks(model), zero):
        whole = model(IDS).logits
    assert [*seen] == [0, 1]
    with muted_feed_forwards(blocks(model), [0, 1]):
        assert not torch.allclose(model(IDS).logits, whole, atol=1e-4)


@torch.no_grad()
def test_heads_write_what_their_maps_say(model: Any) -> None:
    """A token that sees itself alone: what attention adds is the sum of the heads' maps of it."""
    stack = find_stack(model)
    for index, layer in enumerate(stack.layers):
        attention = attention_of(layer, index, stack)
        read: list[Tensor] = []
        written: list[Tensor] = []

        def before(_: Any, args: Any, out: Any, read: list[Tensor] = read) -> None:
            read.append(args[0])

        def behind(_: Any, args: Any, out: Any, written: list[Tensor] = written) -> None:
            written.append(out)

        hooks = [
            attention.value.register_forward_hook(before),
            attention.output.register_forward_hook(behind),
        ]
        for token in (3, 4):
            model(torch.tensor([[token]]))
        for hook in hooks:
            hook.remove()
        change = (read[1] - read[0]).flatten()
        heads = sum(head.ov @ change for head in head_maps(layer, index, stack))
        expected = (written[1] - written[0]).flatten()
        torch.testing.assert_close(heads, expected, atol=1e-5, rtol=1e-3)


def test_a_head_that_is_not_there_is_refused(model: Any) -> None:
    with (
        pytest.raises(ValueError, match="layer 0 has 4 heads"),
        AttentionTap(blocks(model), [(0, 7)]),
    ):
        model(IDS)


@pytest.fixture(scope="module")
def torch_layers() -> Iterator[list[nn.Module]]:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    yield [*nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval().layers]


@torch.no_grad()
def test_torchs_own_layers(torch_layers: list[nn.Module]) -> None:
    """Their fast path is one call, and their attention hides the inner one from a mode."""
    tokens = torch.randn(2, 5, 16)
    first: Any = torch_layers[0]
    _, expected = first.self_attn(tokens, tokens, tokens, average_attn_weights=False)
    with AttentionTap(torch_layers) as tap:
        torch_layers[1](first(tokens))
    torch.testing.assert_close(tap.seen.weights[0][0], expected, atol=1e-5, rtol=1e-4)
    assert torch.backends.mha.get_fastpath_enabled()
    with AttentionTap(torch_layers, [(0, h) for h in range(4)]):
        silent = first(tokens)
    bias = first.self_attn.out_proj.bias
    alone = first.norm1(tokens + bias)
    torch.testing.assert_close(silent, first.norm2(alone + first._ff_block(alone)))


@pytest.mark.parametrize("library", ["timm-fused", "timm"])
@torch.no_grad()
def test_pictures_of_timm(library: str) -> None:
    import timm

    vit: Any = timm.create_model("test_vit", img_size=32).eval()
    for block in vit.blocks:
        block.attn.fused_attn = library == "timm-fused"
    with AttentionTap(vit.blocks) as tap:
        vit(torch.randn(1, 3, 32, 32))
    assert [*tap.seen.weights] == [*range(len(vit.blocks))]
    for (weights,) in tap.seen.weights.values():
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, "bool", "float"])
@pytest.mark.parametrize("grouped", [False, True])
def test_weights_times_values_are_what_torch_computes(
    causal: bool, mask: str | None, grouped: bool
) -> None:
    if causal and mask:
        return
    heads = 2 if grouped else 4
    query, key, value = torch.randn(2, 4, 5, 8), *torch.randn(2, 2, heads, 5, 8)
    bias = {"bool": torch.ones(5, 5, dtype=torch.bool).tril(), "float": torch.randn(5, 5)}
    options: dict[str, Any] = {"is_causal": causal, "enable_gqa": grouped}
    options["attn_mask"] = bias.get(mask or "")
    weights = attention_weights(query, key, value, **options)
    repeated = value.repeat_interleave(4 // heads, 1)
    expected = F.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(weights @ repeated, expected, atol=1e-5, rtol=1e-4)
