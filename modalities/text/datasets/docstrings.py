"""Docstrings of Python's standard library: text that is on every machine.

Read from the modules' source files, which are parsed and not imported. The texts differ between
versions of Python; the fingerprint is that of the texts.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sysconfig
import zlib
from pathlib import Path
from typing import Any, Literal

from ...base import Count, Source

TEST_SHARE = 10
"""One module of so many is of the test split."""


class Docstrings(Source):
    """Rows `text, name, siblings`: a docstring, the object it describes
    (`json.JSONEncoder.encode`), and the next docstrings of the same module, as hard negatives.

    modules: modules without a package (`textwrap`); null: all of the library. split: modules are
    divided by their name, about a tenth of them for testing. min_length: characters from which a
    docstring counts. siblings: at most so many, fewer in a short module.
    """

    columns = ("text", "name", "siblings")

    def __init__(
        self,
        *,
        split: Literal["train", "test"],
        modules: list[str] | None = None,
        min_length: Count = 40,
        siblings: Count = 0,
    ) -> None:
        files = _files()
        names = tuple(files if modules is None else modules)
        unknown = [name for name in names if name not in files]
        if unknown:
            raise ValueError(
                f"modules: found {unknown[0]!r}, expected modules of the standard library that are "
                "a file of their own, such as textwrap"
            )
        chosen = [name for name in names if _is_test(name) == (split == "test")]
        self.rows: list[tuple[str, str, list[str]]] = []
        for module in chosen:
            rows = [row for row in _docstrings(module) if len(row[1]) >= min_length]
            texts = [text for _, text in rows]
            for i, (name, text) in enumerate(rows):
                others = [other for other in texts[i + 1 :] + texts[:i] if other != text]
                self.rows.append((name, text, others[:siblings]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, text, siblings = self.rows[index]
        return {"text": text, "name": name, "siblings": siblings}

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for row in self.rows:
            name, text, siblings = row
            digest.update("\0".join((name, text, *siblings, "")).encode())
        return digest.hexdigest()


def _is_test(module: str) -> bool:
    return zlib.crc32(module.encode()) % TEST_SHARE == 0


@functools.cache
def _files() -> dict[str, Path]:
    """The source file of each module, by its name."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem[0] != "_"}


@functools.cache
def _docstrings(module: str) -> tuple[tuple[str, str], ...]:
    """Names and docstrings of a module, its classes and functions."""
    docstrings: list[tuple[str, str]] = []

    def visit(node: ast.AST, name: str) -> None:
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if text := ast.get_docstring(node):
                docstrings.append((name, text))
            for child in node.body:
                visit(child, f"{name}.{getattr(child, 'name', '')}")

    visit(ast.parse(_files()[module].read_bytes()), module)
    return tuple(docstrings)
