"""`data.train.holdout`: rows kept out of training, in whole groups.

A group is rows that a source keeps together (an episode, a speaker, a subject), or the rows of
one value of the column that the recipe names: their rows are too much alike to lie on both sides.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from ...modalities.base import Source, Unreadable
from ...modalities.messages import did_you_mean
from ..recipe import Holdout
from ..utils import ConfigError, derive_seed
from .row_errors import FAILURES
from .wrappers import Subset, column_names


def hold_out(source: Source, holdout: Holdout, where: str, *, skip: bool) -> tuple[Source, Source]:
    """Return the rows that are trained on, and those that are held out.

    skip: rows whose group cannot be read stay in training, where they fail and are counted; else
    they are refused. Raise ConfigError if one side would be empty.
    """
    groups, faults = _groups(source, holdout.by, where)
    if faults and not skip:
        index = min(faults)
        raise ConfigError(f"{where}.by, row {source.key(index)}: {faults[index]}")
    numbers: dict[Hashable, int] = {}
    group_of = np.array([numbers.setdefault(g, len(numbers)) for g in groups])
    count, unit = len(numbers), "rows" if holdout.by is None and not source.groups else "groups"
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
