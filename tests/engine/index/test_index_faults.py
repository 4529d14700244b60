"""What an index gives back is what was written: no value cut, no condition dropped, no row twice;
and damage, half-made tables and other writers, each in one line or none."""

from __future__ import annotations

import dataclasses
import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.engine.index import (
    create_index,
    exists,
    lock,
    open_index,
)
from sensorium.engine.index.lance_index import LanceIndex
from sensorium.engine.utils import ConfigError, RuntimeFailure
from sensorium.tests.engine.index.index_rows import ABOUT, entries, keys, unit


@pytest.mark.quick_share(3)
@pytest.mark.parametrize(
    ("first", "second"), itertools.permutations([1, 1.5, 2.0, True, "text", 2**53 + 1, -0.5], 2)
)
def test_a_column_gives_back_what_was_written(index: LanceIndex, first: Any, second: Any) -> None:
    index.add(entries(unit(1), cell=[first]))
    try:
        index.add(entries(unit(1), 1, cell=[second]))
    except RuntimeFailure as error:
        assert str(error).startswith("row row-1: the column 'cell' holds ")
        assert "\n" not in str(error)
    assert [row["cell"] for row in index.where(None, ["cell"])] == [first, second][: index.count()]


def test_numbers_that_are_none_are_kept(index: LanceIndex) -> None:
    index.add(entries(unit(3), cell=[1.0, float("nan"), None]))
    one, other, none = (row["cell"] for row in index.where(None, ["cell"]))
    assert (one, none) == (1.0, None)
    assert np.isnan(other)


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf", "ivf_pq"])
@pytest.mark.parametrize("repeated", [False, True])
def test_k_rows_of_every_kind(index: LanceIndex, kind: Any, repeated: bool) -> None:
    """Also where the graph is torn: rows of one vector have none but each other for neighbours."""
    vectors = np.repeat(unit(2), 500, axis=0) if repeated else unit(1000)
    index.add(entries(vectors))
    for k in (1, 10, 11, 300, 1000, 5000):
        for hits in index.search(vectors[[0, 999]], k, kind=kind):
            assert len(hits) == len({hit.key for hit in hits}) == min(k, 1000)
            assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)


@pytest.mark.parametrize(
    "where",
    [
        "age > 0; AND age < 2",
        "age > 0 age < 2",
        "age > 0 LIMIT 1",
        "age > 0 ORDER BY age",
        "age > 0) OR (age < 2",
        "age > 0)",
        "(age > 0",
        "age > 0, age < 2",
        "age > 0 AS x",
        "age > 0 FOO",
        "age > 0 -- AND age < 2",
        "age > 0 /* AND */ AND age < 2",
        "age > 0 GROUP BY age",
        "key = 'row-1",
        "$$row-1$$ = key",
        "age > 0 UNION SELECT 1",
    ],
)
def test_no_end_of_a_condition_is_dropped(
    filled: tuple[LanceIndex, np.ndarray], where: str
) -> None:
    index, vectors = filled
    for ask in (
        lambda: index.count(where),
        lambda: list(index.where(where, ["key"])),
        lambda: index.search(vectors[:1], 2, where=where),
    ):
        with pytest.raises(ConfigError, match="--where: ") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_conditions_with_any_text_and_any_name(index: LanceIndex) -> None:
    names = ["PartyAbbrev", "party", "a b", "order", "Größe"]
    texts = ["D", "O'Brien", "a;b", "--", "/* x */", "(", 'say "x"', "$$", "`"]
    index.add(entries(unit(len(texts)), **dict.fromkeys(names, texts)))
    for name, (place, text) in itertools.product(names, enumerate(texts)):
        quoted = text.replace("'", "''")
        for column in [f"`{name}`", f'"{name}"', *([name] if name.isalpha() else [])]:
            where = f"{column} = '{quoted}'"
            assert index.count(where) == 1, where
            assert [row["key"] for row in index.where(where, ["key"])] == [f"row-{place}"]


class TestDamage:
    """One line that names the index, whatever the libraries raise."""

    def asked(self, place: str, kind: Any = "exact") -> Any:
        result = open_index(place)
        return result.identities(), result.search(unit(1), 2, kind=kind), result.count("age > 1")

    @pytest.mark.parametrize("damage", ["cut", "gone", "other bytes"])
    @pytest.mark.parametrize("part", ["data/*", "_versions/*"])
    def test_a_damaged_table(
        self, filled: tuple[LanceIndex, np.ndarray], damage: str, part: str
    ) -> None:
        index, _ = filled
        self.asked(index.uri)
        for file in Path(index.uri, "embeddings.lance").glob(part):
            whole = file.read_bytes()
            if damage == "gone":
                file.unlink()
            else:
                file.write_bytes(whole[:60] if damage == "cut" else bytes(len(whole)))
        with pytest.raises((RuntimeFailure, ConfigError), match=re.escape(index.uri)) as caught:
            self.asked(index.uri)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400

    def test_what_cannot_be_written(self, filled: tuple[LanceIndex, np.ndarray]) -> None:
        index, vectors = filled
        (Path(index.uri) / "side").write_text("in the way")
        with pytest.raises(RuntimeFailure, match="side") as caught:
            index.search(vectors[:1], 2, kind="hnsw")
        assert "\n" not in str(caught.value)

    def test_a_file_in_the_place_of_an_index(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(RuntimeFailure, match=r"file: cannot be written"):
            create_index(str(tmp_path / "file"), ABOUT)
        with pytest.raises(ConfigError, match="there is no index here"):
            open_index(str(tmp_path / "file"))

    def test_a_full_disk(
        self, filled: tuple[LanceIndex, np.ndarray], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index, vectors = filled

        class Full:
            def __getattr__(self, name: str) -> Any:
                raise RuntimeError(
                    "lance error: IO: No space left on device (os error 28), /x.rs:1"
                )

        monkeypatch.setattr(index, "_table", Full())
        for write in (
            lambda: index.add(entries(vectors[:1])),
            lambda: index.remove([b"0" * 16]),
            index.optimize,
        ):
            with pytest.raises(RuntimeFailure, match="the disk is full; make room"):
                write()


def test_a_half_made_table_is_made_anew(tmp_path: Path) -> None:
    """Whatever a kill left of a table that has no version yet."""
    for left in ("embeddings.lance/data", "embeddings.lance/_versions", ".embeddings-1.part/x"):
        place = tmp_path / left.replace("/", "-")
        (place / left).mkdir(parents=True)
        assert not exists(str(place))
        with pytest.raises(ConfigError, match="there is no index here"):
            open_index(str(place))
        create_index(str(place), ABOUT).add(entries(unit(3)))
        assert open_index(str(place)).count() == 3
        assert {path.name for path in place.iterdir()} == {"embeddings.lance", ".lock"}


def test_rows_are_taken_out(filled: tuple[LanceIndex, np.ndarray]) -> None:
    index, vectors = filled
    gone = [entry.identity for entry in entries(vectors) if entry.row % 2]
    assert index.remove([*gone, b"x" * 16]) == 350
    assert index.remove([]) == 0
    again = open_index(index.uri)
    assert again.count() == 350
    assert {row["key"] for row in again.where(None, ["key"])} == {
        f"row-{i}" for i in range(0, 700, 2)
    }
    assert keys(again.search(vectors[1], 3)) != [["row-1"]]


class TestTwoWriters:
    def test_the_same_new_rows_are_there_once(self, index: LanceIndex) -> None:
        writers = [open_index(index.uri) for _ in range(4)]
        rows = entries(unit(12))

        def write(writer: Any, number: int) -> None:
            for start in range(0, 12, 3):
                some = [dataclasses.replace(e, columns={f"of{number}": 1}) for e in rows]
                writer.add(some[start : start + 3])
            writer.optimize()

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(write, w, i) for i, w in enumerate(writers)]:
                done.result()
        again = open_index(index.uri)
        assert again.count() == 12
        assert len({row["key"] for row in again.where(None, ["key"])}) == 12

    def test_both_make_it(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(4) as pool:
            built = list(pool.map(create_index, [str(tmp_path / "index")] * 4, [ABOUT] * 4))
        for number, each in enumerate(built):
            each.add(entries(unit(1), number, late=[number]))
        assert create_index(str(tmp_path / "index"), ABOUT).count() == 4

    def test_a_lock_that_is_not_given_back(
        self, index: LanceIndex, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with (
            monkeypatch.context() as patch,
            lock.write_lock(index.uri),
            pytest.raises(RuntimeFailure, match="another process has been writing"),
        ):
            patch.setattr(lock, "WAIT_SECONDS", 0.0)
            index.add(entries(unit(1)))
        assert index.add(entries(unit(1))).new == 1
