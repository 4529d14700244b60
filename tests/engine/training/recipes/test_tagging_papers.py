"""Token tagging on encoders of any family, with a control whose tags belong to other texts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from sensorium.engine.evaluation import evaluate
from sensorium.engine.inference import Pipeline

SMALL = {"hidden_size": 32, "num_hidden_layers": 1}
BERT = {**SMALL, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 128}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {"type": "transformers", "config": {"model_type": "bert", **BERT}},
    "canine": {
        "type": "transformers",
        "config": {
            "model_type": "canine",
            **BERT,
            "num_hash_buckets": 64,
            "local_transformer_stride": 16,
            "upsampling_kernel_size": 2,
            "downsampling_rate": 2,
        },
    },
    "mamba2": {
        "type": "causal_lm",
        "config": {
            "model_type": "mamba2",
            **SMALL,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 16,
        },
    },
    "xlstm": {
        "type": "causal_lm",
        "config": {"model_type": "xlstm", **SMALL, "num_heads": 4, "chunk_size": 16},
    },
}
FIRST, PLACES = ("Anna", "Otto", "Ida", "Emil"), ("Bern", "Linz", "Ulm", "Graz")
VERBS = ("saw", "left", "built")


def sentences(count: int, seed: int) -> list[dict[str, Any]]:
    """A person of one or two words, a verb, a place; the second word of a person may be the name
    of a place, which its neighbour tells."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        person = [str(rng.choice(FIRST))]
        if rng.random() < 0.5:
            person.append(str(rng.choice(PLACES)))
        words = [*person, str(rng.choice(VERBS)), str(rng.choice(PLACES))]
        tags = ["B-PER", *["I-PER"] * (len(person) - 1), "O", "B-LOC"]
        rows.append({"text": " ".join(words), "tags": tags})
    return rows


def shuffled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tags of each row in another order."""
    rng = np.random.default_rng(9)
    return [{**row, "tags": [str(t) for t in rng.permutation(row["tags"])]} for row in rows]


def recipe(runner: Any, kind: str, wrong: bool = False) -> dict[str, Any]:
    data = {}
    rows = {"train": sentences(64, 0), "test": sentences(24, 1)}
    for split, lines in rows.items():
        lines = shuffled(lines) if wrong and split == "train" else lines
        path = runner.folder / f"{split}_{wrong}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in lines))
        data[split] = {"source": "json", "path": str(path)}
    encoder = {**ENCODERS[kind], "tokenizer": "bytes", "max_length": 64}
    return {
        "inputs": {"text": {"modality": "text", "encoder": encoder}},
        "tasks": {"names": {"type": "tagging", "input": "text", "pool": "mean", "data": data}},
        "train": {"steps": 60, "batch_size": 16, "optimizer": {"lr": 0.01}, "log_every": 1},
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(ENCODERS))
def test_entities_are_tagged_on_any_encoder(runner: Any, kind: str) -> None:
    """Attention, characters, a state space and a recurrence, under one head."""
    model = runner.train(recipe(runner, kind), "run")
    found = evaluate(model, input_ablation=False)["names"]
    assert found["f1"] > 0.8, found
    if kind == "bert":
        control = runner.train(recipe(runner, kind, wrong=True), "wrong")
        assert evaluate(control, input_ablation=False)["names"]["f1"] < found["f1"] - 0.3
    answer = Pipeline(model).tag(text="Anna Bern saw Ulm")
    assert len(answer["tags"]) == 4
    assert {e["text"] for e in answer["entities"]} <= {"Anna Bern", "Anna", "Bern", "saw", "Ulm"}
