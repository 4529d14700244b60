"""Tables of no row, one row and few rows, in every form; and their columns in conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.engine.index import Index, create_index
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.index.index_rows import ABOUT, entries, keys, unit


def sparse(rows: int) -> list[Any]:
    """The coordinates above zero of unit vectors."""
    return [(np.flatnonzero(v > 0).astype(np.int32), v[v > 0]) for v in unit(rows)]


FORMS: dict[str, Callable[[int], Any]] = {
    "dense": unit,
    "sparse": sparse,
    "multi_vector": lambda rows: [unit(2, seed=i) for i in range(rows)],
}
EMPTY: dict[str, Any] = {
    "sparse": (np.empty(0, np.int32), np.empty(0, np.float32)),
    "multi_vector": np.empty((0, 16), np.float32),
}
"""What an empty text may become: no entry, no token."""


def filled(folder: Path, form: Any, rows: int) -> Index:
    index = create_index(str(folder / "index"), replace(ABOUT, form=form))
    ages = list(range(rows))
    names = [f"O'Brien {i}" for i in ages]
    columns: Any = {"Age": ages, "two words": names, "select": ages}
    index.add(entries(FORMS[form](rows), **columns) if rows else [])
    return index


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_few_rows(tmp_path: Path, form: str, rows: int) -> None:
    index = filled(tmp_path, form, rows)
    queries = FORMS[form](3)
    assert [len(hits) for hits in index.search(queries, 100)] == [rows] * 3
    assert [len(hits) for hits in index.search(queries, 100, where="key = 'row-0'")] == (
        [min(rows, 1)] * 3
    )
    assert index.count() == len(index.identities()) == rows
    for each in range(min(rows, 3)):
        assert keys(index.search(queries, 1))[each] == [f"row-{each}"]


@pytest.mark.parametrize("form", FORMS)
def test_columns_of_any_name(tmp_path: Path, form: str) -> None:
    """In mixed case, with a space, and a word of SQL; a misspelt one is named."""
    index = filled(tmp_path, form, 5)
    query = FORMS[form](1)
    for where, expected in {
        "`Age` > 2": {"row-3", "row-4"},
        "`two words` = 'O''Brien 1'": {"row-1"},
        "`select` < 2 AND `Age` > 0": {"row-1"},
        "`Age` > 9": set(),
    }.items():
        assert set(keys(index.search(query, 10, where=where))[0]) == expected
        assert index.count(where) == len(expected)
    with pytest.raises(ConfigError, match="--where: there is no column"):
        index.search(query, 1, where="Agee > 2")


@pytest.mark.parametrize("form", EMPTY)
def test_rows_and_queries_without_an_entry(tmp_path: Path, form: str) -> None:
    """They have the score 0, and come after those with a positive one."""
    index = filled(tmp_path, form, 3)
    (late,) = entries(np.zeros((1, 16), np.float32), 3)
    index.add([replace(late, vector=EMPTY[form])])
    (hits,) = index.search(FORMS[form](1), 10)
    assert len(hits) == 4
    assert [hit.score for hit in hits if hit.key == "row-3"] == [0.0]
    (nothing,) = index.search([EMPTY[form]], 10)
    assert len(nothing) == 4 and {hit.score for hit in nothing} == {0.0}
