"""The rows that an evaluation reads: splits, shuffled cells, unreadable rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sensorium.engine.data import open_section, splits
from sensorium.engine.evaluation import evaluate
from sensorium.engine.evaluation.evaluator import ShuffledStream
from sensorium.engine.model import build
from sensorium.engine.recipe import parse_recipe
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


def test_a_recipe_without_a_held_out_split_is_refused() -> None:
    recipe = json.loads(json.dumps(RECIPE))
    for task in recipe["tasks"].values():
        task["data"] = {"train": task["data"]["train"]}
    model = build(parse_recipe(recipe))
    assert splits(model.plan, "digit") == []
    with pytest.raises(ConfigError, match=r"data\.test"):
        evaluate(model)


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
    messages: list[str] = []

    class Said(RunLogger):
        def info(self, text: str) -> None:
            messages.append(text)

    result = evaluate(build(parse_recipe(recipe)), folder=tmp_path, log=Said(None))
    assert np.isfinite(result["digit"]["accuracy"])
    assert len((tmp_path / "predictions-digit.jsonl").read_text().splitlines()) == 7
    assert any("0.png" in line for line in messages)
