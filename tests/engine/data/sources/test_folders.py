from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sensorium.engine.data.sources import Coco, folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "données [1] of mine"
    path.mkdir()
    return path


def jpeg(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.fixture
def pictures(folder: Path) -> Path:
    for split, classes in {"train": ("Bär", "a cat", "dog"), "test": ("Bär", "dog")}.items():
        for name in classes:
            write(folder / split / name / "1.JPG", jpeg())
            write(folder / split / name / "deep" / "2.png", b"damaged")
    write(folder / "train" / "dog" / "notes.txt", "no picture")
    write(folder / "train" / ".hidden" / "3.jpg", jpeg())
    return folder


def test_a_folder_a_class(pictures: Path) -> None:
    train = folders.ImageFolder(path=str(pictures), split="train")
    assert train.columns == ("image", "label", "class") and len(train) == 6
    assert train.classes == ["Bär", "a cat", "dog"]
    rows = [train[i] for i in range(6)]
    assert [row["label"] for row in rows] == [0, 0, 1, 1, 2, 2]
    assert all(Path(row["image"]).is_file() for row in rows)
    assert train.key(1) == "Bär/deep/2.png" and len({train.key(i) for i in range(6)}) == 6
    # A class that this split lacks shifts no number.
    test = folders.ImageFolder(path=str(pictures), split="test")
    assert [(test[i]["label"], test[i]["class"]) for i in (0, 2)] == [(0, "Bär"), (2, "dog")]
    assert "class" not in folders.ImageFolder(path=str(pictures / "train"), labels=False).columns


def test_a_changed_picture_is_another_cell_and_fingerprint(pictures: Path) -> None:
    before = folders.ImageFolder(path=str(pictures), split="train")
    names, fingerprint = [before.cell_key(i, "image") for i in range(6)], before.fingerprint()
    write(pictures / "train" / "Bär" / "1.JPG", b"another")
    after = folders.ImageFolder(path=str(pictures), split="train")
    assert [after.cell_key(i, "image") == names[i] for i in range(6)] == [False, *[True] * 5]
    assert after.fingerprint() != fingerprint
    assert folders.ImageFolder(path=str(pictures), split="train").fingerprint() == (
        after.fingerprint()
    )


def test_folders_with_mistakes(pictures: Path) -> None:
    with pytest.raises(ValueError, match=r"no file ends in .*\.wav .*\(found 3 \.JPG, 3 \.png"):
        folders.AudioFolder(path=str(pictures / "train"))
    with pytest.raises(ValueError, match="did you mean 'train'"):
        folders.ImageFolder(path=str(pictures), split="trian")
    write(pictures / "train" / "loose.jpg", jpeg())
    with pytest.raises(ValueError, match=r"1 files are beside .*\(loose.jpg\)"):
        folders.ImageFolder(path=str(pictures), split="train")
    flat = folders.ImageFolder(path=str(pictures / "train" / "dog" / "deep"))
    assert flat.columns == ("image",) and len(flat) == 1


def test_a_link_that_leads_back_is_walked_once(pictures: Path) -> None:
    (pictures / "train" / "dog" / "loop").symlink_to(pictures / "train" / "dog")
    assert len(folders.ImageFolder(path=str(pictures), split="train")) == 6


def coco(folder: Path, **changes: Any) -> Path:
    table: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "é 7.jpg"}, {"id": 3, "file_name": "3.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 3, "caption": "a cat"},
            {"id": 2, "image_id": 7, "caption": "a dog"},
            {"id": 3, "image_id": 7, "caption": "ein Hund"},
        ],
        **changes,
    }
    write(folder / "é 7.jpg", jpeg())
    write(folder / "3.jpg", jpeg(1))
    return write(folder / "captions.json", json.dumps(table))


def test_coco_captions(folder: Path) -> None:
    source = Coco(images=str(folder), annotations=str(coco(folder)))
    assert [(source[i]["image_id"], source[i]["caption"]) for i in range(len(source))] == [
        (7, "a dog"),
        (3, "a cat"),
    ]
    assert source[0]["captions"] == ["a dog", "ein Hund"]
    assert source[0]["image"] == str(folder / "é 7.jpg") and tuple(source[0]) == source.columns
    each = Coco(images=str(folder), annotations=str(folder / "captions.json"), expand=True)
    assert [each[i]["caption"] for i in range(len(each))] == ["a dog", "ein Hund", "a cat"]
    assert len({each.key(i) for i in range(3)}) == 3
    assert each.cell_key(0, "image") == each.cell_key(1, "image") == source.cell_key(0, "image")
    assert each.cell_key(0, "caption") != each.cell_key(1, "caption")


def test_coco_without_a_caption_is_counted(folder: Path) -> None:
    path = coco(folder, annotations=[{"image_id": 3, "caption": "a cat"}])
    source = Coco(images=str(folder), annotations=str(path))
    assert source.ignored == {"é 7.jpg": "has no caption"}
    assert [source[i]["image_id"] for i in range(len(source))] == [3]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"annotations": [{"image_id": 3, "bbox": []}]}, "lacks 'caption'; COCO captions are"),
        ({"annotations": [{"image_id": 9, "caption": ""}]}, "names image 9, which is not listed"),
        ({"images": [{"id": 1, "file_name": "a"}] * 2}, "2 pictures share 1 ids"),
    ],
)
def test_coco_with_mistakes(folder: Path, changes: dict[str, Any], expected: str) -> None:
    path = coco(folder, **changes)
    with pytest.raises(ValueError, match=expected):
        Coco(images=str(folder), annotations=str(path))
