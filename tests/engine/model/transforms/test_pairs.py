"""`to_encoder_decoder`: copied weights; the encoder under a causal mask is the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import saved, tiny
from transformers import AutoModelForSeq2SeqLM, EncoderDecoderModel

from sensorium.engine.model.transforms import convert
from sensorium.engine.model.transforms.layers.structure import find_stack
from sensorium.engine.recipe import parse_transforms
from sensorium.engine.utils import ConfigError

IDS = torch.tensor([[5, 9, 3, 17, 4, 8]])
KINDS = {"gemma2": AutoModelForSeq2SeqLM, "bert": EncoderDecoderModel,
         "roberta": EncoderDecoderModel}  # fmt: skip


def converted(kind: str, tmp_path: Path, **options: Any) -> Any:
    folder = saved(kind, tmp_path / "old")
    step = {"type": "to_encoder_decoder", **options}
    convert(folder, parse_transforms(repr([step]), "t"), tmp_path / "new")
    return KINDS[kind].from_pretrained(tmp_path / "new", attn_implementation="eager").eval()


@torch.no_grad()
def stack_logits(stack: Any, source: Any, ids: torch.Tensor, causal: bool) -> torch.Tensor:
    """Logits of a source's head over the hidden states of a stack."""
    length = ids.shape[1]
    mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]
    if not causal:
        mask = torch.zeros_like(mask)
    mapping: Any = mask
    if source.config.model_type == "gemma2":
        mapping = {"full_attention": mask, "sliding_attention": mask}
    hidden = stack(input_ids=ids, attention_mask=mapping).last_hidden_state
    head = getattr(source, "cls", None) or getattr(source, "lm_head", None)
    logits: torch.Tensor = head(hidden)
    cap = getattr(source.config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_under_the_sources_mask_is_the_source(kind: str, tmp_path: Path) -> None:
    """Gemma's is causal, BERT's is none; and the pair generates with and without a cache alike."""
    pair, source = converted(kind, tmp_path), tiny(kind)
    causal = kind == "gemma2"
    result = stack_logits(pair.get_encoder(), source, IDS, causal)
    with torch.no_grad():
        torch.testing.assert_close(result, source(IDS).logits, rtol=1e-4, atol=1e-4)
    other = stack_logits(pair.get_encoder(), source, IDS, not causal)
    assert not torch.allclose(other, result, atol=1e-2)
    start = {"decoder_start_token_id": 1, "max_new_tokens": 4, "do_sample": False}
    tokens = [pair.generate(IDS, use_cache=use, **start) for use in (True, False)]
    assert torch.equal(*tokens)


def own(layer: Any, name: str) -> torch.Tensor:
    return dict(layer.named_parameters())[name].detach()


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("kind", KINDS)
def test_cross_attention_begins_as_self_attention(kind: str, tmp_path: Path) -> None:
    pair, source = converted(kind, tmp_path), tiny(kind)
    names = ("self_attn.q_proj.weight", "cross_attn.q_proj.weight")
    if kind != "gemma2":
        names = ("attention.self.query.weight", "crossattention.self.query.weight")
    layers = find_stack(pair, "decoder").layers
    for layer, old in zip(layers, find_stack(source).layers, strict=True):
        for name in names:
            assert torch.equal(own(layer, name), own(old, names[0]))


def test_two_sizes(tmp_path: Path) -> None:
    """A decoder of half the width: copied; cross-attention where it fits."""
    small = {"hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 4}
    other = saved("gemma2", tmp_path / "small", seed=1, num_hidden_layers=2, **small)
    pair = converted("gemma2", tmp_path, decoder=str(other))
    source = tiny("gemma2", 1, num_hidden_layers=2, **small)
    layers = find_stack(pair, "decoder").layers
    assert len(layers) == 2 and len(find_stack(pair, "encoder")) == 4
    for layer, old in zip(layers, find_stack(source).layers, strict=True):
        weight = own(old, "self_attn.q_proj.weight")
        assert torch.equal(own(layer, "self_attn.q_proj.weight"), weight)
        assert torch.equal(own(layer, "cross_attn.q_proj.weight"), weight)
        assert own(layer, "cross_attn.k_proj.weight").shape == (8, 16)  # of the encoder's width
    logits = pair(input_ids=IDS, decoder_input_ids=IDS).logits
    assert bool(logits.isfinite().all()) and logits.shape[-1] == 24


@pytest.mark.parametrize("kind", ["bert", "gemma2"])
def test_interleaved_layers(kind: str, tmp_path: Path) -> None:
    """DeltaLM: self-attention of layer i from 2 i, the rest from 2 i + 1."""
    pair, source = converted(kind, tmp_path, interleave=True), tiny(kind)
    gemma = kind == "gemma2"
    attention = "self_attn.q_proj.weight" if gemma else "attention.self.query.weight"
    cross = "cross_attn.q_proj.weight" if gemma else "crossattention.self.query.weight"
    forward = "mlp.up_proj.weight" if gemma else "intermediate.dense.weight"
    layers, old = find_stack(pair, "decoder").layers, find_stack(source).layers
    assert len(layers) == 2
    for i, layer in enumerate(layers):
        assert torch.equal(own(layer, attention), own(old[2 * i], attention))
        assert torch.equal(own(layer, cross), own(old[2 * i + 1], attention))
        assert torch.equal(own(layer, forward), own(old[2 * i + 1], forward))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("llama", {}, "llama has no layers with cross-attention; llama has other layers"),
        ("gpt2", {}, "gpt2 has no layers with cross-attention"),
        ("t5", {}, "t5 is an encoder-decoder already"),
        ("bert", {"decoder": "other"}, "decoder: embeds 30 tokens, the encoder 24"),
    ],
)
def test_what_does_not_fit_is_refused(
    kind: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = saved(kind, tmp_path / "old")
    if options:
        options = {"decoder": str(saved("bert", tmp_path / "other", vocab_size=30))}
    step = {"type": "to_encoder_decoder", **options}
    with pytest.raises(ConfigError, match=message) as error:
        convert(folder, parse_transforms(repr([step]), "t"), tmp_path / "new")
    assert "\n" not in str(error.value)
