"""Folders of pictures or sounds as sources: a folder a class, or a `metadata` file beside them.

A cell is the file's path: nothing is opened here, so that a damaged file is a row like any other,
and is reported when it is read. A picture or sound of a format that cannot be decoded belongs
to no row, and is counted.
"""

from __future__ import annotations

import functools
import mimetypes
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ....modalities.base import ReadError, Source
from ...recipe import load
from ...utils import find_folder, fingerprint_of
from .metadata import METADATA, MetadataRow, read_metadata

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Names of splits and the names that their folders have, as in 🤗 datasets."""


_NOTES = ("application/json", "application/pdf", "application/xml", "application/x-sh")


class _Suffixes:
    """The suffixes that a modality's reader can decode, determined on first access."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __get__(self, source: object, owner: type) -> frozenset[str]:
        suffixes: frozenset[str] = load(self.path)()
        return suffixes


class Folder(Source):
    """Rows `<column>, label, class`: `<path>[/<split>]/<class>/.../<file>`.

    If there is a `metadata.csv`, `metadata.jsonl` or `metadata.parquet` with a column `file_name`
    (relative to its folder), there is a row a row of it, with its other columns, and no labels.

    split: the folder of a split; `validation` finds `val` too. label: the class's place in the
    sorted names of all splits. labels: False for rows without labels (then files may lie anywhere),
    True for labels beside metadata, and for classes that are called like splits. Raise ValueError
    if there are no files, if files are beside the class folders, and if the split is not named.
    """

    column: ClassVar[str]
    suffixes: ClassVar[_Suffixes]

    def __init__(self, *, path: str, split: str | None = None, labels: bool | None = None) -> None:
        top = find_folder(path)
        self.folder = _split_folder(top, split) if split else top
        self._suffixes: frozenset[str] = self.suffixes
        files, ignored = self._walk()
        self.ignored = {n: reason for n, reason in ignored.items() if not _is_text(n)}
        self.rows, outside = read_metadata(self.folder, top, self.column)
        self.ignored |= outside
        if not files and not self.rows:
            raise ValueError(self._nothing(ignored))
        if split is None and labels is None:
            _check_splits(top, files)
        if self.rows:
            listed = {row.file for row in self.rows}
            unlisted = [file for file in files if file not in listed]
            self.ignored |= {self._name(file): f"{METADATA} has no row for it" for file in unlisted}
        else:
            self.rows = [MetadataRow(file, {}) for file in files]
        extra = dict.fromkeys(name for row in self.rows for name in row.cells)
        self.labelled = labels if labels is not None else not extra
        paths = [row.file.relative_to(self.folder).parts for row in self.rows]
        self.labelled = self.labelled and any(len(parts) > 1 for parts in paths)
        label_columns = ("label", "class") if self.labelled else ()
        for name in {self.column, *label_columns} & extra.keys():
            raise ValueError(f"{self.folder}: {METADATA} has a column {name!r} itself; rename")
        self.columns = (self.column, *label_columns, *extra)
        if self.labelled:
            self._classify(paths, [top] if split is None else sorted(top.iterdir()))
        doubled = Counter(row.file for row in self.rows)
        self._repeated = len(doubled) < len(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        line = self.rows[index]
        if line.fault is not None:
            raise ReadError(self.key(index), line.fault, "a row that can be read")
        row: dict[str, Any] = {self.column: str(line.file)}
        if self.labelled:
            label = self._labels[index]
            row |= {"label": label, "class": self.classes[label]}
        return dict.fromkeys(self.columns) | row | line.cells

    def key(self, index: int) -> str:
        name = self._name(self.rows[index].file)
        return f"{name}#{index}" if self._repeated else name

    @property
    def groups(self) -> Sequence[object]:
        return [row.file for row in self.rows] if self._repeated else ()

    @functools.cached_property
    def faults(self) -> Mapping[int, str]:  # type: ignore[override]
        return {i: row.fault for i, row in enumerate(self.rows) if row.fault is not None}

    def named_cell(self, index: int, column: str) -> Any:
        return self.rows[index].file if column == self.column else None

    def fingerprint(self) -> str:
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        cells = [row.cells for row in self.rows]
        return fingerprint_of([r.file for r in self.rows], self.labelled and self.classes, cells)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    def _classify(self, paths: list[tuple[str, ...]], tops: list[Path]) -> None:
        loose = [parts[0] for parts in paths if len(parts) == 1]
        if loose:
            raise ValueError(
                f"{self.folder}: {len(loose)} files are beside the class folders "
                f"({', '.join(loose[:3])}); move them, or set labels: false"
            )
        # Numbered over all splits, so that a class that one of them lacks shifts nothing.
        folders = (d.name for t in tops if t.is_dir() for d in t.iterdir() if d.is_dir())
        self.classes = sorted({name for name in folders if not name.startswith(".")})
        number = {name: i for i, name in enumerate(self.classes)}
        self._labels = [number[parts[0]] for parts in paths]

    def _walk(self) -> tuple[list[Path], dict[str, str]]:
        """Return the files of this kind, sorted, and the others by name with the reason."""
        files: list[Path] = []
        ignored: dict[str, str] = {}
        for folder, inner, names in os.walk(self.folder, followlinks=True):
            # A link to a folder is that folder once more, unless it leads back to one around it.
            around = {os.path.realpath(p) for p in (Path(folder), *Path(folder).parents)}
            links = {d: os.path.realpath(os.path.join(folder, d)) for d in inner}  # noqa: PTH118
            inner[:] = [d for d in inner if not d.startswith(".") and links[d] not in around]
            for file in (Path(folder, name) for name in names if not name.startswith(".")):
                if file.suffix.lower() in self._suffixes:
                    files.append(file)
                elif file.stem != METADATA:
                    kind = file.suffix or "no suffix"
                    ignored[self._name(file)] = f"{kind} is no {self.column} that can be decoded"
        return sorted(files), ignored

    def _nothing(self, ignored: Iterable[str]) -> str:
        kinds = Counter(Path(name).suffix or "no suffix" for name in ignored)
        listed = ", ".join(f"{n} {suffix}" for suffix, n in kinds.most_common(3))
        suffixes = " ".join(sorted(self._suffixes))
        return f"{self.folder}: no file ends in {suffixes} (found {listed or 'nothing'})"


class ImageFolder(Folder):
    """Pictures of every format that Pillow decodes: rows `image, label, class`."""

    column = "image"
    suffixes = _Suffixes("sensorium.modalities.image.read:suffixes")


class AudioFolder(Folder):
    """Sound files of every format that libsndfile decodes: rows `audio, label, class`."""

    column = "audio"
    suffixes = _Suffixes("sensorium.modalities.audio.read:suffixes")


def _is_text(name: str) -> bool:
    """Return whether a file is about the data (a licence, notes, a table) rather than meant to be
    one."""
    kind = mimetypes.guess_type(name)[0] or ""
    return not Path(name).suffix or kind.startswith("text/") or kind in _NOTES


def _split_folder(top: Path, split: str) -> Path:
    """Return the folder of a split, under its own name or another of the same meaning."""
    if not (top / split).is_dir():
        for name in SPLITS.get(split, ()):
            if (top / name).is_dir():
                return find_folder(top / name)
    return find_folder(top / split)


def _check_splits(top: Path, files: Sequence[Path]) -> None:
    """Refuse to take the folders of splits for classes."""
    folders = sorted({file.relative_to(top).parts[0] for file in files if file.parent != top})
    kinds = {f: kind for f in folders for kind, names in SPLITS.items() if f.lower() in names}
    if kinds and (len(kinds) == len(folders) or len(set(kinds.values())) > 1):
        listed = ", ".join(kinds)
        raise ValueError(
            f"{top}: its folders {listed} are splits, not classes; set split: {next(iter(kinds))} "
            "(or labels: true, if they are classes; labels: false, to take all files)"
        )
