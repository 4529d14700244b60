"""The folder of the cache, and the files behind a cell of a data set.

`cell_paths` finds the files that a cell names, `map_paths` changes them, a modality's `files` lists
those its `read` opens for it, and `cell_identity` identifies the cell.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FileLister = Callable[[Any], Sequence[Path]]
"""A cell -> the files that a modality's `read` opens for it."""

_ADDRESS = re.compile(r"([a-z][a-z0-9]+):/+(.+)", re.S)
_OTHER = ("http", "https", "milvus", "data", "file")
"""Schemes of addresses that are no object storage."""

_DIGESTS = (bytes, bytearray, memoryview)


def cache_root() -> Path:
    """`$SENSORIUM_CACHE`, else `$XDG_CACHE_HOME/sensorium`, else `~/.cache/sensorium`."""
    folder = os.environ.get("SENSORIUM_CACHE")
    if folder:
        return Path(folder).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "sensorium"


def address_of(path: str | Path) -> str | None:
    """Return the address of object storage that a path is (`s3://bucket/key`; a `Path` of it has
    lost a slash), or None."""
    match = _ADDRESS.fullmatch(str(path))
    if match is None or match[1] in _OTHER or os.path.exists(path):  # noqa: PTH110
        return None
    return f"{match[1]}://{match[2]}"


def map_paths(cell: Any, change: Callable[[str | Path], Any]) -> Any:
    """Return a cell with `change` applied to each text or `Path` that may name a file: the cell
    itself, the `path` of a mapping without `bytes`, and those of a list's items."""
    if isinstance(cell, (str, Path)):
        return change(cell)
    if isinstance(cell, Mapping):
        if cell.get("path") is None or cell.get("bytes") is not None:
            return cell
        return {**cell, "path": map_paths(cell["path"], change)}
    if isinstance(cell, (list, tuple)):
        return [map_paths(item, change) for item in cell]
    return cell


def cell_paths(cell: Any) -> list[Path]:
    """Return the files and folders that a cell names and that exist, absolute, in order."""
    paths: list[Path] = []

    def add(name: str | Path) -> str | Path:
        # os.path, not Path.exists: a text that is too long for a path is simply no file.
        if name and os.path.exists(name):  # noqa: PTH110
            paths.append(Path(name).absolute())
        return name

    map_paths(cell, add)
    return paths


MAX_FILES = 20_000
"""Files of a folder that a cell names; more are no volume, but a data set or a disk."""


def cell_files(cell: Any) -> list[Path]:
    """Return the files behind a cell: those that it names, and all files within the folders."""
    return [file for path in cell_paths(cell) for file in files_within(path)]


def no_files(cell: Any) -> list[Path]:
    """Return nothing: the cells of a modality hold their values and name no file."""
    return []


def files_within(path: Path) -> list[Path]:
    """Return a file, or all files of a folder, of its folders too, sorted."""
    if not path.is_dir():
        return [path]
    files: list[Path] = []
    for folder, _, names in os.walk(path):  # passes over folders that may not be listed
        files += [Path(folder, name) for name in names]
        if len(files) > MAX_FILES:
            raise ValueError(f"{path}: a cell names a folder of more than {MAX_FILES:,} files")
    return sorted(file for file in files if os.path.isfile(file))  # noqa: PTH113


def folder_cells(folder: Path) -> list[Path]:
    """Return the files of a folder and its folders, each a cell, sorted; hidden ones are none."""
    files = [
        file
        for file in files_within(folder)
        if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    return sorted(files)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file, without the mark of its encoding. Line feeds alone end a
    line (`str.splitlines` also cuts at signs that a text may hold: U+0085, U+2028)."""
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def stamp(path: Path) -> str:
    """Return the absolute path, size in bytes, and times in ns of a file: that of its content, and
    that of its entry, which nothing sets back (`cp -p`, `rsync -t` and archives set the first)."""
    path = path.absolute()
    try:
        status = path.stat()
    except OSError:
        return f"{path}|missing"
    return f"{path}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}"


def cell_identity(cell: Any, files: FileLister = cell_files) -> str | None:
    """Return the identity of a cell that names files: each file's stamp, and the other
    values of the cell (a segment, a series). None if it names no file, or holds an object that has
    no value to compare."""
    behind = list(files(cell))
    if not behind:
        return None
    if isinstance(cell, (str, Path)) and behind == [Path(cell).absolute()]:
        return stamp(behind[0])
    try:
        described = _describe(map_paths(cell, os.path.abspath))
    except TypeError:
        return None
    stamps = "\0".join(map(stamp, behind)).encode(errors="surrogateescape")
    return f"{described}|{hashlib.sha256(stamps).hexdigest()}"


def _describe(value: Any) -> str:
    """Return a value as a text; large ones by their hash. Raise TypeError for other objects."""
    if value is None or isinstance(value, (bool, int, float, str, Path)):
        return str(value) if isinstance(value, Path) else repr(value)
    if isinstance(value, Mapping):
        # A key without a value is ignored: tables fill every cell of a struct.
        items = sorted((str(k), _describe(v)) for k, v in value.items() if v is not None)
        return "{" + ", ".join(f"{k}: {v}" for k, v in items) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_describe, value)) + "]"
    if isinstance(value, _DIGESTS):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufcUS":
        array = np.ascontiguousarray(value)
        return f"{array.dtype}{array.shape}{hashlib.sha256(array.tobytes()).hexdigest()}"
    raise TypeError(f"a {type(value).__name__} has no value to compare")
