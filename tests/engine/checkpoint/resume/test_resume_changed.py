"""Resuming with another recipe: the changes that are refused, allowed, or without effect."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyarrow import csv
from recipe_changes import train

from sensorium.engine.checkpoint import check_differences, rows_identity
from sensorium.engine.checkpoint.differences import differences
from sensorium.engine.data import open_section
from sensorium.engine.recipe import DataSection, parse_recipe
from sensorium.engine.utils import ConfigError, RunLogger
from sensorium.modalities.image.datasets.digits import Digits

CHANGES: dict[str, dict[str, Any]] = {
    "train.seed": train(seed=4),
    "train.optimizer.lr": train(optimizer={"lr": 1e-4}),
    "train.batch_size": train(batch_size=5),
    "train.precision": train(precision="bf16"),
    "train.steps": train(steps=5),
    "train.gradient_accumulation_steps": train(gradient_accumulation_steps=2),
    "train.warmup_ratio": train(warmup_ratio=0.5),
    "train.sampler.type": train(sampler={"type": "balanced", "column": "word"}),
    "tasks.digit.data.train.holdout": {"tasks": {"digit": {"data": {"train": {"holdout": 0.5}}}}},
    "tasks.digit.data.train.limit": {"tasks": {"digit": {"data": {"train": {"limit": 30}}}}},
    "tasks.digit.target": {"tasks": {"digit": {"target": "label"}}},
    "inputs.image.encoder.dropout": {"inputs": {"image": {"encoder": {"dropout": 0.5}}}},
    "inputs.image.encoder.freeze": {"inputs": {"image": {"encoder": {"freeze": True}}}},
    "inputs.image.augment.shift": {"inputs": {"image": {"augment": {"shift": 0.1}}}},
    "inputs.image.connector.type": {"inputs": {"image": {"connector": "linear"}}},
}
"""Keys that a weight depends on, each with a recipe that differs in it."""


def test_a_changed_recipe_is_refused_by_its_key(
    runner: Any, stopped: dict[str, Any], subtests: pytest.Subtests
) -> None:
    def content() -> dict[Path, bytes]:
        files = (runner.folder / "run").rglob("*.*")
        return {path: path.read_bytes() for path in files if path.name != ".lock"}

    before = content()
    for key, change in CHANGES.items():
        with subtests.test(key):
            with pytest.raises(ConfigError) as refused:
                runner.train(runner.changed(stopped, change), "run", resume=True)
            lines = str(refused.value).splitlines()
            assert any(line.startswith(f"{key}: the run has ") for line in lines), lines
            assert all("--allow-change" in line for line in lines)
            assert content() == before


@pytest.mark.parametrize(
    "key", ["train.optimizer.lr", "train.steps", "train.seed", "inputs.image.encoder.freeze"]
)
def test_a_change_that_is_allowed_is_said_and_written(
    runner: Any, stopped: dict[str, Any], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(RunLogger, "info", lambda self, text: lines.append(text))
    recipe = runner.changed(stopped, CHANGES[key])
    runner.train(recipe, "run", resume=True, allow_changes=[key])
    assert any(line.startswith(f"{key}: ") and "from now on" in line for line in lines)
    steps = [step for step, _, _ in runner.losses("run")]
    assert steps == list(range(1, recipe["train"]["steps"] + 1))
    lines.clear()
    runner.train(recipe, "run", resume=True)  # the change is the run's now
    assert "nothing to do" in lines[-1]


NEUTRAL = [
    train(log_every=2),
    train(num_workers=1),
    train(checkpoint={"every": 1, "keep": 5}),
    {"tasks": {"digit": {"data": {"test": {"source": "digits", "split": "test"}}}}},
]


@pytest.mark.quick_share(4)
@pytest.mark.parametrize("change", NEUTRAL)
def test_what_changes_no_weight_may_change(
    runner: Any, stopped: dict[str, Any], change: dict[str, Any]
) -> None:
    whole = runner.train(stopped, "whole").state_dict()
    model = runner.train(runner.changed(stopped, change), "run", resume=True)
    assert all(torch.equal(value, whole[name]) for name, value in model.state_dict().items())


def test_fewer_steps_than_are_done_are_refused(runner: Any, stopped: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"train.steps: found 1, the run is at step 2"):
        runner.train(
            runner.changed(stopped, train(steps=1)),
            "run",
            resume=True,
            allow_changes=["train.steps"],
        )


def test_other_rows_behind_the_same_recipe_are_refused(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runner.recipe(train(steps=6, checkpoint={"every": 2}))
    runner.cut(recipe, "run", 3)
    monkeypatch.setattr(Digits, "key", lambda self, index: f"other{index}")
    with pytest.raises(ConfigError, match=r"data.train: the run has 40 rows, here are"):
        runner.train(recipe, "run", resume=True)
    runner.train(recipe, "run", resume=True, allow_changes=["tasks.digit.data.train"])


@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
def test_other_values_behind_the_same_keys_are_other_rows(kind: str, tmp_path: Path) -> None:
    """A corrected label, though file, number and names of the rows stay."""

    def identity(labels: list[str], note: str = "") -> dict[str, str]:
        path = tmp_path / f"rows.{kind}"
        table = pa.table({"label": labels, "note": [note] * len(labels)})
        if kind == "parquet":
            pq.write_table(table, path)
        elif kind == "csv":
            csv.write_csv(table, path)
        else:
            path.write_text(json.dumps(table.to_pylist()))
        section = DataSection.model_validate({"source": kind, "path": str(path)})
        rows = SimpleNamespace(
            source=open_section(section, "d"), task=SimpleNamespace(columns=lambda: ("label",))
        )
        return rows_identity({"t": cast(Any, rows)}, "train")

    first = identity(["cat", "dog", "cat"])
    assert identity(["cat", "dog", "cat"], "a column that the task does not read") == first
    assert identity(["cat", "cat", "cat"]) != first


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("train.stpes", "neither the run nor the recipe has such a key; did you mean"),
        ("steps", "neither the run"),
        ("tasks.nobody", "neither the run"),
        ("train.steps", None),
        ("train", None),
        ("inputs", None),
    ],
)
def test_an_allowed_key_is_one_of_the_recipes(key: str, message: str | None, runner: Any) -> None:
    recipe = parse_recipe(runner.recipe())
    if message is None:
        assert check_differences(recipe, recipe, [key]) == []
    else:
        with pytest.raises(ConfigError, match=f"--allow-change {key}: {message}"):
            check_differences(recipe, recipe, [key])


def test_an_option_without_values_is_a_difference(runner: Any) -> None:
    plain = runner.recipe()
    plain["inputs"]["image"]["encoder"].pop("lora", None)
    adapted = json.loads(json.dumps(plain))
    adapted["inputs"]["image"]["encoder"]["transforms"] = [{"type": "keep_layers", "layers": []}]
    empty = json.loads(json.dumps(plain))
    empty["inputs"]["image"]["encoder"]["options"] = {}
    for other in (adapted, empty):
        assert differences(parse_recipe(plain), parse_recipe(other))
