"""`where` chooses rows by their cells, `holdout` keeps groups whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sensorium.engine.data import RowList, open_section
from sensorium.engine.data.holdout import hold_out
from sensorium.engine.data.sources import Json
from sensorium.engine.data.where import filter_rows, filtered
from sensorium.engine.data.wrappers import Subset, rename
from sensorium.engine.recipe import DataSection, Holdout
from sensorium.engine.recipe.validation import validate
from sensorium.engine.utils import ConfigError
from sensorium.modalities.base import ReadError, Source

ROWS = [
    {"n": 1, "s": "a", "b": True, "z": None},
    {"n": 2.5, "s": "b", "b": False, "z": 1},
    {"n": None, "s": "c", "b": True, "z": 2},
    {"n": 4, "s": "a", "b": False, "z": None},
]


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ({"s": "a"}, [0, 3]),
        ({"s": ["a", "c"]}, [0, 2, 3]),
        ({"n": {"min": 2}}, [1, 3]),
        ({"n": {"min": 1, "max": 2.5}}, [0, 1]),
        ({"s": {"not": "a"}}, [1, 2]),
        ({"s": {"not": ["a", "b"]}}, [2]),
        ({"z": None}, [0, 3]),
        ({"z": {"not": None}}, [1, 2]),
        ({"b": True, "s": ["a", "b"]}, [0]),
        ({"s": {"min": "b"}}, [1, 2]),
    ],
)
def test_conditions(where: dict[str, Any], rows: list[int]) -> None:
    selected, faults = filter_rows(RowList(ROWS), where)
    assert selected.tolist() == rows and not faults
    chosen = filtered(RowList(ROWS), where)
    assert [chosen[i] for i in range(len(chosen))] == [ROWS[i] for i in rows]
    assert chosen.key(0) == str(rows[0])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"m": 1}, r"where\.m: there is no such column"),
        ({"n": {"mn": 1}}, r"where\.n: there is no 'mn'; did you mean 'min'"),
        ({"n": {}}, r"where\.n: is empty"),
        ({"n": []}, r"where\.n: found an empty list"),
        ({"n": {"min": None}}, r"where\.n\.min: found None"),
        ({"s": "d"}, r"where: no row of 4 meets"),
        ({"n": "> 5"}, r"where\.n: found '> 5'; write \{min: 5, not: 5\}"),
        ({"n": "<=2.5"}, r"where\.n: found '<=2\.5'; write \{max: 2\.5\}"),
        ({"s": "!= a"}, r"where\.s: found '!= a'; write \{not: a\}"),
        ({"s": "== a"}, r"where\.s: found '== a'; write a"),
    ],
)
def test_conditions_that_are_refused(where: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        filter_rows(RowList(ROWS), where)


def test_a_cell_that_cannot_be_compared_is_refused_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"n": n}) for n in (1, "two", 3)))
    options = {"source": "json", "path": str(path), "where": {"n": {"min": 2}}}
    with pytest.raises(ConfigError, match=r"row a\.jsonl#1: where\.n: the cell is a text \(two\)"):
        open_section(validate(DataSection, options, "data", "it"), "data")
    options["on_error"] = "skip"
    source = open_section(validate(DataSection, options, "data", "it"), "data")
    assert [source.key(i) for i in range(len(source))] == ["a.jsonl#1", "a.jsonl#2"]
    with pytest.raises(ReadError, match="the condition names a number"):
        source[0]


class Spoken(Source):
    columns = ("speaker", "day")

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"speaker": index % 10, "day": [index % 4]}

    def fingerprint(self) -> str:
        return "spoken"


class Grouped(Spoken):
    @property
    def groups(self) -> list[int]:
        return [i % 10 for i in range(40)]


@pytest.mark.parametrize(
    ("source", "by", "column"),
    [(Spoken(), "speaker", "speaker"), (Spoken(), "day", "day"), (Grouped(), None, "speaker")],
)
def test_no_group_is_on_both_sides(source: Source, by: str | None, column: str) -> None:
    train, held = hold_out(source, Holdout(share=0.25, by=by), "data.holdout", skip=False)
    sides = [{str(s[i][column]) for i in range(len(s))} for s in (train, held)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert len(train) + len(held) == 40
    both = [*np.asarray(train.rows), *np.asarray(held.rows)]  # type: ignore[attr-defined]
    assert sorted(both) == list(range(40))


def test_a_row_without_a_group_is_refused_or_counted() -> None:
    rows = RowList([{"who": None if i == 3 else i % 4} for i in range(12)])
    holdout = Holdout(share=0.5, by="who")
    with pytest.raises(ConfigError, match=r"data\.holdout\.by, row 3: column 'who' is null"):
        hold_out(rows, holdout, "data.holdout", skip=False)
    train, held = hold_out(rows, holdout, "data.holdout", skip=True)
    assert list(train.faults.values()) == ["column 'who' is null, so that its group is not known"]
    assert not held.faults and len(train) + len(held) == 12


@pytest.mark.parametrize(
    ("holdout", "expected"),
    [
        (Holdout(share=0.5, by="whom"), r"holdout\.by: there is no column 'whom'; did you mean"),
        (Holdout(share=0.01, by="who"), r"0\.01 of 4 groups is 0; whole groups"),
    ],
)
def test_holdouts_that_are_refused(holdout: Holdout, expected: str) -> None:
    rows = RowList([{"who": i % 4} for i in range(12)])
    with pytest.raises(ConfigError, match=expected):
        hold_out(rows, holdout, "data.holdout", skip=False)


def test_both_forms_of_a_holdout() -> None:
    short = validate(DataSection, {"source": "x", "holdout": 0.1}, "data", "it")
    long = validate(DataSection, {"source": "x", "holdout": {"share": 0.1, "by": "y"}}, "data", "x")
    assert short.held_out == Holdout(share=0.1) and long.held_out == Holdout(share=0.1, by="y")
    assert validate(DataSection, {"source": "x"}, "data", "it").held_out is None
    with pytest.raises(ConfigError, match="holdout"):
        validate(DataSection, {"source": "x", "holdout": {"shar": 0.1}}, "data", "it")


def _data_of(source: str, folder: Path) -> dict[str, Any]:
    """Return a path that a source reads, if it takes one."""
    (folder / "class").mkdir()
    Image.new("L", (4, 4)).save(folder / "class" / "a.png")
    (folder / "rows.csv").write_text("label,n\n3,1\n4,2\n")
    (folder / "rows.json").write_text('[{"label": 3}, {"label": 4}]')
    pq.write_table(pa.table({"label": [3, 4]}), folder / "rows.parquet")
    named = {"csv": "rows.csv", "json": "rows.json", "parquet": "rows.parquet", "imagefolder": "."}
    return {"path": str(folder / named[source])} if source in named else {}


FILTERS: list[tuple[Any, str]] = [
    ("label=3", "where: {label: 3}"),
    ("label == 3", "where: {label: 3}"),
    ("[label == 3]", "where: {label: 3}"),
    ("label != 3", "where: {label: {not: 3}}"),
    ("n > 5", "where: {n: {min: 5, not: 5}}"),
    ("n >= 5", "where: {n: {min: 5}}"),
    ("n < 5", "where: {n: {max: 5, not: 5}}"),
    ("n <= 5", "where: {n: {max: 5}}"),
    ("lang is en", "where: {lang: en}"),
    ({"label": 3}, "where: {label: 3}"),
    ("train where n", "where: {column: value}"),
    (["train", "test"], "where: {column: value}"),
]


@pytest.mark.parametrize(("split", "cure"), FILTERS)
@pytest.mark.parametrize("source", ["digits", "phantom", "imagefolder", "csv", "json", "parquet"])
def test_a_split_that_is_a_filter_names_where(
    source: str, split: Any, cure: str, tmp_path: Path
) -> None:
    section = DataSection(source=source, split=split, **_data_of(source, tmp_path))
    with pytest.raises(ConfigError, match=r"where: \{") as error:
        open_section(section, "tasks.t.data.train")
    text = str(error.value)
    assert "\n" not in text and text.startswith("tasks.t.data.train")
    assert cure in text or "rows are chosen by their cells with where:" in text


@pytest.mark.parametrize("source", ["digits", "phantom", "imagefolder"])
def test_a_slice_of_a_source_without_slices_names_limit_and_where(
    source: str, tmp_path: Path
) -> None:
    section = DataSection(source=source, split="train[:10%]", **_data_of(source, tmp_path))
    with pytest.raises(
        ConfigError, match=r"where: \{column: value\}, or some .* limit: or holdout"
    ):
        open_section(section, "tasks.t.data.train")


def test_a_misspelt_split_is_told_its_names_alone() -> None:
    with pytest.raises(ConfigError) as error:
        open_section(DataSection(source="digits", split="tset"), "tasks.t.data.train")
    assert "'test'" in str(error.value) and "where:" not in str(error.value)


@pytest.mark.parametrize(
    "spellings",
    [
        ("P01", "p01", " P01 "),
        (7, "7", 7.0),
        ("Müller", "Mu\u0308ller", "MÜLLER"),
        ("a  b", "a\u00a0b", "a\tb"),
        (["x", 1], ["x", 1], ["x", 1]),
        ({"id": 1}, {"id": 1}, {"id": 1}),
    ],
    ids=str,
)
def test_one_group_in_several_spellings_lies_on_one_side(spellings: tuple[Any, ...]) -> None:
    rows = [{"by": value} for value in spellings] + [{"by": f"g{i // 3}"} for i in range(9)]
    train, held_out = hold_out(RowList(rows), Holdout(share=0.5, by="by"), "d", skip=False)
    sides = [{side.key(i) for i in range(len(side))} for side in (train, held_out)]
    assert len(train) + len(held_out) == len(rows)
    for group in ({"0", "1", "2"}, {"3", "4", "5"}, {"6", "7", "8"}, {"9", "10", "11"}):
        assert any(group <= side for side in sides)


def test_rows_of_one_file_lie_on_one_side(tmp_path: Path) -> None:
    """Five captions of a picture, named as they are or through a link, are no five pictures."""
    lines = []
    for number in range(12):
        file = tmp_path / f"{number}.png"
        file.write_bytes(b"x")
        (tmp_path / f"link{number}.png").symlink_to(file)
        names = [f"{number}.png", f"link{number}.png", f"./{number}.png"]
        lines += [json.dumps({"image": name, "caption": f"{number}"}) for name in names]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    source = rename(
        Json(path=str(tmp_path / "a.jsonl"), paths=["image"]),
        {"picture": "image", "text": "caption"},
    )
    source = Subset(source, np.arange(len(source))[::-1])
    for streams in (["picture"], ["text", "picture"]):
        train, held = hold_out(source, Holdout(share=0.25), "d", skip=False, streams=streams)
        assert len(held) == 9
        assert not {train[i]["text"] for i in range(len(train))} & {
            held[i]["text"] for i in range(len(held))
        }
    train, held = hold_out(source, Holdout(share=0.25), "d", skip=False, streams=["text"])
    assert len(held) == 9  # texts are no files: single rows


PAIRS = [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4"), ("c", "5"), ("d", "6")]


def test_files_join_groups_and_a_named_column_stands_alone(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name).write_bytes(b"x")
    rows = [{"x": str(tmp_path / name), "who": who} for name, who in PAIRS]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = Json(path=str(tmp_path / "a.jsonl"))
    _, held = hold_out(source, Holdout(share=0.5), "d", skip=False, streams=["x"])
    files = [held[i]["x"] for i in range(len(held))]
    assert len(set(files)) == 2 and all(
        files.count(f) == [r["x"] for r in rows].count(f) for f in files
    )
    _, held = hold_out(source, Holdout(share=0.5, by="who"), "d", skip=False, streams=["x"])
    assert len(held) == 3
