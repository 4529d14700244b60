"""Values of files stay what the file holds, or are refused: tables of what programs write."""

from __future__ import annotations

import datetime as dt
import io
import tarfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sensorium.engine.data.sources.csv_rows import Csv
from sensorium.engine.data.sources.folders import ImageFolder
from sensorium.engine.data.sources.json_rows import Json
from sensorium.engine.data.sources.parquet import Parquet
from sensorium.engine.data.sources.tar import Tar, TarStream
from sensorium.engine.data.where import filter_rows
from sensorium.modalities.base import Unreadable
from sensorium.modalities.paths import read_lines

BIG = 2**53 + 1


def columns(source: Any, name: str = "a") -> list[Any]:
    return [source[i][name] for i in range(len(source))]


CSV = [
    ("007\n008", ["007", "008"]),
    ("1\n2", [1, 2]),
    (f"{BIG}\n2", [BIG, 2]),
    (f"{BIG}\n1.5", [str(BIG), "1.5"]),  # a float would alter the first
    ("12345678901234567\nnan", ["12345678901234567", "nan"]),
    ("9007199254740994\n0.5", [9007199254740994.0, 0.5]),  # which a float holds
    ("1e400\n1", ["1e400", "1"]),
    ("1e5\n2.5", [1e5, 2.5]),
    ("1٢\n3", ["1٢", "3"]),
    ("1_000\n2", ["1_000", "2"]),
    ("+1\n2", ["+1", "2"]),
    ("2024-01-02\n2025-01-02", ["2024-01-02", "2025-01-02"]),
    ("true\nfalse", ["true", "false"]),
    ("NA\nnull", ["NA", "null"]),
    ('"1,000"\n"2,000"', ["1,000", "2,000"]),
    ('"x\ny"\nz', ["x\ny", "z"]),
    ("x\u2028y\nz\x85", ["x\u2028y", "z\x85"]),
]


@pytest.mark.parametrize(("text", "expected"), CSV)
def test_cells_of_csv(text: str, expected: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(f"a\n{text}\n", encoding="utf-8")
    cells = columns(Csv(path=str(file)))
    assert cells == expected
    assert list(map(type, cells)) == list(map(type, expected))


def test_numbers_of_one_file_keep_those_of_another(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text(f"a\n{BIG}\n")
    (tmp_path / "2.csv").write_text("a\n1.5\n")
    assert columns(Csv(path=str(tmp_path / "*.csv"))) == [str(BIG), "1.5"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize(
    ("kind", "text"), [(Csv, "ä,b\n1,2\n3,4\n"), (Json, '{"ä": 1}\n{"ä": 2}\n')]
)
def test_other_encodings_are_named(kind: Any, text: str, encoding: str, tmp_path: Path) -> None:
    text = text.replace("ä", "a") if encoding.startswith("utf-16-") else text
    file = tmp_path / "a.txt"
    file.write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=r"a\.txt, line 1: (is not UTF-8|holds NUL|is no JSON)"):
        kind(path=str(file))


JSON = [
    ("9007199254740993", BIG),
    ("123456789012345678901234567890", 123456789012345678901234567890),
    ("1.0", 1.0),
    ("[[1, 2], [], null]", [[1, 2], [], None]),
    ('"\\ud83d\\ude00 x\u2028y"', "😀 x\u2028y"),
    ("true", True),
    ('{"k": null}', {"k": None}),
    ("1e300", 1e300),
]


@pytest.mark.parametrize(("text", "expected"), JSON)
def test_cells_of_json(text: str, expected: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"a": {text}}}\n', encoding="utf-8")
    (cell,) = columns(Json(path=str(file)))
    assert cell == expected and type(cell) is type(expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": 1e400}', "line 1: holds 1e400, which is too large"),
        ('{"a": 1, "a": 2}', "line 1: the key 'a' appears twice"),
        ('{"a": "\\ud83d"}', "line 1: holds half a surrogate pair"),
    ],
)
def test_lines_of_json_that_would_be_altered(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line)
    with pytest.raises(ValueError, match=message):
        Json(path=str(tmp_path / "a.jsonl"))


ZONE = dt.timezone(dt.timedelta(hours=2))
TIME = dt.datetime(2024, 7, 2, 3, 4, 5, 6, tzinfo=ZONE)
ARROW = [
    (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
    (pa.array([Decimal("1.10"), None], pa.decimal128(9, 2)), [Decimal("1.10"), None]),
    (pa.array([dt.date(2024, 1, 2)]), [dt.date(2024, 1, 2)]),
    (pa.array([TIME], pa.timestamp("us", tz="Europe/Berlin")), [TIME]),
    (pa.array([BIG, None]), [BIG, None]),
    (pa.array([2**63 + 5], pa.uint64()), [2**63 + 5]),
    (pa.array([[[1, 2], [3]], None, []]), [[[1, 2], [3]], None, []]),
    (pa.array([b"\xff"]), [b"\xff"]),
    (pa.array([[{"x": 1, "y": None}]]), [[{"x": 1, "y": None}]]),
]


@pytest.mark.parametrize(("array", "expected"), ARROW, ids=lambda value: str(value)[:20])
@pytest.mark.quick_share(2)
def test_cells_of_parquet(
    array: Any, expected: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    pq.write_table(pa.table({"a": array}), tmp_path / "a.parquet")
    assert columns(Parquet(path=str(tmp_path / "a.parquet"))) == expected


@pytest.mark.parametrize(
    ("second", "fits"), [(["1"], False), ([1.5], True), ([[1]], False), ([None], True)]
)
def test_a_column_is_of_one_kind_in_all_parquet_files(
    second: list[Any], fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    for name, values in (("1", [1]), ("2", second)):
        pq.write_table(pa.table({"a": values}), tmp_path / f"{name}.parquet")
    pattern = str(tmp_path / "*.parquet")
    if fits:
        assert columns(Parquet(path=pattern)) == [1, *second]
    else:
        with pytest.raises(ValueError, match=r"2\.parquet: its column 'a' holds .*numbers"):
            Parquet(path=pattern)


class Cells:
    """A source of one column."""

    columns, faults = ("a",), {}

    def __init__(self, *cells: Any) -> None:
        self.cells = cells

    def __len__(self) -> int:
        return len(self.cells)

    def cell(self, index: int, column: str) -> Any:
        return self.cells[index]


DAY = dt.date(2024, 5, 1)
CONDITIONS = [
    ((Decimal("1.5"), Decimal(3)), {"min": 2}, [1]),
    ((Decimal("1.5"), 1.5, 2), 1.5, [0, 1]),
    ((DAY, dt.date(2025, 1, 1)), {"min": dt.date(2024, 6, 1)}, [1]),
    ((DAY, dt.date(2025, 1, 1)), DAY, [0]),
    ((TIME, TIME + dt.timedelta(days=1)), {"max": TIME}, [0]),
]


@pytest.mark.parametrize(("cells", "condition", "rows"), CONDITIONS)
def test_conditions_compare_what_files_hold(cells: Any, condition: Any, rows: list[int]) -> None:
    chosen, faults = filter_rows(Cells(*cells), {"a": condition})  # type: ignore[arg-type]
    assert (chosen.tolist(), faults) == (rows, {})


def test_a_time_is_not_compared_with_a_date() -> None:
    _, faults = filter_rows(Cells(TIME), {"a": {"min": DAY}})  # type: ignore[arg-type]
    assert list(faults) == [0] and "a time with its zone" in faults[0]


def shard(file: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


@pytest.mark.parametrize("kind", [Tar, TarStream])
def test_members_of_shards(kind: Any, tmp_path: Path) -> None:
    members = {
        "./a.txt": "\ufeffü".encode(),
        "a.cls": b" 3\n",
        "v1.0/b.left.txt": b"x",
        "b.cls": b"1_0",
        "._a.txt": b"x",
    }
    file = shard(tmp_path / "s.tar", members)
    source = kind(path=str(file))
    rows = list(source) if kind is TarStream else [source[i] for i in range(len(source))]
    assert [(row["__key__"], row["txt"], row["left.txt"]) for row in rows] == [
        ("a", "ü", None), ("v1.0/b", None, "x"), ("b", None, None),
    ]  # fmt: skip
    assert rows[0]["cls"] == 3 and isinstance(rows[2]["cls"], Unreadable)
    assert list(source.ignored) == ["s.tar/._a.txt"]


def test_linked_folders_are_classes_and_loops_end(tmp_path: Path) -> None:
    for name in ("cat/a.png", "real/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "dog").symlink_to(tmp_path / "cat")
    (tmp_path / "real" / "again").symlink_to(tmp_path)
    source = ImageFolder(path=str(tmp_path))
    keys = [source.key(i) for i in range(len(source))]
    assert keys == ["cat/a.png", "dog/a.png", "real/b.png"]


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("\ufeffu1 x\u2028y\r\nu2 z\x85\x0c\n\nu3".encode())
    assert read_lines(tmp_path / "a") == ["u1 x\u2028y", "u2 z\x85\x0c", "", "u3"]
    (tmp_path / "a").write_bytes(b"")
    assert read_lines(tmp_path / "a") == []
