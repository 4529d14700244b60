"""Every number among the options of every part has a range, which is checked before it is built."""

from __future__ import annotations

import functools
import typing
from typing import Any

import pytest

from sensorium.engine.recipe import find
from sensorium.engine.recipe.registry import KINDS, registered
from sensorium.engine.recipe.validation import arguments, validate_options
from sensorium.engine.utils import ConfigError

LIBRARY = {"analysis", "modality", "optimizer", "schedule"}
"""Kinds whose arguments are a library's, or objects."""
ANY_NUMBER = {
    "bias": "of a logit",
    "layer": "counted from the end if negative",
    "snr": "in dB",
}


@functools.cache
def numeric_options() -> list[tuple[str, str, str]]:
    """Return (kind, name, option) of every option that is a number, or None."""
    options = {}
    for kind in KINDS:
        for name in () if kind in LIBRARY or "tokenizer" in kind else registered(kind):
            part = find(kind, name, kind)
            for option, (hint, _) in arguments(part).items():
                if {int, float} & leaves(hint) and option not in ANY_NUMBER:
                    options.setdefault((part, option), (kind, name, option))
    return list(options.values())


def leaves(hint: Any) -> set[Any]:
    """Return the types among which a value is chosen: those of a union, not of a list."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return leaves(args[0])
    if origin in (list, tuple, dict, typing.Literal):
        return set()
    return set[Any]().union(*map(leaves, args)) if args else {hint}


@pytest.mark.parametrize("value", [-(10**9), float("nan"), float("inf"), float("-inf")], ids=str)
def test_every_number_has_a_range(value: float) -> None:
    passed = []
    for kind, name, option in numeric_options():
        try:
            validate_options(find(kind, name, kind), {option: value}, "inputs.x")
        except ConfigError as error:
            lines = str(error).splitlines()
            if not any(line.startswith(f"inputs.x.{option}: found ") for line in lines):
                passed.append((kind, name, option, str(error)))
        else:
            passed.append((kind, name, option, "passed"))
    assert passed == []
