"""Two processes are one with a batch twice as large; and none of them waits for ever."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_changes import train
from safetensors.torch import load_file

from sensorium.engine.utils import ConfigError

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from pathlib import Path

from sensorium.engine.recipe.recipe import load_recipe
from sensorium.engine.training.train import train

for name in sys.argv[1:]:
    train(load_recipe(f"{name}.yaml"), Path(name), show=False)
"""


def processes(run: Path) -> int:
    (state,) = (json.loads(p.read_text()) for p in run.glob("checkpoints/step-*/state.json"))
    return int(state["processes"])


def unreadable(shop: Any) -> dict[str, Any]:
    """A recipe over 24 rows of which two thirds cannot be read, and are skipped."""
    from PIL import Image

    lines = []
    for i in range(24):
        path = shop.folder / f"torn{i}.png"
        Image.new("L", (8, 8), 10 * i).save(path)
        if i % 3:
            path.write_bytes(b"no picture")
        lines.append(json.dumps({"image": str(path), "word": "ab"[i % 2]}))
    (shop.folder / "torn.jsonl").write_text("\n".join(lines) + "\n")
    data = {"source": "json", "path": str(shop.folder / "torn.jsonl"), "on_error": "skip"}
    change = {"train": {**data, "split": None, "limit": None}}
    return dict(shop.recipe({"tasks": {"digit": {"data": change}}}))


def pairs(shop: Any, encoder: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """Questions and answers through one encoder and one connector."""
    rows = [{"query": f"what is {i}", "passage": f"it is {'one ' * (i % 3)}{i}"} for i in range(24)]
    (shop.folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    query = {"modality": "text", "encoder": encoder, "connector": "mean"}
    task = {"type": "contrastive", "streams": ["query", "passage"], "dim": 8}
    task["data"] = {"train": {"source": "json", "path": str(shop.folder / "pairs.jsonl")}}
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


def captions(shop: Any) -> dict[str, Any]:
    """Rows whose targets are of 1 to 60 tokens."""
    from PIL import Image

    lines = []
    for i in range(24):
        Image.new("L", (8, 8), 10 * i).save(shop.folder / f"{i}.png")
        text = "word " * (1 if i % 2 else 12)
        lines.append(json.dumps({"scan": str(shop.folder / f"{i}.png"), "caption": text}))
    (shop.folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    gone = {"split": None, "limit": None, "columns": None}
    data = {"train": {**gone, "source": "json", "path": str(shop.folder / "rows.jsonl")}}
    return {"tasks": {"caption": {"data": data}}}


def descend(shop: Any, recipes: dict[str, dict[str, Any]], count: int) -> None:
    """Train recipes by plain gradient descent, all in one start of one or more processes."""
    (shop.folder / "descend.py").write_text(SCRIPT)
    for name, recipe in recipes.items():
        shop.write(recipe, name)
    start = [sys.executable]
    if count > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    done = shop.run([*start, "descend.py", *recipes])
    assert done.returncode == 0, done.stderr


def test_two_processes_learn_what_one_learns_from_batches_twice_as_large(shop: Any) -> None:
    """With rows that cannot be read there are steps for which a process has no row at all."""
    settings = train(  # Adam would turn gradients that are only rounding into whole steps
        steps=6,
        optimizer={"type": "sgd", "lr": 0.3},
        schedule="constant",
        checkpoint={"every": 6},
        max_grad_norm=0.5,
    )
    uneven, torn = captions(shop), unreadable(shop)
    stack = {"backbone": shop.both()["backbone"]}
    cases: dict[str, dict[str, Any]] = {
        "plain": shop.recipe(settings),
        "uneven": shop.both(settings, uneven),
        "accumulated": shop.both(settings, uneven, train(gradient_accumulation_steps=2)),
        "unclipped": shop.recipe(settings, train(max_grad_norm=None)),
        "adapted": shop.recipe(settings, {"inputs": {"image": {"encoder": {"lora": {"r": 2}}}}}),
        "shared": shop.changed(pairs(shop, TEXT), settings),
        "shared_stack": shop.changed(pairs(shop, {"share": "backbone"}, **stack), settings),
        "torn": shop.changed(torn, settings),
        "torn_cached": shop.changed(
            torn, settings, {"inputs": {"image": {"encoder": {"freeze": True}}}}
        ),
    }
    for count in (2, 1):
        size = train(batch_size=4 // count)
        recipes = {f"{n}_{count}": shop.changed(r, size) for n, r in cases.items()}
        descend(shop, recipes, count)
    for name, recipe in cases.items():
        runs = shop.folder / f"{name}_1", shop.folder / f"{name}_2"
        assert [processes(run) for run in runs] == [1, 2]
        first, second = (shop.losses(run.name) for run in runs)
        assert [(s, t) for s, t, _ in first] == [(s, t) for s, t, _ in second]
        assert [x for *_, x in first] == pytest.approx([x for *_, x in second], abs=1e-5), name
        alone, together = (load_file(run / "model.safetensors") for run in runs)
        before = untrained(shop, recipe)
        for key, expected in alone.items():
            torch.testing.assert_close(together[key], expected, rtol=0, atol=1e-5, msg=name + key)
        moved = max(float((alone[key].float() - before[key].float()).abs().max()) for key in alone)
        assert moved > 0.01, name  # far more than the two may differ by
    assert len({task for _, task, _ in shop.losses("uneven_2")}) == 2


def untrained(shop: Any, recipe: dict[str, Any]) -> dict[str, torch.Tensor]:
    from sensorium.engine.checkpoint import saved_tensors
    from sensorium.engine.model import build
    from sensorium.engine.recipe import parse_recipe

    return saved_tensors(build(parse_recipe(recipe)))


def test_rows_that_no_process_can_read_are_counted_and_a_loss_that_is_none_ends_all(
    shop: Any,
) -> None:
    recipe = shop.changed(unreadable(shop), train(steps=6, batch_size=2, log_every=3))
    done = shop.go(recipe, "torn", processes=2)
    assert done.returncode == 0, done.stderr
    assert "16 rows could not be read and were skipped: " in done.stderr
    lines = [line for line in done.stderr.splitlines() if "tasks.digit.data.train, row" in line]
    assert len(lines) == len({line.partition(", row ")[2] for line in lines}) == 16
    ended = shop.go(
        shop.recipe(train(steps=4, log_every=4)), "nan", processes=2, fault="rank1-nan@2"
    )
    assert ended.returncode != 0
    assert "step 2: the loss is nan; rows of another process" in ended.stderr
    assert ended.stderr.count("step 2: the loss is nan; rows ") == 2


def test_the_command_line_under_torchrun_stops_and_goes_on(shop: Any) -> None:
    """Two tasks with streams of their own, a frozen one from the cache, workers, validation;
    one process alone is asked to stop."""
    held = {"tasks": {"digit": {"data": {"train": {"holdout": 0.2}}}}}
    held["tasks"]["caption"] = {"max_new_tokens": 4, "data": {"train": {"holdout": 0.2}}}
    recipe = shop.both(
        held,
        {"inputs": {"image": {"encoder": {"freeze": True}}}, "tasks": {"digit": {"head": "mlp"}}},
        train(
            steps=8,
            batch_size=2,
            gradient_accumulation_steps=2,
            num_workers=1,
            task_weights={"caption": 2.0},
            checkpoint={"every": 8},
            validate={"every": 2, "metric": "digit/accuracy"},
        ),
    )
    whole = shop.go(recipe, "whole", processes=2)
    assert whole.returncode == 0, whole.stderr
    assert processes(shop.folder / "whole") == 2
    losses = shop.losses("whole")
    assert {task for _, task, _ in losses} == {"digit", "caption"} and len(losses) == 8
    assert list((shop.folder / "cache" / "features").iterdir())
    stopped = shop.go(recipe, "run", processes=2, fault="rank1-term@3")
    assert stopped.returncode != 0 and "go on with --resume" in stopped.stderr
    before = shop.losses("run")
    assert processes(shop.folder / "run") == 2
    assert 0 < len(before) < 8 and before == losses[: len(before)]
    with pytest.raises(ConfigError, match="was written by 2 processes, there are now 1; resume"):
        shop.train(recipe, "run", resume=True)
    resumed = shop.go(recipe, "run", "--resume", processes=2)
    assert resumed.returncode == 0, resumed.stderr
    assert shop.losses("run") == losses
    weights = [load_file(shop.folder / name / "model.safetensors") for name in ("whole", "run")]
    assert all(torch.equal(weights[1][key], value) for key, value in weights[0].items())
