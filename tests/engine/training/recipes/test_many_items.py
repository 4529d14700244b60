"""A task whose cells hold several items, trained, evaluated and asked like any other."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from sensorium.engine.evaluation import evaluate
from sensorium.engine.inference import Pipeline, predict_files
from sensorium.engine.inference.rows import rows_of
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check
from sensorium.engine.utils import ConfigError

FROZEN = {"inputs": {"image": {"encoder": {"freeze": True}}}}
PLAIN = {"cache": {"features": False}}


def test_training_evaluation_and_holdout(bags: Any) -> None:
    held = {"tasks": {"bag": {"data": {"train": {"holdout": 0.34}}}}}
    every = {"train": {"validate": {"every": 2}}}
    cached = bags.runner.values(bags.recipe(FROZEN, held, every), "cached")
    without = bags.runner.values(bags.recipe(FROZEN, held, every, PLAIN), "without")
    assert cached == pytest.approx(without, abs=1e-5)
    result = evaluate(bags.model(FROZEN))["bag"]
    assert result["error_image_shuffled"] != result["error"] and result["batch_gap"] < 1e-5


def test_workers_change_nothing(bags: Any) -> None:
    plain = bags.runner.values(bags.recipe(PLAIN), "plain")
    workers = bags.recipe(PLAIN, {"train": {"num_workers": 2}})
    assert bags.runner.values(workers, "workers") == plain


@pytest.mark.parametrize("change", [{}, {"tasks": {"bag": {"data": None}}}])
def test_the_dry_run(bags: Any, change: dict[str, Any]) -> None:
    report = check(parse_recipe(bags.recipe(change)))
    assert {stage.where: stage.shape for stage in report.components}["inputs.image.encoder"]


def test_the_pipeline(bags: Any) -> None:
    pipeline, counts = Pipeline(bags.model()), bags.parts.COUNTS
    cells = [bags.parts.Bags()[i]["image"] for i in range(len(counts))]
    together = pipeline.generate("bag", image=cells)
    assert [built["pictures"] for built in together] == list(counts)
    for cell, built in zip(cells, together, strict=True):
        single = pipeline.generate("bag", image=cell)
        assert single["pictures"] == len(cell)
        assert single["light"] == pytest.approx(built["light"], abs=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_files_of_a_command_line_are_one_row(bags: Any, count: int) -> None:
    files = [f"{i}.png" for i in range(count)]
    for file in files:
        Image.new("L", (8, 8), 77).save(file)
    for words in (files, [f"image={file}" for file in files]):
        (row,) = predict_files(Pipeline(bags.model()), words, task=None, options={})
        assert row["image"] == files and row["prediction"]["pictures"] == count


def test_columns_as_rows() -> None:
    assert rows_of({"a": 1, "b": [2, 3]}) == ([{"a": 1, "b": 2}, {"a": 1, "b": 3}], True)
    assert rows_of({"a": [1, 2], "b": 3}, {"a"}) == ([{"a": [1, 2], "b": 3}], False)
    assert rows_of({"a": []}, {"a"}) == ([{"a": []}], False)
    assert rows_of({"a": [[1], []]}, {"a"}) == ([{"a": [1]}, {"a": []}], True)
    with pytest.raises(ConfigError, match="lists of different lengths: a 2, b 3"):
        rows_of({"a": [[1], []], "b": [1, 2, 3]}, {"a"})


@pytest.mark.slow
def test_two_processes_of_which_one_has_no_item(bags: Any) -> None:
    train = {"source": "bag_parts:Bags", "counts": [0, 3, 0, 1, 0, 2, 0, 5]}
    data = {"tasks": {"bag": {"data": {"train": train, "test": None}}}}
    one = bags.recipe(data, {"train": {"batch_size": 4, "steps": 6}})
    bags.runner.train(one, "one")
    two = bags.runner.changed(one, {"train": {"batch_size": 2}})
    done = bags.runner.go(two, "two", processes=2)
    assert done.returncode == 0, done.stderr
    result, expected = ([x for *_, x in bags.runner.losses(name)] for name in ("two", "one"))
    assert result == pytest.approx(expected, abs=1e-5)
