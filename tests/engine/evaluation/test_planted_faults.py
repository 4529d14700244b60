"""A broken connector and a shortcut are planted; the evaluation says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.engine.evaluation import evaluate, input_streams, read_table
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train

PARTS = """
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from sensorium.connectors.base import Connector
from sensorium.modalities.base import Encoder, Features, Loss, Processor, Source
from sensorium.tasks.base import Example, StreamUse, Task
from torch import nn


@dataclass
class Grey(Processor):
    def prepare(self, raw):
        return {"pixels": torch.from_numpy(np.asarray(raw.convert("L"), np.float32) / 255)}


class Pixels(Encoder):
    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.dim, self.processor, self.scale = 64, Grey(), scale

    def forward(self, pixels):
        return Features.dense(self.scale * pixels.flatten(1)[:, None])


class Broken(Connector):
    '''Its output is the same whatever goes in.'''

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim)
        self.bias = nn.Parameter(torch.ones(out_dim))

    def forward(self, features):
        tokens = features.tokens[..., :1] * 0 + self.bias
        return features.replace(tokens=tokens)


class Badges(Source):
    '''A digit, and a badge whose one bright pixel gives its label away.'''

    columns = ("image", "badge", "label")

    def __init__(self, *, first: int = 0, count: int = 200) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        self.images, self.labels = digits.images[first:][:count], digits.target[first:][:count]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        badge = np.zeros((8, 8), np.uint8)
        badge.flat[int(self.labels[index])] = 255
        pixels = (self.images[index] * 15).astype(np.uint8)
        cells = (Image.fromarray(pixels), Image.fromarray(badge), int(self.labels[index]))
        return dict(zip(self.columns, cells))

    def fingerprint(self):
        return f"{len(self)} {self.labels.sum()}"


class Accuracy:
    def __init__(self):
        self.right = []

    def update(self, predictions, references):
        pairs = zip(predictions, references, strict=True)
        self.right += [p == r["label"] for p, r in pairs]

    def compute(self):
        return {"accuracy": float(np.mean(self.right))}


class Both(Task):
    '''Ten classes from two pictures.'''

    streams = {"image": StreamUse(width=16), "badge": StreamUse(width=16)}

    def columns(self):
        return ("label",)

    def build(self, widths, decoders):
        self.head = nn.Linear(32, 10)

    def prepare(self, row, tools, rng):
        label = row["label"]
        return Example({"label": torch.tensor(label)}, {"label": label})

    def logits(self, ctx):
        return self.head(torch.cat([ctx.encode(n).pool() for n in self.streams], 1))

    def loss(self, batch, ctx):
        target = batch.labels["label"]
        total = nn.functional.cross_entropy(self.logits(ctx), target, reduction="sum")
        return Loss(total, len(batch))

    def predict(self, batch, ctx, **options):
        return self.logits(ctx).argmax(1).tolist()

    def metrics(self):
        return Accuracy()

    def example_rows(self):
        return [{"label": 1}, {"label": 2}]
"""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted_parts.py").write_text(PARTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.chdir(folder)
        patch.setenv("SENSORIUM_CACHE", str(folder / "cache"))
        yield folder


def recipe(image: dict[str, Any], badge: dict[str, Any]) -> dict[str, Any]:
    encoder = {"type": "planted_parts:Pixels"}
    return {
        "inputs": {
            name: {"modality": "image", "encoder": encoder, "connector": "linear", **changes}
            for name, changes in (("image", image), ("badge", badge))
        },
        "tasks": {
            "both": {
                "type": "planted_parts:Both",
                "data": {
                    "train": {"source": "planted_parts:Badges"},
                    "test": {"source": "planted_parts:Badges", "first": 1000, "count": 150},
                },
            }
        },
        "train": {"steps": 80, "batch_size": 32, "optimizer": {"lr": 0.03}},
    }


WEAK = {"encoder": {"type": "planted_parts:Pixels", "scale": 0.001}}
BROKEN = {"connector": "planted_parts:Broken"}


@pytest.mark.slow
@pytest.mark.quick_share(4)
@pytest.mark.parametrize(
    ("image", "badge", "used"),
    [
        ({}, BROKEN, {"image": True, "badge": False}),
        (BROKEN, {}, {"image": False, "badge": True}),
        (WEAK, {}, {"image": False, "badge": True}),  # a shortcut: the picture need not be seen
        (BROKEN, BROKEN, {"image": False, "badge": False}),
    ],
    ids=["broken-badge", "broken-image", "shortcut", "both-broken"],
)
def test_streams_that_are_not_used_are_flagged(
    image: dict[str, Any], badge: dict[str, Any], used: dict[str, bool], home: Path
) -> None:
    run = home / f"{np.random.default_rng().integers(1 << 30)}"
    model = train(parse_recipe(recipe(image, badge)), run, show=False)
    metrics = evaluate(model)["both"]
    assert (metrics["accuracy"] > 0.6) == any(used.values())
    streams = input_streams(model.plan)["both"]
    findings = read_table("both", metrics, streams, None, 150).findings
    for stream, finding in zip(streams, findings, strict=False):
        assert finding.good is used[stream], finding.text
        assert stream in finding.text
