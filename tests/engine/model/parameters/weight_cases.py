"""A small recipe, and the models that its tests load weights into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sensorium.engine.model import Model, compose, resolve_and_fit
from sensorium.engine.recipe import parse_recipe

DATA = {"train": {"source": "digits", "split": "train", "limit": 40}}


def recipe_of(encoder: Mapping[str, Any] | None = None, stream: str = "image") -> dict[str, Any]:
    patches = {"type": "patches", "size": 8, "patch_size": 4, "dim": 12}
    return {
        "inputs": {stream: {"modality": "image", "encoder": {**patches, **(encoder or {})}}},
        "tasks": {
            "digit": {
                "type": "classification",
                "input": stream,
                "data": {
                    "train": {**DATA["train"], "columns": {stream: "image"}}
                    if stream != "image"
                    else DATA["train"]
                },
            }
        },
    }


def model_of(seed: int, **changes: Any) -> Model:
    recipe = parse_recipe(recipe_of(**changes))
    return compose(resolve_and_fit(recipe), seed=seed)


def encoder_of(model: Model, stream: str = "image") -> dict[str, Tensor]:
    return dict(model.stream(stream).encoder.state_dict())
