"""Somebody's own encoder: one file beside the recipe, and nothing else is changed."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import yaml

MY_FILE = '''
"""My own encoder: the brightness of each row and column of a picture."""

import numpy as np
import torch
from torch import nn

from sensorium.modalities.base import Encoder, Features, Processor


class Brightness(Processor):
    def __init__(self, size):
        self.size = size

    def prepare(self, raw):  # raw is an RGB PIL.Image, whatever the data set holds
        pixels = np.asarray(raw.convert("L").resize((self.size, self.size)), dtype=np.float32)
        return {"lines": torch.from_numpy(np.stack([pixels.mean(0), pixels.mean(1)]) / 255)}


class MyEncoder(Encoder):
    def __init__(self, *, dim: int = 16, size: int = 8) -> None:
        super().__init__()
        self.dim = dim
        self.processor = Brightness(size)
        self.map = nn.Linear(size, dim)

    def forward(self, lines):  # [B, 2, size] -> two tokens a picture
        return Features.dense(torch.relu(self.map(lines)))
'''

RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {"modality": "image", "encoder": {"type": "my_file:MyEncoder", "dim": "24"}}
    },
    "tasks": {
        "digit": {
            "type": "classification",
            "input": "image",
            "data": {
                "train": {"source": "digits", "split": "train"},
                "test": {"source": "digits", "split": "test"},
            },
        }
    },
    "train": {"steps": 150, "batch_size": 32, "optimizer": {"lr": 0.02}},
}

USE = """
import json
import sensorium
from sensorium.modalities.image.datasets.digits import Digits

rows = [Digits(split="test")[i] for i in range(3)]
model = sensorium.load("runs/mine")
print(json.dumps([model.generate("digit", image=[row["image"] for row in rows]),
                  list(model.embed(image=rows[0]["image"]).shape)]))
"""


@pytest.fixture
def mine(runner: Any) -> Any:
    """A folder with the file and a recipe in it: what a stranger has."""
    (runner.folder / "my_file.py").write_text(MY_FILE)
    (runner.folder / "mine.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    assert len(MY_FILE.splitlines()) < 40
    return runner


@pytest.mark.slow
def test_it_trains_is_evaluated_and_loaded_again_from_the_command_line(mine: Any) -> None:
    def sensorium(*words: str) -> Any:
        done = mine.run([sys.executable, "-m", "sensorium", *words])
        assert done.returncode == 0, done.stderr
        return done

    assert "my_file:MyEncoder" in sensorium("check", "mine.yaml").stdout
    sensorium("train", "mine.yaml")
    sensorium("evaluate", "runs/mine")
    result = json.loads((mine.folder / "runs" / "mine" / "evaluation.json").read_text())
    assert result["digit"]["accuracy"] > 0.3  # it learned: guessing gives 0.1
    (mine.folder / "use.py").write_text(USE)
    done = mine.run([sys.executable, "use.py"])
    assert done.returncode == 0, done.stderr
    answers, shape = json.loads(done.stdout)
    assert len(answers) == 3 and shape == [1, 24]


def test_its_frozen_features_are_cached_like_any_other(mine: Any, forbid: Any) -> None:
    frozen = {"inputs": {"image": {"encoder": {"freeze": True}}}, "train": {"steps": 3}}
    recipe = mine.changed(RECIPE, frozen)
    try:
        mine.train(recipe, "one")
        forbid(sys.modules["my_file"].MyEncoder, "forward")
        mine.train(recipe, "two")
        assert mine.losses("one") == mine.losses("two")
    finally:
        sys.modules.pop("my_file", None)
