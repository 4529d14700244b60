"""A recipe of two text streams, and batches of it."""

from __future__ import annotations

from typing import Any

from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe

BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
TEXT = {"type": "transformers", "config": BERT, "tokenizer": "bytes", "max_length": 64}
PAIR: dict[str, Any] = {
    "inputs": {
        "image": {"modality": "image", "encoder": {"type": "tiny_parts:Tiny"}, "connector": "mean"},
        "caption": {"modality": "text", "encoder": TEXT, "connector": "mean"},
    },
    "tasks": {
        "digit": None,
        "match": {
            "type": "contrastive",
            "streams": ["image", "caption"],
            "dim": 12,
            "positive_group": "word",
            "data": {
                "train": {"source": "digits", "split": "train", "limit": 48},
                "test": {"source": "digits", "split": "test", "limit": 30},
            },
        },
    },
    "train": {"steps": 4, "batch_size": 8, "log_every": 1},
}
"""Pictures of digits and their captions, in a space 12 wide."""


def asked(**changes: Any) -> dict[str, Any]:
    return {"tasks": {"match": changes}}


def composed(runner: Any, *changes: Any) -> Model:
    return build(parse_recipe(runner.recipe(PAIR, *changes)))


LOSSES: dict[str, dict[str, Any]] = {
    "infonce": {},
    "siglip": asked(loss="siglip"),
    "chunks": asked(gradcache_chunk_size=3),
    "hard negatives": {
        **asked(
            hard_negatives={"caption": ["wrong"]},
            matryoshka=[4],
            data={"train": {"columns": {"wrong": "word"}}, "test": None},
        ),
        "inputs": {"wrong": {"share": "caption"}},
    },
    "soft and taught": {
        **asked(
            loss="soft",
            soft_target_streams={"image": "look"},
            teachers=[{"image": "look", "caption": "said"}],
            data={"train": {"columns": {"look": "image", "said": "caption"}}, "test": None},
        ),
        "inputs": {
            "look": {"modality": "image", "encoder": {"type": "tiny_parts:Tiny", "freeze": True}},
            "said": {
                "modality": "text",
                "encoder": {**TEXT, "config": {**BERT, "hidden_size": 8}, "freeze": True},
            },
        },
    },
}
