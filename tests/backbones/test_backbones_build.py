"""Building: configurations, checkpoints, the meta device, states, and added tokens."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from sensorium.backbones.causal import Causal
from sensorium.backbones.seq2seq import Seq2Seq
from sensorium.modalities.base import Features

STACKS = ("llama", "qwen3", "gemma3", "gpt2", "opt", "phi", "gpt_neox", "mamba2")
PAIRS = ("t5", "bart", "t5gemma")
EAGER = ("t5gemma", "mamba2", "bloom")


def attn(kind: str) -> str:
    return "eager" if kind in EAGER else "sdpa"


def context_of(model: Any, ids: torch.Tensor) -> Features:
    return Features.dense(model.embed(ids))


@pytest.mark.parametrize(("family", "name"), [(Causal, "tiny-llama"), (Seq2Seq, "tiny-t5")])
def test_built_in_configurations_take_the_tokenizers_size(
    family: Any, name: str, tokenizer: Any
) -> None:
    model = family(tokenizer=tokenizer, name=name, options={"num_hidden_layers": 2})
    assert model.table.num_embeddings == tokenizer.size
    assert len(model.blocks()) == (2 if family is Causal else 5)  # an encoder of 2, a decoder of 3
    assert model.table.padding_idx is None  # the row of padding trains like the others
    assert not family.has_pretrained_weights({"name": name})
    resolved = family.resolve({"name": name})
    assert json.loads(json.dumps(resolved)) == resolved
    with pytest.raises(ValueError, match="carries no pretrained weights"):
        model.load()


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("kind", [*STACKS, *PAIRS])
def test_local_checkpoints_are_bit_exact(
    kind: str, tmp_path: Path, configs: Any, tokenizer: Any
) -> None:
    family = Seq2Seq if kind in PAIRS else Causal
    auto = AutoModelForSeq2SeqLM if kind in PAIRS else AutoModelForCausalLM
    fields = {"vocab_size": tokenizer.size, **configs[kind]}
    expected = auto.from_config(AutoConfig.for_model(**fields)).eval()
    expected.save_pretrained(tmp_path)
    options = {"name": str(tmp_path)}
    assert family.has_pretrained_weights(options)
    resolved = family.resolve(options)
    model = family(tokenizer=tokenizer, attn=attn(kind), **resolved).eval()
    for parameter in model.model.parameters():
        parameter.requires_grad_(False)
    model.load()
    assert not any(p.requires_grad for p in model.model.parameters())
    assert not model.model.training
    result = model.model.state_dict()
    for key, value in expected.state_dict().items():
        assert torch.equal(result[key], value), key
    assert model.model.config.to_dict()["vocab_size"] == tokenizer.size


def test_a_checkpoint_fills_a_model_on_the_meta_device(
    tmp_path: Path, configs: Any, tokenizer: Any
) -> None:
    fields = {"vocab_size": tokenizer.size, **configs["gemma3"]}
    expected = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields)).eval()
    expected.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = Causal(tokenizer=tokenizer, name=str(tmp_path)).eval()
    model.load()
    ids = torch.tensor([[4, 9, 5]])
    hidden = model(model.embed(ids))
    torch.testing.assert_close(model.logits(hidden), expected(input_ids=ids).logits)


def test_a_folder_without_weights_carries_none(tmp_path: Path, tokenizer: Any) -> None:
    config = AutoConfig.for_model("llama", vocab_size=50, hidden_size=32, num_hidden_layers=1)
    config.save_pretrained(tmp_path)
    for name in (str(tmp_path), str(tmp_path / "config.json")):
        assert not Causal.has_pretrained_weights({"name": name})
        resolved = Causal.resolve({"name": name, "attn": "eager"})
        with torch.device("meta"):
            model = Causal(tokenizer=tokenizer, **resolved)
        assert (model.dim, model.table.num_embeddings) == (32, 50)
    assert Causal.has_pretrained_weights({"name": "org/model"})


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, configs: Any, tokenizer: Any) -> None:
    fields = {"vocab_size": tokenizer.size, **configs["llama"]}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields)).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("model.layers.1.mlp.up_proj.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = Causal(tokenizer=tokenizer, name=str(tmp_path))
    with pytest.raises(ValueError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        model.load()


SEVEN = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("how", ["causal", "prefix", "block"])
def test_seven_billion_parameters_on_the_meta_device(how: Any, tokenizer: Any) -> None:
    with torch.device("meta"):
        model = Causal(tokenizer=tokenizer, config=SEVEN)
        context = Features.dense(torch.empty(2, 576, model.dim))
        ids = torch.zeros(2, 5, dtype=torch.long)
        hidden = model.teacher_force(context, ids, torch.ones_like(ids).bool(), how)
        logits = model.logits(hidden)
        memory = model.prefill(context, how)
        after = model(model.embed(ids), context=memory, attention=how)
    assert sum(p.numel() for p in model.parameters()) > 6.5e9
    assert (logits.shape, after.shape) == ((2, 5, 32000), (2, 5, 4096))
    assert logits.device.type == "meta"


@pytest.mark.parametrize("kind", ["gemma3", "gpt2", "opt", "bloom", "mamba2", *PAIRS])
def test_every_family_on_the_meta_device(kind: str, configs: Any, tokenizer: Any) -> None:
    family = Seq2Seq if kind in PAIRS else Causal
    with torch.device("meta"):
        model = family(tokenizer=tokenizer, config=configs[kind], attn=attn(kind))
        context = Features.dense(torch.empty(2, 6, model.dim))
        ids = torch.zeros(2, 5, dtype=torch.long)
        hidden = model.teacher_force(context, ids, torch.ones_like(ids).bool())
        model.logits(hidden).sum().backward()
        first = model.add_tokens(3)
    assert hidden.shape == (2, 5, model.dim)
    assert first == tokenizer.size


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2", "opt", "phi", *PAIRS])
def test_only_added_tokens_train(kind: str, build: Callable[..., Any], tokenizer: Any) -> None:
    model = build(kind, attn=attn(kind))
    model.requires_grad_(False)
    plain = torch.randint(3, 40, (2, 5))
    before = model.logits(model.teacher_force(context_of(model, plain), plain, plain > 0))
    tables = {k: v.clone() for k, v in model.model.state_dict().items()}
    assert model.add_tokens(2) == tokenizer.size
    assert model.add_tokens(1) == tokenizer.size + 2
    after = model.logits(model.teacher_force(context_of(model, plain), plain, plain > 0))
    assert after.shape[-1] == tokenizer.size + 3
    torch.testing.assert_close(after[..., : tokenizer.size], before)
    ids = torch.tensor([[5, 40, 42, 41], [41, 7, 40, 42]])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    old = {k: v.clone() for k, v in model.new_rows.items()}
    logits = model.logits(model.teacher_force(context_of(model, ids), ids, ids > 0))
    nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
    optimizer.step()
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad} == {"new_rows"}
    for key, rows in model.new_rows.items():
        assert ((rows - old[key]).abs().amax(1) > 0).all()
    for key, value in model.model.state_dict().items():
        assert torch.equal(value, tables[key]), key
    some = torch.tensor([41, 3, 40])
    logits = model.logits(model.teacher_force(context_of(model, ids), ids, ids > 0))
    chosen = model.logits(model.teacher_force(context_of(model, ids), ids, ids > 0), some)
    torch.testing.assert_close(chosen, logits[..., some], rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2", "phi", *PAIRS])
@torch.no_grad()
def test_added_tokens_are_as_if_the_table_had_them(
    kind: str, configs: Any, build: Callable[..., Any], tokenizer: Any
) -> None:
    """The same model with larger tables: embeddings, logits, and ids that are generated."""
    model = build(kind, attn=attn(kind))
    model.add_tokens(3)
    for rows in model.new_rows.values():
        rows.copy_(torch.randn_like(rows))
    large = copy.deepcopy(model.model)
    tables, tied = model._tables(), "output" not in model.new_rows
    large.resize_token_embeddings(tokenizer.size + 3, mean_resizing=False)
    for path in tables:
        large.get_submodule(path).weight[tokenizer.size :] = model.new_rows["input"]
    if not tied:
        large.get_output_embeddings().weight[tokenizer.size :] = model.new_rows["output"]
    enlarged = type(model).__new__(type(model))
    enlarged.__dict__ = {**model.__dict__, "_modules": {**model._modules, "model": large}}
    enlarged._modules["new_rows"] = nn.ParameterDict()
    ids = torch.tensor([[5, 40, 42, 41, 3]])
    torch.testing.assert_close(model.embed(ids), enlarged.embed(ids))
    result = model.teacher_force(context_of(model, ids), ids, ids > 0)
    expected = enlarged.teacher_force(context_of(enlarged, ids), ids, ids > 0)
    torch.testing.assert_close(
        model.logits(result), enlarged.logits(expected), rtol=1e-4, atol=1e-4
    )
    options = {"max_new_tokens": 12, "num_beams": 2, "eos_token_id": None}
    generated = model.generate(context_of(model, ids), **options)
    torch.testing.assert_close(generated, enlarged.generate(context_of(enlarged, ids), **options))


@torch.no_grad()
def test_an_adapted_head_is_used(build: Callable[..., Any]) -> None:
    model = build("llama")
    config = LoraConfig(r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    inject_adapter_in_model(config, model)
    model.add_tokens(2)
    ids = torch.tensor([[5, 40, 7, 41]])
    hidden = model(model.embed(ids))
    logits = model.logits(hidden)
    torch.testing.assert_close(logits[..., :40], model.model(inputs_embeds=model.embed(ids)).logits)
    some = torch.tensor([41, 3])
    torch.testing.assert_close(model.logits(hidden, some), logits[..., some])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_states_go_there_and_back(kind: str, build: Callable[..., Any], tokenizer: Any) -> None:
    one, two = build(kind), build(kind)
    one.add_tokens(2)
    two.add_tokens(2)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    two.load_state_dict(one.state_dict())
    ids = torch.tensor([[5, 40, 41, 7]])
    first, second = (m.teacher_force(context_of(m, ids), ids, ids > 0) for m in (one, two))
    assert torch.equal(one.logits(first), two.logits(second))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba2", "t5", "bart", "t5gemma"])
def test_blocks_are_the_layers_in_order(kind: str, build: Callable[..., Any]) -> None:
    model = build(kind, attn=attn(kind))
    blocks = model.blocks()
    assert len(blocks) == (4 if kind in PAIRS else 2)
    order = [m for m in model.modules() if m in set(blocks)]
    assert list(blocks) == order


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name: is required here; for example tiny-llama"),
        ({"name": "tiny-lama"}, "name: 'tiny-lama' is no folder"),
        ({"config": {"model_type": "lama"}}, "found 'lama'.*did you mean"),
        ({"config": {"hidden_size": 3}}, "config.model_type: found None"),
        (
            {"name": "tiny-llama", "options": {"num_hidden_layer": 1}},
            "options.num_hidden_layer: llama has no such field; did you mean 'num_hidden_layers'",
        ),
        ({"name": "tiny-llama", "options": {"hidden_size": 130}}, "config: llama refuses it"),
        (
            {"name": "tiny-llama", "options": {"vocab_size": 7}},
            "tokenizer: has 40 ids, llama embeds 7",
        ),
        (
            {"config": {"model_type": "gemma2", "num_hidden_layers": 1}},
            "attn: gemma2 has no sdpa attention; set attn: eager",
        ),
    ],
)
def test_mistakes_of_a_recipe(options: dict[str, Any], message: str, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Causal(tokenizer=tokenizer, **options)
    assert "\n" not in str(error.value)


def test_an_unknown_name_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"tiny-lama.*did you mean 'tiny-llama'") as error:
        Causal.resolve({"name": "tiny-lama"})
    assert "\n" not in str(error.value)


def test_a_table_scaled_from_outside_is_refused(tokenizer: Any) -> None:
    fields = {"model_type": "marian", "vocab_size": 40, "d_model": 16, "pad_token_id": 0}
    small = {f"{s}_{k}": 2 for s in ("encoder", "decoder") for k in ("layers", "attention_heads")}
    config = {**fields, **small, "scale_embedding": True, "decoder_vocab_size": 40}
    with pytest.raises(ValueError, match="marian scales embeddings outside its table"):
        Seq2Seq(tokenizer=tokenizer, config=config)


def test_half_precision_takes_wider_embeds(build: Callable[..., Any]) -> None:
    model = build("llama", dtype="bfloat16")
    mask = torch.tensor([[True, True, False]])
    context = Features(torch.randn(1, 3, model.dim), mask)
    for how in ("causal", "block"):
        hidden = model(torch.randn(1, 2, model.dim), context=context, attention=how)
        assert hidden.dtype == torch.bfloat16
        assert hidden.isfinite().all()
