"""Results of several searches as one, and of passages as documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from ...modalities.messages import did_you_mean
from ..index import DATA, KEY, Hit, SearchOptions
from ..utils import ConfigError
from .retrieve import Query, Retriever

RANKS = 60
"""The constant of reciprocal rank fusion."""

DEPTH = 20
"""Hits of each search that are fused or grouped, as a multiple of those that are returned."""

LEAST = 200
"""Hits of each search that are fused or grouped, at least."""


def depth(k: int) -> int:
    """Return how many hits a search returns whose results are fused or grouped into k."""
    return max(LEAST, DEPTH * k)


def fuse(searches: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
    """Return the k rows with the largest sums of `1 / (60 + rank)` over several searches, of equal
    ones the first search's first (Cormack et al., "Reciprocal Rank Fusion", 2009). Rows are the
    same if their data set and key are; the score of a hit is the sum."""
    scores: dict[tuple[str, str], float] = {}
    rows: dict[tuple[str, str], Hit] = {}
    for hits in searches:
        for rank, hit in enumerate(hits, 1):
            name = (str(hit.row[DATA]), str(hit.row[KEY]))
            scores[name] = scores.get(name, 0.0) + 1 / (RANKS + rank)
            rows.setdefault(name, hit)
    order = sorted(scores, key=lambda name: -scores[name])
    return [replace(rows[name], score=scores[name]) for name in order[:k]]


def best_of_groups(
    hits: Sequence[Hit], column: str, k: int, how: Literal["max", "sum"] = "max"
) -> list[Hit]:
    """Return the k best groups of rows that share the value of a column, each as its best row: a
    document by its passages. A group's score is that of its best row, or the sum of its rows'.
    Raise ConfigError if no row has the column."""
    best: dict[object, Hit] = {}
    scores: dict[object, float] = {}
    for hit in hits:
        if column not in hit.row:
            names = [name for name in hit.row if not name.startswith("_")]
            raise ConfigError(
                f"--group-by: there is no column {column!r}{did_you_mean(column, names)}"
            )
        value = hit.row[column]
        group = ("alone", len(best)) if value is None else ("group", value)
        best.setdefault(group, hit)
        scores[group] = scores.get(group, 0.0) + hit.score if how == "sum" else best[group].score
    order = sorted(scores, key=lambda group: -scores[group])
    return [replace(best[group], score=scores[group]) for group in order[:k]]


def search_all(
    retrievers: Sequence[Retriever],
    query: Query,
    k: int,
    *,
    where: str | None = None,
    kind: str = "exact",
    group_by: str | None = None,
    how: Literal["max", "sum"] = "max",
    options: SearchOptions | None = None,
) -> list[Hit]:
    """Return the k best results of a query in one index or several, of rows or of groups."""
    if len(retrievers) == 1 and group_by is None:
        return retrievers[0].find(query, k, where=where, kind=kind, options=options)
    if k < 1:
        raise ConfigError(f"-k: found {k}, expected at least 1")
    searches = [
        r.find(query, depth(k), where=where, kind=kind, options=options) for r in retrievers
    ]
    hits = searches[0] if len(searches) == 1 else fuse(searches, sum(map(len, searches)))
    return hits[:k] if group_by is None else best_of_groups(hits, group_by, k, how)
