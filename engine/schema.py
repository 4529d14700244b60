"""A part's options are its constructor's keyword arguments: the schema read from a signature.

The engine's own keys (`type`, `freeze`, `lora`, `lr`, `weights`, `augment`, `data`) stand
beside them in a recipe's section and may not be arguments of a constructor.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ..modalities.base import Fitted
from .errors import RecipeError, did_you_mean

ENGINE_KEYS = frozenset({"augment", "data", "freeze", "lora", "lr", "type", "weights"})
GIVEN = frozenset({"self", "in_dim", "out_dim"})


M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """The engine's own sections: no unknown key, no silent coercion."""

    model_config = ConfigDict(extra="forbid", validate_default=True, protected_namespaces=())


def fitted_class(annotation: Any) -> type[Fitted] | None:
    """The `Fitted` subclass that an annotation asks for, or None."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Fitted):
            return candidate
    return None


@cache
def arguments(part: Any) -> dict[str, tuple[Any, Any]]:
    """name -> (annotation, default or `inspect.Parameter.empty`) of a class's options."""
    function: Any = getattr(part, "__init__", part) if isinstance(part, type) else part
    hints = typing.get_type_hints(function)
    found: dict[str, tuple[Any, Any]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in GIVEN:
            continue
        if name in ENGINE_KEYS:
            raise RecipeError(
                f"{part.__name__}: its argument {name!r} is a key of the engine's own; rename it"
            )
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise RecipeError(
                f"{part.__name__}: '{parameter}' hides its options; name them one by one"
            )
        if name not in hints:
            raise RecipeError(f"{part.__name__}: its argument {name!r} has no type; annotate it")
        found[name] = (hints[name], parameter.default)
    return found


def fitted_arguments(part: Any) -> dict[str, type[Fitted]]:
    """The options of a class that are parts to be fitted, by name."""
    wanted = {name: fitted_class(hint) for name, (hint, _) in arguments(part).items()}
    return {name: found for name, found in wanted.items() if found is not None}


@cache
def options_model(part: Any) -> type[BaseModel]:
    """The pydantic model of a class's options."""
    fields: dict[str, Any] = {}
    for name, (hint, default) in arguments(part).items():
        if fitted_class(hint) is not None:
            hint, default = str | dict[str, Any] | None, None
        fields[name] = (hint, ... if default is inspect.Parameter.empty else default)
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    name = getattr(part, "__name__", "Options")
    return create_model(name, __config__=config, **fields)


def validate(model: type[M], values: Mapping[str, Any], where: str, what: str) -> M:
    """`values` as `model`; every mistake is one line that begins with its place."""
    try:
        found = model.model_validate(dict(values))
    except ValidationError as error:
        lines = _lines(error, model, values, where, what)
        raise RecipeError("\n".join(lines)) from None
    wrong = _truth_as_number(values, found, where)
    if wrong:
        raise RecipeError(wrong)
    return found


def validate_options(part: Any, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options of a recipe's section as keyword arguments: coerced, without defaults."""
    found = validate(options_model(part), values, where, getattr(part, "__name__", "it"))
    return {name: getattr(found, name) for name in found.model_fields_set}


def _lines(
    error: ValidationError,
    model: type[BaseModel],
    values: Mapping[str, Any],
    where: str,
    what: str,
) -> list[str]:
    lines: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        extra, missing = problem["type"] == "extra_forbidden", problem["type"] == "missing"
        keys, owner, whole = _place(problem["loc"], model, extra)
        place = ".".join([where, *keys]) if where else ".".join(keys)
        if place in lines:  # a union reports every branch: one line a place is enough
            continue
        if extra and whole:
            known = owner.model_fields if owner else {}
            name = what if owner is model else "this section"
            lines[place] = f"{place}: {name} has no such option{did_you_mean(keys[-1], known)}"
        elif missing and whole:
            lines[place] = f"{place}: is required, and is not there"
        else:
            wanted = _wanted(owner, keys) or problem["msg"]
            found = _dig(values, keys)
            lines[place] = f"{place}: found {found!r} ({type(found).__name__}), expected {wanted}"
    return list(lines.values())


def _dig(values: Any, keys: list[str]) -> Any:
    for key in keys:
        values = values[key] if isinstance(values, Mapping) and key in values else values
    return values


def _place(
    loc: tuple[int | str, ...], model: type[BaseModel], extra: bool
) -> tuple[list[str], type[BaseModel] | None, bool]:
    """The keys of the recipe in an error's place, the model whose field the last key is, and
    whether these are all of the place (a union adds names of its branches)."""
    keys: list[str] = []
    owner: type[BaseModel] | None = model
    current: Any = model
    for i, step in enumerate(loc):
        if isinstance(current, type) and issubclass(current, BaseModel):
            fields = {f.alias or name: f for name, f in current.model_fields.items()}
            if str(step) not in fields and not (extra and i == len(loc) - 1):
                return keys, owner, False
            owner = current
            keys.append(str(step))
            field = fields.get(str(step))
            current = _inner(field.annotation) if field else None
        elif typing.get_origin(current) is dict:
            keys.append(str(step))
            current, owner = _inner(typing.get_args(current)[1]), None
        else:
            return keys, owner, False
    return keys, owner, True


def _inner(annotation: Any) -> Any:
    """The model or dict in a union, else the annotation itself."""
    if typing.get_origin(annotation) is dict:
        return annotation
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    for candidate in typing.get_args(annotation):
        if typing.get_origin(candidate) is dict:
            return candidate
    return annotation


def _wanted(owner: type[BaseModel] | None, keys: list[str]) -> str:
    if owner is None or not keys:
        return ""
    fields = {f.alias or name: f for name, f in owner.model_fields.items()}
    field = fields.get(keys[-1])
    return spell(field.annotation) + _bounds(field.metadata) if field else ""


def _bounds(metadata: Iterable[Any]) -> str:
    signs = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
    return "".join(
        f" {sign} {getattr(bound, name)}"
        for bound in metadata
        for name, sign in signs
        if hasattr(bound, name)
    )


def spell(annotation: Any) -> str:
    """A type in words that fit one line."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict and isinstance(args[1], type) and issubclass(args[1], BaseModel):
        return "named sections"
    if origin is typing.Literal:
        return " | ".join(repr(a) for a in args)
    if args and (origin is typing.Union or str(origin) == "<class 'types.UnionType'>"):
        return " | ".join(spell(a) for a in args)
    if annotation is type(None):
        return "null"
    if origin is typing.Annotated:
        return spell(args[0]) + _bounds(args[1:])
    if args:
        inner = ", ".join(spell(a) for a in args if a is not Ellipsis)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "{" + ", ".join(annotation.model_fields) + "}"
    return str(getattr(annotation, "__name__", annotation))


def _truth_as_number(raw: Any, found: Any, where: str) -> str:
    """pydantic takes `true` for 1: name the first such place."""
    if isinstance(raw, bool) and type(found) in (int, float):
        return f"{where}: found {raw!r} (bool), expected a number"
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            inner = found.get(key) if isinstance(found, Mapping) else getattr(found, str(key), None)
            wrong = _truth_as_number(value, inner, f"{where}.{key}" if where else str(key))
            if wrong:
                return wrong
    if isinstance(raw, (list, tuple)) and isinstance(found, (list, tuple)):
        for i, (value, inner) in enumerate(zip(raw, found, strict=False)):
            wrong = _truth_as_number(value, inner, f"{where}[{i}]")
            if wrong:
                return wrong
    return ""
