"""An analysis by its name, with its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...recipe import find
from ...recipe.validation import library_model, library_options
from ...utils import located_errors
from .subject import Subject

PASSED = ("subject",)
"""The argument of an analysis that the engine passes."""


def option_names(name: str) -> list[str]:
    """Return the names of the options of an analysis. Raise ConfigError if there is none."""
    return list(library_model(find("analysis", name, "analyze"), PASSED).model_fields)


def analyze(subject: Subject, name: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the table of an analysis. Raise ConfigError for an unknown name or option."""
    function = find("analysis", name, "analyze")
    values = library_options(function, options, name, PASSED)
    with located_errors(name, values):
        rows: list[dict[str, Any]] = function(subject, **values)
    return rows
