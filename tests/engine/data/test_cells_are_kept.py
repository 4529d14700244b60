"""What a row says is what its file says: random cells of mixed types through every kind of file.

A cell comes back equal and of its type, or the row is refused by its key; nothing is passed over.
"""

from __future__ import annotations

import csv
import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sensorium.engine.data import open_section
from sensorium.engine.recipe import DataSection
from sensorium.engine.recipe.validation import validate
from sensorium.modalities.base import ReadError, Source, StreamingSource

TEXTS = [
    "a dog", "5", "007", "1e5", "null", "NA", "None", "true", "[1]", '{"a": 1}', "2020-01-01",
    "2020-01-01 10:00:00", "müde", "über\nzwei Zeilen", "a, b", '"quoted"', " 5 ", "नमस्ते",
    "e\u0301",
]  # fmt: skip


def scalar(rng: random.Random) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: rng.choice(TEXTS),
        lambda: rng.randint(-5, 5),
        lambda: 2**60 + rng.randint(0, 9),
        lambda: rng.choice([0.5, -1.25, 1e-7, 3.0]),
        lambda: rng.random() < 0.5,
        lambda: None,
    ]
    return rng.choice(kinds)()


def value(rng: random.Random, depth: int = 2) -> Any:
    if depth and rng.random() < 0.4:
        if rng.random() < 0.5:
            return [value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
        return {k: value(rng, depth - 1) for k in rng.sample(["path", "start", "x"], 2)}
    return scalar(rng)


def same(one: Any, other: Any) -> bool:
    """Equal, and of one type at every depth."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def opened(**options: Any) -> Source:
    return open_section(validate(DataSection, options, "data", "it"), "data")


def rows_of(source: Source) -> list[dict[str, Any]]:
    if isinstance(source, StreamingSource):
        return list(source)
    return [source[i] for i in range(len(source))]


def json_lines(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    path = folder / "a.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    return {"source": "json", "path": str(path)}


def json_list(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    (folder / "a.json").write_text(json.dumps({"rows": rows}), "utf-8")
    return {"source": "json", "path": str(folder / "a.json"), "field": "rows"}


def hub(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    (folder / "repo").mkdir()
    text = "\n".join(json.dumps(row) for row in rows)
    (folder / "repo" / "train.jsonl").write_text(text, "utf-8")
    return {"source": "hub", "path": str(folder / "repo"), "split": "train"}


def shard(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Members of one sample are not neighbours."""
    with tarfile.open(folder / "a.tar", "w") as tar:
        for suffix in ("txt", "json"):
            for i, row in enumerate(rows):
                text = str(i) if suffix == "txt" else json.dumps(row)
                info = tarfile.TarInfo(f"{i:03d}.{suffix}")
                info.size = len(text.encode())
                tar.addfile(info, io.BytesIO(text.encode()))
    return {"source": "webdataset", "path": str(folder / "a.tar")}


FORMS = {"json lines": json_lines, "json list": json_list, "hub": hub, "webdataset": shard}


@pytest.fixture(autouse=True)
def caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", FORMS)
def test_cells_of_mixed_types(form: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    rows = [{"a": value(rng), "b": scalar(rng), "n": i} for i in range(40)]
    result = rows_of(opened(**FORMS[form](rows, tmp_path)))
    cells = [row["json"] for row in result] if form == "webdataset" else result
    assert len(cells) == len(rows)
    for row, cell in zip(rows, cells, strict=True):
        assert same(row, cell), (row, cell)


@pytest.mark.parametrize("streaming", [True, False])
def test_both_ways_to_read_a_shard(streaming: bool, tmp_path: Path) -> None:
    rows = [{"a": i} for i in range(5)]
    result = rows_of(opened(**shard(rows, tmp_path), streaming=streaming))
    assert [(row["txt"], row["json"]) for row in result] == [(str(i), {"a": i}) for i in range(5)]


@pytest.mark.parametrize("seed", range(4))
def test_cells_of_a_csv(seed: int, tmp_path: Path) -> None:
    """A column is of numbers if every cell is one, written as a number is; else of its texts."""
    rng = random.Random(seed)
    columns = {
        "texts": [rng.choice(TEXTS) for _ in range(30)],
        "codes": [f"{rng.randint(0, 9):03d}" for _ in range(30)],
        "integers": [rng.randint(-9, 2**70) for _ in range(30)],
        "floats": [rng.choice([0.5, 1e-9, -2.25]) for _ in range(30)],
        "holes": [rng.choice([1, 2, None]) for _ in range(30)],
        "mixed": [rng.choice([1, "two", "3.5"]) for _ in range(29)] + ["x"],
    }
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    columns["mixed"] = list(map(str, columns["mixed"]))
    result = rows_of(opened(source="csv", path=str(tmp_path / "a.csv")))
    for i, row in enumerate(result):
        assert same(row, {name: cells[i] for name, cells in columns.items()}), row


def test_cells_of_a_parquet_file(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [
        {"t": rng.choice(TEXTS), "i": rng.randint(-5, 5), "f": 0.5 * i, "b": i % 2 == 0,
         "l": [rng.choice(TEXTS)] * (i % 3), "s": {"path": "a.wav", "start": 0.5}, "h": None}
        for i in range(20)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    result = rows_of(opened(source="parquet", path=str(tmp_path / "a.parquet")))
    assert len(result) == 20 and all(map(same, result, rows))
    mixed = [{"x": value(rng)} for _ in range(20)]
    typed = datasets.Features({"x": datasets.Json()})
    table = pa.table({"x": pa.array([json.dumps(row["x"]) for row in mixed], pa.json_())})
    datasets.Dataset(table.cast(typed.arrow_schema)).to_parquet(tmp_path / "b.parquet")
    result = rows_of(opened(source="parquet", path=str(tmp_path / "b.parquet")))
    assert all(map(same, result, mixed))


def test_files_of_one_list_keep_their_own_types(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"image": "x.png", "caption": null}\n' * 3)
    (tmp_path / "b.jsonl").write_text('{"image": "x.png", "caption": "hi", "more": 1}\n')
    source = opened(source="json", path=str(tmp_path / "?.jsonl"))
    assert [row["caption"] for row in rows_of(source)] == [None, None, None, "hi"]
    assert [row["more"] for row in rows_of(source)] == [None, None, None, 1]
    assert [source.key(i) for i in (2, 3)] == ["a.jsonl#2", "b.jsonl#0"]


@pytest.mark.parametrize("source", ["json", "csv", "parquet"])
def test_rows_keep_their_keys_behind_a_slice(source: str, tmp_path: Path) -> None:
    rows = [{"a": i} for i in range(10)]
    if source == "csv":
        (tmp_path / "a.csv").write_text("a\n" + "".join(f"{i}\n" for i in range(10)))
        options: dict[str, Any] = {"path": str(tmp_path / "a.csv")}
    elif source == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
        options = {"path": str(tmp_path / "a.parquet")}
    else:
        options = {"path": json_lines(rows, tmp_path)["path"]}
    whole, part = (
        opened(source=source, **options),
        opened(source=source, split="train[80%:]", **options),
    )
    assert len(part) == 2
    for i in range(2):
        assert (part.key(i), part[i]) == (whole.key(8 + i), whole[8 + i])
        assert part.cell_key(i, "a") == whole.cell_key(8 + i, "a")


def test_members_that_fit_no_row_and_cells_that_cannot_be_decoded(tmp_path: Path) -> None:
    members = [("0.PNG", b"x"), ("0.seg.JSON", b'{"a": 1}'), ("1.png", b"y"), ("1.txt", b"\xff"),
               ("README", b"notes"), ("2.png", b"z"), ("2.txt", b"ok")]  # fmt: skip
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    for streaming in (True, False):
        with pytest.warns(UserWarning, match="1 files belong to no row: a.tar/README"):
            source = opened(source="webdataset", path=str(tmp_path / "a.tar"), streaming=streaming)
        rows = rows_of(source)
        assert [row["__key__"] for row in rows] == ["0", "1", "2"]
        assert rows[0]["png"]["bytes"] == b"x" and rows[0]["seg.json"] == {"a": 1}
        assert rows[0]["txt"] is None
        assert "member 1.txt: cannot be read as txt" in rows[1]["txt"].reason
        assert rows[2]["txt"] == "ok"


def test_a_member_that_is_there_twice_fails_its_row(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("0.txt", "1.txt", "0.txt"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    options = {"source": "webdataset", "path": str(tmp_path / "a.tar"), "streaming": False}
    with pytest.raises(ValueError, match=r"row a\.tar#0: a\.tar: there are two members 0\.txt"):
        opened(**options)
    source = opened(**options, on_error="skip")
    with pytest.raises(ReadError, match="two members"):
        source[0]
    assert source[1]["txt"] == "x"
