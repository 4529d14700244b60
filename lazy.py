"""Public names of a package, imported when they are first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any


def lazy_exports(
    package: str, files: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package that exports names of its files.

    package: its `__name__`. files: file without ending -> the names that it defines. A file is
    imported by the first access to one of its names; the value is read from it at every access.
    """
    file_of = {name: file for file, names in files.items() for name in names}
    sys.modules[package].__class__ = _Package

    def __getattr__(name: str) -> Any:
        if name not in file_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f".{file_of[name]}", package), name)

    def __dir__() -> list[str]:
        return sorted(file_of)

    return __getattr__, __dir__, sorted(file_of)


class _Package(ModuleType):
    """A package whose public names win over its files: of `train.py`, which defines `train`,
    `from .training import train` is the function, as it is where the file is imported at once."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in self.__dict__.get("__all__", ())):
            super().__setattr__(name, value)
