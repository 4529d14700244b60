"""One page of rows as a recipe's tasks see them, before anything is trained."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ...modalities.base import StreamingSource
from ...modalities.messages import shorten
from ..data import FAILURES, cell_items, count_rows, load_split
from ..recipe import Recipe, ResolvedRecipe, load, plan_recipe
from ..utils import ConfigError, write_page
from .previews import preview

SHOWN = 160
"""Characters of a cell."""


@dataclass
class LookRow:
    """A row of the page: each stream as its modality shows it, the other cells as text."""

    key: str
    streams: list[tuple[str, Markup]] = field(default_factory=list)
    cells: dict[str, str] = field(default_factory=dict)
    failure: str | None = None


def write_look(recipe: Recipe, path: Path, *, rows: int = 12, split: str | None = None) -> Path:
    """Write a page with the first rows of each task's splits, and return its path.

    A stream is shown as its modality previews it, a mask on its volume; a row that cannot be read
    names the reason. rows: of each split. split: that one alone. Raise ConfigError if there is
    none.
    """
    plan = plan_recipe(recipe)
    chosen = [
        (task, name)
        for task in plan.tasks
        for name in recipe.tasks[task].data
        if split is None or name == split
    ]
    if not chosen:
        missing = f"no split {split!r}" if split else "no data section"
        raise ConfigError(f"look: the recipe has {missing}")
    sections = []
    for task, name in chosen:
        source = load_split(plan, task, name, refuse_faults=False)
        title = f"{task}: {name}, {count_rows(source)}"
        sections.append((title, list(itertools.islice(_rows(plan, task, source), rows))))
    return write_page(path, "look.html.j2", title="Data", sections=sections)


def _rows(plan: ResolvedRecipe, task: str, source: Any) -> Iterator[LookRow]:
    streaming = isinstance(source, StreamingSource)
    for index, cells in enumerate(source) if streaming else ((i, None) for i in range(len(source))):
        row = LookRow(source.key(index))
        try:
            cells = source[index] if cells is None else cells
            names = plan.tasks[task].task.streams
            row.cells = {k: cell_text(v) for k, v in cells.items() if k not in names}
            row.streams = list(_streams(plan, task, cells))
        except FAILURES as error:
            row.failure = shorten(str(error))
        yield row


def cell_text(cell: Any) -> str:
    """Return a cell as a short text; of what is no plain value its type."""
    if isinstance(cell, Mapping):
        return shorten(
            ", ".join(f"{key}: {cell_text(value)}" for key, value in cell.items()), SHOWN
        )
    if isinstance(cell, (list, tuple)):
        return shorten("; ".join(map(cell_text, cell)), SHOWN)
    plain = cell is None or isinstance(cell, (str, int, float, bool, np.generic, Path))
    return shorten(str(cell), SHOWN) if plain else f"({type(cell).__name__})"


def _streams(plan: ResolvedRecipe, task: str, cells: Any) -> Iterator[tuple[str, Markup]]:
    uses = plan.tasks[task].task.streams
    modalities = {name: plan.streams[name].modality for name in uses}
    raw = {
        name: [
            load(modalities[name].read)(cell)
            for cell in cell_items(cells[name], plan.streams[name].many(use))
        ]
        for name, use in uses.items()
    }
    drawn_on = {
        name: mark
        for name, use in uses.items()
        if use.role == "label" and (mark := modalities[name].annotation)
    }
    marks = {mark: (None, raw[name][0]) for name, mark in drawn_on.items()}
    for name in uses:
        if name not in drawn_on:
            for value in raw[name]:
                yield name, preview(modalities[name], value, marks, cells, uses)
