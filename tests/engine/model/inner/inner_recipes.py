"""Parts of every kind that contain parts, and a recipe with one of each."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import pytest
import torch
from torch import Tensor, nn

from sensorium.backbones.base import Backbone
from sensorium.connectors.base import Between, Connector
from sensorium.engine.model import Model, build
from sensorium.engine.recipe import parse_recipe
from sensorium.modalities.base import Encoder, Features, Loss
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
    return f"{kind.__module__}:{kind.__name__}"


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
    part_section = section[last]
    section[last] = {
        **({"type": part_section} if isinstance(part_section, str) else part_section),
        **keys,
    }
    return values


def made(values: Mapping[str, Any]) -> Model:
    return build(parse_recipe(values))


def inside(model: Model, place: str) -> nn.Module:
    return model.get_submodule(INNER[place])
