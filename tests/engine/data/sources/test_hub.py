from __future__ import annotations

import io
import json
import socket
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from sensorium.engine.data.sources import hub, webdataset
from sensorium.engine.data.sources.tar import TarStream
from sensorium.modalities.base import StreamingSource, Unreadable

ROWS = [{"file": f"ü {i}.jpg", "text": f"Bär {i}", "n": i} for i in range(5)]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Anything that reaches for the network fails, even where the library thinks it may."""

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "données [1] of mine"
    path.mkdir()
    return path


def jpeg(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def shards(folder: Path) -> str:
    for shard in range(2):
        with tarfile.open(folder / f"part {shard}.tar", "w") as tar:
            for i in range(3):
                for name, data in {
                    "jpg": b"damaged" if i == 1 else jpeg(i),
                    "txt": f"Bär {shard}{i}".encode(),
                    "json": json.dumps({"n": i}).encode(),
                }.items():
                    info = tarfile.TarInfo(f"{shard}{i}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return str(folder / "part *.tar")


def test_tar_shards_as_a_stream_and_by_index(shards: str) -> None:
    stream = webdataset(path=shards)
    assert isinstance(stream, StreamingSource)
    rows = list(stream)
    assert rows == list(stream)  # a stream can be read again
    assert [row["txt"] for row in rows] == [f"Bär {s}{i}" for s in range(2) for i in range(3)]
    assert rows[1]["jpg"]["bytes"] == b"damaged" and rows[1]["json"] == {"n": 1}
    assert stream.columns == ("jpg", "txt", "json", "__key__", "__url__")
    assert stream.fingerprint() == webdataset(path=shards).fingerprint()
    with pytest.raises(TypeError, match="no length"):
        len(stream)
    table = webdataset(path=shards, streaming=False)
    assert [table[i]["txt"] for i in range(len(table))] == [row["txt"] for row in rows]
    assert table[1]["jpg"] == rows[1]["jpg"]


def test_a_tar_that_is_none(folder: Path) -> None:
    (folder / "a.tar").write_text("no tar at all")
    with pytest.raises(ValueError, match=r"a\.tar: \S"):
        TarStream(path=str(folder / "a.tar"))


def test_a_tar_that_ends_too_early(shards: str, folder: Path) -> None:
    cut = folder / "part 1.tar"
    cut.write_bytes(cut.read_bytes()[:1200])
    rows = []
    with pytest.raises(ValueError, match=r"part 1\.tar: is no tar file, or not whole"):
        for row in webdataset(path=shards):
            rows.append(row["txt"])
    assert rows[:3] == ["Bär 00", "Bär 01", "Bär 02"]


def test_a_data_set_of_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local folder in the form that the hub has stands for one."""
    for split in ("train", "test"):
        (folder.parent / "repo").mkdir(exist_ok=True)
        rows = ROWS[: 2 if split == "test" else 5]
        text = "\n".join(json.dumps(row) for row in rows)
        (folder.parent / "repo" / f"{split}.jsonl").write_text(text)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder.parent / "hf")
    path = str(folder.parent / "repo")
    table = hub(path=path, split="test")
    assert (len(table), table[1], table.columns) == (2, ROWS[1], ("file", "text", "n"))
    assert table.fingerprint() == hub(path=path, split="test").fingerprint()
    assert table.fingerprint() != hub(path=path, split="train").fingerprint()
    stream = hub(path=path, split="train", streaming=True)
    assert isinstance(stream, StreamingSource)
    assert list(stream) == ROWS and stream.columns == table.columns
    with pytest.raises(ValueError, match=r"hub data set .*validation"):
        len(hub(path=path, split="validation"))


STORED = {  # file -> its rows, which no reader may turn into dates, numbers or other texts
    "jsonl": (
        '{"d": "2020-01-01", "n": "5"}\n{"d": "2020-01-01 10:00", "n": 5}\n{"d": "x", "n": "07"}\n',
        [{"d": "2020-01-01", "n": "5"}, {"d": "2020-01-01 10:00", "n": 5}, {"d": "x", "n": "07"}],
    ),
    "csv": (
        "d,n\n2020-01-01,007\n2020-01-02,NA\nx,1.50\n",
        [{"d": "2020-01-01", "n": "007"}, {"d": "2020-01-02", "n": "NA"}, {"d": "x", "n": "1.50"}],
    ),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", STORED)
def test_cells_of_the_hub_are_those_of_the_file(
    tmp_path: Path, kind: str, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    text, expected = STORED[kind]
    (tmp_path / "repo").mkdir()
    for part in range(2):
        (tmp_path / "repo" / f"train-{part}.{kind}").write_text(text)
    source = hub(path=str(tmp_path / "repo"), split="train", streaming=streaming)
    rows = list(source) if streaming else [source[i] for i in range(len(source))]
    assert rows == expected * 2
    assert [type(row["n"]) for row in rows] == [type(row["n"]) for row in expected * 2]


def test_a_line_of_the_hub_that_is_no_json_is_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "train.jsonl").write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    rows = list(hub(path=str(tmp_path / "repo"), split="train", streaming=True))
    assert rows[0] == {"a": 1} and rows[2] == {"a": 3}
    assert isinstance(rows[1]["a"], Unreadable) and "line 2" in rows[1]["a"].reason


def test_the_hub_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = hub(path="org/name", split="train")  # opening one touches nothing
    with pytest.raises(ValueError, match=r"'org/name': is not in the local cache") as caught:
        len(source)
    assert "\n" not in str(caught.value)
