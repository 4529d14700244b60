"""Sections inside a task's own options: `[{type: weak, window: 2}]` by a catalogue of classes."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ...modalities.messages import did_you_mean

T = TypeVar("T")


def read_section(
    where: str, section: Mapping[str, Any], catalogue: Mapping[str, str], base: type[T]
) -> T:
    """Return the object of a section `{type: name, option: value}`; its options are the keyword
    arguments of the class of that name, `module:Class` in the catalogue.

    Raise ValueError in one line for an unknown type or option, a missing one, or a value that does
    not fit its annotation.
    """
    options = dict(section)
    name = options.pop("type", None)
    if name not in catalogue:
        raise ValueError(f"{where}.type: found {name!r}{did_you_mean(str(name), catalogue)}")
    module, _, attribute = catalogue[name].partition(":")
    cls: type[T] = getattr(importlib.import_module(module), attribute)
    assert issubclass(cls, base)
    parameters = inspect.signature(cls).parameters
    constructor: Any = cls.__init__
    hints = typing.get_type_hints(constructor, include_extras=True)
    for key in options:
        if key not in parameters:
            raise ValueError(f"{where}.{key}: no option of {name}{did_you_mean(key, parameters)}")
    for key, parameter in parameters.items():
        if key not in options and parameter.default is inspect.Parameter.empty:
            raise ValueError(f"{where}.{key}: is required with type: {name}")
    values = {key: _checked(f"{where}.{key}", hints[key], v) for key, v in options.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where}.{error}") from None


def _checked(where: str, annotation: Any, value: Any) -> Any:
    try:
        return TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ValueError(f"{where}: found {value!r}; {reason[0].lower()}{reason[1:]}") from None


def read_weighted(
    where: str, sections: Sequence[Mapping[str, Any]], catalogue: Mapping[str, str], base: type[T]
) -> list[tuple[str, float, T]]:
    """Return the name, weight and object of each section; `weight` is 1 by default.

    Several of one type get their number behind their name.
    """
    parts: list[tuple[str, float, T]] = []
    for index, section in enumerate(sections):
        options = dict(section)
        weight = options.pop("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or weight < 0:
            raise ValueError(f"{where}.{index}.weight: found {weight!r}, expected 0 or more")
        part = read_section(f"{where}.{index}", options, catalogue, base)
        twins = sum(name.rstrip("0123456789") == options["type"] for name, _, _ in parts)
        parts.append((f"{options['type']}{twins + 1 if twins else ''}", float(weight), part))
    return parts
