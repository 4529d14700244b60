"""Every source of rows, and every wrapper, meets the contract that `sensorium.testing` checks."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import pkgutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import made_folders as made
import numpy as np
import pytest
from PIL import Image

import sensorium.engine
from sensorium.engine.data import ShuffleBuffer, Subset, wrappers
from sensorium.engine.data.where import filtered
from sensorium.engine.data.windows import Windows
from sensorium.engine.embedding.data_spec import Files
from sensorium.engine.evaluation.evaluator import ShuffledStream
from sensorium.engine.recipe import find, registered
from sensorium.modalities.base import Source, StreamingSource
from sensorium.modalities.image.datasets.digits import Digits
from sensorium.testing import check_source

Options = dict[str, Any]


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, content: bytes | str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def folder_of_images(top: Path) -> Options:
    for name in ("cat", "dog"):
        for i in range(2):
            write(top / name / f"{i}.png", png(i))
    return {"path": str(top)}


def folder_of_sounds(top: Path) -> Options:
    soundfile = pytest.importorskip("soundfile")
    for i in range(2):
        (top / "tone").mkdir(parents=True, exist_ok=True)
        soundfile.write(top / "tone" / f"{i}.wav", np.zeros(800), 8000)
    return {"path": str(top)}


def coco(top: Path) -> Options:
    names = [f"{i}.png" for i in range(2)]
    for i, name in enumerate(names):
        write(top / "images" / name, png(i))
    table = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [{"id": i, "image_id": i, "caption": f"a {i}"} for i in range(2)],
    }
    file = write(top / "captions.json", json.dumps(table))
    return {"images": str(top / "images"), "annotations": file, "expand": True}


def lines(top: Path) -> Options:
    rows = [{"text": f"a {i}", "n": i, "v": [0.5, float(i)]} for i in range(4)]
    return {"path": write(top / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))}


def table(top: Path) -> Options:
    return {"path": write(top / "rows.csv", "text,n\na,0\nb,1\nc,2\n")}


def parquet(top: Path) -> Options:
    arrow, columns = pytest.importorskip("pyarrow"), {"n": [0, 1, 2], "text": ["a", "b", "c"]}
    importlib.import_module("pyarrow.parquet").write_table(arrow.table(columns), top / "r.parquet")
    return {"path": str(top / "r.parquet")}


def frames(top: Path) -> Options:
    rows = "".join(f"{i // 3},{i},{i / 2},a\n" for i in range(6))
    return {"path": write(top / "frames.csv", f"episode_index,x,y,note\n{rows}")}


def recordings(top: Path) -> Options:
    record = pytest.importorskip("sensorium.modalities.action.datasets.lerobot_writer")
    states = np.arange(12, dtype=np.float32).reshape(6, 2)
    parts = [
        record.Recording(task, {"state": states[a:b]}) for task, a, b in (("x", 0, 4), ("y", 4, 6))
    ]
    record.write(top / "made", parts, 20.0)
    return {"path": str(top / "made")}


def shard(top: Path) -> Options:
    with tarfile.open(top / "0.tar", "w") as archive:
        for i in range(3):
            for suffix, content in (("txt", f"a {i}".encode()), ("jpg", png(i))):
                info = tarfile.TarInfo(f"{i}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return {"path": str(top / "0.tar")}


def hub(top: Path) -> Options:
    write(top / "train.jsonl", "".join(json.dumps({"n": i}) + "\n" for i in range(3)))
    return {"path": str(top), "split": "train"}


def librispeech(top: Path) -> Options:
    soundfile = pytest.importorskip("soundfile")
    folder = top / "84" / "1"
    folder.mkdir(parents=True)
    for i in range(2):
        soundfile.write(folder / f"84-1-000{i}.flac", np.zeros(800), 8000)
    write(folder / "84-1.trans.txt", "84-1-0000 ONE\n84-1-0001 TWO\n")
    return {"path": str(top)}


def commonvoice(top: Path) -> Options:
    soundfile = pytest.importorskip("soundfile")
    (top / "clips").mkdir(parents=True)
    for name in "ab":
        soundfile.write(top / "clips" / f"{name}.mp3", np.zeros(8000), 8000)
    write(top / "test.tsv", "client_id\tpath\tsentence\nc\ta.mp3\tone\nd\tb.mp3\ttwo\n")
    return {"path": str(top), "split": "test"}


SPEECH = {"split": "train", "count": 3}

NAMED: dict[str, Callable[[Path], Options] | Options] = {
    "voc": made.voc,
    "robomimic": made.robomimic,
    "nnunet": made.nnunet,
    "nemo": made.nemo,
    "kaldi": made.kaldi,
    "coco_objects": made.coco_objects,
    "bids": made.bids,
    "arithmetic": {"split": "train", "rows": 3},
    "audiofolder": folder_of_sounds,
    "coco": coco,
    "commonvoice": commonvoice,
    "csv": table,
    "digits": {"split": "test"},
    "docstrings": {"split": "train", "modules": ["heapq", "textwrap"]},
    "frames": frames,
    "hub": hub,
    "imagefolder": folder_of_images,
    "json": lines,
    "lerobot": recordings,
    "librispeech": librispeech,
    "metaworld": {"tasks": ["reach-v3"], "episodes": 1, "hold": 2},
    "parquet": parquet,
    "phantom": {"subjects": 2, "spacing": 12.0},
    "shapes": {"split": "train", "count": 4},
    "sounds": {"split": "train", "count": 3},
    "talker": SPEECH,
    "talker_lips": SPEECH,
    "ecg": {"split": "train", "count": 3},
    "series_windows": {"name": "sunspots", "context": 40, "horizon": 10, "stride": 60},
    "waves": {"split": "train", "count": 3},
    "webdataset": shard,
}
FILES = "sensorium.engine.data.sources."
"""The package whose classes the names of the registry stand for."""
NEEDS = {
    "metaworld": "metaworld", "phantom": "monai", "series_windows": "statsmodels",
    "sounds": "soundfile",
    "talker": "espeakng_loader", "talker_lips": "espeakng_loader",
}  # fmt: skip


@pytest.mark.quick_share(2)
@pytest.mark.parametrize("name", NAMED)
def test_a_source_meets_the_contract(name: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(name, "numpy"))
    options = NAMED[name]
    built = options(tmp_path) if callable(options) else options
    check_source(find("source", name, "here"), **built)


@pytest.mark.parametrize(("name", "streaming"), [("hub", True), ("webdataset", False)])
def test_the_other_way_to_read_it_too(name: str, streaming: bool, tmp_path: Path) -> None:
    options = {"hub": hub, "webdataset": shard}[name](tmp_path)
    check_source(find("source", name, "here"), streaming=streaming, **options)


class Counted(StreamingSource):
    columns = ("a", "b")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from ({"a": i, "b": -i} for i in range(4))

    def fingerprint(self) -> str:
        return "counted"


class Walks(Source):
    columns = ("x", "note")

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": np.float32(range(6)[index]), "note": "a"}

    @property
    def episodes(self) -> list[range]:
        return [range(4), range(4, 6)]

    def fingerprint(self) -> str:
        return "walks"


def digits() -> Source:
    return Digits(split="test")


WRAPPED: dict[str, Callable[[], Source]] = {
    "Files": lambda: Files(path=str(Path(__file__).parent)),
    "Limited": lambda: wrappers.limit(digits(), 5),
    "Mapped": lambda: wrappers.RenamedColumns(digits(), {"picture": "image"}),
    "MappedStream": lambda: wrappers.MappedStream(Counted(), {"c": "a"}),
    "RowList": lambda: wrappers.RowList([{"a": 1}, {"a": 2}]),
    "ShuffledStream": lambda: ShuffledStream(digits(), "image"),
    "Subset": lambda: Subset(digits(), np.array([3, 1, 4])),
    "Taken": lambda: wrappers.InMemoryPrefix(Counted(), 3),
    "FilteredStream": lambda: filtered(Counted(), {"a": {"min": 1}}),
    "Windows": lambda: Windows(Walks(), {"x": (-1, 2)}),
    "Windows of a limit": lambda: Windows(wrappers.limit(Walks(), 5), {"x": (0, 1)}),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapper_meets_the_contract(name: str) -> None:
    check_source(WRAPPED[name])


def test_every_source_has_a_case() -> None:
    assert set(NAMED) == set(registered("source"))
    for module in pkgutil.walk_packages(sensorium.engine.__path__, "sensorium.engine."):
        importlib.import_module(module.name)
    every = set(subclasses(Source))
    named = {result for result in every if result.__module__.startswith("sensorium.engine.")}
    tried = {type(make()) for make in WRAPPED.values()}
    files = {cls for cls in named if cls.__module__.startswith(FILES)}
    assert named - tried - files == {
        ShuffleBuffer,
        wrappers.Wrapped,
    }


def subclasses(cls: type) -> Iterator[type]:
    for each in cls.__subclasses__():
        if not inspect.isabstract(each):
            yield each
        yield from subclasses(each)
