"""Text encoders with the head of their language model: `embed` and `logits`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from sensorium.modalities.text.causal_lm import CausalLM
from sensorium.modalities.text.tokenizers import Bytes
from sensorium.modalities.text.transformers import TransformersText

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 128}
CONFIGS: dict[str, dict[str, Any]] = {
    **{kind: {"model_type": kind, **SMALL} for kind in ("bert", "deberta-v2", "deberta")},
    **{kind: {"model_type": kind, **SMALL} for kind in ("roberta", "xlm-roberta", "modernbert")},
    "electra": {"model_type": "electra", **SMALL, "embedding_size": 16},
    "albert": {"model_type": "albert", **SMALL, "embedding_size": 16},
    "distilbert": {"model_type": "distilbert", **DISTIL},
    "llama": {"model_type": "llama", **SMALL},
    "gemma2": {"model_type": "gemma2", **SMALL, "head_dim": 8, "query_pre_attn_scalar": 8},
}
CAUSAL = ("llama", "gemma2")
TEXTS = ["a red robot", "a small one that pushes a puck"]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def make(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    family = CausalLM if kind in CAUSAL else TransformersText
    part = family(config=CONFIGS[kind], tokenizer=Bytes(), max_length=64, **options).eval()
    for name, parameter in part.named_parameters():
        if parameter.ndim > 1 or "bias" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return part


def batch_of(part: Any) -> dict[str, torch.Tensor]:
    batch: dict[str, torch.Tensor] = part.collate([part.processor.prepare(t) for t in TEXTS])
    return batch


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_logits_are_the_models_own(kind: str) -> None:
    part = make(kind, lm_head=True)
    assert "vocabulary" in part.supports
    batch = batch_of(part)
    features = part(**batch)
    expected = part.model(input_ids=batch["ids"], attention_mask=batch["mask"].long()).logits
    real, logits = batch["mask"], part.logits(features.tokens)
    torch.testing.assert_close(logits[real], expected[real], **CLOSE)
    some = torch.tensor([7, 3, 21])
    chosen = part.logits(features.tokens[real], some)
    torch.testing.assert_close(chosen, expected[real][:, some], **CLOSE)


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_the_head_changes_no_features(kind: str) -> None:
    whole, plain = make(kind, lm_head=True), make(kind)
    assert "vocabulary" not in plain.supports
    plain.model.load_state_dict(whole.encoder.state_dict())
    batch = batch_of(plain)
    one, other = whole(**batch), plain(**batch)
    assert torch.equal(one.tokens, other.tokens)
    assert len(whole.blocks()) == len(plain.blocks())


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_embeddings_stand_for_ids(kind: str) -> None:
    part = make(kind)
    batch = batch_of(part)
    embeds = part.embed(batch["ids"])
    torch.testing.assert_close(
        part(**batch, inputs_embeds=embeds).tokens, part(**batch).tokens, **CLOSE
    )
    moved = part(**batch, inputs_embeds=embeds + 0.1 * torch.randn_like(embeds))
    assert not torch.allclose(moved.tokens, part(**batch).tokens, atol=1e-3)


def test_echo_reads_embeddings_twice() -> None:
    part = make("llama", echo=True)
    batch = batch_of(part)
    result = part(**batch, inputs_embeds=part.embed(batch["ids"]))
    torch.testing.assert_close(result.tokens, part(**batch).tokens, **CLOSE)


@pytest.mark.parametrize("kind", ["bert", "modernbert", "deberta", "llama"])
def test_layers_are_returned_behind_their_hooks(kind: str) -> None:
    part = make(kind)
    batch = batch_of(part)
    plain = part(**batch, hidden_states=(0, 1)).hidden_states
    result = part(
        **batch, hidden_states=(0, 1), layer_hooks={0: lambda tokens, mask: 2 * tokens}
    ).hidden_states
    torch.testing.assert_close(result[0].tokens, 2 * plain[0].tokens)
    assert not torch.allclose(result[1].tokens, plain[1].tokens, atol=1e-3)


@pytest.mark.parametrize("kind", ["bert", "modernbert", "llama"])
def test_checkpoints_bring_their_head(kind: str, tmp_path: Path) -> None:
    auto = AutoModelForCausalLM if kind in CAUSAL else AutoModelForMaskedLM
    ids = {f"{name}_token_id": i for i, name in enumerate(("pad", "bos", "eos", "cls", "sep"))}
    config = AutoConfig.for_model(**CONFIGS[kind], vocab_size=Bytes.size, **ids)
    expected = auto.from_config(config).eval()
    expected.save_pretrained(tmp_path)
    family = CausalLM if kind in CAUSAL else TransformersText
    options = family.resolve({"name": str(tmp_path), "lm_head": True, "max_length": 64})
    part = family(**options, tokenizer=Bytes()).eval()
    part.load()
    batch = batch_of(part)
    known = expected(input_ids=batch["ids"], attention_mask=batch["mask"].long()).logits
    real = batch["mask"]
    torch.testing.assert_close(part.logits(part(**batch).tokens)[real], known[real], **CLOSE)
    expected.base_model.save_pretrained(tmp_path)
    if kind != "llama":
        with pytest.raises(ValueError, match=r"lacks \d+ weights"):
            family(**options, tokenizer=Bytes()).load()


def test_on_the_meta_device() -> None:
    with torch.device("meta"):
        part = TransformersText(
            config=CONFIGS["bert"], tokenizer=Bytes(), max_length=64, lm_head=True
        )
        ids = torch.zeros(2, 5, dtype=torch.long)
        features = part(ids, torch.ones(2, 5, dtype=torch.bool))
        assert part.logits(features.tokens).shape == (2, 5, Bytes.size)


def test_models_without_a_head_are_named() -> None:
    t5 = {"model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}
    with pytest.raises(ValueError, match=r"transformers: t5 has no .* head; leave lm_head out"):
        TransformersText(config=t5, tokenizer=Bytes(), max_length=64, lm_head=True)
    part = TransformersText(config=CONFIGS["bert"], tokenizer=Bytes(), max_length=64)
    with pytest.raises(ValueError, match="transformers: has no head; set lm_head: true"):
        part.logits(torch.zeros(1, 2, 32))
