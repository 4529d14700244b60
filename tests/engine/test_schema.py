"""Schemas from signatures, and the JSON schema that editors complete recipes by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from sensorium.engine import _yaml
from sensorium.engine.config import load_recipe
from sensorium.engine.errors import RecipeError
from sensorium.engine.jsonschema import schema
from sensorium.engine.schema import (
    ENGINE_KEYS,
    arguments,
    fitted_arguments,
    options_model,
    validate_options,
)
from sensorium.modalities.base import Fitted, Tokenizer

SHIPPED = Path(__file__).parents[2] / "configs"


class Part:
    def __init__(
        self,
        in_dim: int,
        *,
        tokenizer: Tokenizer | None = None,
        size: int,
        rate: float = 0.5,
        kind: Literal["a", "b"] = "a",
        sizes: list[int] | None = None,
        pair: tuple[float, float] = (0.0, 1.0),
        name: str | int = "x",
        on: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None: ...


@pytest.mark.parametrize(
    ("option", "given", "expected"),
    [
        ("size", 3, 3),
        ("size", 3.0, 3),
        ("size", "3", 3),
        ("rate", 1, 1.0),
        ("rate", "1e-3", 1e-3),
        ("kind", "b", "b"),
        ("sizes", [1, 2], [1, 2]),
        ("sizes", None, None),
        ("pair", [1, 2], (1.0, 2.0)),
        ("name", "7", "7"),
        ("name", 7, 7),
        ("on", "no", False),
        ("options", {"depth": 2, "deep": {"x": "1e-4"}}, {"depth": 2, "deep": {"x": "1e-4"}}),
    ],
)
def test_values_become_what_the_signature_says(option: str, given: Any, expected: Any) -> None:
    found = validate_options(Part, {"size": 1, option: given}, "here")
    assert found == {"size": 1, option: expected}
    assert type(found[option]) is type(expected)


def test_defaults_are_left_to_the_constructor() -> None:
    assert validate_options(Part, {"size": 1}, "here") == {"size": 1}


@pytest.mark.parametrize(
    ("option", "given", "words"),
    [
        ("size", 1.5, ("1.5 (float)", "int")),
        ("size", None, ("None", "int")),
        ("size", True, ("True (bool)", "a number")),
        ("rate", True, ("True (bool)", "a number")),
        ("rate", "fast", ("'fast' (str)", "float")),
        ("kind", "c", ("'c'", "'a' | 'b'")),
        ("sizes", [1, "x"], ("[1, 'x'] (list)", "list[int] | null")),
        ("sizes", [1, True], ("[1]", "True (bool)")),
        ("sizes", 1, ("1 (int)", "list[int]")),
        ("pair", [1, 2, 3], ("[1, 2, 3]", "tuple[float, float]")),
        ("name", [], ("[] (list)", "str | int")),
        ("on", "perhaps", ("'perhaps'", "true | false")),
        ("options", [1], ("[1] (list)", "dict[str, Any] | null")),
        ("in_dim", 3, ("no such option",)),
    ],
)
def test_a_wrong_value_is_one_line(option: str, given: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as error:
        validate_options(Part, {"size": 1, option: given}, "inputs.x")
    line = str(error.value)
    assert line.startswith(f"inputs.x.{option}")
    assert "\n" not in line
    for word in words:
        assert word in line


def test_fitted_arguments_are_named_by_type_or_section() -> None:
    assert fitted_arguments(Part) == {"tokenizer": Tokenizer}
    given = {"size": 1, "tokenizer": "bpe"}
    assert validate_options(Part, given, "here")["tokenizer"] == "bpe"
    given = {"size": 1, "tokenizer": {"type": "bpe", "size": 300}}
    assert validate_options(Part, given, "here")["tokenizer"]["size"] == 300
    with pytest.raises(RecipeError, match=r"here\.tokenizer: found 3"):
        validate_options(Part, {"size": 1, "tokenizer": 3}, "here")


def test_a_fitted_part_without_kind_needs_no_section() -> None:
    class Means(Fitted): ...

    class Owner:
        def __init__(self, *, means: Means) -> None: ...

    globals()["Means"] = Means  # annotations are text, and are looked up in the module
    try:
        assert fitted_arguments(Owner) == {"means": Means}
        assert validate_options(Owner, {}, "here") == {}
    finally:
        del globals()["Means"]


@pytest.mark.parametrize("key", sorted(ENGINE_KEYS))
def test_a_constructor_may_not_name_a_key_of_the_engine(key: str) -> None:
    space: dict[str, Any] = {}
    exec(f"def part(*, {key}: int = 0) -> None: ...", space)
    with pytest.raises(ValueError, match=f"'{key}' is a key of the engine's own"):
        arguments(space["part"])


def test_annotations_that_cannot_be_read_are_reported() -> None:
    def part(*, size: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(RecipeError, match=r"here: part: .*'Missing'"):
        validate_options(part, {"size": 1}, "here")


def test_the_model_of_a_signature_is_made_once() -> None:
    assert options_model(Part) is options_model(Part)


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
    found: dict[str, Any] = json.loads(json.dumps(schema()))
    return found


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
    found: dict[str, Any] = _yaml.parse_file(SHIPPED / name)
    return found


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
        ("train.lr", 0),
        ("inputs.image.encoder.nmae", "x"),
        ("inputs.image.encoder.name", 3),
        ("inputs.image.encoder.freeze", "perhaps"),
        ("inputs.image.connector", {"type": "mlp", "hiden": 3}),
        ("inputs.image.connector", {"type": "mlp", "depth": "deep"}),
        ("inputs.image.augment", {"shfit": 0.1}),
        ("backbone.tokeniser", "bpe"),
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
    path.write_text(_yaml.write(recipe))
    own = json.loads(json.dumps(schema(load_recipe(path))))
    assert _accepts(own, own, recipe)
    recipe["inputs"]["image"]["encoder"]["szie"] = 4
    assert not _accepts(own, own, recipe)
