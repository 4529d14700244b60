"""Folders of files as sources: one folder a class, or COCO's list of captions.

A cell is the file's path: nothing is opened here, so that a damaged file is a row like any
other, and is reported by whoever reads it.
"""

from __future__ import annotations

import functools
import json
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from ...modalities.base import Source
from ..utils import find_files, find_folder, fingerprint_of


class _Folder(Source):
    """Rows `<column>, label, class`: `<path>[/<split>]/<class>/.../<file>`.

    label: the class's place in the sorted names of all splits. labels: False for rows without
    labels (then files may lie anywhere). Raises ValueError where there are no files, or where
    files lie beside the class folders.
    """

    column: ClassVar[str]
    suffixes: ClassVar[frozenset[str]]

    def __init__(self, *, path: str, split: str | None = None, labels: bool = True) -> None:
        top = find_folder(path)
        self.folder = find_folder(top / split) if split else top
        self.files, others = self._walk()
        if not self.files:
            kinds = " ".join(sorted(self.suffixes))
            listed = ", ".join(f"{n} {s or 'no suffix'}" for s, n in others.most_common(3))
            raise ValueError(
                f"{self.folder}: no file ends in {kinds} (found {listed or 'nothing'})"
            )
        places = [file.relative_to(self.folder).parts for file in self.files]
        self.labelled = labels and any(len(parts) > 1 for parts in places)
        self.columns = (self.column, "label", "class") if self.labelled else (self.column,)
        if self.labelled:
            self._classify(places, [top] if split is None else sorted(top.iterdir()))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = {self.column: str(self.files[index])}
        if self.labelled:
            label = self._labels[index]
            row |= {"label": label, "class": self.classes[label]}
        return row

    def key(self, index: int) -> str:
        return self.files[index].relative_to(self.folder).as_posix()

    def named_cell(self, index: int, column: str) -> Any:
        return self.files[index] if column == self.column else None

    def fingerprint(self) -> str:
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        return fingerprint_of(self.files, self.labelled and self.classes)

    def _classify(self, places: list[tuple[str, ...]], tops: list[Path]) -> None:
        loose = [parts[0] for parts in places if len(parts) == 1]
        if loose:
            raise ValueError(
                f"{self.folder}: {len(loose)} files lie beside the class folders "
                f"({', '.join(loose[:3])}); move them, or say labels: false"
            )
        # Numbered over all splits, so that a class that one of them lacks shifts nothing.
        folders = (d.name for t in tops if t.is_dir() for d in t.iterdir() if d.is_dir())
        self.classes = sorted({name for name in folders if not name.startswith(".")})
        number = {name: i for i, name in enumerate(self.classes)}
        self._labels = [number[parts[0]] for parts in places]

    def _walk(self) -> tuple[list[Path], Counter[str]]:
        """The files of this kind, sorted, and the suffixes of the others."""
        files: list[Path] = []
        others: Counter[str] = Counter()
        seen: set[str] = set()
        for folder, inner, names in os.walk(self.folder, followlinks=True):
            real = os.path.realpath(folder)
            inner[:] = [] if real in seen else [d for d in inner if not d.startswith(".")]
            if real in seen:  # a link that leads back
                continue
            seen.add(real)
            for file in (Path(folder, name) for name in names if not name.startswith(".")):
                if file.suffix.lower() in self.suffixes:
                    files.append(file)
                else:
                    others[file.suffix] += 1
        return sorted(files), others


class ImageFolder(_Folder):
    """Pictures: rows `image, label, class`."""

    column = "image"
    suffixes = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"])


class AudioFolder(_Folder):
    """Sound files: rows `audio, label, class`."""

    column = "audio"
    suffixes = frozenset([".aac", ".aiff", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"])


class Coco(Source):
    """Captions in COCO's JSON: rows `image, caption, captions, image_id`.

    images: the folder of the pictures. annotations: `captions_*.json`. expand: a row a caption
    instead of a row a picture; `caption` is that one, else the first. Pictures without a
    caption are left out, with a warning that counts them.
    """

    columns = ("image", "caption", "captions", "image_id")

    def __init__(self, *, images: str, annotations: str, expand: bool = False) -> None:
        self.images, (self.file,) = find_folder(images), find_files([annotations])
        self.expand = expand
        try:
            table = json.loads(self.file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{self.file}: is no JSON: {error}") from None
        self._names, self._captions = self._pair(table)
        self._rows = [
            (image, number)
            for image, captions in self._captions.items()
            for number in range(len(captions) if expand else min(1, len(captions)))
        ]
        bare = sum(not captions for captions in self._captions.values())
        if bare:
            text = f"{self.file}: {bare} of {len(self._names)} pictures have no caption"
            warnings.warn(text, stacklevel=2)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, number = self._rows[index]
        captions = self._captions[image]
        return {
            "image": str(self.images / self._names[image]),
            "caption": captions[number],
            "captions": list(captions),
            "image_id": image,
        }

    def key(self, index: int) -> str:
        image, number = self._rows[index]
        return f"{self._names[image]}#{number}" if self.expand else self._names[image]

    def named_cell(self, index: int, column: str) -> Any:
        return self.images / self._names[self._rows[index][0]] if column == "image" else None

    def fingerprint(self) -> str:
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        pictures = [self.images / name for name in self._names.values()]
        return fingerprint_of([self.file, *pictures], self.expand)

    def _pair(self, table: Any) -> tuple[dict[int, str], dict[int, list[str]]]:
        """File names and captions by picture."""
        try:
            names = {image["id"]: image["file_name"] for image in table["images"]}
            said = [(note["image_id"], note["caption"]) for note in table["annotations"]]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{self.file}: lacks {error}; COCO captions are images (id, file_name) and "
                "annotations (image_id, caption)"
            ) from None
        if len(names) != len(table["images"]):
            raise ValueError(f"{self.file}: {len(table['images'])} pictures share {len(names)} ids")
        captions: dict[int, list[str]] = {image: [] for image in names}
        for image, caption in said:
            if image not in captions:
                raise ValueError(f"{self.file}: a caption names image {image}, which is not listed")
            captions[image].append(caption)
        return names, captions
