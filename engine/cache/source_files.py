"""The source files that decide the values of a class or a function: its module, and the modules
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
from dataclasses import dataclass
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
        "modalities.rows",
    )
)
"""Modules that declare the contracts of parts and decide no value."""


def source_digests(module: str) -> tuple[str, ...]:
    """Return the sorted SHA-256 of the files of a module and of its imports from its project;
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
        in_package = name.partition(".")[0] == PACKAGE
        waiting += _package_imports(name, path) if in_package else _imports(name, path)
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


@functools.cache
def _package_imports(module: str, file: Path) -> tuple[tuple[str, Path], ...]:
    """Return the imports of a module of this package, whose files stay the same in a process."""
    return tuple(_imports(module, file))


def _imports(module: str, file: Path) -> Iterator[tuple[str, Path]]:
    """Yield the modules that a module imports, of its project."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for statement in _statements(file, _digest(file)):
        base = _absolute(statement, package)
        top = _top(base.partition(".")[0], module, file)
        if top is None:
            continue
        for name, _ in statement.names:
            if (imported := _resolve(top, base, name)) is not None:
                yield imported


@dataclass(frozen=True)
class _Statement:
    """One import. names: `(name, the name that it is bound to)`, `("", base)` of a plain one."""

    base: str
    level: int
    names: tuple[tuple[str, str], ...]


@functools.cache
def _statements(file: Path, digest: str) -> tuple[_Statement, ...]:
    """Return the imports of a file, read once while its text, whose digest it is, stays the
    same."""
    statements = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            statements += [_Statement(alias.name, 0, (("", alias.name),)) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple((alias.name, alias.asname or alias.name) for alias in node.names)
            statements.append(_Statement(node.module or "", node.level, names))
    return tuple(statements)


def _absolute(statement: _Statement, package: str) -> str:
    """Return the full name of the module after `from` or `import`."""
    if not statement.level:
        return statement.base
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - statement.level + 1], *filter(None, [statement.base])])


@functools.cache
def _installed() -> frozenset[Path]:
    """Return the folders of the libraries."""
    kinds = ("stdlib", "purelib", "platlib")
    return frozenset(Path(sysconfig.get_path(kind)) for kind in kinds)


def _top(name: str, module: str, file: Path) -> Path | None:
    """Return the folder of a top-level package, or where a top-level module would lie without
    `.py`, if it belongs to the project of a module. A package's folder may have another name."""
    own_package, *inner = module.split(".")
    depth = len(inner) - (file.name != "__init__.py")  # -1: a file that is in no package
    if name == own_package:
        return file.parents[depth] if depth >= 0 else file.with_suffix("")
    if name == PACKAGE:
        package = _file_of(PACKAGE)
        return None if package is None else package.parent
    folder = file.parents[depth + 1]
    return None if folder in _installed() else folder / name


def _resolve(top: Path, base: str, name: str) -> tuple[str, Path] | None:
    """Return the module behind `from base import name`: a module within, the one that a package
    takes the name from, or `base` itself."""
    within = f"{base}.{name}" if name else base
    for module in dict.fromkeys((within, base)):
        path = top.joinpath(*module.split(".")[1:])
        if path.with_name(f"{path.name}.py").is_file():
            return module, path.with_name(f"{path.name}.py")
        if (path / "__init__.py").is_file():
            return _behind_package(top, module, path / "__init__.py", name)
    return None


def _behind_package(top: Path, module: str, file: Path, name: str) -> tuple[str, Path]:
    """Return the module that a package takes a name from, or the package itself."""
    for statement in _statements(file, _digest(file)) if name else ():
        for imported, bound in statement.names:
            if imported and name in (bound, imported):
                base = _absolute(statement, module)
                behind = None if base == module else _resolve(top, base, imported)
                if behind is not None and base.partition(".")[0] == module.partition(".")[0]:
                    return behind
    return module, file
