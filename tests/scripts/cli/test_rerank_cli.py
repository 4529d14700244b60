"""A cross-encoder is trained, evaluated, and orders the hits of `retrieve --rerank`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

WORDS = {"house": "maison", "water": "eau", "tree": "arbre", "bread": "pain", "night": "nuit"}
TEXT = {
    "type": "transformers",
    "tokenizer": "bytes",
    "max_length": 32,
    "config": {
        "model_type": "bert",
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
}


def recipe(name: str, task: dict[str, Any], steps: int, **streams: Any) -> None:
    values = {
        "inputs": {
            "query": {"modality": "text", "encoder": TEXT, "connector": "mean"},
            **{stream: {"share": "query"} for stream in streams},
        },
        "tasks": {"task": {**task, "data": {"train": {"source": "json", "path": "rows.jsonl"}}}},
        "train": {"steps": steps, "batch_size": 5, "optimizer": {"lr": 0.01}, "log_every": 1},
    }
    values["tasks"]["task"]["data"]["test"] = values["tasks"]["task"]["data"]["train"]
    Path(f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Queries with every word of the other language, in one order, and a search's scores."""
    folder = tmp_path_factory.mktemp("reranking")
    others = list(WORDS.values())
    rows = [
        {
            "query": word,
            "passage": translation,
            "found": others,
            "right": [float(o == translation) for o in others],
            "scores": [1.0 - i / 10 for i in range(len(others))],
        }
        for word, translation in WORDS.items()
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder


@pytest.mark.slow
def test_a_reranker_orders_what_a_search_found(
    home: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    task = {"type": "reranking", "passage": None, "candidates": "found", "relevance": "right"}
    recipe("rerank", {**task, "loss": "softmax", "first_scores": "scores"}, 90, found=1)
    search = {"type": "contrastive", "streams": ["query", "passage"], "dim": 32}
    recipe("search", search, 1, passage=1)
    assert run("check", "rerank.yaml")[0] == 0
    assert run("train", "rerank.yaml", "--out=runs/rerank")[0] == 0
    code, out, err = run("evaluate", "runs/rerank", "--json")
    assert code == 0, err
    metrics = json.loads(out)["task"]
    assert metrics["mrr"] > 0.7
    assert max(metrics["before_mrr"], metrics["mrr_query_shuffled"]) < 0.5
    assert run("train", "search.yaml", "--out", "runs/search")[0] == 0
    data = ("--source", "json", "--set", "path=rows.jsonl")
    code, _, err = run("embed", "runs/search", "--stream", "passage", *data, "--out", "index")
    assert code == 0, err
    after = 0
    for word, translation in WORDS.items():
        query = ("retrieve", "index", "--query", f"query={word}", "--json", "-k", "3")
        code, out, err = run(*query, "--rerank", "runs/rerank")
        assert code == 0, err
        hits = [json.loads(line) for line in out.splitlines()]
        after += hits[0]["passage"] == translation
        assert len(hits) == 3 and all("first_score" in hit for hit in hits)
    assert after >= 3  # whatever the search found first: all five are candidates
    code, _, err = run("retrieve", "index", "--query", "query=x", "--rerank", "runs/search")
    assert code == 2 and err.startswith("error: --rerank: runs/search has 0 tasks that rerank")
