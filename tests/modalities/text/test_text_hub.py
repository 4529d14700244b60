"""The encoders on transformers' models: parity, kinds of models, vocabularies, mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, LlamaConfig, LlamaForCausalLM

from sensorium.modalities.text.causal_lm import CausalLM
from sensorium.modalities.text.repo_id import parse_repo_id
from sensorium.modalities.text.tokenizers import BPE, PretrainedTokenizer
from sensorium.modalities.text.transformers import TransformersText

Save = Callable[..., Any]
TEXTS = ["a red robot", "the small robot pushes a blue puck to the goal, slowly", "né <image> 猫"]
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 96,
}


def build(part: Any, options: dict[str, Any], **fitted: Any) -> Any:
    """As the engine does it: resolve, then build."""
    return part(**part.resolve(options), **fitted).eval()


def encoded(encoder: Any, texts: list[str], **options: Any) -> Any:
    batch = encoder.collate([encoder.processor.prepare(text) for text in texts])
    return encoder(**batch, **options)


def test_resolving_twice_changes_nothing(tmp_path: Path) -> None:
    BertConfig(vocab_size=300, **SMALL).save_pretrained(tmp_path)
    once = TransformersText.resolve({"name": str(tmp_path)})
    assert TransformersText.resolve(json.loads(json.dumps(once))) == once


def test_bert_parity(tmp_path: Path, save_tokenizer: Save) -> None:
    torch.manual_seed(0)
    theirs = BertModel(BertConfig(vocab_size=304, **SMALL)).eval()
    theirs.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    tokenizer = PretrainedTokenizer(name=str(tmp_path))
    tokenizer.fit(())
    options = {"name": f"local-dir:{tmp_path}", "max_length": 64}
    assert TransformersText.has_pretrained_weights(options)
    ours = build(TransformersText, options, tokenizer=tokenizer)
    ours.load()

    batch = ours.collate([ours.processor.prepare(text) for text in TEXTS])
    known = theirs(batch["ids"], batch["mask"].long(), output_hidden_states=True)
    features = ours(**batch, hidden_states=(0, -1))
    real = batch["mask"]
    torch.testing.assert_close(
        features.tokens[real], known.last_hidden_state[real], rtol=0, atol=1e-6
    )
    torch.testing.assert_close(features.pooled, known.last_hidden_state[:, 0], rtol=0, atol=1e-6)
    for layer, index in zip(features.hidden_states, (1, -1), strict=True):
        torch.testing.assert_close(
            layer.tokens[real], known.hidden_states[index][real], rtol=0, atol=1e-6
        )


def test_llama_parity(tmp_path: Path, bpe: BPE) -> None:
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(LlamaConfig(vocab_size=304, num_key_value_heads=2, **SMALL)).eval()
    theirs.save_pretrained(tmp_path)
    ours = build(CausalLM, {"name": str(tmp_path), "max_length": 64}, tokenizer=bpe)
    ours.load()
    features = encoded(ours, TEXTS, hidden_states=(0,))
    for row, text in enumerate(TEXTS):
        ids = torch.tensor([bpe.encode(text, special=True)])
        known = theirs.model(ids, output_hidden_states=True)
        hidden = known.last_hidden_state[0]
        torch.testing.assert_close(features.tokens[row, : len(hidden)], hidden, rtol=0, atol=1e-5)
        torch.testing.assert_close(features.pooled[row], hidden[-1], rtol=0, atol=1e-5)
        torch.testing.assert_close(
            features.hidden_states[0].tokens[row, : len(hidden)],
            known.hidden_states[1][0],
            rtol=0,
            atol=1e-5,
        )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("org/name", {"pretrained_model_name_or_path": "org/name"}),
        ("hf-hub:org/name", {"pretrained_model_name_or_path": "org/name"}),
        ("org/name@v2", {"pretrained_model_name_or_path": "org/name", "revision": "v2"}),
        ("local-dir:a@b", {"pretrained_model_name_or_path": "a@b"}),
    ],
)
def test_ways_to_write_a_place(name: str, parts: dict[str, str]) -> None:
    assert parse_repo_id(name) == parts
    options = {"name": name}
    assert CausalLM.has_pretrained_weights(options)  # it is not here, so it must be elsewhere


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "roberta", **SMALL},
        {"model_type": "modernbert", **SMALL},
        {"model_type": "t5", "d_model": 32, "num_layers": 2, "num_heads": 2, "d_ff": 48},
        {"model_type": "distilbert", "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    ],
    ids=lambda value: value["model_type"],
)
def test_many_kinds(config: dict[str, Any], bpe: BPE) -> None:
    encoder = build(TransformersText, {"config": config, "max_length": 64}, tokenizer=bpe)
    assert encoder.dim == 32 and len(encoder.blocks()) == 2
    whole, alone = encoded(encoder, TEXTS), encoded(encoder, TEXTS[:1])
    length = alone.tokens.shape[1]
    torch.testing.assert_close(whole.tokens[0, :length], alone.tokens[0], rtol=1e-5, atol=5e-6)
    assert torch.equal(whole.pooled, whole.tokens[:, 0])
    with torch.device("meta"):
        meta = build(TransformersText, {"config": config, "max_length": 64}, tokenizer=bpe)
        ids = torch.zeros(2, 7, dtype=torch.long)
        assert meta(ids=ids, mask=ids == 0).tokens.shape == (2, 7, 32)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2},
        {"model_type": "mistral", "sliding_window": 4, "num_key_value_heads": 2, **SMALL},
        {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 2},
        {
            "model_type": "mamba2",
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_heads": 4,
            "head_dim": 16,
            "state_size": 8,
            "n_groups": 1,
        },
    ],
    ids=lambda value: value["model_type"],
)
def test_many_causal_kinds(config: dict[str, Any], bpe: BPE) -> None:
    encoder = build(CausalLM, {"config": config, "max_length": 64}, tokenizer=bpe)
    whole, alone = encoded(encoder, TEXTS), encoded(encoder, TEXTS[:1])
    torch.testing.assert_close(whole.pooled[0], alone.pooled[0], rtol=1e-5, atol=5e-6)
    assert torch.equal(alone.pooled[0], alone.tokens[0, -1])
    with torch.device("meta"):
        meta = build(CausalLM, {"config": config, "max_length": 64}, tokenizer=bpe)
        ids = torch.zeros(2, 7, dtype=torch.long)
        assert meta(ids=ids, mask=ids == 0).pooled.shape == (2, 32)


def test_no_class_token_no_pooled(bpe: BPE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "bos_id", None)
    config = {"model_type": "bert", **SMALL}
    encoder = build(TransformersText, {"config": config, "max_length": 64}, tokenizer=bpe)
    assert encoded(encoder, TEXTS).pooled is None


def test_configurations_survive_json(tmp_path: Path, bpe: BPE) -> None:
    """mamba2 has an infinity in its configuration."""
    config = {"model_type": "mamba2", "num_heads": 4, "head_dim": 16, "hidden_size": 32}
    whole = CausalLM(config={**config, "num_hidden_layers": 1}, tokenizer=bpe).whole
    whole.save_pretrained(tmp_path)
    options = json.loads(json.dumps(CausalLM.resolve({"name": str(tmp_path)})))
    assert CausalLM(**options, tokenizer=bpe).whole.to_dict() == {
        **whole.to_dict(),
        "_name_or_path": options["config"].get("_name_or_path", ""),
    }
    assert not CausalLM.has_pretrained_weights(options)  # a configuration without weights


def test_a_bigger_vocabulary_is_fine_a_smaller_one_is_not(bpe: BPE) -> None:
    config = BertConfig(vocab_size=bpe.size - 1, **SMALL).to_diff_dict()
    options = {"name": "somewhere", "config": config, "max_length": 64}
    with pytest.raises(ValueError, match=f"has {bpe.size} ids, the model {bpe.size - 1} rows"):
        TransformersText(**options, tokenizer=bpe)
    TransformersText(**{**options, "config": {**config, "vocab_size": 900}}, tokenizer=bpe)


def test_the_tokenizer_decides_a_new_vocabulary(bpe: BPE) -> None:
    encoder = TransformersText(config={"model_type": "bert", **SMALL}, tokenizer=bpe, max_length=64)
    assert encoder.whole.vocab_size == bpe.size
    assert encoder.whole.pad_token_id == bpe.pad_id


@pytest.mark.parametrize(
    ("part", "options", "message"),
    [
        (TransformersText, {}, "give name .* or config"),
        (TransformersText, {"config": {"model_type": "brt"}}, "model_type 'brt', unknown"),
        (TransformersText, {"config": {"model_type": "clip"}}, "several towers"),
        (
            TransformersText,
            {"config": {"model_type": "bert", "vocab_size": 7}},
            "vocab_size 7, the",
        ),
        (TransformersText, {"config": {"model_type": "bert", **SMALL}}, "is 512, the model has 96"),
        (TransformersText, {"config": {"model_type": "roberta", **SMALL}}, "the model has 95"),
        (CausalLM, {"config": {"model_type": "t5"}}, "has an encoder of its own"),
    ],
)
def test_mistakes_are_named(part: Any, options: dict[str, Any], message: str, bpe: BPE) -> None:
    with pytest.raises(ValueError, match=message):
        part(**options, tokenizer=bpe)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing")
    for part in (TransformersText, CausalLM):
        with pytest.raises(ValueError, match=f"no model at '{missing}'"):
            part.resolve({"name": missing})


def test_loading_what_is_not_there(tmp_path: Path, bpe: BPE) -> None:
    config = BertConfig(vocab_size=300, **SMALL)
    encoder = TransformersText(config={"model_type": "bert", **SMALL}, tokenizer=bpe, max_length=64)
    with pytest.raises(ValueError, match="carries no pretrained weights"):
        encoder.load()
    # A masked-LM's checkpoint has everything that is read; one of fewer layers does not.
    BertForMaskedLM(config).save_pretrained(tmp_path / "whole")
    build(
        TransformersText, {"name": str(tmp_path / "whole"), "max_length": 64}, tokenizer=bpe
    ).load()
    BertModel(BertConfig(vocab_size=300, **{**SMALL, "num_hidden_layers": 1})).save_pretrained(
        tmp_path / "half"
    )
    config.save_pretrained(tmp_path / "half")
    half = build(
        TransformersText, {"name": str(tmp_path / "half"), "max_length": 64}, tokenizer=bpe
    )
    with pytest.raises(ValueError, match="lacks 16 weights"):
        half.load()


def test_layers_out_of_range(bpe: BPE) -> None:
    config = {"model_type": "bert", **SMALL}
    encoder = build(TransformersText, {"config": config, "max_length": 64}, tokenizer=bpe)
    with pytest.raises(ValueError, match="layer 2 was requested, found 2 layers"):
        encoded(encoder, TEXTS, hidden_states=(2,))
