"""Options of a prediction, checked against the signature of a task's `predict` before a row is
read: its keyword-only arguments, and the keys of `**options: Unpack[...]`."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, create_model

from ...tasks.base import Task
from ..recipe.validation import validate


def check_options(task: Task, name: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options of a task's `predict` with the types that it declares.

    name: of the task, which begins each line. Raise ConfigError for an option that it does not
    have, and for a value of another type or out of its range.
    """
    options, kind = options or {}, cast(Any, type(task))
    validated = validate(_options_model(kind), options, name, kind.__name__)
    return {key: getattr(validated, key) for key in validated.model_fields_set}


@cache
def _options_model(task: Any) -> type[BaseModel]:
    """Return the pydantic model of the options of a task's `predict`."""
    hints = typing.get_type_hints(task.predict, include_extras=True)
    fields: dict[str, Any] = {}
    for key, parameter in inspect.signature(task.predict).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            fields[key] = (hints[key], parameter.default)
        elif parameter.kind is parameter.VAR_KEYWORD:
            hint = typing.get_args(hints[key])  # of Unpack[...]
            inner = typing.get_type_hints(hint[0], include_extras=True) if hint else {}
            fields |= {name: (annotation, None) for name, annotation in inner.items()}
    config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, protected_namespaces=(), allow_inf_nan=False
    )
    return create_model(task.__name__, __config__=config, **fields)
