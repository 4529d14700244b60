"""`metadata.csv`, `.jsonl` or `.parquet` in a folder of files, as 🤗 datasets has it: a row a file,
which its column `file_name` names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....modalities.messages import did_you_mean
from .csv_rows import Csv
from .files import Files
from .json_rows import Json

METADATA = "metadata"
FILE = "file_name"


@dataclass(frozen=True)
class MetadataRow:
    """A file and the cells beside it. fault: why the row cannot be read."""

    file: Path
    cells: dict[str, Any]
    fault: str | None = None


def read_metadata(folder: Path, top: Path, column: str) -> tuple[list[MetadataRow], dict[str, str]]:
    """Return the rows of all metadata files in a folder, and of one in `top`, above a split, that
    lie in the folder; and those of its own that lead out of it, by name, with the reason. Raise
    ValueError for a file without `file_name`, or two of them in one folder."""
    rows: list[MetadataRow] = []
    outside: dict[str, str] = {}
    above = [] if top == folder else [top]
    inner = [
        Path(directory)
        for directory, _, _ in os.walk(folder)
        if not Path(directory).name.startswith(".")
    ]
    for directory in [*above, *sorted(inner)]:
        source = _open(directory)
        if source is None:
            continue
        if FILE not in source.columns:
            raise ValueError(
                f"{source.files[0]}: has no column {FILE!r}{did_you_mean(FILE, source.columns)}"
            )
        for row in _rows(source, directory):
            if row.file.is_relative_to(folder):
                rows.append(row)
            elif directory not in above:  # a row of another split is no row here
                name = os.path.relpath(row.file, folder)
                outside[name] = f"{METADATA} names it, and it is outside {folder.name}"
    return rows, outside


def _open(folder: Path) -> Files | None:
    kinds = {".csv": Csv, ".jsonl": Json, ".parquet": _parquet}
    files = [folder / f"{METADATA}{s}" for s in kinds if (folder / f"{METADATA}{s}").is_file()]
    if len(files) > 1:
        raise ValueError(f"{folder}: has {', '.join(f.name for f in files)}; keep one of them")
    return kinds[files[0].suffix](path=str(files[0])) if files else None


def _parquet(*, path: str) -> Files:
    from .parquet import Parquet

    return Parquet(path=path)


def _rows(source: Files, folder: Path) -> list[MetadataRow]:
    rows = []
    for index in range(len(source)):
        if index in source.faults:
            key = source.key(index)
            rows.append(MetadataRow(folder / key, {}, source.faults[index]))
            continue
        cells = source[index]
        name = cells.pop(FILE)
        where = source.key(index)
        if not isinstance(name, str) or not name:
            rows.append(MetadataRow(folder / where, cells, f"{FILE} is {name!r}, no file name"))
            continue
        file = Path(os.path.normpath(folder / name))
        fault = None if file.is_file() else f"{where} names it, and it does not exist"
        rows.append(MetadataRow(file, cells, fault))
    return rows
