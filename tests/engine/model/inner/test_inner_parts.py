"""Parts within parts of every kind: resolved, fitted, frozen, adapted, loaded by their section."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sensorium.backbones.base import Backbone
from sensorium.backbones.causal import Causal
from sensorium.connectors.base import Between, Connector
from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check
from sensorium.engine.training.optim import build_optimizer
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Encoder, Features, Fittable, Loss
from sensorium.tasks.base import Context, Task
from sensorium.tasks.batch import Batch, Example, Tools
from sensorium.tasks.uses import BACKBONE, DecoderUse, StreamUse

PATCHES = {"type": "patches", "size": 8, "patch_size": 4, "dim": 8}
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
LLAMA = {
    "type": "causal",
    "name": "tiny-llama",
    "tokenizer": {"type": "bpe", "size": 264},
    "options": {**SMALL, "num_attention_heads": 2, "num_key_value_heads": 2},
}
WORDS = ["zero", "one", "two", "three"]


class Distil(Task):
    """Learns from an inner decoder, an inner encoder, and a connector between the two."""

    streams = {"image": StreamUse()}
    decoders = {BACKBONE: DecoderUse()}

    def __init__(
        self,
        *,
        teacher: Backbone,
        picture: Encoder | None = None,
        bridge: Annotated[Connector, Between("picture", "teacher")] | None = None,
    ) -> None:
        super().__init__()
        self.teacher, self.picture, self.bridge = teacher, picture, bridge

    def fit_examples(self, part: str, row: Mapping[str, Any]) -> Iterable[str]:
        return [row["word"]]

    def columns(self) -> tuple[str, ...]:
        return ("word",)

    def prepare(self, row: Mapping[str, Any], tools: Tools, rng: Any) -> Example:
        ids = self.teacher.tokenizer.encode(row["word"])
        return Example({"ids": torch.tensor(ids)}, {"word": row["word"]})

    def loss(self, batch: Batch, ctx: Context) -> Loss:
        ids, mask = batch.labels["ids"], batch.label_masks["ids"]
        device = ctx.encode("image").tokens.device
        hidden = self.teacher(self.teacher.embed(ids.to(device)), mask.to(device))
        total: Tensor = hidden.mean() + ctx.encode("image").tokens.mean()
        for part in (self.picture, self.bridge):
            total = total + sum(p.mean() for p in part.parameters()) if part is not None else total
        return Loss(total, len(batch))

    def example_rows(self) -> list[dict[str, Any]]:
        return [{"word": word} for word in WORDS]


class Around(Connector):
    """A connector, or a head, around another."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        inside: Annotated[Connector, Between("in_dim", "width")],
        width: int = 6,
    ) -> None:
        super().__init__(in_dim, out_dim)
        self.inside, self.last = inside, nn.Linear(width, out_dim)

    def forward(self, features: Features) -> Features:
        result = self.inside(features)
        return result.replace(tokens=self.last(result.tokens), pooled=self.last(result.mean()))


class Doubled(Backbone):
    """A decoder around another, whose hidden states it scales."""

    def __init__(self, *, inside: Backbone) -> None:
        super().__init__()
        self.inside, self.scale = inside, nn.Parameter(torch.ones(()))
        self.dim, self.tokenizer = inside.dim, inside.tokenizer

    def embed(self, ids: Tensor) -> Tensor:
        return self.inside.embed(ids)

    def forward(self, *args: Any, **options: Any) -> Tensor:
        result: Tensor = self.inside(*args, **options) * self.scale
        return result


class Nested(Encoder):
    """An encoder around another of any modality."""

    def __init__(self, *, inside: Encoder) -> None:
        super().__init__()
        self.inside, self.processor, self.dim = inside, inside.processor, inside.dim
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, **batch: Tensor) -> Features:
        result: Features = self.inside(**batch)
        return result.replace(tokens=result.tokens * self.scale)


def own(kind: type) -> str:
    return f"{__name__}:{kind.__name__}"


DATA = {"train": {"source": "digits", "split": "train", "limit": 12}}


def recipe() -> dict[str, Any]:
    """A part of each kind with parts within, some two deep."""
    nested = {"type": own(Nested), "inside": {"type": own(Nested), "inside": PATCHES}}
    connector = {"type": own(Around), "inside": "linear"}
    task = {
        "type": own(Distil),
        "teacher": LLAMA,
        "picture": {**PATCHES, "type": "image/patches"},
        "bridge": "linear",
        "data": DATA,
    }
    digit = {"type": "classification", "input": "image", "target": "word", "data": DATA}
    return copy.deepcopy(
        {
            "inputs": {"image": {"modality": "image", "encoder": nested, "connector": connector}},
            "backbone": {"type": own(Doubled), "inside": LLAMA},
            "tasks": {"distil": task, "digit": {**digit, "head": dict(connector)}},
        }
    )


INNER = {
    "tasks.distil.teacher": "tasks.distil.teacher",
    "tasks.distil.picture": "tasks.distil.picture",
    "tasks.distil.bridge": "tasks.distil.bridge",
    "inputs.image.encoder.inside": "streams.image.encoder.inside",
    "inputs.image.encoder.inside.inside": "streams.image.encoder.inside.inside",
    "inputs.image.connector.inside": "streams.image.connector.inside",
    "tasks.digit.head.inside": "tasks.digit.heads.head.inside",
    "backbone.inside": "decoders.backbone.inside",
}
"""The place of each in the recipe, and its name in the model."""

places = pytest.mark.parametrize("place", INNER)


def changed(place: str, **keys: Any) -> dict[str, Any]:
    """The recipe with further keys in the section of an inner part."""
    values = recipe()
    *parents, last = place.split(".")
    section = values
    for key in parents:
        section = section[key]
    said = section[last]
    section[last] = {**({"type": said} if isinstance(said, str) else said), **keys}
    return values


def made(values: Mapping[str, Any]) -> Model:
    return build(parse_recipe(values))


def inside(model: Model, place: str) -> nn.Module:
    return model.get_submodule(INNER[place])


@places
def test_the_model_holds_it_and_its_component(place: str) -> None:
    model = made(recipe())
    components = {c.where: c.module for c in model.components}
    assert components[place] is inside(model, place)
    assert list(inside(model, place).parameters())


@places
def test_freeze_freezes_it_alone(place: str) -> None:
    model = made(changed(place, freeze=True))
    module = inside(model, place)
    assert not any(p.requires_grad for p in module.parameters())
    assert not module.training and model.training
    frozen = {id(p) for p in module.parameters()}
    assert all(p.requires_grad for p in model.parameters() if id(p) not in frozen)


@pytest.mark.parametrize("place", [p for p in INNER if "encoder" not in p and "picture" not in p])
def test_adapters_are_all_that_trains_of_it(place: str) -> None:
    """Of those that have a linear layer; `patches` has none."""
    module = inside(made(changed(place, lora={"r": 2})), place)
    trains = {name for name, p in module.named_parameters() if p.requires_grad}
    assert trains and all("lora_" in name for name in trains)


@places
def test_train_only_and_lr_hold_for_it(place: str) -> None:
    model = made(changed(place, lr=0.5))
    rates = {
        id(p): g["base_lr"]
        for g in build_optimizer(model, model.plan.recipe.train).param_groups
        for p in g["params"]
    }
    assert {rates[id(p)] for p in inside(model, place).parameters()} == {0.5}
    if any(n.endswith("bias") for n, _ in inside(model, place).named_parameters()):
        module = inside(made(changed(place, train_only="bias")), place)
        assert all(p.requires_grad == n.endswith("bias") for n, p in module.named_parameters())


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


def test_options_within_are_resolved(tmp_path: Path) -> None:
    resolved = made(recipe()).plan.recipe.tasks["distil"].options["teacher"]
    assert resolved["config"]["model_type"] == "llama" and resolved["weights"] == "none"


def test_check_lists_them_and_counts_each_parameter_once() -> None:
    report = check(parse_recipe(changed("tasks.distil.teacher", freeze=True)))
    stages = {stage.where: stage for stage in report.components}
    assert set(INNER) <= set(stages)
    assert stages["tasks.distil.teacher"].trained == 0 and stages["tasks.distil.teacher"].note
    model = made(recipe())
    total = sum(p.numel() for p in model.parameters())
    assert sum(stage.parameters for stage in report.components) == total


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
