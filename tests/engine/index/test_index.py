"""The index against brute force and against faiss, its commits, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.engine.index import (
    Added,
    Entry,
    IndexMetadata,
    columns_of,
    create_index,
    exact,
    exists,
    faiss_index,
    lance_index,
    lance_table,
    open_index,
)
from sensorium.engine.index.lance_index import LanceIndex
from sensorium.engine.utils import ConfigError, RuntimeFailure
from sensorium.tests.engine.index.index_rows import ABOUT, entries, keys, unit


def brute(vectors: np.ndarray, queries: np.ndarray, k: int) -> list[list[str]]:
    order = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]
    return [[f"row-{i}" for i in row] for row in order]


@pytest.mark.parametrize("k", [1, 7, 700, 900])
@pytest.mark.parametrize("cached_bytes", [2**30, 0], ids=["in memory", "streamed"])
def test_exact_search_is_brute_force(
    filled: tuple[LanceIndex, np.ndarray],
    k: int,
    cached_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lance_index, "KEPT_BYTES", cached_bytes)
    monkeypatch.setattr(lance_table, "ROWS", 64)
    monkeypatch.setattr(exact, "FIRST", 16)
    index, vectors = filled
    queries = unit(5, seed=1)
    assert keys(index.search(queries, k)) == brute(vectors, queries, k)
    scores = [hit.score for hit in index.search(queries, k)[0]]
    np.testing.assert_allclose(scores, np.sort(queries[0] @ vectors.T)[::-1][:k], atol=1e-6)


def test_equal_scores_keep_the_order_of_the_rows(index: LanceIndex) -> None:
    vectors = np.eye(16, dtype=np.float32)[[3, 0, 3, 3, 1, 0, 3]]
    index.add(entries(vectors))
    result = index.search(np.eye(16, dtype=np.float32)[3:4], 6)
    assert keys(result) == [["row-0", "row-2", "row-3", "row-6", "row-1", "row-4"]]


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf", "ivf_pq"])
def test_a_condition_comes_before_the_search(
    filled: tuple[LanceIndex, np.ndarray], kind: Any
) -> None:
    index, vectors = filled
    queries = unit(3, seed=2)
    good = [i for i in range(700) if i % 3 and i > 500]
    expected = [
        [f"row-{good[int(key[4:])]}" for key in r] for r in brute(vectors[good], queries, 9)
    ]
    where = "split = 'test' AND age > 500"
    assert index.count(where) == len(good)
    assert keys(index.search(queries, 9, where=where, kind=kind)) == expected
    assert index.search(queries, 9, where="age < 0", kind=kind) == [[], [], []]


def test_hits_have_their_columns_but_no_vector(filled: tuple[LanceIndex, np.ndarray]) -> None:
    index, vectors = filled
    hit = index.search(vectors[40], 1)[0][0]
    assert hit.score == pytest.approx(1, abs=1e-6)
    assert hit.columns() == {"key": "row-40", "split": "test", "age": 40.0}
    assert "vector" not in hit.row
    rows = list(index.where("age >= 698", ["key", "age"]))
    assert rows == [{"key": "row-698", "age": 698.0}, {"key": "row-699", "age": 699.0}]


def test_it_is_there_when_opened_again(filled: tuple[LanceIndex, np.ndarray]) -> None:
    index, vectors = filled
    index.optimize()
    again = open_index(index.uri)
    assert again.metadata == ABOUT
    assert again.count() == 700
    result = again.identities()
    assert len(np.unique(result)) == 700
    assert (result[:-1] <= result[1:]).all()
    assert keys(again.search(vectors[3], 1)) == [["row-3"]]


def test_a_row_that_comes_again_takes_its_place(index: LanceIndex) -> None:
    before, after = unit(4), unit(4, seed=3)
    assert index.add(entries(before)) == Added(4, 0)
    assert index.add(entries(after[:3], 2)) == Added(1, 2)
    assert index.count() == 5
    assert keys(index.search(after[0], 1)) == [["row-2"]]
    assert index.add([]) == Added(0, 0)


def test_columns_may_come_later(index: LanceIndex) -> None:
    index.add(entries(unit(2), age=[None, None]))
    index.add(entries(unit(2), 2, age=[1, 2.5], word=["a", None], good=[True, False]))
    index.add(entries(unit(1), 4))
    rows = list(index.where(None, ["age", "word", "good"]))
    assert [r["age"] for r in rows] == [None, None, 1.0, 2.5, None]
    assert [r["word"] for r in rows] == [None, None, "a", None, None]
    assert [r["good"] for r in rows] == [None, None, True, False, None]


@pytest.mark.parametrize(
    ("value", "message"), [("old", "row-1: the column 'age' holds int64"), (2**70, "row-1: ")]
)
def test_a_value_that_its_column_cannot_take(index: LanceIndex, value: Any, message: str) -> None:
    index.add(entries(unit(1), age=[3]))
    with pytest.raises(RuntimeFailure, match=message):
        index.add(entries(unit(1), 1, age=[value]))
    assert index.count() == 1


def test_names_that_are_no_utf_8(index: LanceIndex) -> None:
    (entry,) = entries(unit(1))
    columns, _ = columns_of({"file": "a\udcff.jpg"})
    index.add([dataclasses.replace(entry, key="a\udcff.jpg", columns=columns)])
    (row,) = index.where(None, ["key", "file"])
    assert set(row.values()) == {"a\\udcff.jpg"}


def test_columns_are_scalars_and_texts() -> None:
    row = {
        "a": np.float32(2),
        "b": np.bool_(True),
        "c": None,
        "d.e": "x",
        "split": "val",
        "f": [1],
        "g": {"path": "x"},
        "vector": 3,
        "h": Path("x"),
        "i": np.zeros(2),
    }
    result, left = columns_of(row)
    assert result == {"a": 2.0, "b": True, "c": None, "d_e": "x"}
    assert left == ["f", "g", "vector", "i"]
    assert [type(v) for v in result.values()] == [float, bool, type(None), str]


def test_two_rows_of_one_key(index: LanceIndex) -> None:
    twice = [*entries(unit(1), 5), *entries(unit(1), 5)]
    twice[1] = Entry(**{**vars(twice[0]), "row": 6})
    with pytest.raises(RuntimeFailure, match="rows 5 and 6 are both called 'row-5'"):
        index.add(twice)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("splt = 'test'", "no column 'splt'; did you mean 'split'"),
        ("age >", "--where: .*[Ee]xpected"),
        ("age", "does not return a boolean"),
        ("foo(age) > 1", "foo"),
    ],
)
@pytest.mark.parametrize("ask", ["count", "search", "where"])
def test_a_condition_that_cannot_be_read(
    filled: tuple[LanceIndex, np.ndarray], where: str, message: str, ask: str
) -> None:
    index, vectors = filled
    requested: dict[str, Callable[[], Any]] = {
        "count": lambda: index.count(where),
        "search": lambda: index.search(vectors[:1], 1, where=where),
        "where": lambda: list(index.where(where, ["key"])),
    }
    with pytest.raises(ConfigError, match=message) as caught:
        requested[ask]()
    assert "\n" not in str(caught.value)
    assert "/" not in str(caught.value)


def test_widths_and_numbers_that_do_not_fit(filled: tuple[LanceIndex, np.ndarray]) -> None:
    index, _ = filled
    with pytest.raises(ConfigError, match="width 16, the query has 12"):
        index.search(unit(1, 12), 3)
    with pytest.raises(ConfigError, match="-k: found 0"):
        index.search(unit(1), 0)


def test_no_index_is_there(tmp_path: Path) -> None:
    assert not exists(str(tmp_path / "none"))
    assert not exists(str(tmp_path))
    with pytest.raises(ConfigError, match="there is no index here; make one"):
        open_index(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("text", ["{}", "[1]", json.dumps({"format": 3, "run": "x"}), "nonsense"])
def test_an_index_of_another_kind(text: str) -> None:
    with pytest.raises(ConfigError, match="here: is no index that can be read"):
        IndexMetadata.from_json(text, "here")


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    index = create_index(str(tmp_path / "index"), ABOUT)
    for kind in ("exact", "hnsw", "ivf", "ivf_pq"):
        assert index.search(unit(2), 3, kind=kind) == [[], []]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
class TestSide:
    def test_it_finds_what_exact_search_finds(
        self, filled: tuple[LanceIndex, np.ndarray], kind: Any
    ) -> None:
        index, vectors = filled
        queries = vectors[::7] + 0.1 * unit(100, seed=5)
        right = [set(row) for row in keys(index.search(queries, 10))]
        result = [set(row) for row in keys(index.search(queries, 10, kind=kind))]
        recall = np.mean([len(a & b) / 10 for a, b in zip(right, result, strict=True)])
        assert recall > 0.9

    def test_it_is_built_once_a_version(
        self, filled: tuple[LanceIndex, np.ndarray], kind: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index, _ = filled
        index.search(unit(1), 3, kind=kind)
        (built,) = (Path(index.uri) / "side").iterdir()
        way = faiss_index.KINDS[kind]
        with monkeypatch.context() as patch:
            patch.setitem(faiss_index.KINDS, kind, way._replace(build=None))
            assert open_index(index.uri).search(unit(1), 3, kind=kind)[0]
        new = unit(1, seed=9)
        index.add(entries(new, 700))
        assert index.search(new, 1, kind=kind)[0][0].key == "row-700"
        (again,) = (Path(index.uri) / "side").iterdir()
        assert again.name != built.name

    def test_a_kill_while_it_is_written_leaves_nothing_to_read(
        self, filled: tuple[LanceIndex, np.ndarray], kind: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import faiss

        index, vectors = filled
        whole = bytes(faiss.serialize_index(faiss.IndexFlatIP(16)))

        def half(built: Any, path: str) -> None:
            Path(path).write_bytes(whole[:1000])
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(faiss, "write_index", half)
            with pytest.raises(KeyboardInterrupt):
                index.search(vectors[:1], 1, kind=kind)
        assert not list((Path(index.uri) / "side").glob("*.faiss"))
        assert keys(open_index(index.uri).search(vectors[:1], 1, kind=kind)) == [["row-0"]]

    def test_a_damaged_file_is_told(self, filled: tuple[LanceIndex, np.ndarray], kind: Any) -> None:
        index, vectors = filled
        index.search(vectors[:1], 1, kind=kind)
        (built,) = (Path(index.uri) / "side").iterdir()
        built.write_bytes(built.read_bytes()[:500])
        with pytest.raises(RuntimeFailure, match="remove it, it is built again"):
            open_index(index.uri).search(vectors[:1], 1, kind=kind)


def test_side_indices_want_a_local_disk(filled: tuple[LanceIndex, np.ndarray]) -> None:
    index, vectors = filled
    index.uri = "s3://bucket/index"
    with pytest.raises(ConfigError, match="beside an index on a local disk"):
        index.search(vectors[:1], 1, kind="hnsw")
