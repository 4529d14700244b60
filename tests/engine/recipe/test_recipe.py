"""Recipes as text: YAML as people write it, overrides, `extends`, and the way back out."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.engine.recipe import load_recipe, parse_recipe, yaml_io
from sensorium.engine.recipe.recipe import merge_sections

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


def test_the_short_form_of_a_split_is_its_source() -> None:
    merged = merge_sections({"data": {"train": "digits"}}, {"data": {"train": {"limit": 3}}})
    assert merged == {"data": {"train": {"source": "digits", "limit": 3}}}


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
