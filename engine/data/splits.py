"""The rows of a recipe's tasks: sources opened, columns checked, a part held out.

A row that cannot be read is reported with its key; `on_error: skip` counts it and goes on.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...modalities.base import Source, StreamingSource
from ...modalities.messages import did_you_mean
from ...modalities.paths import FileLister, cell_files
from ...tasks.base import Task
from ..recipe import DataSection, ResolvedRecipe, find
from ..recipe.validation import arguments, validate_options
from ..utils import ConfigError, derive_seed, located_errors
from .windows import Windows
from .wrappers import limit, rename

TRAIN, VALIDATION = "train", "validation"


class Subset(Source):
    """Some rows of another source, in the order given."""

    def __init__(self, source: Source, rows: np.ndarray) -> None:
        self.source, self.rows = source, rows
        self.columns = source.columns

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[int(self.rows[index])]

    def key(self, index: int) -> str:
        return self.source.key(int(self.rows[index]))

    def identity(self, index: int, column: str, files: FileLister = cell_files) -> str:
        return self.source.identity(int(self.rows[index]), column, files)

    def fingerprint(self) -> str:
        return f"{self.source.fingerprint()}[{derive_seed(0, *self.rows.tolist()):x}]"


def open_section(section: DataSection, where: str) -> Source:
    """The source of one data section: its columns renamed, then windows, then a limit."""
    part = find("source", section.source, f"{where}.source")
    options = validate_options(part, section.options, where)
    with located_errors(where, {"columns", "delta_frames", *arguments(part)}):
        source: Source = part(**options)
        if section.columns:
            source = rename(source, section.columns)
        if section.delta_frames:
            source = Windows(source, section.delta_frames)
        if section.limit is not None:
            source = limit(source, section.limit)
    return source


def load_split(plan: ResolvedRecipe, task: str, split: str) -> Source:
    """The rows of a task's split, as its recipe names it.

    `validation` may also be what `holdout` keeps of the training split; the training split
    is then the rest. Raises RecipeError where the split or one of its columns is missing.
    """
    sections = plan.recipe.tasks[task].data
    held = sections[TRAIN].holdout if TRAIN in sections else 0.0
    name = TRAIN if split == VALIDATION and VALIDATION not in sections and held else split
    if name not in sections:
        cure = " (or data.train.holdout: 0.1)" if split == VALIDATION else ""
        raise ConfigError(
            f"tasks.{task}.data: has no split {split!r}{did_you_mean(split, sections)}{cure}"
        )
    where = f"tasks.{task}.data.{name}"
    source = open_section(sections[name], where)
    check_columns(source, plan.tasks[task].task, where)
    _check_windows(plan.tasks[task].task, sections, name, where)
    by = plan.recipe.train.sampler.column
    if name == TRAIN and by is not None:
        _check_by(by, _columns(source), task)
    if isinstance(source, StreamingSource):
        if held:
            raise ConfigError(f"{where}.holdout: a stream cannot be parted; give it a `limit`")
        return source
    if name == TRAIN and held:
        source = Subset(source, _holdout_indices(source, held, split == VALIDATION, where))
    if len(source) == 0:
        raise ConfigError(f"{where}: holds no row")
    return source


def _check_windows(task: Task, sections: Mapping[str, DataSection], split: str, where: str) -> None:
    """Raise ConfigError if a split's windows do not fit the task, or differ from those of the
    training split in a column that the task reads."""
    windows = sections[split].delta_frames
    with located_errors(f"{where}.delta_frames", windows):
        task.check_windows(windows)
    trained = sections[TRAIN].delta_frames if TRAIN in sections else {}
    for name in {*task.streams, *task.columns()} & windows.keys() & trained.keys():
        if windows[name] != trained[name]:
            raise ConfigError(
                f"{where}.delta_frames.{name}: found {list(windows[name])}, the training split has "
                f"{list(trained[name])}; give all splits the same window"
            )


def _holdout_indices(source: Source, held: float, kept: bool, where: str) -> np.ndarray:
    """The rows that are held out, or (not `kept`) the rest, in order. Of a source of episodes
    whole episodes are: the frames of one are too much alike to lie on both sides."""
    groups = list(source.episodes)
    count = len(groups) or len(source)
    order = np.random.default_rng(derive_seed(0, "holdout")).permutation(count)
    cut = round(count * held)
    if groups and not 0 < cut < count:
        raise ConfigError(
            f"{where}.holdout: {held} of {count} episodes is {cut}; whole episodes are held out, "
            "and one at least must be on each side"
        )
    chosen = order[:cut] if kept else order[cut:]
    rows = np.concatenate([np.asarray(groups[i]) for i in chosen]) if groups else chosen
    return np.sort(rows)


def splits(plan: ResolvedRecipe, task: str) -> list[str]:
    """The splits that a task can be evaluated on: all but those that training has seen."""
    return [s for s in plan.recipe.tasks[task].data if s not in (TRAIN, VALIDATION)]


def check_columns(source: Source, task: Task, where: str) -> None:
    known = _columns(source)
    for column in (*task.streams, *task.columns()):
        if column not in known:
            raise ConfigError(
                f"{where}: has no column {column!r}{did_you_mean(column, known)}; "
                f"map one with columns: {{{column}: its name}}"
            )


def _check_by(by: str, known: tuple[str, ...], task: str) -> None:
    if by not in known:
        raise ConfigError(
            f"train.sampler.column: the training split of tasks.{task} has no column {by!r}"
            f"{did_you_mean(by, known)}"
        )


def _columns(source: Source) -> tuple[str, ...]:
    return source.columns or tuple(source[0])


class SkippedRows:
    """Rows that could not be read, by what was wrong: counted, never silent."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, key: str, reason: str) -> bool:
        """True the first time that this row is reported."""
        with self._lock:
            new = key not in self.reasons
            self.reasons[key] = reason
        return new

    def __len__(self) -> int:
        return len(self.reasons)

    def summary(self) -> str:
        counts = Counter(reason.partition(";")[0] for reason in self.reasons.values())
        listed = ", ".join(f"{n} x {reason}" for reason, n in counts.most_common(5))
        return f"{len(self)} rows could not be read and were skipped: {listed}"
