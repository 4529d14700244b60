from __future__ import annotations

import io
import json
import socket
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sensorium.engine.data import open_section
from sensorium.engine.data.sources import Csv, Json, Parquet
from sensorium.engine.recipe import DataSection
from sensorium.engine.recipe.validation import validate
from sensorium.modalities.base import ReadError, Source
from sensorium.testing.common import copy_for_worker

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


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def write_rows(folder: Path, kind: str, rows: list[dict[str, Any]] = ROWS, name: str = "a") -> Path:
    path = folder / f"{name}.{kind}"
    if kind == "jsonl":
        write(path, "\n".join(json.dumps(row) for row in rows))
    elif kind == "json":
        write(path, json.dumps(rows, indent=1))
    elif kind == "csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        write(path, "\n".join(lines))
    else:
        datasets.Dataset.from_list(rows).to_parquet(path)
    return path


BY_SUFFIX = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
KINDS = {"jsonl": Json, "json": Json, "csv": Csv, "parquet": Parquet}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_file(folder: Path, kind: str) -> None:
    source = KINDS[kind](path=str(write_rows(folder, kind)))
    assert [source[i] for i in range(len(source))] == ROWS
    assert source.columns == ("file", "text", "n")
    assert len({source.key(i) for i in range(5)}) == 5
    assert copy_for_worker(source)[3] == ROWS[3]


@pytest.mark.parametrize("kind", KINDS)
def test_several_files_by_list_and_by_pattern(tmp_path: Path, kind: str) -> None:
    one = write_rows(tmp_path, kind, ROWS[:2], "a")
    two = write_rows(tmp_path, kind, ROWS[2:], "b")
    listed = KINDS[kind](path=[str(one), str(two)])
    assert [listed[i] for i in range(len(listed))] == ROWS
    assert len(KINDS[kind](path=str(tmp_path / f"?.{kind}"))) == 5
    assert len(KINDS[kind](path=str(one), split="train[:50%]")) == 1


def test_a_changed_file_is_other_rows_and_another_fingerprint(folder: Path) -> None:
    path = write_rows(folder, "jsonl", ROWS)
    before = Json(path=str(path))
    assert before.fingerprint() == Json(path=str(path)).fingerprint()
    assert before.fingerprint() != Json(path=str(path), split="train[:2]").fingerprint()
    write_rows(folder, "jsonl", ROWS[1:])
    after = Json(path=str(path))
    assert (after[0], len(after)) == (ROWS[1], 4)
    assert before.fingerprint() != after.fingerprint()


@pytest.mark.parametrize("kind", KINDS)
def test_file_names_in_a_column(folder: Path, kind: str) -> None:
    for row in ROWS:
        write(folder / "pictures" / row["file"], jpeg(row["n"]))
    path = str(write_rows(folder, kind))
    source = KINDS[kind](path=path, paths=["file"], root=str(folder / "pictures"))
    assert source[2]["file"] == str(folder / "pictures" / "ü 2.jpg")
    names = {source.cell_key(i, "file") for i in range(5)}
    assert len(names) == 5
    write(folder / "pictures" / "ü 2.jpg", jpeg() + b"more")
    again = KINDS[kind](path=path, paths=["file"], root=str(folder / "pictures"))
    assert len(names & {again.cell_key(i, "file") for i in range(5)}) == 4
    assert {source.cell_key(i, "n") for i in range(5)} == {again.cell_key(i, "n") for i in range(5)}
    beside = KINDS[kind](path=path, paths=["file"])
    assert beside[0]["file"] == str(folder / "ü 0.jpg")


def test_options_of_one_kind(folder: Path) -> None:
    path = write(folder / "a.csv", "a;b\n1;x\n")
    assert Csv(path=str(path), delimiter=";")[0] == {"a": 1, "b": "x"}
    path = write(folder / "a.json", json.dumps({"data": [{"a": 1}, {"a": 2}]}))
    assert Json(path=str(path), field="data")[1] == {"a": 2}


def test_pictures_and_sounds_in_a_table_are_not_decoded(folder: Path) -> None:
    features = datasets.Features(image=datasets.Image(), sound=datasets.Audio())
    cells = {"path": None, "bytes": b"not a picture"}
    sound = {"path": "a.wav", "bytes": b"nor a sound"}
    table = pa.Table.from_pylist([{"image": cells, "sound": sound}], features.arrow_schema)
    pq.write_table(table, folder / "a.parquet")
    source = Parquet(path=str(folder / "a.parquet"))
    assert source[0]["image"] == cells
    assert source[0]["sound"] == sound


def opened(kind: str, on_error: str = "raise", **options: Any) -> Source:
    section = validate(DataSection, {"source": kind, "on_error": on_error, **options}, "data", "it")
    return open_section(section, "data")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.json", '[\n{"a": 1},\n{"a": }\n]', r"a\.json, line 3: is no JSON"),
        ("a.json", "[]", r"a\.json: has no rows"),
        ("a.json", "[1, 2]", r"a\.json: its list holds a number, expected objects"),
        ("a.json", '{\n"a": [{"b": 1}]\n}', r"a\.json, line 1: .*; set field: a"),
        ("a.json", "\xff\xfe".encode("latin-1"), r"a\.json, line 1: is not UTF-8 \(byte 0\)"),
        ("a.jsonl", '{"a": \n', r"a\.jsonl, line 1: is no JSON"),
        ("a.json", "5", r"a\.json, line 1: is a number, expected an object"),
        ("a.json", '"abc"', r"a\.json, line 1: is a text, expected an object"),
        ("a.json", '{"a":' * 50_000, r"a\.json, line 1: is nested too deeply"),
        ("a.csv", "a,b\n", r"a\.csv: has no rows"),
        ("a.csv", "", r"a\.csv: is empty \(0 bytes\)"),
        ("a.csv", "a;b\n1;2\n", r"a\.csv, line 1: is one column, a;b, .*set delimiter: \";\""),
        ("a.csv", "a\tb\n1\t2\n", r"a\.csv, line 1: is one column.*set delimiter: \"\\t\""),
        ("a.csv", "a,a\n1,2\n", r"a\.csv, line 1: the column 'a' appears twice"),
        ("a.csv", 'a,b\n1,"2\n3,4\n', r"a\.csv, line 2: a quote is opened and never closed"),
        ("a.csv", b"a,b\n1,\xff\n", r"a\.csv, line 2: is not UTF-8"),
        ("a.csv", "a,b\n1,2,\n3,4,\n", r"line 2 has 3 cells \('1', '2', ''\), the header has 2"),
        ("a.parquet", "PAR1 and then nothing", r"a\.parquet: .*[Pp]arquet"),
    ],
)
def test_damaged_files_are_named(folder: Path, name: str, text: bytes | str, expected: str) -> None:
    path = write(folder / name, text)
    for on_error in ("raise", "skip"):
        with pytest.raises(ValueError, match=expected) as caught:
            opened(BY_SUFFIX[path.suffix], on_error, path=str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "row", "expected"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": 2\n{"a": 3}\n', 1, "line 2: is no JSON"),
        ("a.jsonl", '{"a": 1}\n\n[2]\n{"a": 3}\n', 1, "line 3: is a list, expected an object"),
        ("a.jsonl", '{"a": 1}\n{"a": 1, "a": 2}\n', 1, "line 2: the key 'a' appears twice"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', 1, "line 2: is not UTF-8"),
        ("a.jsonl", '{"a": "\\ud83d"}\n{"a": 1}\n', 0, "line 1: holds half a surrogate pair"),
        ("a.json", '[{"a": 1}, null]', 1, "is null, expected an object"),
        ("a.csv", "a,b\n1,2\n3,4,5\n6,7\n", 1, r"line 3 has 3 cells \('3', '4', '5'\)"),
        ("a.csv", "a,b\n1,2\n3\n6,7\n", 1, r"line 3 has 1 cells \('3'\)"),
        ("a.csv", 'a,b\n1,"x\ny"\n3\n', 1, "line 4 has 1 cells"),
    ],
)
def test_a_damaged_row_is_refused_or_counted(
    folder: Path, name: str, text: bytes | str, row: int, expected: str
) -> None:
    """With `on_error: raise` when the data are opened; with `skip` it fails when it is used."""
    path = write(folder / name, text)
    kind = BY_SUFFIX[path.suffix]
    with pytest.raises(ValueError, match=rf"data, row {name}#{row}: .*{expected}") as caught:
        opened(kind, path=str(path))
    assert "\n" not in str(caught.value)
    source = opened(kind, "skip", path=str(path))
    assert list(source.faults) == [row]
    for index in range(len(source)):
        if index == row:
            with pytest.raises(ReadError, match=expected):
                source[index]
        else:
            assert source[index]["a"] is not None
            assert source.key(index) == f"{name}#{index}"


def test_the_damaged_one_of_several_files_is_named(folder: Path) -> None:
    write(folder / "a.jsonl", '{"a": 1}\n')
    write(folder / "b.jsonl", '{"a": 1}\n{"a"\n')
    with pytest.raises(ValueError, match=r"row b\.jsonl#1: line 2: is no JSON"):
        opened("json", path=[str(folder / "a.jsonl"), str(folder / "b.jsonl")])


def test_files_that_are_not_there(folder: Path) -> None:
    write_rows(folder, "csv", name="captions")
    write(folder.parent / "other" / "x", "")
    at = str(folder.name).replace("[", r"\[")
    for wrong, expected in {
        str(folder / "caption.csv"): rf"the nearest folder is .*{at}: did you mean 'captions.csv'",
        str(folder / "sub" / "b.csv"): rf"nearest folder is .*{at}: it holds captions.csv",
        str(folder): "is a folder; name its files",
        str(folder.parent / "other" / "*.csv"): "no file fits this pattern",
    }.items():
        with pytest.raises(ValueError, match=expected):
            Csv(path=wrong)
    with pytest.raises(ValueError, match="names no file"):
        Csv(path=[])


def test_mistakes_about_file_names(folder: Path) -> None:
    path = str(write_rows(folder, "csv"))
    with pytest.raises(ValueError, match="of no use without paths"):
        Csv(path=path, root=str(folder))
    with pytest.raises(ValueError, match="paths names no column; did you mean 'file'"):
        Csv(path=path, paths=["fil"])
    with pytest.raises(ValueError, match="does not exist"):
        Csv(path=path, paths=["file"], root=str(folder / "nowhere"))
    other = write_rows(folder.parent, "csv")
    with pytest.raises(ValueError, match="root: name one folder, the files are in 2 folders"):
        Csv(path=[path, str(other)], paths=["file"])


def test_a_column_of_numbers_that_holds_a_text_is_said(tmp_path: Path) -> None:
    """A column is of one kind as a whole; `check --data` says which cell made it one of texts."""
    file = tmp_path / "n.csv"
    file.write_text("a,b,c\n" + "x,1,7\n" * 200 + "5,foo,8\n")
    source = opened("csv", path=str(file), limit=100)
    assert {type(source[i]["b"]) for i in range(100)} == {str}
    (note,) = source.notes
    assert "'b' is one of texts, since line 202 holds foo (200 of 201 cells are numbers)" in note
