"""`metadata` files beside pictures and sounds, and segments of sounds by columns of a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile

from sensorium.engine.data import load_split
from sensorium.engine.data.sources import AudioFolder, ImageFolder
from sensorium.engine.recipe import parse_recipe, plan_recipe
from sensorium.engine.utils import ConfigError
from sensorium.modalities.audio.read import read
from sensorium.modalities.base import ReadError

Write = Callable[[Path, list[dict[str, Any]]], None]


def as_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.with_suffix(".csv").write_text(text.getvalue(), encoding="utf-8")


def as_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.with_suffix(".jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    datasets.Dataset.from_list(rows).to_parquet(path.with_suffix(".parquet"))


FOLDERS = {"image": (ImageFolder, "png"), "audio": (AudioFolder, "wav")}
FORMS: dict[str, Write] = {"csv": as_csv, "jsonl": as_lines, "parquet": as_parquet}


@pytest.mark.parametrize("above", [False, True], ids=["in the split", "above the splits"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", FOLDERS)
def test_metadata_of_a_split(
    tmp_path: Path, kind: str, form: str, above: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of other splits are no rows of this one; a file without a row, and a row without its
    file, are said."""
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    make, suffix = FOLDERS[kind]
    top = tmp_path / "set"
    for split in ("train", "test"):
        rows = []
        for name in ("a", "deep/b", "gone"):
            rows.append({"file_name": f"{name}.{suffix}", "text": f"{split} {name}", "n": 1})
        for name in ("a", "deep/b", "unnamed"):
            file = top / split / f"{name}.{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"")
        if above:
            rows = [{**row, "file_name": f"{split}/{row['file_name']}"} for row in rows]
        if above and split == "test":
            continue
        FORMS[form]((top if above else top / split) / "metadata", rows)
    source = make(path=str(top), split="train")
    assert source.columns == (kind, "text", "n")
    rows = [source[i] for i in range(2)]
    assert [row["text"] for row in rows] == ["train a", "train deep/b"]
    assert [Path(row[kind]).relative_to(top / "train").stem for row in rows] == ["a", "b"]
    assert [row["n"] for row in rows] == [1, 1]
    assert list(source.faults) == [2] and "does not exist" in source.faults[2]
    with pytest.raises(ReadError, match="does not exist"):
        source[2]
    assert list(source.ignored) == [f"unnamed.{suffix}"]


def test_metadata_without_file_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    as_csv(tmp_path / "metadata", [{"filename": "a.png", "text": "x"}])
    with pytest.raises(ValueError, match=r"no column 'file_name'; did you mean 'filename'"):
        ImageFolder(path=str(tmp_path))


def test_a_row_that_leads_out_of_the_folder_is_counted(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for file in ("set/a.png", "b.png"):
        (tmp_path / file).write_bytes(b"")
    names = [{"file_name": name, "text": "x"} for name in ("a.png", "../b.png")]
    as_csv(tmp_path / "set" / "metadata", names)
    source = ImageFolder(path=str(tmp_path / "set"))
    assert len(source) == 1
    assert list(source.ignored) == ["../b.png"] and "outside set" in source.ignored["../b.png"]


SEGMENTS = [  # columns of the table, what the recipe says of them, seconds of each row
    ({"offset": 0.5, "duration": 0.25}, {"offset": "offset", "duration": "duration"}, 0.25),
    ({"start": 0.5, "end": 0.9}, {"start": "start", "end": "end"}, 0.4),
    ({"from": 0.5, "length": 0.1}, {"start": "from", "duration": "length"}, 0.1),
    ({"offset": 0.5, "duration": 0.25}, {}, 1.0),
    ({"duration": 1.0}, None, 1.0),
    ({"offset": 0.5}, None, None),
    ({"offset": 0.5, "duration": 0.25}, None, None),
    ({"start": 0.5, "end": 0.9}, None, None),
]


@pytest.mark.parametrize(("cells", "keys", "seconds"), SEGMENTS)
def test_segments_by_columns_are_read_or_refused(
    tmp_path: Path, cells: dict[str, float], keys: dict[str, str] | None, seconds: float | None
) -> None:
    """A manifest as NeMo writes it: the transcript is that of a part of the file."""
    soundfile.write(tmp_path / "a.wav", np.zeros(16000, np.float32), 16000)
    row = {"audio_filepath": "a.wav", "text": "go", **cells}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row))
    column = "audio_filepath" if keys is None else {"path": "audio_filepath", **keys}
    data = {
        "source": "json",
        "path": str(tmp_path / "rows.jsonl"),
        "paths": ["audio_filepath"],
        "columns": {"audio": column},
    }
    recipe = {
        "inputs": {"audio": {"modality": "audio", "encoder": {"type": "logmel_conformer"}}},
        "tasks": {"ctc": {"type": "ctc", "tokenizer": "characters", "data": {"train": data}}},
    }
    plan = plan_recipe(parse_recipe(recipe))
    if seconds is None:
        with pytest.raises(ConfigError, match=r"would be ignored .*set columns: \{audio: \{path"):
            load_split(plan, "ctc", "train")
        return
    source = load_split(plan, "ctc", "train")
    assert read(source[0]["audio"]).seconds == pytest.approx(seconds)
    assert read(source.cell(1, "audio")).seconds == pytest.approx(seconds)
    if keys:
        assert source.cell_key(0, "audio") != source.cell_key(1, "audio")
