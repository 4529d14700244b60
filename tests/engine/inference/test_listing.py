"""What there is to name, listed: types, built-in models by a pattern, recipes."""

from __future__ import annotations

import pytest
import timm

import sensorium
from sensorium.engine.recipe import KINDS, registered
from sensorium.engine.utils import ConfigError


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_is_listed(kind: str) -> None:
    assert sensorium.list_parts(kind) == sorted(registered(kind))


def test_types_and_models_of_encoders() -> None:
    assert {"timm", "open_clip", "transformers"} <= set(sensorium.list_encoders("image"))
    assert "image/timm" in sensorium.list_encoders()
    models = sensorium.list_encoders("image", "*dino*")
    assert models and all("dino" in name for name in models)
    assert {name.partition("/")[0] for name in models} <= set(sensorium.list_encoders("image"))
    tiny = sensorium.list_encoders("image", "timm/vit_tiny*")
    assert tiny == sorted(f"timm/{name}" for name in timm.list_models("vit_tiny*"))
    assert any("WAV2VEC2" in name for name in sensorium.list_encoders("audio", "*"))


def test_the_rest() -> None:
    assert sensorium.list_connectors("m*") == ["max", "mean", "mlp"]
    assert "captioning" in sensorium.list_tasks()
    assert "causal/tiny-llama" in sensorium.list_backbones("*tiny*")
    assert "causal" in sensorium.list_backbones()
    assert "configs/captioning/digits.yaml" in sensorium.list_recipes("*digits*")


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ConfigError, match="no modality 'imgae'; did you mean 'image'"):
        sensorium.list_encoders("imgae")
    with pytest.raises(ConfigError, match="no kind of part 'taks'; did you mean 'task'"):
        sensorium.list_parts("taks")
