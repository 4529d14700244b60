"""Tiny data sets in the layouts that they are handed out in; each returns a source's options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Options = dict[str, Any]


def sound(file: Path, seconds: float = 0.1) -> None:
    soundfile = pytest.importorskip("soundfile")
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.linspace(-0.5, 0.5, int(8000 * seconds)), 8000)


def picture(file: Path, value: int = 100) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), (value, 0, 0)).save(file)


def volume(file: Path, shape: tuple[int, ...] = (4, 5, 6)) -> None:
    nibabel = pytest.importorskip("nibabel")
    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), file)


def kaldi(top: Path) -> Options:
    sound(top / "wav" / "a.wav", 1.0)
    sound(top / "wav" / "b.wav", 1.0)
    (top / "wav.scp").write_text("rec1 wav/a.wav\nrec2 wav/b.wav\n")
    (top / "segments").write_text("s1-u1 rec1 0.0 0.5\ns1-u2 rec1 0.5 -1\ns2-u1 rec2 0.25 0.75\n")
    (top / "text").write_text("s1-u1 ONE TWO\ns1-u2 THREE\ns2-u1 FOUR\n")
    (top / "utt2spk").write_text("s1-u1 s1\ns1-u2 s1\ns2-u1 s2\n")
    return {"path": str(top), "lower": True}


def nemo(top: Path) -> Options:
    sound(top / "a.wav", 1.0)
    lines = [
        {"audio_filepath": "a.wav", "duration": 1.0, "text": "one", "lang": "en"},
        {"audio_filepath": "a.wav", "offset": 0.25, "duration": 0.5, "text": "two", "lang": "de"},
    ]
    (top / "manifest.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"path": str(top / "manifest.json")}


VOC = """<annotation><filename>{name}.jpg</filename>
<size><width>20</width><height>10</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult>
<bndbox><xmin>3</xmin><ymin>2</ymin><xmax>10</xmax><ymax>6</ymax></bndbox></object>
<object><name>cat</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object>
</annotation>"""


def voc(top: Path) -> Options:
    for name in ("0001", "0002", "0003"):
        picture(top / "JPEGImages" / f"{name}.jpg")
        (top / "Annotations").mkdir(exist_ok=True)
        (top / "Annotations" / f"{name}.xml").write_text(VOC.format(name=name))
    (top / "ImageSets" / "Main").mkdir(parents=True)
    (top / "ImageSets" / "Main" / "train.txt").write_text("0001\n0002\n")
    (top / "SegmentationClass").mkdir()
    numbers = np.zeros((10, 20), np.uint8)
    numbers[1:6, 2:10], numbers[0] = 12, 255
    Image.fromarray(numbers).save(top / "SegmentationClass" / "0001.png")
    return {"path": str(top), "split": "train"}


def coco_objects(top: Path) -> Options:
    for name in ("a.jpg", "b.jpg"):
        picture(top / "images" / name)
    square = [2, 1, 10, 1, 10, 6, 2, 6]
    counts = [10, 20, 170]
    table = {
        "images": [
            {"id": i, "file_name": f"{name}.jpg", "height": 10, "width": 20}
            for i, name in enumerate("ab")
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 18, "bbox": [2, 1, 8, 5],
             "segmentation": [square], "iscrowd": 0},
            {"id": 2, "image_id": 0, "category_id": 17, "bbox": [1, 0, 2, 10],
             "segmentation": {"counts": counts, "size": [10, 20]}, "iscrowd": 1},
        ],
    }  # fmt: skip
    (top / "instances.json").write_text(json.dumps(table))
    return {"images": str(top / "images"), "annotations": str(top / "instances.json")}


def bids(top: Path) -> Options:
    volume(top / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_T1w.nii.gz")
    volume(top / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_acq-x_FLAIR.nii.gz")
    volume(top / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_T1w.nii.gz")
    volume(top / "sub-02" / "anat" / "sub-02_T1w.nii")
    (top / "sub-03" / "func").mkdir(parents=True, exist_ok=True)
    lines = ["participant_id\tage\tsex", "sub-01\t34\tF", "sub-02\tn/a\tM", "sub-03\t41.5\tF"]
    (top / "participants.tsv").write_text("\n".join(lines) + "\n")
    return {"path": str(top), "contrasts": ["T1w", "FLAIR"]}


def decathlon(top: Path) -> Options:
    volume(top / "imagesTr" / "a.nii.gz", (4, 5, 6, 2))
    volume(top / "labelsTr" / "a.nii.gz")
    volume(top / "imagesTs" / "b.nii.gz", (4, 5, 6, 2))
    table = {
        "modality": {"0": "T1", "1": "T2"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
        "test": ["./imagesTs/b.nii.gz"],
    }
    (top / "dataset.json").write_text(json.dumps(table))
    return {"path": str(top)}


def nnunet(top: Path) -> Options:
    for case, channels in (("c1", (0, 1)), ("c2", (0,))):
        for number in channels:
            volume(top / "imagesTr" / f"{case}_{number:04d}.nii.gz")
        volume(top / "labelsTr" / f"{case}.nii.gz")
    table = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "tumour": 1},
             "file_ending": ".nii.gz", "numTraining": 2}  # fmt: skip
    (top / "dataset.json").write_text(json.dumps(table))
    return {"path": str(top)}


def robomimic(top: Path) -> Options:
    h5py = pytest.importorskip("h5py")
    with h5py.File(top / "demo.hdf5", "w") as file:
        for number, steps in ((0, 3), (2, 2), (10, 4)):
            group = file.create_group(f"data/demo_{number}")
            group["actions"] = np.full((steps, 7), number, np.float64)
            group["dones"] = np.eye(1, steps, steps - 1)[0]
            group["obs/state"] = np.arange(2.0 * steps).reshape(steps, 2)
            group["obs/camera"] = np.full((steps, 4, 4, 3), number, np.uint8)
        file["mask/train"] = np.array([b"demo_10", b"demo_0"])
    return {"path": str(top / "demo.hdf5")}


def voc_options(top: Path) -> Options:
    return {"path": str(top), "split": "train"}


def robomimic_options(top: Path) -> Options:
    return {"path": str(top / "demo.hdf5")}
