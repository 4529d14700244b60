"""A recipe whose rows name their languages: each trains the adapters of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from sensorium.engine.model import build
from sensorium.engine.recipe import parse_recipe

LANGUAGES = ["en_XX", "de_DE", "de_CH"]
WORDS = {"en_XX": ["house", "water", "tree"], "de_CH": ["huus", "wasser", "baum"]}
CONFIG = {
    "model_type": "xmod",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 34,
    "languages": LANGUAGES,
    "default_language": "de_DE",
    "adapter_reduction_factor": 2,
}


def recipe(runner: Any, languages: list[str]) -> dict[str, Any]:
    rows = [{"text": {"text": w, "language": name}} for name in languages for w in WORDS[name]]
    path = runner.folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    encoder = {"type": "transformers", "config": CONFIG, "tokenizer": "bytes", "max_length": 32}
    stream = {"modality": "text", "encoder": {**encoder, "lm_head": True}, "connector": "linear"}
    data = {"train": {"source": "json", "path": str(path)}}
    return {
        "inputs": {"text": stream},
        "tasks": {"words": {"type": "masked_lm", "stream": "text", "data": data}},
        "train": {"steps": 2, "batch_size": 6, "optimizer": {"type": "sgd", "lr": 0.1}},
    }


@pytest.mark.parametrize("languages", [["en_XX"], ["en_XX", "de_CH"]])
def test_adapters_train_on_the_rows_of_their_language(runner: Any, languages: list[str]) -> None:
    values = recipe(runner, languages)
    before = build(parse_recipe(values)).state_dict()
    after = runner.train(values, "run").state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    trained = [each for each in LANGUAGES if any(f"adapter_modules.{each}" in n for n in changed)]
    assert trained == languages
