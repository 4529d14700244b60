"""Forms of contrastive training end to end: scores, queues, sparse vectors, late interaction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from sensorium.engine.evaluation import evaluate
from sensorium.engine.utils import ConfigError

WORDS = ["red", "green", "blue", "black", "white", "pink", "grey", "gold"]
BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
TEXT = {"type": "transformers", "config": BERT, "tokenizer": "bytes", "max_length": 32}


def rows() -> list[dict[str, Any]]:
    """Pairs with a hard negative, a number for the pair, and a teacher's two scores."""
    return [
        {
            "query": word,
            "passage": f"a {word} cup",
            "wrong": f"no {word}",
            "score": i / 8,
            "scores": [1.0, 0.1 * i],
        }
        for i, word in enumerate(WORDS)
    ]


def recipe(
    shop: Any,
    task: Mapping[str, Any],
    connector: str | None = "mean",
    without: tuple[str, ...] = (),
    streams: Mapping[str, Any] | None = None,
    encoder: Mapping[str, Any] = TEXT,
) -> dict[str, Any]:
    """without: columns that the test split has not."""
    splits = {"train": rows(), "test": [{k: v for k, v in r.items() if k not in without}
                                        for r in rows()]}  # fmt: skip
    data = {}
    for name, split in splits.items():
        path = shop.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in split))
        data[name] = {"source": "json", "path": str(path)}
    query = {"modality": "text", "encoder": dict(encoder), "connector": connector}
    inputs = {"query": {k: v for k, v in query.items() if v}, "passage": {"share": "query"}}
    section = {"type": "contrastive", "streams": ["query", "passage"], "dim": 16, "data": data}
    return {
        "inputs": {**inputs, **(streams or {})},
        "tasks": {"search": {**section, **task}},
        "train": {"steps": 4, "batch_size": 4, "optimizer": {"lr": 0.01}, "log_every": 1},
    }


WRONG = {"wrong": {"share": "query"}}
FORMS: dict[str, dict[str, Any]] = {
    "cosent": {"task": {"loss": "cosent", "scores": "score"}},
    "margin_mse": {
        "task": {
            "loss": "margin_mse",
            "scores": "scores",
            "hard_negatives": {"passage": ["wrong"]},
        },
        "streams": WRONG,
        "without": ("wrong", "scores"),
    },
    "queue": {"task": {"queue_size": 6, "queue_momentum": 0.9}},
    "maxsim": {"task": {"similarity": "maxsim"}, "connector": "linear"},
}


@pytest.mark.parametrize("form", FORMS)
def test_it_trains_and_is_evaluated(shop: Any, form: str) -> None:
    model = shop.train(recipe(shop, **FORMS[form]), "run")
    metrics = evaluate(model, input_ablation=False)["search"]
    assert ("spearman" if form == "cosent" else "recall@1") in metrics
    if form == "queue":
        average, encoder = model.stream("passage").ema, model.stream("passage").encoder
        pairs = zip(average.parameters(), encoder.parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs)
        assert int((model.task("search").queue.rows != 0).sum()) == 6


def test_training_needs_what_evaluation_does_without(shop: Any) -> None:
    changed = recipe(shop, **FORMS["margin_mse"])
    changed["tasks"]["search"]["data"]["train"] = changed["tasks"]["search"]["data"]["test"]
    with pytest.raises(ConfigError, match=r"data\.train: has no column 'wrong'"):
        shop.train(changed, "run")
    lacking = recipe(shop, **{**FORMS["cosent"], "without": ("score",)})
    model = shop.train(lacking, "run")
    with pytest.raises(ConfigError, match=r"data\.test: has no column 'score'"):
        evaluate(model, input_ablation=False)


def test_a_queue_resumes_exactly(shop: Any) -> None:
    whole = recipe(shop, **FORMS["queue"])
    whole["train"]["checkpoint"] = {"every": 2}
    shop.train(whole, "whole")
    shop.cut(whole, "parts", 3)
    shop.train(whole, "parts", resume=True)
    assert shop.losses("parts") == shop.losses("whole")
