"""A part's options are its constructor's keyword arguments: the schema read from a signature.

The engine's own keys (`type`, `freeze`, `lora`, `train_only`, `quantize`, `lr`, `weights`,
`transforms`, `augment`, `data`) are set beside them in a recipe's section and may not be arguments
of a constructor.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model, model_validator

from ....connectors.base import Between
from ....modalities.base import Component, Fittable
from ...utils import ConfigError, located_errors
from .validation_errors import (
    find_bool_as_number,
    find_negative_count,
    format_validation_errors,
)

ENGINE_KEYS = frozenset(
    {"augment", "data", "freeze", "lora", "lr", "quantize", "train_only", "transforms", "type"}
    | {"weights"}
)
GIVEN = frozenset({"self", "in_dim", "out_dim"})

_OPTIONAL = str | dict[str, Any] | None

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """The engine's own sections: no unknown key, no silent coercion."""

    model_config = ConfigDict(
        extra="forbid", validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )


class TypedSection(Strict):
    """A section that names a class by `type`, its options beside the engine's own keys. The name
    alone is short for `{type: name}`."""

    model_config = ConfigDict(extra="allow", validate_default=True, protected_namespaces=())

    type: str

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """The section's keys that are not the engine's."""
        return dict(self.model_extra or {})


@dataclass(frozen=True)
class PartArgument:
    """A constructor argument that takes a part: `Encoder`, `Annotated[Encoder, "image"] | None`.

    base: the class of the annotation. modality: whose encoders or decoders are found by short
    name, if annotated. widths: of a connector, the two parts it connects. required: no default.
    """

    base: type[Component]
    modality: str | None
    widths: Between | None
    required: bool


def _classes(annotation: Any) -> Iterator[tuple[type, tuple[Any, ...]]]:
    """(class, metadata) of an annotation, of what `Annotated` holds, and of a union's members."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        for base, metadata in _classes(args[0]):
            yield base, (*metadata, *args[1:])
    elif origin in (typing.Union, types.UnionType):
        for arg in args:
            yield from _classes(arg)
    elif isinstance(annotation, type):
        yield annotation, ()


def fitted_class(annotation: Any) -> type[Fittable] | None:
    """Return the `Fittable` subclass of an annotation, or None."""
    return next((c for c, _ in _classes(annotation) if issubclass(c, Fittable)), None)


@cache
def arguments(part: Any) -> dict[str, tuple[Any, Any]]:
    """name -> (annotation, default or `inspect.Parameter.empty`) of a class's options.

    Raise ValueError if a recipe could not call its constructor.
    """
    if isinstance(part, type) and part.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    function: Any = getattr(part, "__init__", part) if isinstance(part, type) else part
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ValueError(f"{part.__name__}: its annotations cannot be read: {error}") from error
    is_part = isinstance(part, type) and issubclass(part, Component)
    result: dict[str, tuple[Any, Any]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in GIVEN:
            continue
        if name in ENGINE_KEYS or (name == "share" and is_part):
            raise ValueError(
                f"{part.__name__}: its argument {name!r} is a key of the engine's own; rename it"
            )
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise ValueError(
                f"{part.__name__}: '{parameter}' hides its options; name them one by one"
            )
        if name not in hints:
            raise ValueError(f"{part.__name__}: its argument {name!r} has no type; annotate it")
        result[name] = (hints[name], parameter.default)
    return result


def fitted_arguments(part: Any) -> dict[str, type[Fittable]]:
    """Return the options of a class that are parts to be fitted, by name."""
    classes = {name: fitted_class(hint) for name, (hint, _) in arguments(part).items()}
    return {name: base for name, base in classes.items() if base is not None}


@cache
def part_arguments(part: Any) -> dict[str, PartArgument]:
    """Return the options of a class that are parts themselves, by name."""
    parts: dict[str, PartArgument] = {}
    for name, (hint, default) in arguments(part).items():
        for base, metadata in _classes(hint):
            if issubclass(base, Component):
                modality = next((m for m in metadata if isinstance(m, str)), None)
                widths = next((m for m in metadata if isinstance(m, Between)), None)
                required = default is inspect.Parameter.empty
                parts[name] = PartArgument(base, modality, widths, required)
    return parts


@cache
def options_model(part: Any) -> type[BaseModel]:
    """Return the pydantic model of a class's options."""
    fields: dict[str, Any] = {}
    for name, (hint, default) in arguments(part).items():
        if fitted_class(hint) is not None:
            hint, default = _OPTIONAL, None
        elif name in part_arguments(part):
            hint = str | dict[str, Any] if default is inspect.Parameter.empty else _OPTIONAL
        fields[name] = (hint, ... if default is inspect.Parameter.empty else default)
    config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, protected_namespaces=(), allow_inf_nan=False
    )
    name = getattr(part, "__name__", "Options")
    return create_model(name, __config__=config, **fields)


def validate(model: type[M], values: Mapping[str, Any], where: str, label: str) -> M:
    """`values` as `model`; every mistake is one line that begins with its place."""
    try:
        validated = model.model_validate(dict(values))
    except ValidationError as error:
        lines = format_validation_errors(error, model, values, where, label)
        raise ConfigError("\n".join(lines)) from None
    wrong = find_bool_as_number(values, validated, where)
    if wrong:
        raise ConfigError(wrong)
    return validated


def validate_options(part: Any, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the options of a recipe's section as keyword arguments: coerced, without defaults."""
    with located_errors(where):
        model = options_model(part)
    validated = validate(model, values, where, getattr(part, "__name__", "it"))
    wrong = find_negative_count({k: v for k, v in values.items() if isinstance(v, Mapping)}, where)
    if wrong:
        raise ConfigError(wrong)
    given_names = validated.model_fields_set
    return {
        name: getattr(validated, name)
        for name in type(validated).model_fields
        if name in given_names
    }
