"""Approximate search: a faiss index beside the table, of one version of it.

    <index>/side/hnsw-v12.faiss     version 12 of the table

It is built once, written beside and moved into place (a kill in the middle of faiss's own
writing leaves a file that nobody can read), and built again when the table has moved on. Ids
are the table's row ids, which hold within a version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..recipe import import_optional
from ..utils import RuntimeFailure, atomic_path, make_folder, remove_parts
from .exact import Block, DenseRows, Rows, exact_search

LINKS = 16
BUILD_EFFORT = 80
"""HNSW: neighbours of a node; candidates that are looked at when it is added."""

LISTS_PER_ROOT = 2
TRAINED_ON = 40
"""IVF: `2 sqrt(rows)` lists, values in 8 bits; rows that each list's centre is found from."""

RECALL = 0.96
NEAREST = 10
ASKED = 200
"""A search probes as far as it takes to find this share of the ten nearest, queried by rows of the
table itself when the index is built. Queries unlike the rows (words among pictures) find less."""

STALE_SECONDS = 86400.0
"""A `.part` that nobody has written to for a day has no writer."""


class FaissIndex:
    """A faiss index whose ids are the table's row ids. effort: how far a search for the `NEAREST`
    looks; one for more rows looks further in proportion."""

    def __init__(self, faiss_index: Any, set_effort: Callable[[int], None], effort: int) -> None:
        self.index, self._look, self._effort = faiss_index, set_effort, effort
        self._effort_now: int | None = None

    def search(
        self, queries: np.ndarray, k: int, effort: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """queries `[Q, D]` -> scores `[Q, k]` and row ids `[Q, k]`, -1 where it reached no more.
        effort: in place of the one that was found when the index was built."""
        effort = effort or self._effort * max(1, -(-k // NEAREST))
        if effort != self._effort_now:
            self._look(effort)
            self._effort_now = effort
        scores, ids = self.index.search(queries, k)
        return scores, ids


def open_or_build_faiss(
    folder: Path,
    kind: str,
    version: int,
    rows: int,
    dim: int,
    blocks: Callable[[], Iterable[Block]],
) -> FaissIndex:
    """Return the side index of a version of the table: read, or built and kept.

    blocks: begins a pass over the table's vectors. Raise RuntimeFailure for a damaged file.
    """
    faiss = import_optional("faiss")
    builder = KINDS[kind]
    path = folder / f"{kind}-v{version}.faiss"
    if path.is_file():
        try:
            built = faiss.read_index(str(path))
        except RuntimeError as error:
            raise RuntimeFailure(
                f"{path}: faiss cannot read it; remove it, it is built again"
            ) from error
    else:
        built = builder.build(faiss, rows, dim, blocks)
        _tune(built, partial(builder.set_effort, faiss, built), rows, blocks)
        _write(faiss, built, path)
        for old in folder.glob(f"{kind}-v*.faiss"):
            if old != path:
                old.unlink(missing_ok=True)
    return FaissIndex(
        built, partial(builder.set_effort, faiss, built), builder.effort(faiss, built)
    )


def _write(faiss: Any, built: Any, path: Path) -> None:
    """Write an index whole, or raise RuntimeFailure."""
    make_folder(path.parent)
    remove_parts(path.parent, STALE_SECONDS)
    try:
        with atomic_path(path) as beside:
            faiss.write_index(built, str(beside))
    except RuntimeFailure:
        raise
    except RuntimeError as error:  # what faiss raises for a disk that is full
        text = " ".join(str(error).split())
        raise RuntimeFailure(f"{path}: faiss cannot write it: {text}") from error


def _hnsw(faiss: Any, rows: int, dim: int, blocks: Callable[[], Iterable[Block]]) -> Any:
    graph = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = BUILD_EFFORT
    return _filled(faiss.IndexIDMap(graph), blocks())


def _ivf(faiss: Any, rows: int, dim: int, blocks: Callable[[], Iterable[Block]]) -> Any:
    lists = _lists(rows)
    coarse = faiss.IndexFlatIP(dim)
    inverted = faiss.IndexIVFScalarQuantizer(
        coarse, dim, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False
    )
    inverted.train(_sample(blocks(), rows, TRAINED_ON * lists)[1])
    return _filled(inverted, blocks())


def _lists(rows: int) -> int:
    return max(1, min(round(LISTS_PER_ROOT * rows**0.5), rows // 39))  # 39: faiss's own least


def _floats(rows: Rows) -> np.ndarray:
    """Return `[B, D]` float32 of dense rows."""
    assert isinstance(rows, DenseRows)
    return rows.floats()


def _filled(index: Any, blocks: Iterable[Block]) -> Any:
    for ids, rows in blocks:
        index.add_with_ids(_floats(rows), ids)
    return index


def _look_wide(faiss: Any, index: Any, effort: int) -> None:
    faiss.downcast_index(index.index).hnsw.efSearch = effort


def _look_in(faiss: Any, index: Any, effort: int) -> None:
    index.nprobe = min(effort, index.nlist)


def _width_looked_at(faiss: Any, index: Any) -> int:
    return int(faiss.downcast_index(index.index).hnsw.efSearch)


def _lists_looked_in(faiss: Any, index: Any) -> int:
    return int(index.nprobe)


def _tune(
    index: Any, set_effort: Callable[[int], None], rows: int, blocks: Callable[[], Iterable[Block]]
) -> None:
    """Find the least effort that finds `RECALL` of the nearest; faiss keeps it in the file."""
    ids, queries = _sample(blocks(), rows, ASKED)
    _, expected = exact_search(queries, blocks(), min(NEAREST + 1, rows))
    effort = NEAREST
    while True:
        set_effort(effort)
        _, neighbors = index.search(queries, expected.shape[1])
        hits = sum(len({*a} & {*b} - {i}) for a, b, i in zip(expected, neighbors, ids, strict=True))
        relevant = sum(len({*a} - {i}) for a, i in zip(expected, ids, strict=True))
        if hits >= RECALL * relevant or effort >= rows:
            return
        effort *= 2


def _sample(blocks: Iterable[Block], rows: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """ids `[about wanted]` and vectors of rows from all over the table."""
    step, rows_before = max(1, rows // count), 0
    sampled: list[tuple[np.ndarray, np.ndarray]] = []
    for ids, block in blocks:
        vectors, part = _floats(block), slice(-rows_before % step, None, step)
        sampled.append((ids[part].copy(), vectors[part].copy()))  # a view would hold its block
        rows_before += len(ids)
    return np.concatenate([i for i, _ in sampled]), np.concatenate([v for _, v in sampled])


class IndexBuilder(NamedTuple):
    """How a kind of index is built, how far a search of it looks, and how far it looks now."""

    build: Callable[[Any, int, int, Callable[[], Iterable[Block]]], Any]
    set_effort: Callable[[Any, Any, int], None]
    effort: Callable[[Any, Any], int]


KINDS = {
    "hnsw": IndexBuilder(_hnsw, _look_wide, _width_looked_at),
    "ivf": IndexBuilder(_ivf, _look_in, _lists_looked_in),
}
