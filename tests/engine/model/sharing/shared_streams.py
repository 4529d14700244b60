"""Bi-encoders whose streams share parts: recipes, models and losses of four rows of text."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe
from sensorium.modalities.base import Features

BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
ENCODER = {"type": "transformers", "config": BERT, "tokenizer": {"type": "bpe", "size": 264},
           "max_length": 16}  # fmt: skip
LLAMA = {
    "type": "causal",
    "name": "tiny-llama",
    "tokenizer": {"type": "bpe", "size": 264},
    "weights": "none",
    "options": {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
}
ROWS = [("what barks", "a dog"), ("what purrs", "a cat"), ("what neighs", "a horse"),
        ("what moos", "a cow")]  # fmt: skip


def stream(encoder: Any, connector: Any = "mean") -> dict[str, Any]:
    return {"modality": "text", "encoder": encoder, "connector": connector}


def recipe(passage: Any, query: Any = ENCODER, **sections: Any) -> dict[str, Any]:
    """A bi-encoder over questions and answers."""
    data = {"train": {"source": "json", "path": "rows.jsonl"}}
    task = {"type": "contrastive", "streams": ["query", "passage"], "dim": 8, "data": data}
    values = {"inputs": {"query": stream(query), "passage": passage}, "tasks": {"match": task}}
    return copy.deepcopy(values | {"train": {"steps": 2, "batch_size": 4}} | sections)


def build_model(*args: Any, **sections: Any) -> Model:
    return build(parse_recipe(recipe(*args, **sections)))


def inputs_of(model: Model, name: str) -> dict[str, Tensor]:
    encoder = model.stream(name).encoder
    texts = [row[name == "passage"] for row in ROWS]
    return encoder.collate([encoder.processor.prepare(text) for text in texts])


def vectors(model: Model, name: str) -> Tensor:
    stream = model.stream(name)
    features = stream(stream.encoder(**inputs_of(model, name)))
    assert isinstance(features, Features)
    return features.pool()


def loss_of(model: Model) -> Tensor:
    return F.cross_entropy(vectors(model, "query") @ vectors(model, "passage").T, torch.arange(4))


def with_backbone(attention: str = "causal", backbone: Any = LLAMA, **keys: Any) -> Model:
    query = {"share": "backbone", "attention": attention, "max_length": 24, **keys}
    return build_model({"share": "query"}, query, backbone=backbone)
