"""Mistakes that a run meets behind its recipe: parts, folders, options of a verb."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sensorium.tests.engine.recipe.mistake_cases import ENCODER, TRAIN, edited, fails


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


ROGUE = """
from sensorium.modalities.base import Encoder

class Weighty(Encoder):
    def __init__(self, *, weights: str = "none") -> None: ...

class Greedy(Encoder):
    def __init__(self, **options: int) -> None: ...

class Bare(Encoder):
    def __init__(self, size) -> None: ...
"""


@pytest.mark.parametrize(
    ("name", "cure"), [("Weighty", "'weights'"), ("Greedy", "**options"), ("Bare", "annotate")]
)
def test_a_constructor_that_breaks_the_rules(
    name: str,
    cure: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "rogue_parts.py").write_text(ROGUE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    Path("recipe.yaml").write_text(edited({ENCODER: {"type": f"rogue_parts:{name}"}}))
    line = fails(monkeypatch, capsys, "check", "recipe.yaml")
    assert line.startswith(ENCODER)
    assert name in line
    assert cure in line


def test_a_folder_that_holds_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("recipe.yaml").write_text(edited({}))
    used = tmp_path / "runs" / "recipe"
    used.mkdir(parents=True)
    (used / "recipe.yaml").write_text("", encoding="utf-8")
    (used / "run.json").write_text("{}", encoding="utf-8")
    line = fails(monkeypatch, capsys, "train", "recipe.yaml", "--quiet")
    for words in ("runs/recipe", "--resume", "--overwrite", "--out"):
        assert words in line


def test_a_run_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("recipe.yaml").write_text(edited({}))
    line = fails(monkeypatch, capsys, "train", "recipe.yaml", "--resume", "--quiet")
    assert "without --resume" in line
    line = fails(monkeypatch, capsys, "evaluate", "runs/gone")
    assert line.startswith("runs/gone: ")
    line = fails(monkeypatch, capsys, "check", "gone.yaml")
    assert line.startswith("gone.yaml: ")
    assert "sensorium list recipes" in line


@pytest.mark.slow
def test_a_best_that_no_metric_has_ends_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edits = {"train.validate": {"every": 1, "metric": "caption/wrods"}}
    Path("recipe.yaml").write_text(edited(edits))
    line = fails(monkeypatch, capsys, "train", "recipe.yaml", "--quiet")
    assert line.startswith("train.validate.metric: ")
    assert "'caption/words'" in line
    assert not Path("runs/recipe/metrics.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edits", "place"),
    [
        ({TRAIN: {"source": "json", "path": "gone.jsonl", "holdout": 0.2}}, TRAIN),
    ],
)
def test_as_a_process(edits: dict[str, Any], place: str) -> None:
    Path("recipe.yaml").write_text(edited(edits), encoding="utf-8")
    command = [sys.executable, "-m", "sensorium", "check", "recipe.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {place}: ")
    assert done.stderr.count("\n") == 1
