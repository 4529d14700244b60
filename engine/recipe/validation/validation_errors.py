"""pydantic's errors as lines for a person: the place in the recipe, found, expected, the cure."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from ....modalities.messages import closest, did_you_mean, shorten
from .renamed import renamed

MAX_VALUE = 100
"""Characters of a value that does not fit."""

Loc = tuple[int | str, ...]


class ErrorLocation(NamedTuple):
    """keys: those of the recipe. owner: the model whose field the last one is, or None in a
    mapping of names. whole: nothing of pydantic's place is left (a union adds its branches).
    expected: the valid values, in words; empty where the key is unknown."""

    keys: list[str]
    owner: type[BaseModel] | None
    complete: bool
    expected: str


def format_validation_errors(
    error: ValidationError,
    model: type[BaseModel],
    values: Mapping[str, Any],
    where: str,
    label: str,
) -> list[str]:
    """Return one line a mistake; a union reports every branch, of which the first is kept."""
    lines: dict[str, str] = {}
    problems = error.errors(include_url=False)
    misspelt = _misspelt_required(problems)
    for problem in problems:
        extra, missing = problem["type"] == "extra_forbidden", problem["type"] == "missing"
        if missing and problem["loc"] in misspelt:
            continue  # the line of the misspelt key covers it
        keys, owner, whole, expected = _locate(problem["loc"], model, extra)
        path = ".".join([where, *keys] if where else keys)
        if extra and whole:
            fields = _fields(owner) if owner else {}
            name = label if owner is model else "this section"
            new_name = renamed(path, label if owner is model else "")
            hint = f"; it is called {new_name} now" if new_name else did_you_mean(keys[-1], fields)
            line = f"{name} has no such option{hint}"
        elif missing and whole:
            line = f"is required, and is not there; expected {expected}"
        else:
            value = _dig(values, keys)
            text = shorten(repr(value), MAX_VALUE)
            new_name = renamed(path, label if owner is model else "", value)
            hint = f"; it is called {new_name} now" if new_name else ""
            if isinstance(value, Mapping) and value and all(v is None for v in value.values()):
                hint = "; quote a text that begins with '{'"
            line = f"found {text} ({type(value).__name__}), expected {expected}{hint}"
        lines.setdefault(path, f"{path}: {line}")
    return list(lines.values())


def _misspelt_required(problems: Sequence[Any]) -> set[Loc]:
    """Return the places of required keys that are misspelt there."""
    missing: list[Loc] = [p["loc"] for p in problems if p["type"] == "missing"]
    misspelt: set[Loc] = set()
    for *parent, last in (p["loc"] for p in problems if p["type"] == "extra_forbidden"):
        names = [str(loc[-1]) for loc in missing if list(loc[:-1]) == parent]
        near = closest(str(last), names)
        misspelt |= {(*parent, near)} if near else set()
    return misspelt


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    """Return the fields by the name used in recipes."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _dig(values: Any, keys: list[str]) -> Any:
    for key in keys:
        if isinstance(values, Mapping) and key in values:
            values = values[key]
        elif isinstance(values, list) and key.isdigit() and int(key) < len(values):
            values = values[int(key)]
    return values


def _locate(loc: Loc, model: type[BaseModel], extra: bool) -> ErrorLocation:
    keys: list[str] = []
    owner: type[BaseModel] | None = model
    current: Any = model
    expected = describe_type(model)
    for i, step in enumerate(loc):
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = _fields(current).get(str(step))
            if field is None and not (extra and i == len(loc) - 1):
                return ErrorLocation(keys, owner, False, expected)
            owner = current
            keys.append(str(step))
            current = _inner(field.annotation) if field else None
            expected = describe_type(field.annotation) + _bounds(field.metadata) if field else ""
        elif typing.get_origin(current) is dict:
            keys.append(str(step))
            inside = typing.get_args(current)[1]
            current, owner, expected = _inner(inside), None, describe_type(inside)
        elif typing.get_origin(current) is list and isinstance(step, int):
            keys.append(str(step))
            inside = typing.get_args(current)[0]
            current, owner, expected = _inner(inside), None, describe_type(inside)
        else:
            return ErrorLocation(keys, owner, False, expected)
    return ErrorLocation(keys, owner, True, expected)


def _inner(annotation: Any) -> Any:
    """Return the type that holds the next key of a place: the annotation, or the one that may be
    null.

    None for a union of several: the next step names a branch of it.
    """
    if not _is_union(annotation):
        return annotation
    members = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
    return members[0] if len(members) == 1 else None


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _bounds(metadata: Iterable[Any]) -> str:
    signs = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
    bounds = [
        f"{sign} {getattr(bound, name)}"
        for bound in metadata
        for name, sign in signs
        if hasattr(bound, name)
    ]
    return f" {' and '.join(bounds)}" if bounds else ""


def describe_type(annotation: Any) -> str:
    """Return a type in words that fit one line."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict and isinstance(args[1], type) and issubclass(args[1], BaseModel):
        return "named sections"
    if origin is typing.Literal:
        return " | ".join(repr(a) for a in args)
    if _is_union(annotation):
        return " | ".join(describe_type(a) for a in args)
    if annotation is type(None):
        return "null"
    if annotation is bool:
        return "true | false"
    if origin is typing.Annotated:
        return describe_type(args[0]) + _bounds(args[1:])
    if args:
        inner = ", ".join(describe_type(a) for a in args if a is not Ellipsis)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a section {" + ", ".join(_fields(annotation)) + "}"
    return str(getattr(annotation, "__name__", annotation))


_COUNT = re.compile(
    r"(num|n)_\w+|(\w+_)?(layers|heads|size|channels|depth|width|experts)|(embed|hidden)_dim|d_model"
)


def find_negative_count(options: Mapping[str, Any], where: str) -> str:
    """Return the line of the first count among a library's options that is negative, or nothing.
    Libraries build no layer of -1 without a word, or fail where nothing names the option."""
    for key, value in options.items():
        path = f"{where}.{key}"
        if isinstance(value, Mapping):
            line = find_negative_count(value, path)
            if line:
                return line
        elif type(value) in (int, float) and value < 0 and _COUNT.fullmatch(str(key)):
            return f"{path}: found {value} ({type(value).__name__}), expected 0 or more"
    return ""


def find_bool_as_number(raw: Any, parsed: Any, where: str) -> str:
    """pydantic takes `true` for 1: the line of the first such place."""
    if isinstance(raw, bool) and type(parsed) in (int, float):
        return f"{where}: found {raw!r} (bool), expected a number"
    pairs: list[tuple[Any, Any, str]] = []
    if isinstance(raw, Mapping):
        inside = _values(parsed)
        dot = f"{where}." if where else ""
        pairs = [(value, inside.get(key), f"{dot}{key}") for key, value in raw.items()]
    elif isinstance(raw, (list, tuple)) and isinstance(parsed, (list, tuple)):
        both = enumerate(zip(raw, parsed, strict=False))
        pairs = [(value, inner, f"{where}[{i}]") for i, (value, inner) in both]
    return next(filter(None, (find_bool_as_number(*pair) for pair in pairs)), "")


def _values(section: Any) -> Mapping[str, Any]:
    if isinstance(section, BaseModel):
        fields = type(section).model_fields
        return {field.alias or name: getattr(section, name) for name, field in fields.items()}
    return section if isinstance(section, Mapping) else {}
