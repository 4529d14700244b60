"""A part that is built round another: its section, its weights, what is frozen, what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.model import build, count_own_parameters, uncacheable_reason
from sensorium.engine.recipe import load_recipe, parse_recipe, schema
from sensorium.engine.training import check
from sensorium.engine.utils import ConfigError

PICTURE = {"type": "patches", "size": 16, "patch_size": 8, "dim": 8}


def recipe(picture: Any = None, **slices: Any) -> dict[str, Any]:
    encoder = {
        "type": "slices",
        "encoder": PICTURE if picture is None else picture,
        "size": [12, 12, 4],
        "spacing": [16, 16, 40],
        "heads": 2,
        "depth": 1,
        **slices,
    }
    data = {"source": "phantom", "subjects": 2, "spacing": 12}
    return {
        "inputs": {"volume": {"modality": "mri", "encoder": encoder}},
        "tasks": {
            "name": {
                "type": "classification",
                "target": "sequence",
                "input": "volume",
                "data": {"train": data, "test": {**data, "split": "test"}},
            }
        },
        "train": {"steps": 2, "batch_size": 4},
    }


def test_the_section_within_has_keys_of_its_own() -> None:
    frozen = recipe({**PICTURE, "freeze": True})
    model = build(parse_recipe(frozen))
    places = {where: module for where, module, _ in model.components}
    outer, inner = places["inputs.volume.encoder"], places["inputs.volume.encoder.encoder"]
    assert outer.encoder is inner
    assert not any(p.requires_grad for p in inner.parameters())
    assert all(p.requires_grad for p in outer.across.parameters())
    ours = [c for c in model.components if c.where.startswith("inputs.volume.encoder")]
    assert sum(count_own_parameters(model, c) for c in ours) == sum(
        p.numel() for p in outer.parameters()
    )
    assert uncacheable_reason(model.plan, model, "volume") is not None


def test_all_of_it_frozen_is_cached() -> None:
    model = build(parse_recipe(recipe(freeze=True)))
    assert uncacheable_reason(model.plan, model, "volume") is None


def test_check_tells_of_both() -> None:
    messages = str(check(parse_recipe(recipe())))
    assert "inputs.volume.encoder.encoder" in messages and "patches" in messages


def test_a_run_keeps_both_and_gives_the_inner_part_to_another(tmp_path: Path) -> None:
    model = build(parse_recipe(recipe()))
    save_run(model, tmp_path / "run")
    again = load_model(tmp_path / "run")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)
    inner = (
        load_recipe(tmp_path / "run" / "recipe.yaml").inputs["volume"].encoder.options["encoder"]
    )
    assert inner["type"] == "patches"
    taken = build(parse_recipe(recipe({**PICTURE, "weights": str(tmp_path / "run")})))
    ours, theirs = taken.stream("volume").encoder, model.stream("volume").encoder
    torch.testing.assert_close(ours.encoder.state_dict(), theirs.encoder.state_dict())
    assert not torch.equal(ours.position, torch.zeros_like(ours.position))


def test_mistakes_within_have_their_place() -> None:
    with pytest.raises(ConfigError, match=r"inputs\.volume\.encoder\.encoder\.patch: Patches has"):
        build(parse_recipe(recipe({**PICTURE, "patch": 3})))
    with pytest.raises(ConfigError, match=r"inputs\.volume\.encoder\.encoder\.type: .*'patchs'"):
        build(parse_recipe(recipe({"type": "patchs"})))
    lacking = recipe()
    del lacking["inputs"]["volume"]["encoder"]["encoder"]
    with pytest.raises(ConfigError, match=r"inputs\.volume\.encoder\.encoder: is required"):
        build(parse_recipe(lacking))


def test_the_schema_describes_it() -> None:
    assert "#/$defs/Section" in str(schema()["$defs"]["StreamSection"])
