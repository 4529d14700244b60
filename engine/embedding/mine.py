"""Training pairs out of indexes: paraphrases, translations, hard negatives, and pairs to be kept.

Margins: Artetxe and Schwenk, "Margin-based Parallel Corpus Mining with Multilingual Sentence
Embeddings", 2019, as in LASER3. Consistency: "KaLM-Embedding", 2025.

Legend: `N`, `M` rows of two indexes, `k` neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..index import KEY, VECTOR, DenseRows, Index, exact_search
from ..utils import ConfigError, RuntimeFailure

QUERIES = 256
"""Rows that are compared with all others at a time."""

Pairs = list[tuple[int, int, float]]
"""Rows of the first and of the second side, and their score, the best first."""


@dataclass(frozen=True)
class MinedRows:
    """The rows of an index. texts: the cells of their stream. columns: of a column that rows are
    matched by, if one was named. vectors: `[N, D]`."""

    keys: list[str]
    texts: list[Any]
    columns: list[Any]
    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


def read_rows(index: Index, by: str | None = None) -> MinedRows:
    """Return the rows of an index of dense vectors. Raise ConfigError for another form, or a column
    that it lacks."""
    metadata = index.metadata
    if metadata.form != "dense":
        raise ConfigError(f"mine: reads dense vectors, found an index of {metadata.form} ones")
    names = [KEY, metadata.stream, VECTOR, *([by] if by not in (None, KEY) else [])]
    try:
        rows = list(index.where(None, list(dict.fromkeys(map(str, names)))))
    except RuntimeFailure as error:  # a column that the table does not have
        raise ConfigError(f"--by: the index has no column {by!r}") from error
    if not rows:
        raise ConfigError("mine: an index holds no row; embed some first")
    stored = np.array([row[VECTOR] for row in rows])
    stored = stored.astype(np.float32 if metadata.storage == "float32" else stored.dtype)
    if metadata.storage == "binary":
        stored = stored.astype(np.uint8)
    return MinedRows(
        [str(row[KEY]) for row in rows],
        [row.get(metadata.stream) for row in rows],
        [row[by] for row in rows] if by is not None else [],
        DenseRows(stored, metadata.storage).floats(),
    )


def neighbours(first: np.ndarray, second: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosines `[N, k]` of each row with the nearest of `[M, D]`, and their places."""
    block = (np.arange(len(second)), DenseRows(second))
    parts = [
        exact_search(first[start : start + QUERIES], [block], min(k, len(second)))
        for start in range(0, len(first), QUERIES)
    ]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def paraphrases(rows: MinedRows, k: int, threshold: float) -> Pairs:
    """Return pairs of different texts that are among each other's k nearest in either direction,
    with a cosine of the threshold or more."""
    cosines, places = neighbours(rows.vectors, rows.vectors, k + 1)
    pairs: dict[tuple[int, int], float] = {}
    for row, (values, others) in enumerate(zip(cosines, places, strict=True)):
        for value, other in zip(values.tolist(), others.tolist(), strict=True):
            same = other == row or rows.texts[other] == rows.texts[row]
            if not same and value >= threshold:
                pairs[min(row, other), max(row, other)] = value
    return _best_first([(a, b, score) for (a, b), score in pairs.items()])


def shared(rows: MinedRows) -> Pairs:
    """Return pairs of different texts whose rows share the value of the column: sentences of one
    translation are paraphrases (of aligned bitext)."""
    groups: dict[Any, list[int]] = {}
    for row, value in enumerate(rows.columns):
        if value is not None:
            groups.setdefault(value, []).append(row)
    pairs = [
        (a, b, float(rows.vectors[a] @ rows.vectors[b]))
        for members in groups.values()
        for i, a in enumerate(members)
        for b in members[i + 1 :]
        if rows.texts[a] != rows.texts[b]
    ]
    return _best_first(pairs)


def bitext(
    first: MinedRows,
    second: MinedRows,
    k: int,
    threshold: float,
    margin: Literal["ratio", "distance"] = "ratio",
) -> Pairs:
    """Return pairs of two sides by margin, each row once, the best first.

    The margin of x and y is their cosine divided by (or less) the mean of their cosines with their
    k nearest neighbours on the other side. Pairs are the best of either direction.
    """
    forth, forth_places = neighbours(first.vectors, second.vectors, k)
    back, back_places = neighbours(second.vectors, first.vectors, k)
    near, near_back = forth.mean(1), back.mean(1)

    def score(cosines: np.ndarray, means: np.ndarray) -> np.ndarray:
        return cosines / means if margin == "ratio" else cosines - means

    scores = score(forth, (near[:, None] + near_back[forth_places]) / 2)
    scores_back = score(back, (near_back[:, None] + near[back_places]) / 2)
    best, best_back = scores.argmax(1), scores_back.argmax(1)
    pairs = {(row, int(forth_places[row, i])): float(scores[row, i]) for row, i in enumerate(best)}
    pairs |= {
        (int(back_places[row, i]), row): float(scores_back[row, i])
        for row, i in enumerate(best_back)
    }
    used: tuple[set[int], set[int]] = set(), set()
    result: Pairs = []
    for a, b, value in _best_first([(a, b, value) for (a, b), value in pairs.items()]):
        if value >= threshold and a not in used[0] and b not in used[1]:
            result.append((a, b, value))
            used[0].add(a)
            used[1].add(b)
    return result


def matches(first: MinedRows, second: MinedRows) -> list[int | None]:
    """Return for each row the place of its positive on the other side: of equal value in the
    column, or else of equal key. Raise ConfigError if no row has one."""
    names = second.columns or second.keys
    places: dict[Any, int] = {}
    for place, name in enumerate(names):
        places.setdefault(name, place)
    result = [places.get(name) for name in (first.columns or first.keys)]
    if all(place is None for place in result):
        raise ConfigError(
            "mine: no row of the first index has a positive in the second one; name the column "
            "that both share with --by"
        )
    return result


def hard_negatives(
    first: MinedRows, second: MinedRows, k: int, skip: int = 0, margin: float = 0.0
) -> Iterator[tuple[int, int, list[int]]]:
    """Yield row, its positive, and its hard negatives: the k nearest rows of the other side, after
    the first `skip`, that are no positive of the row, and whose cosine is the positive's less
    `margin` at most."""
    positives = matches(first, second)
    depth = skip + k + max(10, k)
    cosines, places = neighbours(first.vectors, second.vectors, depth)
    for row, positive in enumerate(positives):
        if positive is None:
            continue
        own = float(first.vectors[row] @ second.vectors[positive])
        others = [
            other
            for value, other in zip(cosines[row].tolist(), places[row].tolist(), strict=True)
            if second.texts[other] != second.texts[positive]
            and not _same_name(second, other, positive)
            and value <= own - margin
        ]
        yield row, positive, others[skip : skip + k]


def consistent(first: MinedRows, second: MinedRows, k: int) -> Iterator[tuple[int, int, int]]:
    """Yield row, its positive, and the positive's rank among the other side's rows, for those whose
    positive is among the k nearest. Equal cosines count against it."""
    positives = matches(first, second)
    for start in range(0, len(first), QUERIES):
        block = first.vectors[start : start + QUERIES] @ second.vectors.T
        for row, cosines in enumerate(block, start):
            positive = positives[row]
            if positive is None:
                continue
            nearer = cosines >= cosines[positive]
            alike = [second.texts[i] == second.texts[positive] for i in np.flatnonzero(nearer)]
            rank = 1 + int(nearer.sum()) - sum(alike)
            if rank <= k:
                yield row, positive, rank


def _same_name(rows: MinedRows, first: int, second: int) -> bool:
    return bool(rows.columns) and rows.columns[first] == rows.columns[second]


def _best_first(pairs: Pairs) -> Pairs:
    return sorted(pairs, key=lambda pair: -pair[2])


def as_lines(
    pairs: Sequence[tuple[int, int, float]], first: MinedRows, second: MinedRows
) -> Iterator[Mapping[str, Any]]:
    """Yield pairs as rows of a data set: `first`, `second` and `score`."""
    for a, b, score in pairs:
        yield {"first": first.texts[a], "second": second.texts[b], "score": round(score, 6)}
