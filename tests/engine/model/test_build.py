"""A published model is built without the data that it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from sensorium.engine.model import build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.utils import ConfigError
from sensorium.modalities.text.tokenizers import BPE


def recipe(text: dict[str, Any]) -> dict[str, Any]:
    picture = {"type": "patches", "size": 8, "patch_size": 4, "dim": 8, "weights": "none"}
    return {
        "inputs": {
            "image": {"modality": "image", "encoder": picture, "connector": "mean"},
            "words": {"modality": "text", "encoder": text, "connector": "mean"},
        },
        "tasks": {"match": {"type": "contrastive", "streams": ["image", "words"], "dim": 8}},
    }


def test_a_checkpoints_own_tokenizer_needs_no_training_split(tmp_path: Path) -> None:
    tokenizer = BPE(size=270)
    tokenizer.fit(["a red robot"])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(tmp_path)
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=270, intermediate_size=8, **small)).save_pretrained(tmp_path)
    model = build(parse_recipe(recipe({"type": "transformers", "name": str(tmp_path)})))
    assert model.stream("words").dim == 8


def test_a_tokenizer_that_learns_does() -> None:
    config = {"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2}
    text = {"type": "transformers", "config": config, "tokenizer": {"type": "bpe", "size": 270}}
    with pytest.raises(ConfigError, match="has no split 'train'"):
        build(parse_recipe(recipe(text)))
