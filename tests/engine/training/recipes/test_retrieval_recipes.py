"""Forms of contrastive training end to end: scores, queues, sparse vectors, late interaction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

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
    runner: Any,
    task: Mapping[str, Any],
    connector: str | Mapping[str, Any] = "mean",
    without: tuple[str, ...] = (),
    streams: Mapping[str, Any] | None = None,
    encoder: Mapping[str, Any] = TEXT,
) -> dict[str, Any]:
    """without: columns that the test split has not."""
    splits = {"train": rows(), "test": [{k: v for k, v in r.items() if k not in without}
                                        for r in rows()]}  # fmt: skip
    data = {}
    for name, split in splits.items():
        path = runner.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in split))
        data[name] = {"source": "json", "path": str(path)}
    query = {"modality": "text", "encoder": dict(encoder), "connector": connector}
    inputs = {"query": query, "passage": {"share": "query"}}
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
    "sparse": {
        "task": {"similarity": "dot", "dim": None, "flops": {"passage": 0.01}},
        "connector": "lexical",
        "encoder": {"type": "vocabulary", "encoder": {**TEXT, "lm_head": True}},
    },
    "aggregate": {
        "task": {"similarity": "dot"},
        "connector": {"type": "aggregate", "lexical_dim": 8, "vocabulary": 32},
    },
    "recurrent": {"task": {}, "connector": {"type": "recurrent", "hidden": 8}},
    "averaging": {
        "task": {},
        "connector": "cls",
        "encoder": {"type": "averaging", "tokenizer": "bytes", "dim": 16, "bigrams": 97},
    },
}


@pytest.mark.quick_share(2)
@pytest.mark.parametrize("form", FORMS)
def test_it_trains_and_is_evaluated(runner: Any, form: str) -> None:
    model = runner.train(recipe(runner, **FORMS[form]), "run")
    metrics = evaluate(model, input_ablation=False)["search"]
    assert ("spearman" if form == "cosent" else "recall@1") in metrics
    if form == "sparse":
        assert 0 < metrics["query_active_dims"] <= model.stream("query").dim
    if form == "queue":
        average, encoder = model.stream("passage").ema, model.stream("passage").encoder
        pairs = zip(average.parameters(), encoder.parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs)
        assert int((model.task("search").queue.rows != 0).sum()) == 6


def test_training_needs_what_evaluation_does_without(runner: Any) -> None:
    changed = recipe(runner, **FORMS["margin_mse"])
    changed["tasks"]["search"]["data"]["train"] = changed["tasks"]["search"]["data"]["test"]
    with pytest.raises(ConfigError, match=r"data\.train: has no column 'wrong'"):
        runner.train(changed, "run")
    lacking = recipe(runner, **{**FORMS["cosent"], "without": ("score",)})
    model = runner.train(lacking, "run")
    with pytest.raises(ConfigError, match=r"data\.test: has no column 'score'"):
        evaluate(model, input_ablation=False)


def test_a_queue_resumes_exactly(runner: Any) -> None:
    whole = recipe(runner, **FORMS["queue"])
    whole["train"]["checkpoint"] = {"every": 2}
    runner.train(whole, "whole")
    runner.cut(whole, "parts", 3)
    runner.train(whole, "parts", resume=True)
    assert runner.losses("parts") == runner.losses("whole")


@pytest.mark.slow
def test_the_flops_weight_lowers_the_active_dimensions(runner: Any) -> None:
    """Mistral-SPLADE: an echoing causal model with a lexical head; weight 0 is the control."""
    llama = {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    inner = {"type": "causal_lm", "config": llama, "tokenizer": "bytes", "max_length": 32}
    encoder = {"type": "vocabulary", "encoder": {**inner, "lm_head": True, "echo": True}}
    active = []
    for weight in (0.0, 10.0):
        flops = {"query": weight, "passage": weight}
        task = {"similarity": "dot", "dim": None, "flops": flops, "flops_warmup": 0.1}
        changed = recipe(runner, task, "lexical", encoder=encoder)
        changed["train"] |= {"steps": 25, "batch_size": 8, "optimizer": {"lr": 0.02}}
        model = runner.train(changed, f"run{weight}")
        active.append(evaluate(model, input_ablation=False)["search"]["passage_active_dims"])
    assert active[0] > 2 * active[1]


@pytest.mark.slow
def test_the_first_words_of_a_picture_are_its_colour(runner: Any) -> None:
    """VDR: a picture's lexical vector, trained against the bag of words of its caption."""
    colours = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}
    lines = []
    for i in range(24):
        name = list(colours)[i % 3]
        noise = np.random.default_rng(i).integers(-20, 20, (8, 8, 3))
        Image.fromarray(np.clip(colours[name] + noise, 0, 255).astype(np.uint8)).save(
            runner.folder / f"{i}.png"
        )
        lines.append({"image": f"{i}.png", "caption": name})
    path = runner.folder / "pictures.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = {"type": "bag_of_words", "tokenizer": {"type": "bpe", "size": 280}}
    picture = {"type": "patches", "size": 8, "patch_size": 4, "dim": 16}
    lexical = {"type": "lexical", "activation": "elu", "top_k": 8}
    data = {"source": "json", "path": str(path)}
    model = runner.train(
        {
            "inputs": {
                "caption": {"modality": "text", "encoder": words},
                "image": {"modality": "image", "encoder": picture, "connector": lexical},
            },
            "tasks": {
                "match": {
                    "type": "contrastive",
                    "streams": ["caption", "image"],
                    "similarity": "dot",
                    "dim": None,
                    "flops": {"image": 0.3},
                    "positive_group": "caption",
                    "data": {"train": data, "test": data},
                }
            },
            "train": {"steps": 60, "batch_size": 12, "optimizer": {"lr": 0.01}},
        },
        "run",
    )
    image, caption = model.stream("image").eval(), model.stream("caption")
    batch = image.encoder.collate(
        [image.encoder.processor.prepare(Image.open(runner.folder / f"{i}.png")) for i in range(3)]
    )
    with torch.no_grad():
        vectors = image(image.encoder(**batch)).pooled
    assert (vectors >= 0).all() and ((vectors > 0).sum(1) <= 8).all()
    tokenizer = caption.encoder.tokenizer
    first = [tokenizer.decode([int(row.argmax())]).strip() for row in vectors]
    assert all(word and word in name for word, name in zip(first, colours, strict=True)), first
