"""Sound in every form of 🤗 datasets: as it is stored, read by soundfile, without torchcodec."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile

from sensorium.engine.data.dataset import StreamReader
from sensorium.engine.recipe import find
from sensorium.modalities.audio.processor import LogMel
from sensorium.modalities.audio.read import read
from sensorium.modalities.base import ReadError, Source, StreamingSource

TONES = [0.3 * np.sin(np.arange(1600 * (i + 1)) * 0.1 * (i + 1)) for i in range(3)]


def encoded(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def wavs(folder: Path) -> Path:
    for i, tone in enumerate(TONES):
        place = folder / "train" / ("low", "high")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.wav").write_bytes(encoded(tone))
    return folder


def table(folder: Path) -> Path:
    cells = [{"bytes": encoded(tone), "path": f"{i}.wav"} for i, tone in enumerate(TONES)]
    built = datasets.Dataset.from_dict({"audio": cells, "text": ["a", "b", "c"]})
    file = folder / "train-00000-of-00001.parquet"
    built.cast_column("audio", datasets.Audio()).to_parquet(file)
    return file


def tar(folder: Path) -> Path:
    file = folder / "0.tar"
    with tarfile.open(file, "w") as shard:
        for i, tone in enumerate(TONES):
            for name, data in ((f"{i}.wav", encoded(tone)), (f"{i}.txt", b"said")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
    return file


def csv(folder: Path) -> Path:
    for i, tone in enumerate(TONES):
        (folder / f"{i}.wav").write_bytes(encoded(tone))
    file = folder / "rows.csv"
    file.write_text("audio,text\n" + "".join(f"{i}.wav,said\n" for i in range(3)))
    return file


CASES: dict[str, tuple[str, Callable[[Path], Path], str, dict[str, Any]]] = {
    "audiofolder": ("audiofolder", wavs, "audio", {"split": "train"}),
    "parquet": ("parquet", table, "audio", {}),
    "csv": ("csv", csv, "audio", {"paths": ["audio"]}),
    "shards": ("webdataset", tar, "wav", {"streaming": False}),
    "shards, streamed": ("webdataset", tar, "wav", {}),
    "hub, files": ("hub", wavs, "audio", {"split": "train"}),
    "hub, files streamed": ("hub", wavs, "audio", {"split": "train", "streaming": True}),
    "hub, tables": ("hub", lambda f: table(f).parent, "audio", {"split": "train"}),
    "hub, tables streamed": (
        "hub",
        lambda f: table(f).parent,
        "audio",
        {"split": "train", "streaming": True},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_source_gives_sound_that_read_reads(name: str, tmp_path: Path) -> None:
    kind, write, column, options = CASES[name]
    source: Source = find("source", kind, "here")(path=str(write(tmp_path)), **options)
    assert column in source.columns
    if isinstance(source, StreamingSource):
        cells = [row[column] for row in source]
    else:
        cells = [source[i][column] for i in range(len(source))]
    result = [read(cell) for cell in cells]
    assert [sound.rate for sound in result] == [16000] * 3
    for sound, tone in zip(sorted(result, key=lambda s: s.seconds), TONES, strict=True):
        assert np.abs(sound.samples[0] - tone).max() < 1e-4


def test_the_library_is_left_as_it_was(tmp_path: Path) -> None:
    """Only while a source loads does 🤗 datasets take stored sound without torchcodec."""
    before = datasets.Audio.encode_example
    source: StreamingSource = find("source", "webdataset", "here")(path=str(tar(tmp_path)))
    for _ in source:
        assert datasets.Audio.encode_example is before
    assert datasets.Audio.encode_example is before


def test_segments_of_one_file_are_cells_of_their_own(tmp_path: Path) -> None:
    """A manifest of segments: its paths are found beside it, and no two share a cache's name."""
    (tmp_path / "long.wav").write_bytes(encoded(TONES[2]))
    spans = [(0.0, 0.1), (0.1, 0.3), (0.1, None)]
    rows = [
        {"audio": {"path": "long.wav", "start": start, "end": end}, "text": "said"}
        for start, end in spans
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    file = str(tmp_path / "rows.jsonl")
    source: Source = find("source", "json", "here")(path=file, paths=["audio"])
    result = [read(source[i]["audio"]).seconds for i in range(3)]
    assert result == pytest.approx([0.1, 0.2, 0.2])
    assert len({source.cell_key(i, "audio") for i in range(3)}) == 3


def test_what_no_window_holds_is_named_as_the_file_that_it_is(tmp_path: Path) -> None:
    """The processor sees samples alone; whoever gave a thousand files wants to know which."""
    path = str(tmp_path / "short.wav")
    soundfile.write(path, np.zeros(100, np.float32), 16000)
    reader = StreamReader(read, LogMel())
    for cell in (path, {"path": path, "bytes": None}, {"path": path, "start": 0.001}):
        with pytest.raises(ReadError, match=r"short\.wav: .* ms of sound; expected at least one"):
            reader.prepare(cell)
