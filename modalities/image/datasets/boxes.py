"""Boxes and masks of pictures as data sets hand them out: Pascal VOC's folders, COCO's instances.

Boxes are `[y0, x0, y1, x1]` in px of the file's picture, rows first, as the task `localization`
takes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ...paths import read_lines
from ...rows import ListedRows, existing_folder


class Voc(ListedRows):
    """Rows `image, boxes, classes, mask` of Pascal VOC: `JPEGImages`, `Annotations`,
    `ImageSets/Main/<split>.txt`, `SegmentationClass`.

    path: the folder with these (`VOC2012`). split: by default every annotated picture. classes:
    only objects of these. difficult: objects that are marked so, too. `mask` is there
    where the folder has masks of classes: a cell of the modality `image_mask`.
    """

    def __init__(
        self,
        *,
        path: str,
        split: str | None = None,
        classes: list[str] | None = None,
        difficult: bool = False,
    ) -> None:
        top = existing_folder(path)
        names = _voc_names(top, split)
        masked = (top / "SegmentationClass").is_dir()
        rows = []
        for name in names:
            row = _voc_row(top, name, classes, difficult)
            if masked:
                file = top / "SegmentationClass" / f"{name}.png"
                row["mask"] = str(file) if file.is_file() else None
            rows.append((name, row))
        super().__init__(rows, files=("image", "mask"), where=str(top))


def _voc_names(top: Path, split: str | None) -> list[str]:
    if split is None:
        return sorted(file.stem for file in (top / "Annotations").glob("*.xml"))
    file = top / "ImageSets" / "Main" / f"{split}.txt"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in file.parent.glob("*.txt"))[:8]) or "none"
        raise ValueError(f"split: found no {file}, expected one of: {known}")
    lines = (line.split() for line in read_lines(file))
    return [words[0] for words in lines if words and words[-1] != "-1"]


def _voc_row(top: Path, name: str, classes: list[str] | None, difficult: bool) -> dict[str, Any]:
    file = top / "Annotations" / f"{name}.xml"
    try:
        root = ElementTree.fromstring(file.read_text(encoding="utf-8"))
        objects = [
            (_text(each, "name"), _voc_box(each))
            for each in root.iter("object")
            if difficult or each.findtext("difficult", "0") != "1"
        ]
        image = top / "JPEGImages" / _text(root, "filename")
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise ValueError(f"{file}: is no annotation of VOC ({error})") from error
    chosen = [(c, b) for c, b in objects if classes is None or c in classes]
    return {
        "image": str(image),
        "boxes": [box for _, box in chosen],
        "classes": [label for label, _ in chosen],
    }


def _text(node: ElementTree.Element, path: str) -> str:
    text = node.findtext(path)
    if not text:
        raise ValueError(f"lacks {path}")
    return text.strip()


def _voc_box(node: ElementTree.Element) -> list[float]:
    """Return a box of VOC, whose first pixel is 1 and whose last one belongs to it."""
    x0, y0, x1, y1 = (float(_text(node, f"bndbox/{n}")) for n in ("xmin", "ymin", "xmax", "ymax"))
    return [y0 - 1, x0 - 1, y1, x1]


class CocoObjects(ListedRows):
    """Rows `image, boxes, classes, mask, image_id` of COCO's instances.

    images: the folder of the pictures. annotations: `instances_*.json`. classes: only objects of
    these categories. crowd: objects that are groups, too. `mask` holds
    the shapes of all chosen objects: a cell of the modality `image_mask`.
    """

    def __init__(
        self,
        *,
        images: str,
        annotations: str,
        classes: list[str] | None = None,
        crowd: bool = False,
    ) -> None:
        folder, file = existing_folder(images), Path(annotations).expanduser().absolute()
        if not file.is_file():
            raise ValueError(f"annotations: there is no file {file}")
        try:
            table = json.loads(file.read_text(encoding="utf-8"))
            rows = list(_coco_rows(table, folder, classes, crowd))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}: is no list of COCO's instances ({error!r})") from error
        super().__init__(rows, files=("image",), where=str(file))


def _coco_rows(
    table: Mapping[str, Any],
    folder: Path,
    classes: list[str] | None,
    crowd: bool,
) -> Iterator[tuple[str, dict[str, Any]]]:
    names = {each["id"]: each["name"] for each in table["categories"]}
    unknown = sorted(set(classes or ()) - set(names.values()))
    if unknown:
        raise ValueError(f"there is no category {unknown[0]!r}")
    objects: dict[int, list[Any]] = {each["id"]: [] for each in table["images"]}
    for each in table["annotations"]:
        label = names[each["category_id"]]
        if (classes is None or label in classes) and (crowd or not each.get("iscrowd")):
            objects[each["image_id"]].append((label, each))
    for image in table["images"]:
        picture, chosen = (image["height"], image["width"]), objects[image["id"]]
        boxes = []
        for _, each in chosen:
            x, y, width, height = each["bbox"]
            boxes.append([float(number) for number in (y, x, y + height, x + width)])
        shapes = [each["segmentation"] for _, each in chosen if each.get("segmentation")]
        yield (
            image["file_name"],
            {
                "image": str(folder / image["file_name"]),
                "boxes": boxes,
                "classes": [label for label, _ in chosen],
                "mask": {"size": list(picture), "shapes": shapes},
                "image_id": image["id"],
            },
        )
