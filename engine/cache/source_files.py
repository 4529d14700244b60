"""The source files that decide what a class or a function computes: its module, and the modules
that it imports, as far as they belong to the same project. Changed code is another identity.

Libraries and the contracts of `modalities` are left out. Imports are read from the text, those
within functions too; nothing is imported to find them.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
CONTRACTS = frozenset(
    f"{PACKAGE}.{name}"
    for name in (
        "lazy",
        "modalities",
        "modalities.base",
        "modalities.features",
        "modalities.messages",
        "modalities.modality",
        "modalities.paths",
        "modalities.quiet",
        "modalities.rows",
    )
)
"""Modules that say what parts are like, and decide no value."""


def source_digests(module: str) -> tuple[str, ...]:
    """Return the sorted SHA-256 of the files of a module and of what it imports of its project;
    nothing for a module without a file."""
    file = _file_of(module)
    return () if file is None else _digests(module, file, _digest(file))


@functools.cache
def _digests(module: str, file: Path, digest: str) -> tuple[str, ...]:
    files: dict[str, Path] = {}
    waiting = [(module, file)]
    while waiting:
        name, path = waiting.pop()
        if name in files or name in CONTRACTS:
            continue
        files[name] = path
        waiting += _imports(name, path)
    return tuple(sorted({_digest(path) for path in files.values()}))


def file_digest(module: str) -> tuple[str, ...]:
    """Return the SHA-256 of a module's own file; nothing if it has none."""
    file = _file_of(module)
    return () if file is None else (_digest(file),)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _file_of(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    path = getattr(loaded, "__file__", None)
    if loaded is None:
        spec = importlib.util.find_spec(module)
        path = spec.origin if spec else None
    return Path(path) if path and path.endswith(".py") and Path(path).is_file() else None


def _imports(module: str, file: Path) -> Iterator[tuple[str, Path]]:
    """The modules that a module imports, of its project."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(_absolute(node, package), alias.name) for alias in node.names]
        else:
            continue
        for base, name in names:
            top = _top(base.partition(".")[0], module, file)
            resolved = None if top is None else _resolve(top, base, name)
            if resolved is not None:
                yield resolved


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The full name of the module after `from`."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def _top(name: str, module: str, file: Path) -> Path | None:
    """The folder of a top-level package, or where a top-level module would lie without `.py`, if
    it belongs to the project of a module. A package's folder may have another name."""
    own_package, *inner = module.split(".")
    depth = len(inner) - (file.name != "__init__.py")  # -1: a file that is in no package
    if name == own_package:
        return file.parents[depth] if depth >= 0 else file.with_suffix("")
    if name == PACKAGE:
        package = _file_of(PACKAGE)
        return None if package is None else package.parent
    installed = {Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")}
    folder = file.parents[depth + 1]
    return None if folder in installed else folder / name


def _resolve(top: Path, base: str, name: str) -> tuple[str, Path] | None:
    """The module behind `from base import name`: a module within, the one that a package takes
    the name from, or `base` itself."""
    within = f"{base}.{name}" if name else base
    for module in dict.fromkeys((within, base)):
        path = top.joinpath(*module.split(".")[1:])
        if path.with_name(f"{path.name}.py").is_file():
            return module, path.with_name(f"{path.name}.py")
        if (path / "__init__.py").is_file():
            return _behind_package(top, module, path / "__init__.py", name)
    return None


def _behind_package(top: Path, module: str, file: Path, name: str) -> tuple[str, Path]:
    for node in ast.walk(ast.parse(file.read_bytes())) if name else ():
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name in (alias.asname, alias.name):
                    base = _absolute(node, module)
                    resolved = None if base == module else _resolve(top, base, alias.name)
                    if resolved is not None and base.partition(".")[0] == module.partition(".")[0]:
                        return resolved
    return module, file
