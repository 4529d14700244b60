"""Options of a class or function of another library: a schema read from its signature.

Our own parts have to annotate every argument (`signature_schema.py`). A library's callable may not:
an argument without an annotation takes the type of its default. Tensors, which no recipe can hold,
are left out of unions.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model
from torch import Tensor

from .signature_schema import validate


def library_options(
    function: Callable[..., Any],
    values: Mapping[str, Any],
    where: str,
    without: Collection[str] = (),
) -> dict[str, Any]:
    """Return `values` as keyword arguments of a library's callable, coerced, without defaults.

    without: arguments that the engine passes itself. Raise ConfigError, one line a mistake, for
    an argument that the callable does not have or a value of another type.
    """
    model = library_model(function, without)
    validated = validate(model, values, where, model.__name__)
    return {name: getattr(validated, name) for name in validated.model_fields_set}


def library_model(function: Callable[..., Any], without: Collection[str] = ()) -> type[BaseModel]:
    """Return the pydantic model of a library's callable."""
    fields: dict[str, Any] = {}
    for name, (hint, default) in parameters(function).items():
        if name not in without:
            fields[name] = (hint, ... if default is inspect.Parameter.empty else default)
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())
    return create_model(getattr(function, "__name__", "Options"), __config__=config, **fields)


def parameters(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Return name -> (type, default or `inspect.Parameter.empty`) of a callable's arguments."""
    target: Any = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    hints = _type_hints(target)
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name: (
            _without_tensors(hints[name]) if name in hints else _type_of(parameter.default),
            parameter.default,
        )
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind not in variadic and name != "self"
    }


def _type_hints(function: Any) -> dict[str, Any]:
    """Return the annotations of a callable that can be read: a library may import names for type
    checkers alone."""
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        alone = types.SimpleNamespace(
            __annotations__={name: annotation}, __globals__=getattr(function, "__globals__", {})
        )
        with contextlib.suppress(NameError, TypeError):
            hints |= typing.get_type_hints(alone)
    return hints


def _without_tensors(hint: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        hints = (_without_tensors(a) for a in args if a is not Tensor)
        return functools.reduce(operator.or_, hints)
    if origin is tuple:
        return tuple[tuple(_without_tensors(a) for a in args)]  # type: ignore[misc]
    return hint


def _type_of(default: Any) -> Any:
    if default is None or default is inspect.Parameter.empty:
        return Any
    return int | float if type(default) in (int, float) else type(default)
