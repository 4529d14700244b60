"""Local tables as sources: json, csv, parquet, and tar shards that are converted once.

Cells are as they are stored: pictures and sounds are `{"path":, "bytes":}`, not decoded, so
that a damaged one is a row that the modality's `read` reports. Never touches the network.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

from ...modalities.base import Source
from ...modalities.messages import did_you_mean
from ...modalities.paths import map_paths
from ..utils import find_files, find_folder, fingerprint_of
from .hf_datasets import FAILURES, load_files, root_cause


class Files(Source):
    """Rows of local files of one kind.

    path: a file, a glob pattern, or a list of them. split: 🤗 datasets' slices, for example
    `train[:80%]`. paths: columns that hold file names, taken from `root` (by default the
    folder of the data file). Raises ValueError that names the file and, where it can, the line.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        *,
        path: str | list[str],
        split: str = "train",
        paths: list[str] | None = None,
        root: str | None = None,
    ) -> None:
        self.files, self.paths = find_files(path), tuple(paths or ())
        self.root = self._root(root)
        self._open(split)

    def _open(self, split: str, **options: Any) -> None:
        """Convert the files, or find them converted."""
        try:
            table = load_files(self.kind, self.files, split, **options)
        except FAILURES as error:
            raise ValueError(self._blame(error, options)) from error
        if len(table) == 0:
            raise ValueError(f"{self.files[0]}: has no rows")
        self.columns = tuple(table.column_names)
        for name in self.paths:
            if name not in self.columns:
                raise ValueError(
                    f"{self.files[0]}: paths names no column{did_you_mean(name, self.columns)}"
                )
        # Arrow rows: nothing is decoded.
        self._rows = table.with_format("arrow")
        self._fingerprint = fingerprint_of(self.files, self.kind, split, options, str(self.root))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self._rows[index].to_pylist()[0]
        for name in self.paths:
            row[name] = map_paths(row[name], lambda path: str(self.root / path))
        return row

    def key(self, index: int) -> str:
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0].name}{more}#{index}"

    def named_cell(self, index: int, column: str) -> Any:
        return self[index][column]

    def fingerprint(self) -> str:
        return self._fingerprint

    def _root(self, root: str | None) -> Path:
        if root is not None and not self.paths:
            raise ValueError("root: is of no use without paths: [columns that hold file names]")
        if root is not None:
            return find_folder(root)
        folders = {file.parent for file in self.files}
        if self.paths and len(folders) > 1:
            raise ValueError(f"root: say which, the files lie in {len(folders)} folders")
        return self.files[0].parent

    def _blame(self, error: BaseException, options: dict[str, Any]) -> str:
        """One line: which file, which line of it, what is wrong."""
        file = self.files[0]
        for each in self.files if len(self.files) > 1 else ():
            try:
                load_files(self.kind, [each], "train", **options)
            except FAILURES as found:
                file, error = each, found
                break
        place, wrong = self._locate(file, root_cause(error))
        return f"{file}{place}: {wrong}"

    def _locate(self, file: Path, wrong: str) -> tuple[str, str]:
        """(`, line 3` or nothing, what is wrong)."""
        if "corresponds to no data" in wrong or "at least one example" in wrong:
            return "", "has no rows"
        return "", wrong


class Csv(Files):
    """Comma-separated values with a header line. delimiter: what stands between the values."""

    kind = "csv"

    def __init__(
        self,
        *,
        path: str | list[str],
        split: str = "train",
        paths: list[str] | None = None,
        root: str | None = None,
        delimiter: str = ",",
    ) -> None:
        self.delimiter = delimiter
        super().__init__(path=path, split=split, paths=paths, root=root)

    def _open(self, split: str, **options: Any) -> None:
        super()._open(split, sep=self.delimiter)

    def _locate(self, file: Path, wrong: str) -> tuple[str, str]:
        found = re.search(r"line (\d+)", wrong)
        if found is None:
            return super()._locate(file, wrong)
        return f", line {found[1]}", wrong.partition("C error: ")[2] or wrong


class Json(Files):
    """JSON lines, or one list of objects. field: the key of the list in a larger object."""

    kind = "json"

    def __init__(
        self,
        *,
        path: str | list[str],
        split: str = "train",
        paths: list[str] | None = None,
        root: str | None = None,
        field: str | None = None,
    ) -> None:
        self.field = field
        super().__init__(path=path, split=split, paths=paths, root=root)

    def _open(self, split: str, **options: Any) -> None:
        super()._open(split, **({} if self.field is None else {"field": self.field}))

    def _locate(self, file: Path, wrong: str) -> tuple[str, str]:
        try:
            found = _json_mistake(file.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            return "", f"is not UTF-8 (byte {error.start})"
        if found is not None:
            return f", line {found[0]}", f"is no JSON: {found[1]}"
        return super()._locate(file, wrong)


class Parquet(Files):
    """Apache Parquet, with or without 🤗 datasets' own types."""

    kind = "parquet"


class Tar(Files):
    """Tar shards of the WebDataset form, converted once; a row by index."""

    kind = "webdataset"


def _json_mistake(text: str) -> tuple[int, str] | None:
    """The line of the first mistake, and what it is, in JSON or in lines of JSON."""
    whole = _json_error(text)
    if whole is None:
        return None
    lines = [(n, _json_error(line)) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    by_line = not text.lstrip().startswith("[") and any(error is None for _, error in lines)
    wrong = [(n, error.msg) for n, error in lines if error is not None]
    return wrong[0] if by_line and wrong else (whole.lineno, whole.msg)


def _json_error(text: str) -> json.JSONDecodeError | None:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error
    return None
