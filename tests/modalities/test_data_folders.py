"""Data as people have it: folders in the layouts of other projects are rows without any code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import made_folders as made
import numpy as np
import pytest
import torch

from sensorium.engine.data.windows import Windows
from sensorium.engine.recipe import find, load
from sensorium.modalities.base import Source
from sensorium.modalities.image import IMAGE_MASK


def source(name: str, options: dict[str, Any], **changes: Any) -> Any:
    return find("source", name, "here")(**{**options, **changes})


def rows(source: Source) -> list[dict[str, Any]]:
    return [source[i] for i in range(len(source))]


def test_utterances_of_kaldi_are_parts_of_recordings(tmp_path: Path) -> None:
    read = load("sensorium.modalities.audio.read:read")
    opened = source("kaldi", made.kaldi(tmp_path))
    assert [row["text"] for row in rows(opened)] == ["one two", "three", "four"]
    assert [row["speaker"] for row in rows(opened)] == ["s1", "s1", "s2"] == list(opened.groups)
    seconds = [read(row["audio"]).seconds for row in rows(opened)]
    assert seconds == [0.5, 0.5, 0.5]  # the second one goes to the end
    (tmp_path / "segments").unlink()
    (tmp_path / "text").write_text("rec1 HELLO THERE\n")
    (tmp_path / "utt2spk").unlink()
    whole = source("kaldi", {"path": str(tmp_path)})
    assert rows(whole)[0]["text"] == "HELLO THERE"
    assert whole.columns == ("audio", "text", "words")
    assert dict(whole.ignored) == {"rec2": "has no line in text"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rec1 sox a.wav -t wav - |", "output of a command"),
        ("rec1 wav.ark:12", "is in an archive"),
        ("rec1", "expected a name and a file"),
    ],
)
def test_recordings_of_kaldi_that_are_no_files(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=message):
        source("kaldi", {"path": str(tmp_path)})


def test_lines_of_a_manifest_are_files_or_parts(tmp_path: Path) -> None:
    read = load("sensorium.modalities.audio.read:read")
    first, second = rows(source("nemo", made.nemo(tmp_path)))
    assert (first["text"], first["lang"], first["seconds"]) == ("one", "en", 1.0)
    assert [read(row["audio"]).seconds for row in (first, second)] == [1.0, 0.5]


def test_boxes_of_voc_are_rows_first(tmp_path: Path) -> None:
    opened = source("voc", made.voc(tmp_path))
    assert [opened.key(i) for i in range(len(opened))] == ["0001", "0002"]
    row = opened[0]
    assert row["boxes"] == [[1, 2, 6, 10]]  # the first pixel of VOC is 1
    assert row["classes"] == ["dog"]  # the cat is difficult
    assert rows(source("voc", made.voc_options(tmp_path), difficult=True))[0]["classes"][1] == "cat"
    mask = load(IMAGE_MASK.read)(row["mask"])
    assert mask.shape == (10, 20)
    assert mask.sum() == 5 * 8  # without the pixels that are left out
    assert rows(opened)[1]["mask"] is None
    assert len(source("voc", made.voc_options(tmp_path), split=None)) == 3


def test_objects_of_coco_have_boxes_and_shapes(tmp_path: Path) -> None:
    options = made.coco_objects(tmp_path)
    first, second = rows(source("coco_objects", options))
    assert (first["boxes"], first["classes"]) == ([[1, 2, 6, 10]], ["dog"])
    assert (second["boxes"], second["classes"]) == ([], [])
    read = load(IMAGE_MASK.read)
    mask = read(first["mask"])
    assert mask.shape == (10, 20)
    assert mask[3, 5]
    assert not mask[8, 15]
    assert not read(second["mask"]).any()
    crowd = rows(source("coco_objects", options, classes=["cat"], crowd=True))[0]
    assert read(crowd["mask"])[:, 1:3].all()  # run lengths go down the columns
    assert read(crowd["mask"]).sum() == 20
    with pytest.raises(ValueError, match="no category 'cow'"):
        source("coco_objects", options, classes=["cow"])


def test_sessions_of_bids_have_several_contrasts(tmp_path: Path) -> None:
    opened = source("bids", made.bids(tmp_path))
    read = load("sensorium.modalities.mri.io.read:read")
    table = rows(opened)
    assert [opened.key(i) for i in range(3)] == ["sub-01/ses-1", "sub-01/ses-2", "sub-02"]
    assert [row["age"] for row in table] == [34, 34, None]
    assert [row["session"] for row in table] == ["ses-1", "ses-2", None]
    assert list(opened.groups) == ["sub-01", "sub-01", "sub-02"]
    assert [read(row["volume"]).meta["contrasts"] for row in table] == [
        (True, True), (True, False), (True, False),
    ]  # fmt: skip
    assert "sub-03" in opened.ignored
    one = source("bids", made.bids(tmp_path), contrasts="FLAIR")
    assert len(one) == 1
    assert read(one[0]["volume"]).shape == (1, 4, 5, 6)


@pytest.mark.parametrize(("make", "count"), [(made.decathlon, 1), (made.nnunet, 2)])
def test_volumes_with_their_masks(make: Any, count: int, tmp_path: Path) -> None:
    read = load("sensorium.modalities.mri.io.read:read")
    mask = load("sensorium.modalities.mri.io.read:read_mask")
    table = rows(source("nnunet", make(tmp_path)))
    assert len(table) == count
    for row in table:
        assert read(row["volume"]).shape == (2, 4, 5, 6)
        assert mask(row["mask"]).shape == (1, 4, 5, 6)


def test_a_test_split_of_the_decathlon_has_no_masks(tmp_path: Path) -> None:
    opened = source("nnunet", made.decathlon(tmp_path), split="test")
    assert opened.columns == ("volume", "case")
    assert opened[0]["case"] == "b"


def test_steps_of_robomimic_are_frames_of_episodes(tmp_path: Path) -> None:
    opened = source("robomimic", made.robomimic(tmp_path))
    assert [len(e) for e in opened.episodes] == [3, 2, 4]  # by number, not by letters
    row = opened[5]
    assert (row["demo"], row["frame_index"], row["done"]) == ("demo_10", 0, 0)
    np.testing.assert_array_equal(row["action"], np.full(7, 10))
    assert row["camera"].shape == (4, 4, 3)
    assert int(row["camera"].max()) == 10
    assert opened.column_array("state").shape == (9, 2)
    some = source("robomimic", made.robomimic_options(tmp_path), split="train")
    assert {r["demo"] for r in rows(some)} == {"demo_0", "demo_10"}
    chunk = Windows(opened, {"action": (0, 1)})[2]["action"]
    np.testing.assert_array_equal(chunk, np.zeros((2, 7)))  # it does not run into the next one


@pytest.mark.parametrize("name", ["kaldi", "voc", "bids", "nnunet"])
def test_a_folder_that_is_not_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "datum").mkdir()
    with pytest.raises(ValueError, match=r"path: there is no folder .*; .* holds datum"):
        source(name, {"path": str(tmp_path / "data")})


def test_masks_are_features_on_their_pixels() -> None:
    mask_encoder = find("image_mask_encoder", "mask", "here")
    encoder = mask_encoder(size=(4, 6))
    raw = np.zeros((8, 12), bool)
    raw[:4, :6] = True
    samples = [encoder.processor.prepare(raw), encoder.processor.prepare(~raw)]
    features = encoder(**encoder.collate(samples))
    assert features.grid == (4, 6)
    assert (features.spacing, features.origin) == ((1.0, 1.0), (0.5, 0.5))
    first = features.tokens[0].view(4, 6)
    assert first[:2, :3].all()
    assert first.sum() == 6
    scale = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 1]])  # in px of the mask that was read
    torch.testing.assert_close(features.affine[0], scale)
    assert json.dumps(encoder.processor.settings())


def test_boxes_and_masks_of_pictures_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sensorium.engine.recipe import parse_recipe
    from sensorium.engine.training import train

    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "voc").mkdir()
    (tmp_path / "coco").mkdir()
    voc = {**made.voc(tmp_path / "voc"), "source": "voc"}
    coco = {**made.coco_objects(tmp_path / "coco"), "source": "coco_objects"}
    encoder = {"type": "patches", "size": 32, "patch_size": 8, "dim": 16}
    recipe = {
        "inputs": {
            "image": {"modality": "image", "encoder": encoder},
            "mask": {"modality": "image_mask", "encoder": "mask"},
        },
        "tasks": {
            "find": {"type": "localization", "input": "image", "target": "boxes", "axes": 2,
                     "data": {"train": voc}},
            "outline": {"type": "segmentation", "input": "image", "head": "per_token",
                        "data": {"train": coco}},
        },
        "train": {"steps": 4, "batch_size": 2, "log_every": 1},
    }  # fmt: skip
    model = train(parse_recipe(recipe), tmp_path / "run", show=False)
    assert {"find", "outline"} == set(model.tasks)


BINARY = np.array([[0, 255], [255, 0]], np.uint8)
VOIDED = np.array([[0, 255], [3, 0]], np.uint8)
OBJECTS = np.array([[0, 255], [300, 0]], np.uint16)
MASKS = [
    ("L", BINARY, BINARY > 0),  # as most tools write them
    ("L", VOIDED, VOIDED == 3),
    ("P", BINARY, BINARY > 255),
    ("P", VOIDED, VOIDED == 3),
    ("I;16", OBJECTS, OBJECTS > 0),
    ("1", BINARY > 0, BINARY > 0),
    ("RGB", np.stack([BINARY * 0, BINARY, BINARY * 0], 2), BINARY > 0),
]


@pytest.mark.parametrize(("mode", "numbers", "expected"), MASKS)
def test_masks_of_pictures(mode: str, numbers: Any, expected: Any, tmp_path: Path) -> None:
    from PIL import Image

    file = tmp_path / "mask.png"
    picture = Image.fromarray(numbers)
    if mode == "P":
        picture = picture.convert("P")
        picture.putdata(numbers.reshape(-1).tolist())
    picture.save(file)
    read = load(IMAGE_MASK.read)
    np.testing.assert_array_equal(read(str(file)), expected)
    if mode == "RGB":
        with pytest.raises(ValueError, match="colours"):
            read({"path": str(file), "classes": [3]})


def test_a_signed_mask_is_refused() -> None:
    numbers = np.array([[0, -1]], np.int8)  # 255, once
    with pytest.raises(ValueError, match="negative"):
        load(IMAGE_MASK.read)(numbers)
    with pytest.raises(ValueError, match="negative numbers, from -1"):
        load("sensorium.modalities.mri.io.read:read_mask")(
            {"array": np.stack([numbers] * 2), "affine": np.eye(4)}
        )
