"""Schemas from signatures: what a recipe may say of a part, and how a mistake is told."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from sensorium.connectors.base import Connector
from sensorium.engine.recipe.validation import (
    arguments,
    fitted_arguments,
    options_model,
    validate_options,
)
from sensorium.engine.recipe.validation.signature_schema import ENGINE_KEYS
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import Fittable, Tokenizer


class Sized:
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
    ("option", "value", "expected"),
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
def test_values_become_what_the_signature_says(option: str, value: Any, expected: Any) -> None:
    result = validate_options(Sized, {"size": 1, option: value}, "here")
    assert result == {"size": 1, option: expected}
    assert type(result[option]) is type(expected)


def test_defaults_are_left_to_the_constructor() -> None:
    assert validate_options(Sized, {"size": 1}, "here") == {"size": 1}


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("size", 1.5, ("1.5 (float)", "int")),
        ("size", None, ("None", "int")),
        ("size", True, ("True (bool)", "a number")),
        ("rate", True, ("True (bool)", "a number")),
        ("rate", "fast", ("'fast' (str)", "float")),
        ("kind", "c", ("'c'", "'a' | 'b'")),
        ("sizes", [1, "x"], (".1: found 'x' (str)", "expected int")),
        ("sizes", [1, True], ("[1]", "True (bool)")),
        ("sizes", 1, ("1 (int)", "list[int]")),
        ("pair", [1, 2, 3], ("[1, 2, 3]", "tuple[float, float]")),
        ("name", [], ("[] (list)", "str | int")),
        ("on", "perhaps", ("'perhaps'", "true | false")),
        ("options", [1], ("[1] (list)", "dict[str, Any] | null")),
        ("in_dim", 3, ("no such option",)),
    ],
)
def test_a_wrong_value_is_one_line(option: str, value: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        validate_options(Sized, {"size": 1, option: value}, "inputs.x")
    line = str(error.value)
    assert line.startswith(f"inputs.x.{option}")
    assert "\n" not in line
    for word in words:
        assert word in line


def test_fitted_arguments_are_named_by_type_or_section() -> None:
    assert fitted_arguments(Sized) == {"tokenizer": Tokenizer}
    options = {"size": 1, "tokenizer": "bpe"}
    assert validate_options(Sized, options, "here")["tokenizer"] == "bpe"
    options = {"size": 1, "tokenizer": {"type": "bpe", "size": 300}}
    assert validate_options(Sized, options, "here")["tokenizer"]["size"] == 300
    with pytest.raises(ConfigError, match=r"here\.tokenizer: found 3"):
        validate_options(Sized, {"size": 1, "tokenizer": 3}, "here")


def test_a_fitted_part_without_kind_needs_no_section() -> None:
    class Means(Fittable): ...

    class Owner:
        def __init__(self, *, means: Means) -> None: ...

    globals()["Means"] = Means  # annotations are text, and are looked up in the module
    try:
        assert fitted_arguments(Owner) == {"means": Means}
        assert validate_options(Owner, {}, "here") == {}
    finally:
        del globals()["Means"]


def test_an_encoder_or_connector_may_not_name_what_is_shared() -> None:
    class Shares(Connector):
        def __init__(self, in_dim: int, out_dim: int, *, share: float = 0.5) -> None: ...

    with pytest.raises(ValueError, match="'share' is a key of the engine's own"):
        arguments(Shares)


@pytest.mark.parametrize("key", sorted(ENGINE_KEYS))
def test_a_constructor_may_not_name_a_key_of_the_engine(key: str) -> None:
    space: dict[str, Any] = {}
    exec(f"def part(*, {key}: int = 0) -> None: ...", space)
    with pytest.raises(ValueError, match=f"'{key}' is a key of the engine's own"):
        arguments(space["part"])


def test_annotations_that_cannot_be_read_are_reported() -> None:
    def part(*, size: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigError, match=r"here: part: .*'Missing'"):
        validate_options(part, {"size": 1}, "here")


def test_a_class_without_a_constructor_has_no_options() -> None:
    class Bare:
        """Nothing to say."""

    assert arguments(Bare) == {} and validate_options(Bare, {}, "here") == {}
    with pytest.raises(ConfigError, match=r"here\.size: Bare has no such option"):
        validate_options(Bare, {"size": 3}, "here")


def test_the_model_of_a_signature_is_made_once() -> None:
    assert options_model(Sized) is options_model(Sized)
