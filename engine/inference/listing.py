"""What there is to name in a recipe, as lists of texts."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...modalities.base import Component
from ...modalities.messages import did_you_mean
from ..recipe import KINDS, find, registered
from ..utils import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def list_encoders(modality: str | None = None, pattern: str | None = None) -> list[str]:
    """Return the types of encoders of a modality, or of all as `modality/type`.

    pattern: the built-in models of these types in its place, as `type/name`, whose name matches:
    `list_encoders("image", "*dino*")`. Models of the hub are not listed.
    """
    if modality is not None and modality not in (known := registered("modality")):
        raise ConfigError(f"there is no modality {modality!r}{did_you_mean(modality, known)}")
    return _matching(f"{modality}_encoder" if modality else "encoder", pattern)


def list_backbones(pattern: str | None = None) -> list[str]:
    """Return the types of backbones; with a pattern, their built-in models as `type/name`."""
    return _matching("backbone", pattern)


def list_parts(kind: str, pattern: str | None = None) -> list[str]:
    """Return the short names of a kind of parts (`connector`, `task`, `source`, ...) that match."""
    if kind not in KINDS:
        raise ConfigError(f"there is no kind of part {kind!r}{did_you_mean(kind, KINDS)}")
    return _filtered(registered(kind), pattern)


def list_connectors(pattern: str | None = None) -> list[str]:
    """Return the types of connectors that match."""
    return list_parts("connector", pattern)


def list_tasks(pattern: str | None = None) -> list[str]:
    """Return the types of tasks that match."""
    return list_parts("task", pattern)


def list_recipes(pattern: str | None = None) -> list[str]:
    """Return the recipes of the package that match, as `load` and the commands take them."""
    paths = (ROOT / "configs").rglob("*.yaml")
    return _filtered((path.relative_to(ROOT).as_posix() for path in paths), pattern)


def _matching(kind: str, pattern: str | None) -> list[str]:
    types = registered(kind)
    return sorted(types) if pattern is None else _filtered(_models(kind, types), pattern)


def _models(kind: str, types: Iterable[str]) -> Iterator[str]:
    for name in types:
        try:
            part = find(kind, name, name)
        except ConfigError:  # its library is not installed
            continue
        if isinstance(part, type) and issubclass(part, Component):
            yield from (f"{name}/{model}" for model in part.list_names())


def _filtered(names: Iterable[str], pattern: str | None) -> list[str]:
    return sorted(name for name in names if pattern is None or fnmatch.fnmatch(name, pattern))
