"""Inner parts: their weights, their fitting, and mistakes in their sections."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sensorium.backbones.base import Backbone
from sensorium.backbones.causal import Causal
from sensorium.connectors.base import Connector
from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Features, Fittable
from sensorium.tasks.base import Task
from sensorium.tests.engine.model.inner.inner_recipes import (
    INNER,
    LLAMA,
    Nested,
    changed,
    inside,
    made,
    own,
    places,
    recipe,
)


@pytest.mark.quick_share(3)
@places
def test_weights_of_a_run_are_loaded(place: str, tmp_path: Path) -> None:
    values = recipe()
    values["train"] = {"seed": 7}
    first = made(values)
    save_run(first, tmp_path / "run")
    second = made(changed(place, weights=str(tmp_path / "run"), freeze=True))
    expected = inside(first, place).state_dict()
    torch.testing.assert_close(inside(second, place).state_dict(), expected, rtol=0, atol=0)
    save_run(second, tmp_path / "second")
    saved = load_file(tmp_path / "second" / "model.safetensors")
    assert {f"{INNER[place]}.{name}" for name in expected} <= set(saved)  # the first may move
    prints = json.loads((tmp_path / "second" / "fingerprints.json").read_text("utf-8"))
    assert place not in prints
    shutil.move(tmp_path / "run", tmp_path / "moved")
    again = load_model(tmp_path / "second")
    torch.testing.assert_close(again.state_dict(), second.state_dict(), rtol=0, atol=0)


def test_weights_of_the_owner_are_those_of_the_parts_within(tmp_path: Path) -> None:
    values = recipe()
    values["train"] = {"seed": 7}
    first = made(values)
    save_run(first, tmp_path / "run")
    second = recipe()
    for section in (
        second["inputs"]["image"]["encoder"],
        second["backbone"],
        second["tasks"]["distil"],
    ):
        section["weights"] = str(tmp_path / "run")
        section["freeze"] = True
    model = made(second)
    ours, theirs = model.state_dict(), first.state_dict()
    for name in theirs:
        if name.startswith(("streams.image.encoder", "decoders", "tasks.distil")):
            torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0, msg=name)
    save_run(model, tmp_path / "second")
    saved = load_file(tmp_path / "second" / "model.safetensors")
    assert set(saved) == set(ours)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    again = load_model(tmp_path / "second").state_dict()
    torch.testing.assert_close(again, ours, rtol=0, atol=0)


def test_all_of_it_is_saved_and_loaded(tmp_path: Path) -> None:
    model = made(recipe())
    save_run(model, tmp_path / "run")
    again = load_model(tmp_path / "run")
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    fitted = {path.name for path in (tmp_path / "run" / "fitted").glob("*.json")}
    assert {"tasks.distil.teacher.tokenizer.json", "backbone.inside.tokenizer.json"} <= fitted


def test_tokenizers_within_are_fitted_on_what_the_task_offers() -> None:
    model = made(recipe())
    teacher = model.task("distil").teacher
    assert isinstance(teacher, Causal)
    for word in ("zero", "three"):
        assert teacher.tokenizer.decode(teacher.tokenizer.encode(word)) == word
    assert teacher.tokenizer is not inside(model, "backbone.inside").tokenizer


class Mean(Fittable):
    """The mean of what it was fitted on."""

    def fit(self, examples: Iterable[Any]) -> None:
        values = [float(np.asarray(example).mean()) for example in examples]
        self.count, self.mean = len(values), sum(values) / len(values)

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.count, self.mean = state["count"], state["mean"]


class Centred(Connector):
    """A connector that has something to fit."""

    def __init__(self, in_dim: int, out_dim: int, *, mean: Mean) -> None:
        super().__init__(in_dim, out_dim)
        self.mean, self.map = mean, nn.Linear(in_dim, out_dim)

    def forward(self, features: Features) -> Features:
        return features.replace(tokens=self.map(features.tokens - self.mean.mean), pooled=None)


def test_a_connector_is_fitted_on_the_values_of_its_stream(tmp_path: Path) -> None:
    values = recipe()
    values["inputs"]["image"]["connector"] = own(Centred)
    model = made(values)
    mean = model.stream("image").connector.mean  # type: ignore[union-attr]
    assert mean.count == 24 and 0 < mean.mean < 255  # twelve pictures of each of two tasks
    save_run(model, tmp_path / "run")
    again = load_model(tmp_path / "run").stream("image").connector.mean  # type: ignore[union-attr]
    assert again.state() == mean.state()


MISTAKES = {
    "an encoder of no modality": (
        "tasks.distil.picture",
        {"type": "patches"},
        r"tasks\.distil\.picture\.type: .*'patches'.*",
    ),
    "another class": (
        "tasks.distil.teacher",
        {"type": own(Nested)},
        r"tasks\.distil\.teacher\.type: .* is no backbone",
    ),
    "an unknown option": (
        "inputs.image.connector.inside",
        {"depht": 3},
        r"image\.connector\.inside\.depht: .*no such",
    ),
    "a wrong key of the engine": (
        "backbone.inside",
        {"lr": "fast"},
        r"backbone\.inside\.lr: found 'fast'",
    ),
    "weights that are not there": (
        "tasks.distil.teacher",
        {"weights": "runs/gone"},
        r"distil\.teacher\.weights: found",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_have_their_place(mistake: str) -> None:
    place, keys, line = MISTAKES[mistake]
    with pytest.raises(ConfigError, match=line):
        made(changed(place, **keys))


class Hasty(Task):
    """Uses an inner part in its constructor."""

    def __init__(self, *, teacher: Backbone) -> None:
        super().__init__()
        self.width = teacher.dim


def test_a_task_that_uses_an_inner_part_too_early_is_told() -> None:
    values = recipe()
    values["tasks"] = {"hasty": {"type": own(Hasty), "teacher": LLAMA}}
    with pytest.raises(ConfigError, match=r"tasks\.hasty: Hasty uses teacher in its constructor"):
        made(values)
