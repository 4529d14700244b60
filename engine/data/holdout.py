"""`data.train.holdout`: rows kept out of training, in whole groups.

A group is rows that a source keeps together (an episode, a speaker, a subject), or the rows of
one value of the column that the recipe names: their rows are too much alike to lie on both sides.
Without such a column, rows whose cells name the same file (several captions of a picture, questions
about a volume) are of one group too.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from ...modalities.base import Source, Unreadable
from ...modalities.messages import did_you_mean
from ...modalities.paths import cell_paths, map_paths
from ..recipe import Holdout
from ..utils import ConfigError, derive_seed
from .row_errors import FAILURES
from .wrappers import Subset, column_names

PROBED = 16
"""Rows of which it is tried whether a column names files."""


def hold_out(
    source: Source, holdout: Holdout, where: str, *, skip: bool, streams: Iterable[str] = ()
) -> tuple[Source, Source]:
    """Return the rows that are trained on, and those that are held out.

    streams: columns whose cells may name files. skip: rows whose group cannot be read stay in
    training, where they fail and are counted; else they are refused. Raise ConfigError if one side
    would be empty.
    """
    groups, faults = _groups(source, holdout.by, where)
    if holdout.by is None:
        groups, grouped = _joined(groups, _files_of(source, streams))
    else:
        grouped = True
    if faults and not skip:
        index = min(faults)
        raise ConfigError(f"{where}.by, row {source.key(index)}: {faults[index]}")
    numbers: dict[Hashable, int] = {}
    group_of = np.array([numbers.setdefault(g, len(numbers)) for g in groups])
    is_grouped = grouped or bool(source.groups)
    count, unit = len(numbers), "groups" if is_grouped else "rows"
    order = np.random.default_rng(derive_seed(0, "holdout")).permutation(count)
    held_out = round(count * holdout.share)
    if unit == "groups" and not 0 < held_out < count:
        raise ConfigError(
            f"{where}: {holdout.share} of {count} groups is {held_out}; whole groups (episodes, "
            "speakers, subjects) are held out, and one at least must be on each side"
        )
    chosen = np.isin(group_of, order[:held_out])
    chosen[list(faults)] = False
    rows = np.arange(len(source))
    return Subset(source, rows[~chosen], faults), Subset(source, rows[chosen])


def _groups(
    source: Source, column: str | None, where: str
) -> tuple[Sequence[Hashable], dict[int, str]]:
    """Return the group of each row, and why some have none."""
    if column is None:
        groups = source.groups
        return [_group_key(g) for g in groups] if groups else range(len(source)), {}
    columns = column_names(source)
    if column not in columns:
        raise ConfigError(
            f"{where}.by: there is no column {column!r}{did_you_mean(column, columns)}"
        )
    values: list[Hashable] = []
    faults: dict[int, str] = {}
    for index in range(len(source)):
        value: Any = None
        try:
            value = source.cell(index, column)
            if value is None or isinstance(value, Unreadable):
                faults[index] = f"column {column!r} is null, so that its group is not known"
        except FAILURES as error:
            faults[index] = source.faults.get(index, str(error))
        values.append(("no group", index) if index in faults else _group_key(value))
    return values, faults


def _files_of(source: Source, streams: Iterable[str]) -> list[Sequence[Hashable]]:
    """Return, for each stream whose cells name files, what each row's cell is; a row whose cell
    names none is alone."""
    listed: list[Sequence[Hashable]] = []
    for stream in streams:
        cells = [source.named_cell(i, stream) for i in range(min(PROBED, len(source)))]
        if any(cell_paths(cell) for cell in cells):
            named = ((i, source.named_cell(i, stream)) for i in range(len(source)))
            listed.append([_describe(c) if cell_paths(c) else ("alone", i) for i, c in named])
    return listed


def _describe(cell: Any) -> Hashable:
    return repr(map_paths(cell, os.path.realpath))


def _joined(
    groups: Sequence[Hashable], others: Sequence[Sequence[Hashable]]
) -> tuple[Sequence[Hashable], bool]:
    """Return groups of rows that agree in the groups or in one of the others, directly or by way
    of further rows, and whether any were joined."""
    first: dict[Hashable, Hashable] = {}
    parent: dict[Hashable, Hashable] = {}

    def root(group: Hashable) -> Hashable:
        while parent.get(group, group) != group:
            group = parent[group]
        return group

    joined = False
    for number, values in enumerate(others):
        for group, value in zip(groups, values, strict=True):
            before = root(first.setdefault((number, value), group))
            if before != root(group):
                parent[root(group)] = before
                joined = True
    return ([root(group) for group in groups] if joined else groups), joined


def _group_key(value: Any) -> Hashable:
    """Return what two rows of one group have in common. Spellings that people and programs mix are
    one: `P01` and `p01 `, 7, `7` and 7.0, composed and decomposed accents. Two groups taken for one
    cost a few rows; one group taken for two would lie on both sides."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (int, float, str)):
        text = unicodedata.normalize("NFKC", str(value)).casefold()
        return " ".join(text.split())
    return value if isinstance(value, Hashable) else repr(value)
