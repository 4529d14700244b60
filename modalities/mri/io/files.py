"""The files of a volume: slices of a folder, and the values that a header keeps in other files.

MetaImage (`.mhd`) and NRRD (`.nhdr`, `.nrrd`) name their data files; Analyze and NIfTI pairs
(`.hdr` and `.img`) share a name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...paths import cell_files

HEADERS = (".mhd", ".mha", ".nhdr", ".nrrd")
PAIRED = {".hdr": ".img", ".img": ".hdr"}
HEADER_BYTES = 2**20

_DATA = re.compile(rb"^(?:ElementDataFile *= *|data ?file: *)(.+?)\r?$(.*)", re.I | re.M | re.S)
_NUMBER = re.compile(r"%0?\d*d")
"""A pattern of a series, `slice%03d.raw 1 20 1`."""


def files(source: Any) -> list[Path]:
    """Return all files that `read` opens for a cell, those behind a header too."""
    paths = cell_files(source)
    return list(dict.fromkeys(file for path in paths for file in (path, *_detached(path))))


def _detached(path: Path) -> list[Path]:
    """Return the files that hold the values of a header, or the header of values."""
    name = path.name.lower()
    base_name = name.removesuffix(".gz")
    for suffix, other in PAIRED.items():
        if base_name.endswith(suffix):
            stem = path.name[: len(base_name) - len(suffix)]
            kinds = (other, other.upper(), f"{other}.gz")
            return [f for f in (path.with_name(stem + kind) for kind in kinds) if f.is_file()]
    return _named_in_header(path) if name.endswith(HEADERS) else []


def _named_in_header(path: Path) -> list[Path]:
    try:
        with path.open("rb") as file:
            match = _DATA.search(file.read(HEADER_BYTES).partition(b"\n\n")[0])
    except OSError:
        return []
    if match is None:
        return []
    first, *following = (match[1] + b"\n" + match[2]).decode(errors="surrogateescape").splitlines()
    if first.strip().upper() == "LOCAL":
        return []
    names = following if first.strip().upper().startswith("LIST") else [first]
    return [file for name in names if name.strip() for file in _find(path.parent, name.strip())]


def _find(folder: Path, name: str) -> list[Path]:
    """Return the files of a name or of a numbered pattern; a missing one stays in the list."""
    if (folder / name).is_file() or not _NUMBER.search(name):
        return [folder / name]
    return sorted(folder.glob(_NUMBER.sub("*", name.split()[0])))
