"""The rows of a recipe's tasks: sources opened, columns checked, a part held out.

A row that cannot be read is reported with its key; `on_error: skip` counts it and continues.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from ...modalities.base import Source, StreamingSource
from ...modalities.messages import did_you_mean
from ...tasks.base import Task
from ...tasks.batch import Batch
from ..recipe import DataSection, ResolvedRecipe, find
from ..recipe.validation import arguments, validate_options
from ..utils import ConfigError, located_errors
from .holdout import hold_out
from .where import filter_rows, filtered, split_errors
from .windows import Windows
from .wrappers import Subset, column_names, limit, rename

TRAIN, VALIDATION = "train", "validation"


def open_section(section: DataSection, where: str, *, refuse_faults: bool = True) -> Source:
    """Return the source of one data section: its columns renamed, windows, its rows chosen, a
    limit.

    refuse_faults: raise ConfigError for the first row that is known to be unreadable, unless the
    section has `on_error: skip`. Files that belong to no row are counted in a warning.
    """
    part = find("source", section.source, f"{where}.source")
    split = section.options.get("split")
    keys = {"columns", "delta_frames", "where", *arguments(part)}
    with split_errors(split), located_errors(where, keys):
        options = validate_options(part, section.options, where)
        source: Source = part(**options)
        if section.columns:
            source = rename(source, section.columns)
        source = _choose(source, section)
        if section.limit is not None:
            source = limit(source, section.limit)
    if source.ignored:
        warnings.warn(f"{where}: {ignored_line(source)}", stacklevel=2)
    if refuse_faults and section.on_error != "skip" and source.faults:
        index = min(source.faults)
        raise ConfigError(failure_line(where, source.key(index), source.faults[index]))
    return source


def _choose(source: Source, section: DataSection) -> Source:
    """Return the source with its windows, and the rows that `where` chooses. Conditions are of the
    row's own frame; windows reach into rows that are not chosen."""
    if not section.where:
        return Windows(source, section.delta_frames) if section.delta_frames else source
    if isinstance(source, StreamingSource) or not section.delta_frames:
        source = filtered(source, section.where)
        return Windows(source, section.delta_frames) if section.delta_frames else source
    rows, faults = filter_rows(source, section.where)
    return Subset(Windows(source, section.delta_frames), rows, faults)


def ignored_line(source: Source) -> str:
    """Return how many files belong to no row, and the first of them, in one line."""
    names = [f"{name} ({reason})" for name, reason in itertools.islice(source.ignored.items(), 3)]
    unlisted = len(source.ignored) - len(names)
    listed = ", ".join(names) + (f" and {unlisted} more" if unlisted else "")
    return f"{len(source.ignored)} files belong to no row: {listed}"


def load_split(
    plan: ResolvedRecipe, task: str, split: str, *, refuse_faults: bool = True
) -> Source:
    """Return the rows of a task's split, as its recipe names it.

    `validation` may also be what `holdout` keeps of the training split; the training split
    is then the rest. Raise ConfigError where the split or one of its columns is missing.
    """
    sections = plan.recipe.tasks[task].data
    holdout = sections[TRAIN].held_out if TRAIN in sections else None
    name = TRAIN if split == VALIDATION and VALIDATION not in sections and holdout else split
    if name not in sections:
        cure = " (or data.train.holdout: 0.1)" if split == VALIDATION else ""
        raise ConfigError(
            f"tasks.{task}.data: has no split {split!r}{did_you_mean(split, sections)}{cure}"
        )
    where = f"tasks.{task}.data.{name}"
    source = open_section(sections[name], where, refuse_faults=refuse_faults)
    with split_errors(sections[name].options.get("split")):  # of a source that opens its files here
        check_columns(source, plan.tasks[task].task, where, training=split == TRAIN)
    streams = plan.tasks[task].task.read_streams(split == TRAIN)
    check_segments(plan, streams, source, sections[name], where)
    _check_windows(plan.tasks[task].task, sections, name, where, source)
    by = plan.recipe.train.sampler.column
    if name == TRAIN and by is not None:
        _check_by(by, column_names(source), task)
    if isinstance(source, StreamingSource):
        if name == TRAIN and holdout:
            raise ConfigError(f"{where}.holdout: a stream cannot be parted; give it a `limit`")
        return source
    if name == TRAIN and holdout:
        skip = sections[TRAIN].on_error == "skip"
        inputs = plan.tasks[task].task.inputs()
        splits = hold_out(source, holdout, f"{where}.holdout", skip=skip, streams=inputs)
        source = splits[split == VALIDATION]
    if len(source) == 0:
        raise ConfigError(f"{where}: holds no row")
    return source


def count_rows(source: Source) -> str:
    """Return how many rows a split has, in words."""
    return "a stream" if isinstance(source, StreamingSource) else f"{len(source):,} rows"


def _check_windows(
    task: Task, sections: Mapping[str, DataSection], split: str, where: str, source: Source
) -> None:
    """Raise ConfigError if a split's windows do not fit the task, or differ from those of the
    training split in a column that the task reads. A split whose rows are no frames may hold
    windows in its cells."""
    windows = sections[split].delta_frames
    with located_errors(f"{where}.delta_frames", windows):
        task.check_windows(windows)
    trained = sections[TRAIN].delta_frames if TRAIN in sections else {}
    if TRAIN not in sections or isinstance(source, StreamingSource) or not source.episodes:
        return
    for name in sorted({*task.streams, *task.columns()} & (windows.keys() | trained.keys())):
        if windows.get(name) != trained.get(name):
            here, there = (
                "nothing" if span is None else list(span)
                for span in (windows.get(name), trained.get(name))
            )
            raise ConfigError(
                f"{where}.delta_frames.{name}: found {here}, the training split has {there}; give "
                "all splits the same window"
            )


def splits(plan: ResolvedRecipe, task: str) -> list[str]:
    """Return the splits that a task can be evaluated on: all but those that training has seen."""
    return [s for s in plan.recipe.tasks[task].data if s not in (TRAIN, VALIDATION)]


def failure_line(where: str, key: str, reason: str) -> str:
    """Return the message of a row that cannot be read and may not be skipped."""
    return f"{where}, row {key}: {reason} (data.*.on_error: skip continues without it)"


def check_columns(source: Source, task: Task, where: str, training: bool) -> None:
    """Raise ConfigError if rows lack a column that the task reads, of training rows or others."""
    columns = column_names(source)
    extra = task.training_columns() if training else ()
    for column in (*task.read_streams(training), *task.columns(), *extra):
        if column not in columns:
            raise ConfigError(
                f"{where}: has no column {column!r}{did_you_mean(column, columns)}; "
                f"map one with columns: {{{column}: its name}}"
            )


def check_segments(
    plan: ResolvedRecipe, streams: Iterable[str], source: Source, section: DataSection, where: str
) -> None:
    """Raise ConfigError where rows are of parts of files, by columns that no cell of a stream
    holds."""
    columns = column_names(source)
    for stream in streams:
        name = section.columns.get(stream, stream)
        if not isinstance(name, str):
            continue
        for group in plan.streams[stream].modality.segment_columns:
            if set(group) <= set(columns):
                more = [key for key in ("duration",) if key in columns and len(group) == 1]
                keys = ", ".join(f"{key}: {key}" for key in (*group, *more))
                raise ConfigError(
                    f"{where}: its column{'s' * (len(group) > 1)} {' and '.join(group)} would be "
                    f"ignored beside {name}; set columns: {{{stream}: {{path: {name}, {keys}}}}}, "
                    f"or {{path: {name}}} alone for whole files"
                )


def _check_by(by: str, columns: tuple[str, ...], task: str) -> None:
    if by not in columns:
        raise ConfigError(
            f"train.sampler.column: the training split of tasks.{task} has no column {by!r}"
            f"{did_you_mean(by, columns)}"
        )


class SkippedRows:
    """Rows that could not be read, by their error: counted, never silent. cut: names of rows with a
    text that was cut."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.cut: set[str] = set()
        self._lock = threading.Lock()

    def add(self, key: str, reason: str) -> bool:
        """Return True the first time that this row is reported."""
        with self._lock:
            new = key not in self.reasons
            self.reasons[key] = reason
        return new

    def __len__(self) -> int:
        return len(self.reasons)

    def add_cut(self, batch: Batch) -> None:
        """Remember the rows of a batch with a text that was cut, in whatever process that was."""
        self.cut.update(f"{batch.task} {key}" for key in batch.cut)

    def lines(self, gather: Callable[[list[str]], list[str]]) -> list[str]:
        """Return a line about the rows that were skipped, and one about the texts that were cut, of
        all processes. gather: joins the lists of the processes."""
        return [*([self.summary()] if len(self) else []), *self.cut_lines(gather)]

    def cut_lines(self, gather: Callable[[list[str]], list[str]]) -> list[str]:
        """Return a line about the texts that were cut, if there are any."""
        cut = sorted(set(gather(sorted(self.cut))))
        return cut and [
            f"text: {len(cut):,} rows have a text that is longer than its encoder takes and was "
            f"cut, {cut[0]} among them"
        ]

    def summary(self) -> str:
        counts = Counter(reason.partition(";")[0] for reason in self.reasons.values())
        listed = ", ".join(f"{n} x {reason}" for reason, n in counts.most_common(5))
        return f"{len(self)} rows could not be read and were skipped: {listed}"
