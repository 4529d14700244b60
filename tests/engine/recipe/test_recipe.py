"""Recipes as text: YAML as people write it, overrides, `extends`, and the way back out."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.engine.recipe import load_recipe, parse_recipe, plan_recipe, yaml_io
from sensorium.engine.recipe.recipe import find_file, merge_sections
from sensorium.engine.utils import ConfigError

SCALARS: dict[str, Any] = {
    "1e-4": 1e-4,
    "1E3": 1000.0,
    "-2.5e+1": -25.0,
    ".5": 0.5,
    "3.": 3.0,
    "1_000": 1000,
    "+3": 3,
    "-.inf": -math.inf,
    "012": "012",
    "0x10": "0x10",
    "1:30": "1:30",
    "yes": "yes",
    "no": "no",
    "on": "on",
    "Off": "Off",
    "true": True,
    "False": False,
    "null": None,
    "~": None,
    "": None,
    "2024-01-01": "2024-01-01",
    "'1e-4'": "1e-4",
    '"true"': "true",
    "1.2.3": "1.2.3",
    "e5": "e5",
}


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_are_read_as_people_mean_them(text: str) -> None:
    result = yaml_io.parse(f"key: {text}", "here")["key"]
    assert result == SCALARS[text]
    assert type(result) is type(SCALARS[text])


def test_a_key_that_looks_like_truth_is_text() -> None:
    assert yaml_io.parse("{on: 1, no: 2}", "here") == {"on": 1, "no": 2}


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | TEXTS
    | st.sampled_from(sorted(SCALARS))
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


@given(VALUES)
@settings(deadline=None)
def test_what_is_written_is_read_back(value: Any) -> None:
    result = yaml_io.parse(yaml_io.write({"key": value}), "here")["key"]
    assert result == value
    assert repr(result) == repr(value)  # 1 is not 1.0, nor true


PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["mine", "package.module:Class"])},
    optional={
        "weights": st.sampled_from(["none", "pretrained", "runs/x:image"]),
        "freeze": st.booleans() | st.just({"last": 2}),
        "lora": st.just({"r": 8, "lora_alpha": 0.5}),
        "lr": st.floats(1e-6, 1.0),
        "size": LEAVES,
        "options": st.dictionaries(st.sampled_from("abc"), LEAVES, max_size=3),
    },
)
DATA = st.fixed_dictionaries(
    {"source": st.just("digits")},
    optional={
        "columns": st.just({"image": "picture"}),
        "limit": st.integers(1, 9),
        "holdout": st.sampled_from([0, 0.25]),
        "on_error": st.just("skip"),
        "split": TEXTS,
    },
)
TRAIN = st.fixed_dictionaries(
    {},
    optional={
        "steps": st.integers(0, 9),
        "optimizer": st.just("sgd") | st.just({"type": "adamw", "betas": [0.5, 0.75]}),
        "sampler": st.just("shuffle") | st.just({"type": "length", "column": "a"}),
        "schedule": st.just("linear"),
        "max_grad_norm": st.none() | st.just(2),
        "task_weights": st.just({"a": 2}),
        "validate": st.fixed_dictionaries({"every": st.integers(1, 5)}, optional={"metric": TEXTS}),
        "checkpoint": st.just({"every": 3}),
    },
)
RECIPES = st.fixed_dictionaries(
    {
        "inputs": st.dictionaries(
            st.sampled_from(["image", "state_2"]),
            st.fixed_dictionaries(
                {"modality": st.just("image"), "encoder": PART | st.just("mine")},
                optional={"connector": PART | st.just("mlp"), "augment": st.just({"flip": True})},
            ),
        ),
        "tasks": st.dictionaries(
            st.sampled_from(["caption", "act"]),
            st.builds(
                lambda part, data: {**part, "data": data},
                PART,
                st.dictionaries(st.sampled_from(["train", "test"]), DATA | st.just("digits")),
            ),
        ),
    },
    optional={"backbone": PART, "train": TRAIN, "cache": st.just({"samples": True})},
)


@given(RECIPES)
@settings(deadline=None, max_examples=60)
def test_a_recipe_is_its_own_dict(values: dict[str, Any]) -> None:
    recipe = parse_recipe(values)
    written = recipe.to_dict()
    assert parse_recipe(written) == recipe
    assert parse_recipe(yaml_io.parse(yaml_io.write(written), "here")) == recipe
    assert parse_recipe(written).to_dict() == written


def test_a_null_that_is_no_default_is_kept() -> None:
    values = {"inputs": {}, "tasks": {}, "train": {"max_grad_norm": None}}
    assert parse_recipe(values).to_dict()["train"]["max_grad_norm"] is None
    assert "validate" not in parse_recipe(values).to_dict()["train"]


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


def test_the_short_form_of_a_split_is_its_source() -> None:
    merged = merge_sections({"data": {"train": "digits"}}, {"data": {"train": {"limit": 3}}})
    assert merged == {"data": {"train": {"source": "digits", "limit": 3}}}


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


SHIPPED = Path(__file__).parents[3] / "configs"
RECIPES_SHIPPED = sorted(str(p.relative_to(SHIPPED)) for p in SHIPPED.rglob("*.yaml"))


def test_recipes_are_shipped() -> None:
    assert RECIPES_SHIPPED


@pytest.mark.parametrize("name", RECIPES_SHIPPED)
def test_a_shipped_recipe_begins_with_its_command_and_its_result(name: str) -> None:
    first, second, *_ = (SHIPPED / name).read_text(encoding="utf-8").splitlines()
    command = f"# sensorium (train|embed) {re.escape(f'configs/{name}')}"
    assert re.fullmatch(f"{command}( [^&]+)?( && sensorium .+)*", first), first
    assert second == "# not yet run" or re.match(r"# .*\d", second), second


@pytest.mark.parametrize("name", RECIPES_SHIPPED)
def test_a_shipped_recipe_loads_and_is_written_back(name: str) -> None:
    result = load_recipe(SHIPPED / name)
    assert parse_recipe(result.to_dict()) == result
