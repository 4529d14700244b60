"""Sparse, multi-vector and quantized indexes against the products that define their scores, and
how rows are written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.engine.index import (
    Added,
    Hit,
    create_index,
    exact,
    lance_index,
    lance_table,
    open_index,
)
from sensorium.engine.index.exact import DenseRows
from sensorium.engine.index.forms import check_storage
from sensorium.engine.index.lance_index import LanceIndex
from sensorium.engine.utils import ConfigError
from sensorium.tasks.contrastive.similarity import maxsim
from sensorium.tests.engine.index.index_rows import ABOUT, entries, keys, unit

ROWS = 90


def sparse(rows: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Vectors of 16 entries, some of them empty."""
    rng = np.random.default_rng(seed)
    dense = rng.random((rows, 16), dtype=np.float32) * (rng.random((rows, 16)) < 0.3)
    return [(np.flatnonzero(row).astype(np.int32), row[row != 0]) for row in dense]


def dense_of(vectors: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    result = np.zeros((len(vectors), 16), np.float32)
    for row, (indices, values) in zip(result, vectors, strict=True):
        row[indices] = values
    return result


def tokens(rows: int, seed: int = 0) -> list[np.ndarray]:
    return [unit(1 + i % 4, seed=1000 * seed + i) for i in range(rows)]


def padded(vectors: list[np.ndarray]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(v) for v in vectors], batch_first=True)


def expected(form: str, queries: Any, vectors: Any) -> np.ndarray:
    if form == "sparse":
        return dense_of(queries) @ dense_of(vectors).T
    return maxsim(padded(queries), padded(vectors)).numpy()


MAKE: dict[str, Any] = {"sparse": sparse, "multi_vector": tokens}


@pytest.mark.parametrize("cached_bytes", [2**30, 0], ids=["in memory", "streamed"])
@pytest.mark.parametrize("form", MAKE)
def test_a_search_is_its_definition(
    tmp_path: Path, form: str, cached_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks, among a condition's rows, with k above the table, and after it is opened again."""
    monkeypatch.setattr(lance_index, "KEPT_BYTES", cached_bytes)
    monkeypatch.setattr(lance_table, "ROWS", 32)
    monkeypatch.setattr(exact, "FIRST", 16)
    make = MAKE[form]
    vectors, queries = make(ROWS), make(5, 1)
    index = create_index(str(tmp_path / "i"), dataclasses.replace(ABOUT, form=form))
    index.add(entries(vectors[:40], n=list(range(40))))
    index.add(entries(vectors[40:], 40, n=list(range(40, ROWS))))
    scores = expected(form, queries, vectors)
    for k in (1, 7, 200):
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        hits = open_index(str(tmp_path / "i")).search(queries, k)
        assert [len(row) for row in hits] == [min(k, ROWS)] * 5
        for row, best in zip(hits, order, strict=True):
            np.testing.assert_allclose(
                [hit.score for hit in row],
                np.take(scores[hits.index(row)], best),
                rtol=1e-4,
                atol=1e-5,
            )
    among = index.search(queries, 3, where="n >= 50")
    best = np.argsort(-scores[:, 50:], axis=1, kind="stable")[:, :1] + 50
    assert [row[0].row["n"] for row in among] == best[:, 0].tolist()
    assert index.search(queries, 3, where="n > 1000") == [[]] * 5


@pytest.mark.parametrize("form", MAKE)
def test_vectors_stay_in_memory_by_their_own_size(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the width, which a sparse row does not fill, and one of many tokens exceeds."""
    place, queries = str(tmp_path / "i"), MAKE[form](3, 1)
    create_index(place, dataclasses.replace(ABOUT, form=form)).add(entries(MAKE[form](ROWS)))
    held = sum(rows.nbytes for _, rows in LanceIndex.open(place)._blocks())
    hits = []
    for limit, kept in ((held, True), (held - 1, False)):
        monkeypatch.setattr(lance_index, "KEPT_BYTES", limit)
        index = LanceIndex.open(place)
        hits.append([[hit.key for hit in row] for row in index.search(queries, 5)])
        assert (index._vectors_in_memory is not None) == kept
    assert hits[0] == hits[1]


def test_faiss_is_of_dense_vectors(tmp_path: Path) -> None:
    index = create_index(str(tmp_path / "i"), dataclasses.replace(ABOUT, form="sparse"))
    index.add(entries(sparse(3)))
    with pytest.raises(ConfigError, match="--search: hnsw is of dense vectors"):
        index.search(sparse(1), 1, kind="hnsw")


def recall(hits: list[list[Hit]], vectors: np.ndarray, queries: np.ndarray) -> float:
    best = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    shares = [
        len({int(h.key.partition("-")[2]) for h in row} & {*b.tolist()}) / 10
        for row, b in zip(hits, best, strict=True)
    ]
    return float(np.mean(shares))


@pytest.mark.parametrize(("storage", "least"), [("float32", 1.0), ("int8", 0.95), ("binary", 0.3)])
def test_quantized_vectors_find_nearly_the_same(tmp_path: Path, storage: Any, least: float) -> None:
    """A control: unrelated vectors find a hundredth."""
    vectors, queries = unit(1000, 64), unit(20, 64, seed=5)
    about = dataclasses.replace(ABOUT, dim=64, storage=storage)
    index = create_index(str(tmp_path / "i"), about)
    index.add(entries(vectors))
    found = recall(index.search(queries, 10), vectors, queries)
    assert found >= least > 10 * recall(index.search(unit(20, 64, seed=9), 10), vectors, queries)
    if storage != "binary":
        hit = index.search(vectors[7:8], 1)[0][0]
        assert hit.key == "row-7" and hit.score == pytest.approx(1, abs=0.03)


def test_bits_are_scored_again_by_the_query_s_coordinates() -> None:
    """Among equal signs, the query's larger coordinates weigh more."""
    signs = np.where(np.arange(32).reshape(4, 8) % 3 == 0, -1.0, 1.0).astype(np.float32)
    rows = DenseRows(np.packbits(signs > 0, axis=1), "binary")
    query = unit(1, 8, seed=3)
    np.testing.assert_allclose(rows.scores(query, 4), query @ signs.T / np.sqrt(8), rtol=1e-5)
    np.testing.assert_allclose(rows.floats(), signs / np.sqrt(8), rtol=1e-6)


@pytest.mark.parametrize(
    ("form", "storage", "dim", "words"),
    [
        ("sparse", "int8", 16, "--storage: found int8 for sparse"),
        ("dense", "binary", 12, "--storage: binary keeps eight"),
    ],
)
def test_a_storage_that_does_not_fit_is_refused(
    form: str, storage: str, dim: int, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        check_storage(form, storage, dim)


def test_new_rows_are_appended_and_only_others_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer's rows are known before a commit, so that none stands twice."""
    place = str(tmp_path / "i")
    index = create_index(place, ABOUT)
    vectors = unit(60)
    merges: list[int] = []
    table: Any = type(index._table)  # type: ignore[attr-defined]
    merge = table.merge_insert
    monkeypatch.setattr(
        table, "merge_insert", lambda self, on: (merges.append(1), merge(self, on))[1]
    )
    assert index.add(entries(vectors[:20])) == Added(20, 0)
    assert index.add(entries(vectors[20:30], 20)) == Added(10, 0)
    other = open_index(place)
    assert other.add(entries(vectors[30:40], 30)) == Added(10, 0)
    assert not merges
    assert index.add(entries(vectors[35:45], 35)) == Added(5, 5)  # the other's are among them
    assert len(merges) == 1
    index.optimize()
    assert other.add(entries(vectors[44:50], 44)) == Added(5, 1)
    index.remove([(3).to_bytes(16, "big")])
    assert index.add(entries(vectors[3:4], 3)) == Added(1, 0)
    assert index.count() == other.count() + 0 == 50 or index.count() == 50
    result = [row["key"] for row in open_index(place).where(None, ["key"])]
    assert len(result) == len(set(result)) == 50
    assert isinstance(index, LanceIndex)
    assert keys(open_index(place).search(vectors[44:45], 1)) == [["row-44"]]
