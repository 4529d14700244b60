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

from sensorium.engine.data import load_split, splits
from sensorium.engine.evaluation import evaluate
from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train
from sensorium.engine.utils import ConfigError, RunLogger, RuntimeFailure
from sensorium.tests.engine.evaluation.evaluation_recipes import PARTS, RECIPE


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
def scores(models: Mapping[str, Model], home: Path) -> dict[str, dict[str, float]]:
    return evaluate(models["plain"], folder=home / "plain")


def test_metrics_stand_by_task_and_split(scores: Mapping[str, Any], home: Path) -> None:
    assert set(scores) == {"digit", "digit@writer", "ink"}
    assert {"accuracy", "f1", "accuracy_image_shuffled", "batch_gap"} <= set(scores["digit"])
    written = json.loads((home / "plain" / "evaluation.json").read_text())
    assert written.keys() == scores.keys()
    for task, metrics in scores.items():
        assert written[task].keys() == metrics.keys()
        for name, value in metrics.items():
            assert written[task][name] == (value if np.isfinite(value) else None)


def test_predictions_make_the_metrics_again(scores: Mapping[str, Any], home: Path) -> None:
    lines = (home / "plain" / "predictions-digit.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 100
    assert len({row["key"] for row in rows}) == 100
    right = [row["prediction"]["label"] == row["target"]["label"] for row in rows]
    assert np.mean(right) == pytest.approx(scores["digit"]["accuracy"])


def test_a_model_that_uses_its_input_falls_when_it_is_shuffled(scores: Mapping[str, Any]) -> None:
    accuracy, shuffled = scores["digit"]["accuracy"], scores["digit"]["accuracy_image_shuffled"]
    assert accuracy > 0.6
    assert shuffled < accuracy / 2


def test_a_model_that_ignores_its_input_scores_the_same(models: Mapping[str, Model]) -> None:
    for metrics in evaluate(models["blind"]).values():
        for name, value in metrics.items():
            other = metrics.get(f"{name}_image_shuffled")
            if other is not None and np.isfinite(value):
                assert other == pytest.approx(value, abs=1e-6), name
        assert metrics["batch_gap"] == pytest.approx(0, abs=1e-6)


def test_the_gap_of_the_batch(models: Mapping[str, Model], scores: Mapping[str, Any]) -> None:
    assert scores["ink"]["batch_gap"] == pytest.approx(0, abs=1e-5)
    assert scores["digit"]["batch_gap"] == pytest.approx(0, abs=1e-5)
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
    models: Mapping[str, Model], scores: Mapping[str, Any], size: int
) -> None:
    metrics = evaluate(models["plain"], batch_size=size, input_ablation=False)
    for task, values in metrics.items():
        for name, value in values.items():
            assert value == pytest.approx(scores[task][name], abs=1e-5)


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


def test_training_rows_are_never_scored_unasked(models: Mapping[str, Model]) -> None:
    assert splits(models["plain"].plan, "digit") == ["test", "writer"]


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
