"""What parts are fitted on: examples of the rows of the training splits, each row checked first."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ...modalities.base import Source, StreamingSource
from ...modalities.messages import describe_error
from ...tasks.base import Row, Task
from ..data import FAILURES, TRAIN, cell_items, check_nulls, failure_line, readable
from ..recipe import ComponentSpec, ResolvedRecipe
from ..utils import ConfigError

STREAMED = 10_000
"""Rows of a streaming source that parts are fitted on."""

Examples = Callable[[Row], Iterable[Any]]


class FitExamples:
    """The examples that an argument of a part is fitted on: a task's rows, what tasks offer for a
    decoder, the raw values of every stream that the part encodes. Iterated once or more.

    A row that cannot be read, or that the part cannot learn from, is refused with its key; where
    the data have `on_error: skip` it is left out and noted in `plan.unfit_rows`.
    """

    def __init__(
        self,
        plan: ResolvedRecipe,
        sources: Mapping[str, Source],
        owner: ComponentSpec,
        argument: str,
    ) -> None:
        self.plan, self.sources, self.owner = plan, sources, owner
        self.where = owner.where / argument
        self.part = owner.fitted[argument]

    def __iter__(self) -> Iterator[Any]:
        for name, examples in self._makers():
            task, used, failed = self.plan.tasks[name].task, 0, []
            data = self.plan.recipe.tasks[name].data.get(TRAIN)
            skip = data is not None and data.on_error == "skip"
            for key, row in _rows(self.sources[name]):
                try:
                    checked = self._checked(task, row, examples)
                except FAILURES as error:
                    failed.append((name, key, describe_error(error)))
                    if not skip:
                        location = f"tasks.{name}.data.{TRAIN}"
                        raise ConfigError(failure_line(location, *failed[0][1:])) from error
                    continue
                used += 1
                yield from checked
            self.plan.unfit_rows.update({(name, key): reason for _, key, reason in failed})
            if failed and not used:
                raise ConfigError(
                    f"none of the {len(failed)} rows of tasks.{name}.data.{TRAIN} can be used; "
                    f"the first: {failed[0][1]}: {failed[0][2]}"
                )

    def _checked(self, task: Task, row: Row | Exception, examples: Examples) -> list[Any]:
        if isinstance(row, Exception):
            raise row
        row = readable(row, {*task.streams, *task.columns()})
        check_nulls(row, task)
        listed = list(examples(row))
        for example in listed:
            self.part.check_example(example)
        return listed

    def _makers(self) -> Iterator[tuple[str, Examples]]:
        """Yield the tasks whose rows are read, and what makes examples of one."""
        plan, where = self.plan, self.where
        if where.section == "tasks":
            task = plan.tasks[where.name].task
            yield where.name, lambda row: task.fit_examples(where.inside, row)
        if where.section == "decoders":
            for name, planned in plan.tasks.items():
                yield name, _of_decoder(planned.task, f"{where.name}.{where.inside}")
        for stream in plan.streams_of(self.owner):
            read = plan.streams[stream].reader()
            for name, planned in plan.tasks.items():
                if (use := planned.task.streams.get(stream)) is not None:
                    yield name, _of_stream(stream, read, plan.streams[stream].many(use))


def _of_decoder(task: Task, part: str) -> Examples:
    return lambda row: task.fit_examples(part, row)


def _of_stream(stream: str, read: Callable[[Any], Any], many: bool) -> Examples:
    return lambda row: map(read, cell_items(row[stream], many))


def _rows(source: Source) -> Iterator[tuple[str, Row | Exception]]:
    """Yield key and cells of each row; of one that cannot be read the error."""
    if isinstance(source, StreamingSource):
        for number, row in enumerate(itertools.islice(iter(source), STREAMED)):
            yield source.key(number), row
        return
    for index in range(len(source)):
        try:
            yield source.key(index), source[index]
        except FAILURES as error:
            yield source.key(index), error
