"""Recipes made of others: overrides, `extends`, types that are replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sensorium.engine.recipe import load_recipe, parse_recipe, plan_recipe
from sensorium.engine.recipe.recipe import find_file, merge_sections
from sensorium.engine.utils import ConfigError

BASE = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {"type": "patches", "size": 8, "patch_size": 4, "dim": 16},
            "connector": "mlp",
        }
    },
    "tasks": {
        "digit": {
            "type": "classification",
            "input": "image",
            "head": {"type": "mlp", "freeze": False},
            "data": {"train": {"source": "digits", "split": "train", "limit": 40}},
        }
    },
    "train": {"steps": 2, "max_grad_norm": None},
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(BASE), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("train.optimizer.lr=3e-4", ["train", "optimizer", "lr"], 3e-4),
        ("train.max_grad_norm=null", ["train", "max_grad_norm"], None),
        ("train.optimizer=sgd", ["train", "optimizer"], {"type": "sgd", "lr": 1e-3}),
        ("train.schedule.type=linear", ["train", "schedule"], {"type": "linear"}),
        ("train.validate.every=5", ["train", "validate", "every"], 5),
        ("inputs.image.encoder.dim=8", ["inputs", "image", "encoder", "dim"], 8),
        ("inputs.image.connector.hidden=7", ["inputs", "image", "connector", "hidden"], 7),
        ("inputs.image.connector.type=linear", ["inputs", "image", "connector", "type"], "linear"),
        ("tasks.digit.target=a=b", ["tasks", "digit", "target"], "a=b"),
        ("backbone={type: causal, name: tiny-llama}", ["backbone", "name"], "tiny-llama"),
    ],
)
def test_overrides(recipe: Path, text: str, place: list[str], expected: Any) -> None:
    result: Any = load_recipe(recipe, [text]).to_dict()
    for key in place:
        result = result[key]
    assert result == expected


def test_the_last_override_holds(recipe: Path) -> None:
    assert load_recipe(recipe, ["train.steps=1", "train.steps=2"]).train.steps == 2


def test_extends_merges_and_takes_away(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    child = folder / "child.yaml"
    child.write_text(
        "extends: ../recipe.yaml\n"
        "inputs: {image: {connector: null, encoder: {dim: 8}}}\n"
        "train: {steps: 7}\n"
    )
    result = load_recipe(child)
    assert result.inputs["image"].connector is None
    assert result.inputs["image"].encoder.options == {"size": 8, "patch_size": 4, "dim": 8}
    assert result.train.steps == 7
    assert result.tasks == load_recipe(recipe).tasks


def _write(folder: Path, **files: Any) -> None:
    for name, values in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def test_extends_over_several_levels(tmp_path: Path, recipe: Path) -> None:
    _write(
        tmp_path,
        first={"extends": "recipe.yaml", "train": {"steps": 3, "batch_size": 5}},
        second={"extends": "first.yaml", "train": {"steps": 4}},
    )
    train = load_recipe(tmp_path / "second.yaml").train
    assert (train.steps, train.batch_size, train.max_grad_norm) == (4, 5, None)


REPLACED = [  # base, over, expected
    (
        {"type": "timm", "name": "x", "freeze": True, "weights": "runs/x"},
        {"type": "patches", "size": 8},
        {"type": "patches", "size": 8, "freeze": True},
    ),
    ({"type": "timm", "name": "x"}, {"type": "timm", "size": 8}, {"name": "x", "size": 8}),
    ({"type": "mlp", "hidden": 3, "lr": 0.1}, "linear", None),
    ("mlp", {"hidden": 3}, {"type": "mlp", "hidden": 3}),
    ("mlp", {"type": "linear"}, {"type": "linear"}),
    ({"source": "digits", "split": "a", "limit": 3}, {"source": "json", "path": "x"}, None),
]


@pytest.mark.parametrize(("base", "over", "expected"), REPLACED)
def test_a_replaced_type_leaves_its_options_behind(base: Any, over: Any, expected: Any) -> None:
    merged = merge_sections({"part": base}, {"part": over})["part"]
    if expected is None:
        remaining = {"limit"} if isinstance(over, dict) else set()
        assert merged == over if isinstance(over, str) else merged.keys() == over.keys() | remaining
    else:
        assert merged == {"type": merged["type"], **expected}


@pytest.mark.parametrize("order", [1, -1])
def test_overrides_hold_in_any_order(recipe: Path, order: int) -> None:
    texts = ["inputs.image.encoder.type=other", "inputs.image.encoder.size=9"][::order]
    encoder = load_recipe(recipe, texts).inputs["image"].encoder
    assert (encoder.type, encoder.options) == ("other", {"size": 9})


@pytest.mark.parametrize(
    "text",
    [
        "<image> Describe the digit:",
        "<image>:",
        "a: b: c",
        "{word}",
        " {word}",
        "{word} or {other}",
        "a - b",
        "- a",
        "[INST] <image> Describe it: [/INST]",
        "[{word}]: {other}",
        "<image> # of cats",
        "# of cats in <image>",
        "  two spaces ",
        "*<image>* {word}",
        "!<image>",
        "> <image>",
        "| <image>",
        "&<image>",
        "@<image>",
        "%<image>",
        "? <image>",
        "`<image>`",
        '"Q": <image>',
        '"Q" <image>',
        "<image>\n{word}:",
        "\t{word}",
        "नमस्ते <image>:",
    ],
)
def test_an_override_of_a_text_stays_as_typed(recipe: Path, text: str) -> None:
    result = load_recipe(recipe, [f"tasks.digit.prompt={text}"]).tasks["digit"].options["prompt"]
    assert result == text


def test_a_shipped_recipe_and_a_run_are_found_by_their_folder(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_file(tmp_path) == recipe
    monkeypatch.chdir(tmp_path)
    assert find_file("configs/classification/digits.yaml").is_file()
    with pytest.raises(ConfigError, match="no such recipe"):
        find_file("configs/gone.yaml")


def test_a_resolved_recipe_resolves_to_itself(tmp_path: Path) -> None:
    """What a run writes into its folder is the recipe that it was made of."""
    plan = plan_recipe(parse_recipe(BASE))
    plan.resolve()
    plan.recipe.write(tmp_path / "recipe.yaml", "# a head\n")
    again = load_recipe(tmp_path / "recipe.yaml")
    assert again == plan.recipe
    second = plan_recipe(again)
    second.resolve()
    assert second.recipe == again
    assert again.train.max_grad_norm is None


HEAD = """
from sensorium.connectors.heads import LinearHead

class Switched(LinearHead):
    def __init__(self, in_dim: int, out_dim: int, *, on: bool = True) -> None:
        super().__init__(in_dim, out_dim)
"""


def test_a_heads_option_that_is_false_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "switched_head.py").write_text(HEAD)
    monkeypatch.syspath_prepend(tmp_path)
    values = parse_recipe(BASE).to_dict()
    values["tasks"]["digit"]["head"] = {"type": "switched_head:Switched", "on": False}
    plan = plan_recipe(parse_recipe(values))
    plan.resolve()
    head = plan.recipe.to_dict()["tasks"]["digit"]["head"]
    assert head["on"] is False
    assert head["weights"] == "none"
