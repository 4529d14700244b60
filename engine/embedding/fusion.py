"""Results of several searches as one, of passages as documents, and scored again by a second
model."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from ...modalities.messages import describe_error, did_you_mean
from ..data import RowList, task_dataset
from ..index import DATA, KEY, Hit, SearchOptions
from ..utils import ConfigError, RuntimeFailure, autocast, pick
from .data_spec import DataSpec
from .embedder import load_run_or_recipe
from .retrieve import UNREADABLE, Query, Retriever

logger = logging.getLogger(__name__)

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


RERANK = "rerank"
"""The ability of a task that scores a query with a passage."""

FIRST_SCORE = "first_score"
"""The column of the score by which a hit was found, once it has another."""


class Reranker:
    """The reranking task of a run: the second step of a search."""

    def __init__(
        self,
        run: str,
        *,
        device: str | torch.device | None = None,
        precision: str | None = None,
    ) -> None:
        self.run, self.device = run, pick(device)
        self.model = load_run_or_recipe(run, (), precision).to(self.device).eval()
        tasks = {n: t.task for n, t in self.model.plan.tasks.items() if t.task.ability == RERANK}
        if len(tasks) != 1:
            listed = ", ".join(tasks) or ", ".join(self.model.plan.tasks) or "none"
            raise ConfigError(
                f"--rerank: {run} has {len(tasks)} tasks that rerank, expected one; found {listed}"
            )
        ((self.name, self.task),) = tasks.items()

    def scores(self, query: Any, cells: Sequence[Any]) -> list[tuple[float, str | None]]:
        """Return the score of each cell and None, or NaN and why it has none."""
        asks, answers = self.task.inputs()
        many = self.model.plan.streams[answers].many(self.task.streams[answers])
        rows = [{asks: query, answers: [cell] if many else cell} for cell in cells]
        size = self.model.plan.recipe.train.batch_size
        return [
            pair
            for start in range(0, len(rows), size)
            for pair in self._batch(rows[start : start + size])
        ]

    def _batch(self, rows: Sequence[dict[str, Any]]) -> list[tuple[float, str | None]]:
        model, source = self.model, RowList(rows)
        dataset = task_dataset(
            model.plan, model.encoders(), self.name, source, streams=self.task.inputs()
        )
        prepared = [dataset.prepare(index) for index in range(len(source))]
        inputs = model.collator()(self.name, prepared).to(self.device)
        with torch.no_grad(), autocast(self.device, model.precision):
            batch, predictions = model.predict_rows(inputs)
        failed = dict(batch.failed)
        scored = {
            key: prediction["scores"][0]
            for key, prediction in zip(batch.keys, predictions, strict=True)
        }
        return [
            (math.nan, failed[row.key]) if row.key in failed else self._checked(scored[row.key])
            for row in prepared
        ]

    def _checked(self, score: Any) -> tuple[float, str | None]:
        if not isinstance(score, float):
            raise ConfigError(
                f"--rerank: tasks.{self.name} has {len(score)} scores a passage, expected one"
            )
        return (score, None) if math.isfinite(score) else (math.nan, f"its score is {score}")


def rerank(
    reranker: Reranker, retriever: Retriever, query: Query, hits: Sequence[Hit]
) -> list[Hit]:
    """Return hits in the order of a second model's scores, which become theirs; the column
    `first_score` holds the search's. Those that cannot be scored come last, in their order, and are
    counted in a warning. Raise RuntimeFailure if none can be."""
    cells, reasons, opened = dict[int, Any](), dict[int, str](), dict[str, DataSpec]()
    for place, hit in enumerate(hits):
        try:
            cells[place] = retriever.cell(hit, opened)
        except (*UNREADABLE, RuntimeFailure) as error:
            reasons[place] = describe_error(error)
    results = reranker.scores(query.value, list(cells.values()))
    scores = dict[int, float]()
    for place, (score, reason) in zip(cells, results, strict=True):
        if reason is None:
            scores[place] = score
        else:
            reasons[place] = reason
    if reasons:
        first = f"{hits[min(reasons)].key}: {reasons[min(reasons)]}"
        if not scores:
            raise RuntimeFailure(f"--rerank: none of {len(hits)} passages has a score; {first}")
        logger.warning(
            "--rerank: %d of %d passages have no score and come last; %s",
            len(reasons),
            len(hits),
            first,
        )
    order = sorted(scores, key=lambda place: (-scores[place], place))
    ranked = [
        replace(hits[i], score=scores[i], row={**hits[i].row, FIRST_SCORE: hits[i].score})
        for i in order
    ]
    return [*ranked, *(hits[place] for place in sorted(reasons))]
