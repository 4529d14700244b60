"""A run finds the modules that lay beside its recipe, from any folder and after a move."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sensorium.engine.utils.plugin_path import MODULES, module_folders

RECIPE = """
inputs: {image: {modality: image, encoder: {type: "the_part:Mine"}, connector: linear}}
tasks: {kind: {type: classification, input: image}}
"""
WRITE = """
import sys
from pathlib import Path
from sensorium.engine.recipe import load_recipe
from sensorium.engine.recipe.registry import find
recipe = load_recipe(sys.argv[1])
print(find("image_encoder", "the_part:Mine", "here").dim)
if len(sys.argv) > 2:
    Path(sys.argv[2]).mkdir(parents=True)
    recipe.write(Path(sys.argv[2]) / "recipe.yaml")
"""
MINE = """
from sensorium.modalities.base import Encoder


class Mine(Encoder):
    dim = {}
"""


def _python(folder: Path, *words: Any) -> tuple[str, str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", WRITE, *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.stdout.strip(), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("beside", [True, False])
def test_a_run_finds_the_modules_that_made_it(tmp_path: Path, beside: bool) -> None:
    """They lay beside the recipe, or in the current folder."""
    home = tmp_path / "home"
    (home / "recipes").mkdir(parents=True)
    (home / "recipes" / "mine.yaml").write_text(RECIPE)
    part = home / ("recipes" if beside else "work") / "the_part.py"
    part.parent.mkdir(exist_ok=True)
    part.write_text(MINE.format(3))
    out, err = _python(home / "work", home / "recipes" / "mine.yaml", home / "runs" / "x")
    assert out == "3", err
    folders = json.loads((home / "runs" / "x" / MODULES).read_text())
    assert folders == {"the_part": f"../../{part.parent.name}"}
    moved = tmp_path / "moved"
    home.rename(moved)
    run = moved / "runs" / "x" / "recipe.yaml"
    out, err = _python(tmp_path / "elsewhere", run)
    assert out == "3", err
    (moved / "runs" / "x" / "the_part.py").write_text(MINE.format(4))  # a run's own copy is first
    assert _python(tmp_path / "elsewhere", run)[0] == "4"
    for file in moved.rglob("the_part.py"):
        file.unlink()
    out, err = _python(tmp_path / "elsewhere", run)
    assert not out and "no module 'the_part'" in err and "add its folder to PYTHONPATH" in err


@pytest.mark.parametrize("text", [None, "", "[]", "3", '{"a": 3}', '{"a": "gone"}', "\x00"])
def test_a_foreign_file_of_folders_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / MODULES).write_text(text)
    assert module_folders(tmp_path) == []
