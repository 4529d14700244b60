"""The contract of a source of rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..engine.recipe.validation import validate_options
from ..modalities.base import ReadError, Source, StreamingSource
from .common import checking, copy_for_worker, expect, same

ROWS = 8
"""Rows that are looked at, from the beginning and the end."""


def check_source(make: Callable[..., Source], **options: Any) -> None:
    """Check a source against the contract of `modalities.base.Source`.

    Args:
        make: the class, or a function that returns a source; called twice.
        options: those of the recipe's data section.

    Raises:
        AssertionError: one line, what is violated.
    """
    name = getattr(make, "__name__", type(make).__name__)
    with checking(name, "options"):
        first, second = (make(**validate_options(make, options, name)) for _ in range(2))
        expect(isinstance(first, Source), f"is {type(first).__name__}, no modalities.base.Source")
    name = type(first).__name__
    with checking(name, "columns"):
        columns = first.columns
        texts = isinstance(columns, tuple) and all(isinstance(c, str) for c in columns)
        expect(texts, f"columns are {columns!r}, expected a tuple of texts")
        expect(len(set(columns)) == len(columns), f"a column is there twice: {columns}")
    with checking(name, "fingerprint"):
        prints = first.fingerprint(), second.fingerprint()
        expect(isinstance(prints[0], str) and prints[0], f"is {prints[0]!r}, expected a text")
        expect(prints[0] == prints[1], f"two equal sources have two: {prints[0]}, {prints[1]}")
    if isinstance(first, StreamingSource) and isinstance(second, StreamingSource):
        _check_stream(first, second, name)
    else:
        _check_rows(first, second, name)
    with checking(name, "in a worker"):
        copy = copy_for_worker(first)
        expect(copy.fingerprint() == prints[0], "its copy has another fingerprint")
        expect(same(_first(copy), _first(first)), "its copy has another first row")


def _first(source: Source) -> dict[str, Any]:
    return next(iter(source)) if isinstance(source, StreamingSource) else source[0]


def _check_stream(first: StreamingSource, second: StreamingSource, name: str) -> None:
    with checking(name, "iteration"):
        rows = list(itertools.islice(iter(first), ROWS))
        expect(rows, "has no row")
        for row in rows:
            _check_row(row, first.columns)
        again = list(itertools.islice(iter(first), ROWS))
        expect(same(rows, again), "a second iteration yields other rows")
        other = list(itertools.islice(iter(second), ROWS))
        expect(same(rows, other), "an equal source yields other rows")
        _check_names([first.key(i) for i in range(len(rows))], "key")
    with checking(name, "length"):
        try:
            length = len(first)
        except TypeError:
            return
        raise AssertionError(f"a stream has the length {length}, expected TypeError")


def _check_rows(first: Source, second: Source, name: str) -> None:
    with checking(name, "length"):
        count = len(first)
        expect(count > 0, "has no row")
        expect(len(second) == count, f"equal sources have {count} and {len(second)} rows")
    indices = sorted({*range(min(ROWS, count)), *range(max(0, count - ROWS), count)})
    with checking(name, "rows"):
        rows = [first[i] for i in indices]
        for row in rows:
            _check_row(row, first.columns or tuple(rows[0]))
        backwards = [second[i] for i in reversed(indices)]
        expect(same(rows, backwards[::-1]), "a row depends on the rows read before it")
        try:
            first[count]
        except IndexError:
            pass
        else:
            raise AssertionError(f"row {count} of {count} is there, expected IndexError")
    with checking(name, "key and identity"):
        _check_names([first.key(i) for i in indices], "key")
        for column in first.columns or tuple(rows[0]):
            names = [first.cell_key(i, column) for i in indices]
            _check_names(names, f"identity of {column}", repeat=True)
            other_names = [second.cell_key(i, column) for i in indices]
            expect(names == other_names, f"equal sources name cells of {column} differently")
    with checking(name, "episodes"):
        _check_episodes(first.episodes, count)
    with checking(name, "column_array"):
        for column in rows[0]:
            _check_array(first, column, [first[i][column] for i in range(min(ROWS, count))])


def _check_row(row: Any, columns: Sequence[str]) -> None:
    expect(isinstance(row, dict), f"a row is {type(row).__name__}, expected dict")
    lacking = [column for column in columns if column not in row]
    expect(not lacking, f"a row lacks the columns {', '.join(lacking)}")


def _check_names(names: Sequence[Any], label: str, repeat: bool = False) -> None:
    wrong = [name for name in names if not (isinstance(name, str) and name)]
    expect(not wrong, f"{label} is {wrong[:1]}, expected a text")
    expect(repeat or len(set(names)) == len(names), f"{label} is not unique: {names[:3]}")


def _check_episodes(episodes: Sequence[range], count: int) -> None:
    end = 0
    for episode in episodes:
        expect(isinstance(episode, range), f"an episode is {type(episode).__name__}, no range")
        inside = end <= episode.start < episode.stop <= count
        expect(inside, f"{episode} overlaps another one, or lies outside {count} rows")
        end = episode.stop


def _check_array(source: Source, column: str, cells: list[Any]) -> None:
    """A column of numbers of one shape is an array, equal to its cells."""
    try:
        stacked = np.stack([np.asarray(cell) for cell in cells])
    except ValueError:
        return
    if stacked.dtype.kind not in "biuf":
        return
    try:
        values = source.column_array(column)
    except (ValueError, ReadError):
        return  # cells further on differ in shape
    shape = (len(source), *stacked.shape[1:])
    expect(values.shape == shape, f"array({column!r}) has the shape {values.shape}, not {shape}")
    expect(same(values[: len(stacked)], stacked), f"array({column!r}) differs from the cells")
