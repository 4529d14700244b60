"""Recipes that are trained by one process and by two, and what their runs are compared by."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

SCRIPT = """
import json
import os
import sys
from pathlib import Path

from sensorium.engine.recipe.recipe import load_recipe
from sensorium.engine.training.train import train

for name in sys.argv[2:]:
    model = train(load_recipe(f"{name}.yaml"), Path(name), show=False, device=sys.argv[1])
    parameters = [p for p in model.parameters() if p.ndim]
    whole = [p for p in parameters if not hasattr(p, "to_local")]
    shares = [p.to_local() for p in parameters if hasattr(p, "to_local")]
    counts = {"all": sum(p.numel() for p in parameters)}
    counts["whole"] = sum(p.numel() for p in whole)
    counts["held"] = counts["whole"] + sum(p.numel() for p in shares)
    Path(f"{name}.share{os.environ.get('RANK', 0)}.json").write_text(json.dumps(counts))
"""


def processes(run: Path) -> int:
    (state,) = (json.loads(p.read_text()) for p in run.glob("checkpoints/step-*/state.json"))
    return int(state["processes"])


def unreadable(runner: Any) -> dict[str, Any]:
    """A recipe over 24 rows of which two thirds cannot be read, and are skipped."""
    from PIL import Image

    lines = []
    for i in range(24):
        path = runner.folder / f"torn{i}.png"
        Image.new("L", (8, 8), 10 * i).save(path)
        if i % 3:
            path.write_bytes(b"no picture")
        lines.append(json.dumps({"image": str(path), "word": "ab"[i % 2]}))
    (runner.folder / "torn.jsonl").write_text("\n".join(lines) + "\n")
    data = {"source": "json", "path": str(runner.folder / "torn.jsonl"), "on_error": "skip"}
    change = {"train": {**data, "split": None, "limit": None}}
    return dict(runner.recipe({"tasks": {"digit": {"data": change}}}))


def pairs(runner: Any, encoder: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """Questions and answers through one encoder and one connector."""
    rows = [{"query": f"what is {i}", "passage": f"it is {'one ' * (i % 3)}{i}"} for i in range(24)]
    (runner.folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    query = {"modality": "text", "encoder": encoder, "connector": "mean"}
    task = {"type": "contrastive", "streams": ["query", "passage"], "dim": 8}
    task["data"] = {"train": {"source": "json", "path": str(runner.folder / "pairs.jsonl")}}
    inputs = {"query": query, "passage": {"share": "query"}}
    return {"inputs": inputs, "tasks": {"match": task}, **sections}


TEXT = {
    "type": "transformers",
    "tokenizer": "bytes",
    "max_length": 32,
    "config": {
        "model_type": "bert",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
}


def captions(runner: Any) -> dict[str, Any]:
    """Rows whose targets are of 1 to 60 tokens."""
    from PIL import Image

    lines = []
    for i in range(24):
        Image.new("L", (8, 8), 10 * i).save(runner.folder / f"{i}.png")
        text = "word " * (1 if i % 2 else 12)
        lines.append(json.dumps({"scan": str(runner.folder / f"{i}.png"), "caption": text}))
    (runner.folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    gone = {"split": None, "limit": None, "columns": None}
    data = {"train": {**gone, "source": "json", "path": str(runner.folder / "rows.jsonl")}}
    return {"tasks": {"caption": {"data": data}}}


def descend(
    runner: Any, recipes: dict[str, dict[str, Any]], count: int, device: str = "cpu"
) -> None:
    """Train recipes, all in one start of one or more processes. Each process writes how many values
    of the parameters it holds."""
    (runner.folder / "descend.py").write_text(SCRIPT)
    for name, recipe in recipes.items():
        runner.write(recipe, name)
    start = [sys.executable]
    if count > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    done = runner.run([*start, "descend.py", device, *recipes], timeout=500)
    assert done.returncode == 0, done.stderr


def untrained(runner: Any, recipe: dict[str, Any]) -> dict[str, torch.Tensor]:
    from sensorium.engine.checkpoint import saved_tensors
    from sensorium.engine.model import build
    from sensorium.engine.recipe import parse_recipe

    return saved_tensors(build(parse_recipe(recipe)))
