"""Captions in COCO's JSON as a source."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from ....modalities.base import Source
from ...utils import find_files, find_folder, fingerprint_of
from .files import read_bytes
from .json_rows import decode_json


class Coco(Source):
    """Captions in COCO's JSON: rows `image, caption, captions, image_id`.

    images: the folder of the pictures. annotations: `captions_*.json`. expand: a row a caption
    instead of a row a picture; `caption` is that one, else the first. Pictures without a
    caption are left out and counted. The captions of one picture are a group.
    """

    columns = ("image", "caption", "captions", "image_id")

    def __init__(self, *, images: str, annotations: str, expand: bool = False) -> None:
        self.images, (self.file,) = find_folder(images), find_files([annotations])
        self.expand = expand
        try:
            table = decode_json(read_bytes(self.file))
        except ValueError as error:
            raise ValueError(f"{self.file}: {error}") from error
        self._names, self._captions = self._pair(table)
        self._rows = [
            (image, number)
            for image, captions in self._captions.items()
            for number in range(len(captions) if expand else min(1, len(captions)))
        ]
        self.ignored = {
            self._names[image]: "has no caption"
            for image, captions in self._captions.items()
            if not captions
        }

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

    @property
    def groups(self) -> Sequence[object]:
        return [image for image, _ in self._rows] if self.expand else ()

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
        """Return file names and captions by picture."""
        cure = (
            "COCO captions are an object with images (id, file_name) and annotations (image_id, "
            "caption)"
        )
        if not isinstance(table, Mapping):
            raise ValueError(f"{self.file}: holds a {type(table).__name__}; {cure}")
        try:
            names = {image["id"]: image["file_name"] for image in table["images"]}
            notes = [(note["image_id"], note["caption"]) for note in table["annotations"]]
        except KeyError as error:
            raise ValueError(f"{self.file}: lacks {error}; {cure}") from error
        except TypeError as error:
            raise ValueError(f"{self.file}: is of another form ({error}); {cure}") from error
        if len(names) != len(table["images"]):
            raise ValueError(f"{self.file}: {len(table['images'])} pictures share {len(names)} ids")
        captions: dict[int, list[str]] = {image: [] for image in names}
        for image, caption in notes:
            if image not in captions:
                raise ValueError(f"{self.file}: a caption names image {image}, which is not listed")
            captions[image].append(caption)
        return names, captions
