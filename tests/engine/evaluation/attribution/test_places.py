"""A shortcut within one stream: a mark in a corner that gives the class away is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sensorium.engine.evaluation import evaluate
from sensorium.engine.evaluation.analyses import Subject, analyze
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train

PARTS = """
import numpy as np
from PIL import Image
from sensorium.modalities.base import Source
from sklearn.datasets import load_digits


class Marked(Source):
    '''Digits of 32 px; marked: the brightness of the last 8 x 8 px is the class.'''

    columns = ("image", "word")

    def __init__(self, *, marked: bool = True, first: int = 0, count: int = 300) -> None:
        digits = load_digits()
        self.images, self.labels = digits.images[first:][:count], digits.target[first:][:count]
        self.marked = marked

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        pixels = np.kron(self.images[index] * 8, np.ones((4, 4))).astype(np.uint8)
        label = int(self.labels[index])
        if self.marked:
            pixels[24:, 24:] = 25 * label
        return {"image": Image.fromarray(pixels), "word": str(label)}

    def fingerprint(self):
        return f"{len(self)} {self.marked} {self.labels.sum()}"
"""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("marked")
    (folder / "marked_parts.py").write_text(PARTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        yield folder


def recipe(marked: bool) -> dict[str, Any]:
    source = {"source": "marked_parts:Marked", "marked": marked}
    encoder = {"type": "patches", "size": 32, "patch_size": 8, "dim": 32}
    return {
        "inputs": {"image": {"modality": "image", "encoder": encoder, "connector": "mlp"}},
        "tasks": {
            "digit": {
                "type": "classification",
                "input": "image",
                "target": "word",
                "data": {"train": source, "test": {**source, "first": 400, "count": 60}},
            }
        },
        "train": {"steps": 300, "batch_size": 32, "optimizer": {"lr": 0.003}},
    }


@pytest.mark.slow
@pytest.mark.parametrize("marked", [True, False])
def test_a_mark_in_a_corner_is_named(marked: bool, home: Path) -> None:
    """Its score is high and its input is used: only the places tell that it learned no digits."""
    model = train(parse_recipe(recipe(marked)), home / f"run-{marked}", show=False)
    assert evaluate(model, input_ablation=False)["digit"]["accuracy"] > 0.3
    rows = analyze(Subject.of(model, limit=20), "places", {})
    assert rows[0]["chance"] == pytest.approx(1 / 16)
    assert sum(row["share"] for row in rows) <= 1 + 1e-6
    first = rows[0]
    if marked:
        assert first["cell"] == "3 3"
        assert first["largest"] > 0.5
        assert first["share"] > 3 * rows[1]["share"]
    else:
        assert first["share"] < 0.3, rows[:3]
        assert first["cell"] != "3 3"
