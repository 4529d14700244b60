"""Run folders that are incomplete, changed, or of another encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import sensorium
from sensorium.engine.checkpoint.run_folder import FINGERPRINTS
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import train
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.checkpoint.run_folder.run_cases import serve


def test_another_encoder_is_refused_by_its_name(
    home: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(home / "before", copy.parent / "other")
    from safetensors.torch import load_file, save_file

    tensors = load_file(other / "model.safetensors")
    name = next(k for k in tensors if k.startswith("streams.image.encoder."))
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, other / "model.safetensors")
    serve(monkeypatch, other)
    with pytest.raises(ConfigError) as error:
        sensorium.load(copy)
    prints = json.loads((copy / FINGERPRINTS).read_text())
    line = str(error.value)
    assert line.startswith("inputs.image.encoder: ")
    assert prints["inputs.image.encoder"][:12] in line
    assert "\n" not in line


FILES = ["recipe.yaml", "model.safetensors", FINGERPRINTS, "fitted/backbone.tokenizer.json",
         "fitted/tasks.digit.labels.json"]  # fmt: skip


@pytest.mark.parametrize("spoil", ["gone", "cut", "empty"])
@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_is_not_whole_is_one_line(copy: Path, name: str, spoil: str) -> None:
    path = copy / name
    if spoil == "gone":
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if spoil == "cut" else b"")
    with pytest.raises(ConfigError) as error:
        sensorium.load(copy)
    assert "\n" not in str(error.value)
    if name != "recipe.yaml":  # a recipe that is cut short may still be YAML
        assert path.name in str(error.value)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("gone", r"gone: there is no such folder.*hf-hub:org/name"),
        ("empty", r"holds no model\.safetensors"),
    ],
)
def test_a_folder_that_is_no_run(tmp_path: Path, folder: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=message):
        sensorium.load(tmp_path / folder)


def test_a_recipe_that_was_changed_is_refused(copy: Path) -> None:
    text = (copy / "recipe.yaml").read_text()
    assert "hidden: 8" in text
    (copy / "recipe.yaml").write_text(text.replace("hidden: 8", "hidden: 9"))
    with pytest.raises(ConfigError) as error:
        sensorium.load(copy)
    for word in ("tasks.digit.heads.head", "(8", "(9", "was the recipe changed?"):
        assert word in str(error.value)


TIMM = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"transform": {"mean": [0.1, 0.2, 0.3]}}, "mean"),
        ({"transform": {"crop_pct": 0.7}}, "crop_pct"),
        ({"transform": {"crop_mode": "squash"}}, "crop_mode"),
        ({"options": {**TIMM, "dynamic_img_size": True, "img_size": 24}}, "input_size"),
    ],
)
@pytest.mark.parametrize("freeze", [True, False])
def test_other_preprocessing_of_its_encoder_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], named: str, freeze: bool
) -> None:
    encoder = {"type": "timm", "name": "vit_tiny_patch16_224", "freeze": freeze}
    encoder |= {"options": {**TIMM, "dynamic_img_size": True}, "weights": "none"}
    data = {"train": {"source": "digits", "split": "train", "limit": 8}}
    recipe = {
        "inputs": {"image": {"modality": "image", "encoder": encoder}},
        "tasks": {
            "digit": {"type": "classification", "input": "image", "target": "word", "data": data}
        },
    }
    train(parse_recipe({**recipe, "train": {"steps": 1, "batch_size": 2}}), tmp_path, show=False)
    sensorium.load(tmp_path)
    written = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    written["inputs"]["image"]["encoder"] |= change
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
    expected = rf"^inputs\.image\.encoder\.processor: the run was trained with {named} .* \(now "
    with pytest.raises(ConfigError, match=expected) as caught:
        sensorium.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_refused(copy: Path) -> None:
    """A model of NaN would answer, and a report say that it does not use its input."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    name = next(k for k in tensors if k.endswith("weight"))
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(ConfigError, match=r"model\.safetensors: .*weight holds NaN"):
        sensorium.load(copy)
