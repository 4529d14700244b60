"""Files that a recipe names: found, or refused in one line; and their fingerprints."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable
from pathlib import Path

from ...modalities.messages import closest
from ...modalities.paths import address_of, stamp
from .objects import fetch, fetch_pattern

_MAGIC = frozenset("*?[")


def find_files(path: str | list[str]) -> list[Path]:
    """Paths and glob patterns -> files, absolute, sorted within a pattern; of object storage, their
    local copies. Raise ValueError."""
    patterns = [path] if isinstance(path, str) else path
    files = dict.fromkeys(
        file
        for each in patterns
        for file in (fetch_pattern(each) if address_of(each) else _expand(each))
    )
    if not files:
        raise ValueError("path: names no file")
    for file in files:
        if file.stat().st_size == 0:
            raise ValueError(f"{file}: is empty (0 bytes)")
    return list(files)


def find_folder(path: str | Path) -> Path:
    """Return the folder, absolute; of object storage, its local copy. Raise ValueError with the
    nearest one that exists."""
    if address := address_of(path):
        return fetch(address)
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: is a file, not a folder"
            if folder.exists()
            else missing_path_message(folder)
        )
    return folder


def missing_path_message(path: Path) -> str:
    """Return one line about a path that does not exist: the last part that exists, and its
    contents."""
    nearest = next(p for p in path.parents if p.is_dir())
    step = path.relative_to(nearest).parts[0]
    names = sorted(p.name for p in nearest.iterdir())
    near = closest(step, names)
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    cure = f"did you mean {near!r}?" if near else f"it holds {listed or 'nothing'}"
    return f"{path}: does not exist; the nearest folder is {nearest}: {cure}"


def fingerprint_of(files: Iterable[Path], *settings: object) -> str:
    """Changes when a file is added, taken away, or has another size or time."""
    parts = [*map(stamp, files), *map(repr, settings)]
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser().absolute()
    if path.is_file():
        return [path]
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name its files, for example {path / '*'}")
    # What exists is taken by its name: a folder may be called `data [1]`.
    real = next(p for p in path.parents if p.is_dir())
    remainder = str(path.relative_to(real))
    if not _MAGIC & set(remainder):
        raise ValueError(missing_path_message(path))
    names = glob.glob(str(Path(glob.escape(str(real)), remainder)), recursive=True)  # noqa: PTH207
    files = [Path(name) for name in sorted(names)]
    files = [f for f in files if f.is_file()]
    if not files:
        raise ValueError(f"{path}: no file fits this pattern")
    return files
