"""Evaluation: what it writes, and its two ablations: is the input used, does the batch matter?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import write_faults as faults

from sensorium.engine.data import load_split, open_section, splits
from sensorium.engine.evaluation import evaluate
from sensorium.engine.evaluation.evaluator import ShuffledStream
from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train
from sensorium.engine.utils import ConfigError, RunLogger, RuntimeFailure

PARTS = """
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from sensorium.modalities.base import Encoder, Features, Processor


@dataclass
class Grey(Processor):
    def prepare(self, raw):
        return {"pixels": torch.from_numpy(np.asarray(raw.convert("L"), np.float32) / 255)}


class Pixels(Encoder):
    '''The pixels, and what a mode makes of them.'''

    def __init__(self, *, mode: str = "plain") -> None:
        super().__init__()
        self.dim, self.processor, self.mode = 64, Grey(), mode
        self.batch_invariant = mode != "batch"

    def forward(self, pixels):
        tokens = pixels.flatten(1)
        if self.mode == "blind":
            tokens = tokens * 0
        if self.mode == "batch":  # its statistics are the batch's, in eval() as well
            tokens = tokens - tokens.mean(0) + len(tokens)
        return Features.dense(tokens[:, None])
"""

RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {"modality": "image", "encoder": {"type": "evaluated_parts:Pixels"}},
    },
    "tasks": {
        "digit": {
            "type": "classification",
            "input": "image",
            "data": {
                "train": {"source": "digits", "split": "train", "limit": 300},
                "test": {"source": "digits", "split": "test", "limit": 100},
                "writer": {"source": "digits", "split": "test", "order": "writer", "limit": 20},
            },
        },
        "ink": {
            "type": "regression",
            "input": "image",
            "target": "label",
            "data": {
                "train": {"source": "digits", "split": "train", "limit": 50},
                "test": {"source": "digits", "split": "test", "limit": 30},
            },
        },
    },
    "train": {"steps": 80, "batch_size": 32, "optimizer": {"lr": 0.03}, "log_every": 40},
}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "evaluated_parts.py").write_text(PARTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder


def _model(home: Path, mode: str) -> Model:
    recipe = json.loads(json.dumps(RECIPE))
    recipe["inputs"]["image"]["encoder"]["mode"] = mode
    result: Model = train(parse_recipe(recipe), home / mode, show=False)
    return result


@pytest.fixture(scope="module")
def models(home: Path) -> dict[str, Model]:
    """The same recipe with an encoder that sees, one that does not, one that sees the batch."""
    return {mode: _model(home, mode) for mode in ("plain", "blind", "batch")}


@pytest.fixture(scope="module")
def found(models: Mapping[str, Model], home: Path) -> dict[str, dict[str, float]]:
    return evaluate(models["plain"], folder=home / "plain")


def test_metrics_stand_by_task_and_split(found: Mapping[str, Any], home: Path) -> None:
    assert set(found) == {"digit", "digit@writer", "ink"}
    assert {"accuracy", "f1", "accuracy_image_shuffled", "batch_gap"} <= set(found["digit"])
    written = json.loads((home / "plain" / "evaluation.json").read_text())
    assert written.keys() == found.keys()
    for task, metrics in found.items():
        assert written[task].keys() == metrics.keys()
        for name, value in metrics.items():
            assert written[task][name] == (value if np.isfinite(value) else None)


def test_predictions_make_the_metrics_again(found: Mapping[str, Any], home: Path) -> None:
    lines = (home / "plain" / "predictions-digit.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 100
    assert len({row["key"] for row in rows}) == 100
    right = [row["prediction"]["label"] == row["target"]["label"] for row in rows]
    assert np.mean(right) == pytest.approx(found["digit"]["accuracy"])


def test_a_model_that_uses_its_input_falls_when_it_is_shuffled(found: Mapping[str, Any]) -> None:
    own, shuffled = found["digit"]["accuracy"], found["digit"]["accuracy_image_shuffled"]
    assert own > 0.6
    assert shuffled < own / 2


def test_a_model_that_ignores_its_input_scores_the_same(models: Mapping[str, Model]) -> None:
    for metrics in evaluate(models["blind"]).values():
        for name, value in metrics.items():
            other = metrics.get(f"{name}_image_shuffled")
            if other is not None and np.isfinite(value):
                assert other == pytest.approx(value, abs=1e-6), name
        assert metrics["batch_gap"] == pytest.approx(0, abs=1e-6)


def test_the_gap_of_the_batch(models: Mapping[str, Model], found: Mapping[str, Any]) -> None:
    assert found["ink"]["batch_gap"] == pytest.approx(0, abs=1e-5)
    assert found["digit"]["batch_gap"] == pytest.approx(0, abs=1e-5)
    leaning = evaluate(models["batch"])
    assert leaning["ink"]["batch_gap"] > 1e-2


def test_without_ablations_there_are_none(models: Mapping[str, Model]) -> None:
    metrics = evaluate(models["plain"], tasks=["digit"], split="test", input_ablation=False)
    assert set(metrics) == {"digit"}
    assert not [name for name in metrics["digit"] if "shuffled" in name or name == "batch_gap"]


def test_a_limit_scores_the_first_rows(models: Mapping[str, Model], tmp_path: Path) -> None:
    evaluate(models["plain"], tasks=["digit"], split="test", limit=7, folder=tmp_path)
    rows = (tmp_path / "limit7-predictions-digit.jsonl").read_text().splitlines()
    keys = [json.loads(row)["key"] for row in rows]
    source = load_split(models["plain"].plan, "digit", "test")
    assert keys == [source.key(i) for i in range(7)]


SUBSETS: dict[str, dict[str, Any]] = {
    "limit": {"limit": 3},
    "task": {"tasks": ["ink"]},
    "split": {"tasks": ["digit"], "split": "test"},
    "ablations": {"input_ablation": False},
}
"""Ways to evaluate less than everything."""


@pytest.mark.parametrize("less", SUBSETS)
def test_evaluating_less_takes_nothing_away(
    models: Mapping[str, Model], tmp_path: Path, less: str
) -> None:
    evaluate(models["plain"], folder=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    evaluate(models["plain"], folder=tmp_path, **SUBSETS[less])
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_full_disk_leaves_the_last_evaluation_and_shows_the_metrics(
    models: Mapping[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whichever write it is full: all files are those of before or those of now, whole."""
    lines: list[str] = []
    monkeypatch.setattr(RunLogger, "info", lambda self, text: lines.append(text))
    evaluate(models["plain"], folder=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    number, refused = 0, True
    while refused:
        number, refused = number + 1, False
        log = RunLogger(None)
        with faults.fault_at(number, tmp_path, faults.refuse, faults.GROWING):
            try:
                evaluate(models["plain"], input_ablation=False, folder=tmp_path, log=log)
            except RuntimeFailure as error:
                refused = True
                assert "the disk is full" in str(error) and len(str(error).splitlines()) == 1
                assert "accuracy" in lines[-1]
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert number > 3


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_batch_size_changes_no_metric(
    models: Mapping[str, Model], found: Mapping[str, Any], size: int
) -> None:
    metrics = evaluate(models["plain"], batch_size=size, input_ablation=False)
    for task, values in metrics.items():
        for name, value in values.items():
            assert value == pytest.approx(found[task][name], abs=1e-5)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"tasks": ["digti"]}, ("'digti'", "digit", "ink")),
        ({"tasks": ["digit"], "split": "tset"}, ("tasks.digit.data", "'tset'", "'test'")),
    ],
)
def test_what_is_not_there_is_named(
    models: Mapping[str, Model], how: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as error:
        evaluate(models["plain"], **how)
    for word in words:
        assert word in str(error.value)


def test_a_recipe_without_a_held_out_split_is_refused() -> None:
    recipe = json.loads(json.dumps(RECIPE))
    for task in recipe["tasks"].values():
        task["data"] = {"train": task["data"]["train"]}
    model = build(parse_recipe(recipe))
    assert splits(model.plan, "digit") == []
    with pytest.raises(ConfigError, match=r"data\.test"):
        evaluate(model)


def test_training_rows_are_never_scored_unasked(models: Mapping[str, Model]) -> None:
    assert splits(models["plain"].plan, "digit") == ["test", "writer"]


def test_each_row_gets_another_rows_cell() -> None:
    section = parse_recipe(RECIPE).tasks["digit"].data["writer"]
    source = open_section(section, "here")
    dealt = ShuffledStream(source, "image")
    givers = [int(g) for g in dealt.giver]
    assert sorted(givers) == list(range(len(source)))
    for i, giver in enumerate(givers):
        assert giver != i
        assert np.array_equal(dealt[i]["image"], source[giver]["image"])
        assert dealt[i]["label"] == source[i]["label"]
        assert dealt.key(i) == source.key(i)
        assert dealt.cell_key(i, "image") == source.cell_key(giver, "image")
        assert dealt.cell_key(i, "label") == source.cell_key(i, "label")


def test_an_unreadable_row_is_fatal_or_counted(home: Path, tmp_path: Path) -> None:
    from PIL import Image

    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(4):
            pixels = np.full((8, 8), 30 * i, np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{i}.png")
    (tmp_path / "a" / "0.png").write_bytes(b"no picture")
    recipe = json.loads(json.dumps(RECIPE))
    del recipe["tasks"]["ink"]
    data = {"source": "imagefolder", "path": str(tmp_path)}
    recipe["tasks"]["digit"]["data"] = {"train": data, "test": data}
    with pytest.raises(RuntimeFailure, match=r"0\.png.*on_error: skip"):
        evaluate(build(parse_recipe(recipe)))
    skipping = {**data, "on_error": "skip"}
    recipe["tasks"]["digit"]["data"] = {"train": skipping, "test": skipping}
    said: list[str] = []

    class Said(RunLogger):
        def info(self, text: str) -> None:
            said.append(text)

    result = evaluate(build(parse_recipe(recipe)), folder=tmp_path, log=Said(None))
    assert np.isfinite(result["digit"]["accuracy"])
    assert len((tmp_path / "predictions-digit.jsonl").read_text().splitlines()) == 7
    assert any("0.png" in line for line in said)


def test_a_frozen_encoders_features_give_the_same_metrics(
    models: Mapping[str, Model], home: Path
) -> None:
    recipe = json.loads(json.dumps(RECIPE))
    recipe["inputs"]["image"]["encoder"]["freeze"] = True
    cached = build(parse_recipe(recipe))
    recipe["cache"] = {"features": False}
    plain = build(parse_recipe(recipe))
    plain.load_state_dict(cached.state_dict())
    a, b = evaluate(cached), evaluate(plain)
    assert list((home / "cache").iterdir())
    for task, values in a.items():
        assert values == pytest.approx(b[task], abs=1e-5, nan_ok=True)


def test_nothing_trains_in_evaluation(models: Mapping[str, Model]) -> None:
    model = models["plain"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, limit=4)
    assert not model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
