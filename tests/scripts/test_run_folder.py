"""Two recipes of one name do not meet in one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensorium.scripts.train import run_folder


@pytest.mark.parametrize(
    ("recipe", "folder"),
    [
        ("configs/captioning/shapes.yaml", "runs/captioning/shapes"),
        ("configs/retrieval/shapes.yaml", "runs/retrieval/shapes"),
        ("/somewhere/configs/a/b.yaml", "runs/a/b"),
        ("mine.yaml", "runs/mine"),
        ("experiments/mine.v2.yaml", "runs/mine.v2"),
    ],
)
def test_a_recipe_is_trained_below_runs(recipe: str, folder: str) -> None:
    assert run_folder(Path(recipe)) == Path(folder)
