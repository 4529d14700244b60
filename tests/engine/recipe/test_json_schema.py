"""The JSON schema that editors complete recipes by: it accepts and refuses as `check` does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sensorium.engine.recipe import load_recipe, schema, yaml_io

SHIPPED = Path(__file__).parents[3] / "configs"

KEYWORDS = {
    "$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "default", "description",
    "else", "enum", "exclusiveMaximum", "exclusiveMinimum", "if", "items", "maxItems", "maximum",
    "minItems", "minimum", "prefixItems", "properties", "propertyNames", "required", "then",
    "title", "type",
}  # fmt: skip
TYPES: dict[str, Any] = {
    "array": list,
    "boolean": bool,
    "integer": int,
    "null": type(None),
    "number": (int, float),
    "object": Mapping,
    "string": str,
}


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    result: dict[str, Any] = json.loads(json.dumps(schema()))
    return result


SINGLE = ("additionalProperties", "else", "if", "items", "propertyNames", "then")


def _names(kinds: str | list[str]) -> list[str]:
    return [kinds] if isinstance(kinds, str) else kinds


def _is(value: Any, kind: str) -> bool:
    truth = isinstance(value, bool) and kind in ("integer", "number")
    return isinstance(value, TYPES[kind]) and not truth


def _subschemas(value: Any) -> Any:
    """Every schema inside a schema, itself included."""
    yield value
    for key, inner in value.items():
        if key in ("properties", "$defs"):
            for each in inner.values():
                yield from _subschemas(each)
        elif key in ("allOf", "anyOf", "prefixItems"):
            for each in inner:
                yield from _subschemas(each)
        elif key in SINGLE and isinstance(inner, dict):
            yield from _subschemas(inner)


def test_it_is_a_json_schema(whole: dict[str, Any]) -> None:
    for each in _subschemas(whole):
        assert set(each) <= KEYWORDS, set(each) - KEYWORDS
        assert set(_names(each.get("type", []))) <= set(TYPES)
        if "$ref" in each:
            assert each["$ref"].removeprefix("#/$defs/") in whole["$defs"]
        assert len(set(each.get("required", []))) == len(each.get("required", []))


def _accepts(whole: Mapping[str, Any], rule: Mapping[str, Any], value: Any) -> bool:
    """JSON schema's meaning of the keywords above."""

    def ok(inner: Any, at: Any) -> bool:
        return inner is True or (inner is not False and _accepts(whole, inner, at))

    if "$ref" in rule and not ok(whole["$defs"][rule["$ref"].rpartition("/")[2]], value):
        return False
    if "type" in rule and not any(_is(value, name) for name in _names(rule["type"])):
        return False
    if "const" in rule and value != rule["const"]:
        return False
    if "enum" in rule and value not in rule["enum"]:
        return False
    if not all(ok(each, value) for each in rule.get("allOf", [])):
        return False
    if "anyOf" in rule and not any(ok(each, value) for each in rule["anyOf"]):
        return False
    if "if" in rule:
        branch = "then" if ok(rule["if"], value) else "else"
        if not ok(rule.get(branch, True), value):
            return False
    if isinstance(value, (int, float)) and not (
        value >= rule.get("minimum", value)
        and value <= rule.get("maximum", value)
        and value > rule.get("exclusiveMinimum", value - 1)
        and value < rule.get("exclusiveMaximum", value + 1)
    ):
        return False
    if isinstance(value, list):
        if not rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value)):
            return False
        rules = [*rule.get("prefixItems", []), *[rule.get("items", True)] * len(value)]
        return all(ok(each, v) for each, v in zip(rules, value, strict=False))
    if not isinstance(value, Mapping):
        return True
    known = rule.get("properties", {})
    return (
        all(name in value for name in rule.get("required", []))
        and all(ok(rule.get("propertyNames", True), name) for name in value)
        and all(
            ok(known.get(name, rule.get("additionalProperties", True)), v)
            for name, v in value.items()
        )
    )


def _recipe(name: str) -> dict[str, Any]:
    result: dict[str, Any] = yaml_io.parse_file(SHIPPED / name)
    return result


@pytest.mark.parametrize(
    "name", sorted(str(p.relative_to(SHIPPED)) for p in SHIPPED.rglob("*.yaml"))
)
def test_it_accepts_every_recipe(whole: dict[str, Any], name: str) -> None:
    assert _accepts(whole, whole, _recipe(name))
    assert _accepts(whole, whole, load_recipe(SHIPPED / name).to_dict())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("inptus", {}),
        ("train.step", 3),
        ("train.steps", "many"),
        ("train.lr", 0.1),
        ("train.optimizer", {"lr": 0}),
        ("train.optimizer", {"type": "sgd", "betas": [0.9, 0.9]}),
        ("train.optimizer", {"type": "adamw", "eps": "small"}),
        ("train.schedule", {"type": "cosine", "cycles": 2}),
        ("train.sampler", "sorted"),
        ("inputs.image.encoder.nmae", "x"),
        ("inputs.image.encoder.name", 3),
        ("inputs.image.encoder.freeze", "perhaps"),
        ("inputs.image.connector", {"type": "mlp", "hiden": 3}),
        ("inputs.image.connector", {"type": "mlp", "depth": "deep"}),
        ("inputs.image.augment", {"shfit": 0.1}),
        ("backbone.tokeniser", "bpe"),
        ("decoders", {"teacher": {"type": "causal", "tokeniser": "bpe"}}),
        ("tasks.caption.promt", "x"),
        ("tasks.caption.data.train.spilt", "train"),
        ("tasks.caption.data.train.split", "trian"),
    ],
)
def test_it_refuses_a_mistake(whole: dict[str, Any], path: str, value: Any) -> None:
    recipe = _recipe("captioning/digits.yaml")
    assert _accepts(whole, whole, recipe)
    *parents, last = path.split(".")
    section: Any = recipe
    for key in parents:
        section = section[key]
    section[last] = value
    assert not _accepts(whole, whole, recipe)


def test_it_accepts_decoders_by_name(whole: dict[str, Any]) -> None:
    recipe = _recipe("captioning/digits.yaml")
    recipe["decoders"] = {"teacher": {**recipe["backbone"], "freeze": True}}
    assert _accepts(whole, whole, recipe)


@pytest.mark.parametrize(
    ("passage", "accepted"),
    [
        ({"share": "image"}, True),
        ({"share": "image", "modality": "image"}, True),
        ({"share": "image", "encoder": "timm"}, False),
        (
            {"modality": "image", "encoder": {"share": "image"}, "connector": {"share": "image"}},
            True,
        ),
        ({"modality": "text", "encoder": {"share": "backbone", "attention": "causal"}}, True),
        ({"modality": "text", "encoder": {"share": "backbone", "attention": "both"}}, False),
        ({"modality": "image", "encoder": {"share": "image", "pooling": "mean"}}, False),
        ({"modality": "image", "encoder": {"share": 3}}, False),
        ({"modality": "image", "encoder": {}}, False),
    ],
)
def test_it_knows_what_may_be_shared(whole: dict[str, Any], passage: Any, accepted: bool) -> None:
    recipe = _recipe("captioning/digits.yaml")
    recipe["inputs"]["passage"] = passage
    assert _accepts(whole, whole, recipe) == accepted


def test_what_extends_another_says_only_what_differs(whole: dict[str, Any]) -> None:
    short: dict[str, Any] = {"tasks": {"digit": {"data": {"test": {"order": "writer"}}}}}
    assert not _accepts(whole, whole, short)
    short["extends"] = "digits.yaml"
    assert _accepts(whole, whole, short)
    assert not _accepts(whole, whole, {**short, "train": {"step": 3}})
    short["tasks"]["digit"] |= {"type": "classification", "inptu": "image"}
    assert not _accepts(whole, whole, short)


def test_a_heads_options_are_in_it(whole: dict[str, Any]) -> None:
    recipe = _recipe("classification/digits.yaml")
    recipe["tasks"]["digit"]["head"] = {"type": "mlp"}
    assert _accepts(whole, whole, recipe)
    recipe["tasks"]["digit"]["head"] = {"type": "mlp", "hiden": 3}
    assert not _accepts(whole, whole, recipe)


STRANGER = """
from sensorium.modalities.base import Encoder

class Mine(Encoder):
    def __init__(self, *, size: int) -> None: ...
"""


def test_a_recipes_own_parts_are_in_its_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stranger_schema.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    recipe = _recipe("classification/digits.yaml")
    del recipe["inputs"]["image"]["augment"]
    recipe["inputs"]["image"]["encoder"] = {"type": "stranger_schema:Mine", "size": 3}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml_io.write(recipe))
    recipe_schema = json.loads(json.dumps(schema(load_recipe(path))))
    assert _accepts(recipe_schema, recipe_schema, recipe)
    recipe["inputs"]["image"]["encoder"]["szie"] = 4
    assert not _accepts(recipe_schema, recipe_schema, recipe)
