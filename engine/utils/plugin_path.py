"""Where modules of a user are found: beside the recipe, then in the current folder.

What is installed comes first, so that no file of a user's hides a library. A run keeps the folders
of the modules that made it, relative to its own, so that it is found from any other folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

from .atomic import write_json

MODULES = "modules.json"
"""The file of a run: module -> the folder that it was found in."""

_recipe_folders: list[Path] = []
"""Folders of the recipes that this process loaded, the newest first."""

_added: list[str] = []
"""Folders that were appended to `sys.path` here."""

_imported_modules: dict[str, str] = {}
"""Module of a user -> the folder that it was found in."""


def write_module_folders(run: Path) -> None:
    """Write the folders of the modules that were imported, relative to a run's; no file without
    any."""
    if _imported_modules:
        write_json(
            run / MODULES, {m: os.path.relpath(f, run) for m, f in _imported_modules.items()}
        )


def module_folders(run: Path) -> list[Path]:
    """Return the folders that a run's modules were found in, those that exist."""
    try:
        folders = json.loads((run / MODULES).read_text(encoding="utf-8")).values()
        paths = [Path(os.path.normpath(run.absolute() / folder)) for folder in folders]
    except (OSError, ValueError, AttributeError, TypeError):  # no file, or a foreign one
        return []
    return [path for path in dict.fromkeys(paths) if path.is_dir()]


def add_recipe_folder(folder: Path) -> None:
    """Look for modules in the folder of a recipe, before the folders of earlier recipes. Those that
    a run's modules were found in come next."""
    for path in [*reversed(module_folders(folder)), folder.absolute()]:
        _insert(path)


def _insert(folder: Path) -> None:
    if folder in _recipe_folders:
        _recipe_folders.remove(folder)
    _recipe_folders.insert(0, folder)


def make_importable(module: str) -> None:
    """Extend `sys.path` so that a top-level module of a user can be imported, if there is one."""
    origin = _folder_of(module)
    current = Path.cwd()
    if origin is not None and origin not in (str(current), *_added):
        return  # installed
    folder = next((str(f) for f in (*_recipe_folders, current) if _contains(f, module)), None)
    if folder is None:
        return
    _imported_modules[module] = folder
    if folder == origin:
        return
    for name in [n for n in sys.modules if n == module or n.startswith(f"{module}.")]:
        del sys.modules[name]  # of another recipe's folder
    if folder in sys.path:
        sys.path.remove(folder)
    positions = [sys.path.index(other) for other in _added if other in sys.path]
    sys.path.insert(min(positions, default=len(sys.path)), folder)
    _added.append(folder)
    importlib.invalidate_caches()


def _contains(folder: Path, module: str) -> bool:
    return (folder / f"{module}.py").is_file() or (folder / module / "__init__.py").is_file()


def _folder_of(module: str) -> str | None:
    """Return the folder that a top-level module would be imported from; None if there is none."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # `__main__` has no spec
        return "" if module in sys.modules else None
    if spec is None:
        return None
    if spec.origin is None or not spec.has_location:
        return ""  # built in, or a folder without an `__init__.py`
    path = Path(spec.origin).absolute().parent
    return str(path.parent if spec.submodule_search_locations is not None else path)
