"""`to_encoder_decoder`: copied weights; the encoder under a causal mask is the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import saved, tiny
from transformers import AutoModelForSeq2SeqLM, EncoderDecoderModel

from sensorium.backbones.seq2seq import Seq2Seq
from sensorium.engine.model import build
from sensorium.engine.model.transforms import convert
from sensorium.engine.model.transforms.layers.heads import attention_of
from sensorium.engine.model.transforms.layers.maps import rows_of
from sensorium.engine.model.transforms.layers.structure import find_stack
from sensorium.engine.recipe import parse_recipe, parse_transforms
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Features
from sensorium.modalities.text.tokenizers import Bytes

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
        ("gpt_neox", {}, "no attention with separate maps of queries, keys and values"),
        ("modernbert", {}, "modernbert is no causal language model"),
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


OF_LAYERS = ["llama", "gpt2", "qwen3", "opt", "phi", "phi3", "gemma", "gpt_bigcode", "qwen2"]
CROSS = [f"{name}_proj.weight" for name in "qkvo"]


@pytest.mark.quick_share(9)
@pytest.mark.parametrize("kind", OF_LAYERS)
def test_any_causal_model_becomes_a_pair_of_its_layers(kind: str, tmp_path: Path) -> None:
    """The encoder under a causal mask is the source, cross-attention begins as self-attention, and
    the pair is a backbone: its library's logits, blind to padding and to later tokens, and what it
    generates is what teacher forcing finds."""
    folder = saved(kind, tmp_path / "old", vocab_size=300)
    model = convert(folder, parse_transforms("[{type: to_encoder_decoder}]", "t"), tmp_path / "new")
    source = tiny(kind, vocab_size=300)
    hidden = stack_logits(model.get_encoder(), source, IDS, causal=True)
    with torch.no_grad():
        torch.testing.assert_close(hidden, source(IDS).logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(stack_logits(model.get_encoder(), source, IDS, causal=False), hidden)
    stacks = find_stack(model, "decoder"), find_stack(source)
    for i, (layer, old) in enumerate(zip(*(s.layers for s in stacks), strict=True)):
        attention = attention_of(old, i, stacks[1])
        cross = {n.partition("cross_attn.")[2]: p for n, p in layer.named_parameters()}
        maps = [rows_of(getattr(attention, name)) for name in ("query", "key", "value", "output")]
        if attention.fused:
            size = attention.kv_heads * attention.head_dim
            maps[:3] = maps[0].split([len(maps[0]) - 2 * size, size, size])
        assert all(torch.equal(cross[name], w) for name, w in zip(CROSS, maps, strict=True))
    backbone = Seq2Seq(tokenizer=Bytes(), name=str(tmp_path / "new"))
    backbone.load()
    check_pair(backbone.eval())


@torch.no_grad()
def check_pair(backbone: Any) -> None:
    torch.manual_seed(0)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    context, embeds = Features(torch.randn(2, 5, 16), mask), torch.randn(2, 4, 16)
    logits = backbone.logits(backbone(embeds, None, context))
    for row, count in enumerate((5, 3)):
        tokens, rows = context.tokens[row : row + 1, :count], slice(row, row + 1)
        library = backbone.model(inputs_embeds=tokens, decoder_inputs_embeds=embeds[rows]).logits
        torch.testing.assert_close(logits[rows], library, rtol=1e-4, atol=1e-4)
    changed = torch.cat([embeds[:, :-1], embeds[:, -1:] + 1], 1)
    after = backbone.logits(backbone(changed, None, context))
    torch.testing.assert_close(after[:, :-1], logits[:, :-1], rtol=1e-4, atol=1e-4)
    other = Features(torch.randn(2, 5, 16), mask)
    assert not torch.allclose(backbone.logits(backbone(embeds, None, other)), logits, atol=1e-2)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    ids = backbone.generate(context, **options)
    assert torch.equal(ids, backbone.generate(context, use_cache=False, **options))
    forced = backbone.logits(backbone.teacher_force(context, ids, torch.ones_like(ids).bool()))
    assert torch.equal(forced.argmax(-1), ids)


@pytest.mark.slow
def test_a_pair_of_two_sizes_trains_by_a_recipe(tmp_path: Path, runner: Any) -> None:
    """A smaller decoder beside a Llama: keys and values of the other width begin at random."""
    small = {"hidden_size": 8, "num_hidden_layers": 2}
    other = saved("llama", tmp_path / "small", seed=1, vocab_size=300, **small)
    folder = saved("llama", tmp_path / "old", vocab_size=300)
    steps = parse_transforms(f"[{{type: to_encoder_decoder, decoder: '{other}'}}]", "t")
    pair = convert(folder, steps, tmp_path / "new")
    first = find_stack(pair, "decoder").layers[0]
    assert own(first, "self_attn.cross_attn.k_proj.weight").shape == (8, 16)
    weight = own(first, "self_attn.q_proj.weight")
    assert torch.equal(own(first, "self_attn.cross_attn.q_proj.weight"), weight)
    task = {"type": "captioning", "prompt": "{word}", "target": " {parity}"}
    data = {"train": {"source": "digits", "split": "train", "limit": 8}}
    recipe = {
        "inputs": {},
        "backbone": {"type": "seq2seq", "name": str(tmp_path / "new"), "tokenizer": "bytes"},
        "tasks": {"say": {**task, "data": data}},
        "train": {"steps": 6, "batch_size": 4, "log_every": 1, "optimizer": {"lr": 1e-2}},
    }
    before = build(parse_recipe(recipe)).state_dict()
    after = runner.train(recipe, "run").state_dict()
    moved = [n for n in after if "cross_attn" in n and not torch.equal(after[n], before[n])]
    assert len(moved) == 8
    losses = [loss for *_, loss in runner.losses("run")]
    assert losses[-1] < losses[0]
    recipe["train"]["activation_checkpointing"] = True
    with pytest.raises(ConfigError, match="activation_checkpointing: the cross-attention"):
        runner.train(recipe, "other")
