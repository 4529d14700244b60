"""The stores of an index: Lance's own quantized index, and Milvus Lite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.engine.index import Index, SearchOptions, create_index, exists, open_index
from sensorium.engine.index.lance_index import LanceIndex
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.index.index_rows import ABOUT, entries, keys, unit


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanceIndex, np.ndarray]:
    """600 rows of 16 coordinates, and 100 more after the index was built."""
    index = LanceIndex.create(str(tmp_path_factory.mktemp("pq") / "index"), ABOUT)
    vectors = unit(700)
    index.add(entries(vectors[:600]))
    assert keys(index.search(vectors[:1], 1, kind="ivf_pq")) == [["row-0"]]
    index.add(entries(vectors[600:], 600))
    return index, vectors


def recall(index: Any, queries: np.ndarray, options: SearchOptions) -> float:
    exact = index.nearest(queries, 10)[1]
    nearest = index.nearest(queries, 10, kind="ivf_pq", options=options)[1]
    return float(np.mean([len({*a} & {*b}) / 10 for a, b in zip(exact, nearest, strict=True)]))


def test_quantized_lists_find_what_exact_search_finds(
    quantized: tuple[LanceIndex, np.ndarray],
) -> None:
    index, vectors = quantized
    queries = vectors[::70] + 0.1 * unit(10, seed=5)
    assert recall(index, queries, SearchOptions()) > 0.9
    narrow = recall(index, queries, SearchOptions(nprobes=1, refine=1))
    assert narrow < recall(index, queries, SearchOptions(nprobes=100, refine=50)) == 1.0


def test_rows_after_the_quantized_index_are_found(
    quantized: tuple[LanceIndex, np.ndarray],
) -> None:
    index, vectors = quantized
    late = vectors[650:653]
    options = SearchOptions(nprobes=1, refine=1)
    assert [row[0] for row in keys(index.search(late, 1, kind="ivf_pq", options=options))] == [
        "row-650",
        "row-651",
        "row-652",
    ]
    scores, ids = index.nearest(late, 5, kind="ivf_pq", options=SearchOptions(100, 50))
    exact_scores, exact_ids = index.nearest(late, 5)
    assert (ids == exact_ids).all()
    np.testing.assert_allclose(scores, exact_scores, atol=1e-6)
    assert len(index.search(late, 700, kind="ivf_pq", options=options)[0]) == 700


@pytest.mark.parametrize(
    ("kind", "options", "changes", "message"),
    [
        ("exact", {"nprobes": 3}, {}, "--nprobes: is an option of --search ivf or ivf_pq"),
        ("ivf", {"refine": 3}, {}, "--refine: is an option of --search ivf_pq"),
        ("ivf_pq", {"nprobes": 0}, {}, "--nprobes: found 0, expected at least 1"),
        ("ivf_pq", {}, {"storage": "int8"}, "holds int8; choose exact, hnsw or ivf"),
        ("ivf_pq", {}, {"form": "sparse"}, "ivf_pq is of dense vectors"),
    ],
)
def test_options_that_a_search_does_not_have(
    tmp_path: Path, kind: Any, options: Any, changes: Any, message: str
) -> None:
    index = create_index(str(tmp_path / "index"), replace(ABOUT, **changes))
    with pytest.raises(ConfigError, match=message):
        index.search(unit(1), 1, kind=kind, options=SearchOptions(**options))


def sparse(vectors: np.ndarray) -> list[Any]:
    """The coordinates above zero of each row."""
    return [(np.flatnonzero(v > 0).astype(np.int32), v[v > 0]) for v in vectors]


FORMS: dict[str, Callable[[np.ndarray], Any]] = {"dense": lambda v: v, "sparse": sparse}


@pytest.mark.slow
class TestMilvus:
    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        pytest.importorskip("milvus_lite")
        return f"milvus://{tmp_path}/lite/index.db"

    def rows(self, vectors: Any, start: int = 0) -> Any:
        ages = list(range(start, start + len(vectors)))
        names = [f"O'Brien {i}" for i in ages]
        return entries(vectors, start, age=ages, Name=names)

    @pytest.mark.parametrize("form", FORMS)
    def test_it_does_what_lance_does(self, place: str, tmp_path: Path, form: Any) -> None:
        metadata = replace(ABOUT, form=form)
        stores: list[Index] = [create_index(p, metadata) for p in (str(tmp_path / "lance"), place)]
        vectors, queries = FORMS[form](unit(60)), FORMS[form](unit(3, seed=4))
        answers = []
        for index in stores:
            assert index.search(queries, 3) == [[], [], []]
            first = index.add(self.rows(vectors[:40]))
            again = index.add(self.rows(vectors[30:], 30))
            taken = index.remove([(5).to_bytes(16, "big"), (99).to_bytes(16, "big")])
            index.optimize()
            hits = index.search(queries, 7)
            answers.append(
                (
                    (first.new, first.replaced, again.new, again.replaced, taken, index.count()),
                    keys(hits),
                    [hit.row["Name"] for hit in hits[0]],
                    index.identities().tolist(),
                    len([h for h in index.search(queries[:1], 100)[0] if h.score]),
                )
            )
            scores = [hit.score for hit in hits[0]]
            np.testing.assert_allclose(scores, [h.score for h in stores[0].search(queries, 7)[0]])
        assert answers[0] == answers[1]
        reopened = open_index(place)
        assert exists(place) and reopened.metadata == metadata
        assert keys(reopened.search(queries, 7)) == answers[0][1]
        condition = "age > 50 and split == 'test'"
        ages = [row["age"] for row in reopened.where(condition, ["age"])]
        assert sorted(ages) == [a for a in range(51, 60) if a % 3]
        filtered = reopened.search(queries[:1], 100, where=condition)[0]
        assert {hit.row["age"] for hit in filtered} == set(ages)

    def test_one_line_for_what_it_does_not_take(self, place: str) -> None:
        with pytest.raises(ConfigError, match="there is no index here"):
            open_index(place)
        for changes in ({"form": "multi_vector"}, {"storage": "int8"}):
            with pytest.raises(ConfigError, match="dense float32 and sparse vectors"):
                create_index(place, replace(ABOUT, **changes))
        index = create_index(place, ABOUT)
        index.add(self.rows(unit(2)))
        with pytest.raises(ConfigError, match=r"^--where: .*expression of Milvus"):
            index.count("age >")
        with pytest.raises(ConfigError, match="is searched exactly"):
            index.search(unit(1), 1, kind="hnsw")
        with pytest.raises(ConfigError, match="expected milvus://host"):
            open_index("milvus://")
