"""The dry run: what it prints, what it refuses, and that it never touches a weight."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sensorium.engine.recipe import load_recipe
from sensorium.engine.training import check
from sensorium.engine.training.dry_run import Report
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.training.dry_run.dry_run_recipes import report_of, stages_of

SHIPPED = Path(__file__).parents[4] / "configs"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


FEWER = {
    f"control/metaworld_{name}.yaml": [
        f"tasks.act.data.train.{few}"
        for few in ("episodes=1", "branches=0", "hold=1", "size=32", "tasks=[reach-v3]")
    ]
    for name in ("state", "pixels")
}
"""Recipes whose data are recorded in a simulator when first asked for -> a minute less of it."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(str(p.relative_to(SHIPPED)) for p in SHIPPED.rglob("*.yaml"))
)
def test_every_shipped_recipe_passes(name: str) -> None:
    if name in FEWER:
        pytest.importorskip("metaworld")
    report = check(load_recipe(SHIPPED / name, FEWER.get(name, [])))
    for each in report.stages.values() or [report]:
        assert each.components
        assert all(flops > 0 for flops in each.flops.values())


def test_it_tells_the_way_of_the_data() -> None:
    stages = stages_of(report_of(inputs__image__encoder__freeze=True))
    assert stages["inputs.image.encoder"].shape == "[B, 4, 12] grid 2x2"
    assert stages["inputs.image.connector"].shape == "[B, 4, 16] grid 2x2"
    assert stages["tasks.digit.head"].shape == "[B, 1, 10]"
    assert stages["backbone"].shape.endswith(", 16]")
    assert stages["inputs.image.encoder"].trained == 0
    assert "frozen, features cached" in stages["inputs.image.encoder"].note
    assert set(stages) == {
        "backbone",
        "inputs.image.encoder",
        "inputs.image.connector",
        "tasks.digit.head",
    }


def test_random_weights_are_said(tmp_path: Path) -> None:
    report = str(report_of(inputs__image__encoder__freeze=True))
    assert "warning: inputs.image.encoder is frozen at random weights" in report
    assert "begins at random weights: backbone, inputs.image.connector, tasks.digit.head" in report
    assert "warning" not in str(report_of())


@pytest.mark.parametrize(
    ("changes", "where", "words"),
    [
        ({"inputs__image__connector": None}, "inputs.image", ("12", "16", "connector: linear")),
        (
            {"inputs__image__connector": {"type": "pixel_shuffle", "factor": 3}},
            "tasks.caption",
            ("2", "3"),
        ),
        (
            {"inputs__image__connector": {"type": "stack", "factor": 0}},
            "inputs.image.connector",
            ("found 0", "> 0"),
        ),
    ],
)
def test_parts_that_do_not_meet(
    changes: Mapping[str, Any], where: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as error:
        report_of(**changes)
    line = str(error.value)
    assert line.startswith((f"{where}: ", f"{where}.", "inputs.image.connector"))
    assert "\n" not in line
    for word in words:
        assert word in line


def test_without_data_its_example_is_walked() -> None:
    report = report_of(tasks__caption__data=None, tasks__digit=None)
    assert "tasks.caption: has no data.train; walked with its example rows" in report.notes
    assert report.flops["caption"] > 0


def test_a_tokenizer_says_what_it_loses() -> None:
    lower = {"type": "characters"}
    text = " ".join(("Ab", "a  b", "e\u0301"))
    notes = report_of(
        tasks__caption__target=f"{text} {{word}}", backbone__tokenizer=lower, tasks__digit=None
    ).notes
    (note,) = [note for note in notes if "does not keep" in note]
    assert note.startswith("backbone.tokenizer: does not keep capitals; ")
    assert not [note for note in report_of().notes if "does not keep" in note]


def _folder(path: Path, count: int) -> Path:
    for label in ("a", "b"):
        (path / label).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((8, 8, 3), 20 * i, np.uint8)
            Image.fromarray(pixels).save(path / label / f"{i}.png")
    return path


def _reads(path: Path, **more: Any) -> Report:
    data = {"train": {"source": "imagefolder", "path": str(path), **more}}
    return report_of(tasks__caption=None, backbone=None, tasks__digit__data=data)


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "pictures", 2)
    assert _reads(folder).components
    (folder / "a" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError) as error:
        _reads(folder)
    line = str(error.value)
    assert line.startswith("tasks.digit.data.train, row ")
    assert "0.png" in line
    assert "on_error: skip" in line
    assert _reads(folder, on_error="skip").components
