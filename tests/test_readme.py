"""What the README shows is run as it stands: the stranger's encoder, the recipes, the verbs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.engine.inference import load
from sensorium.engine.recipe import parse, parse_recipe, plan_recipe
from sensorium.engine.training import train

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:<!-- (?:test|file): (\S+) -->\n)?```(\w*)\n(.*?)```", README, re.DOTALL)
RECIPES = [body for _, kind, body in BLOCKS if kind == "yaml" and "tasks:" in body]


def _file(name: str) -> str:
    return next(body for marked, _, body in BLOCKS if marked == name)


def test_the_encoder_of_the_page_is_short_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = _file("my_file.py")
    assert len(text.splitlines()) < 40
    (tmp_path / "my_file.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_file", raising=False)
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    (section,) = (body for _, _, body in BLOCKS if body.startswith("encoder:"))
    recipe = {
        "inputs": {"image": {"modality": "image", **parse(section, "README")}},
        "tasks": {
            "digit": {
                "type": "classification",
                "input": "image",
                "target": "word",
                "data": {"train": {"source": "digits", "split": "train", "limit": 32}},
            }
        },
        "train": {"steps": 3, "batch_size": 8, "log_every": 1},
    }
    model = train(parse_recipe(recipe), tmp_path / "run", show=False)
    assert type(model.stream("image").encoder).__name__ == "MyEncoder"
    exec(_file("contract"), {})
    embedded = load(tmp_path / "run").embed(image=np.zeros((8, 8, 3), dtype=np.uint8))
    assert embedded.shape == (1, 64)
    del sys.modules["my_file"]  # another test has a file of the same name


def test_the_tokens_of_the_page_are_what_it_says() -> None:
    prediction: dict[str, Any] = {}
    exec(_file("tokens"), prediction)
    assert prediction["ids"].shape == (256, 70) and prediction["again"].shape == (256, 100, 7)


@pytest.mark.parametrize("text", RECIPES)
def test_the_recipes_of_the_page_are_right(text: str) -> None:
    plan_recipe(parse_recipe(parse(text, "README")))


PAIRS = ("sound_to_action", "volume_to_sound", "trajectory_to_words")


@pytest.mark.parametrize("name", PAIRS)
def test_a_new_pair_takes_few_lines(name: str) -> None:
    """They are trained with all commands of the page, in `docs/test_pages.py`."""
    text = _file(f"{name}.yaml")
    assert len(text.splitlines()) <= 15
    plan_recipe(parse_recipe(parse(text, "README")))
    assert f"sensorium train {name}.yaml" in README


def test_the_page_shows_a_whole_recipe() -> None:
    assert RECIPES


def test_every_verb_of_the_page_is_there() -> None:
    from sensorium.scripts.app import app

    known = {command.name for command in app.registered_commands} | {"cache"}
    prediction = set(re.findall(r"(?:^|`)sensorium ([a-z][a-z-]*)", README, re.MULTILINE))
    assert prediction <= known
    assert {"check", "train", "evaluate", "generate"} <= prediction
