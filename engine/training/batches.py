"""The rows that a recipe is trained and validated on, and their batches in the order of steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping

from accelerate import Accelerator

from ...modalities.base import Source, StreamingSource, Unreadable
from ...tasks.batch import Batch
from ..data import (
    FAILURES,
    TRAIN,
    VALIDATION,
    BatchSampler,
    Layout,
    ShuffleBuffer,
    TaskDataset,
    batches,
    count_rows,
    ignored_line,
    load_split,
    task_dataset,
)
from ..model import Model
from ..recipe import Recipe, SamplerSection, Train, stage_recipes
from ..utils import ConfigError
from .dry_run import check_one

Datasets = dict[str, TaskDataset]


def open_data(
    model: Model, settings: Train, log: Callable[[str], None] = lambda line: None
) -> tuple[Datasets, Datasets]:
    """Return the rows of each task to train on, and those to validate on if the recipe does. say:
    called with the number of rows of each split."""
    plan, encoders = model.plan, model.encoders()
    training: Datasets = {}
    held_out: Datasets = {}
    for name in plan.tasks:
        source = _indexed(load_split(plan, name, TRAIN), settings)
        training[name] = task_dataset(plan, encoders, name, source, training=True, augment=True)
        if settings.validate_ is not None:
            held_out[name] = task_dataset(plan, encoders, name, load_split(plan, name, VALIDATION))
    for split, datasets in ((TRAIN, training), (VALIDATION, held_out)):
        for name, rows in datasets.items():
            log(f"tasks.{name}.data.{split}: {count_rows(rows.source)}")
    for line in rows_of_both_sides(training, held_out):
        log(line)
    return training, held_out


def rows_of_both_sides(training: Datasets, held_out: Datasets) -> Iterator[str]:
    """Yield a line for each pair of tasks of which one trains on inputs that the other holds out:
    the score of the second is then not that of unseen inputs."""
    for (name, held), (other, rows) in itertools.product(held_out.items(), training.items()):
        shared = held.task.inputs() if name != other else ()
        for stream in set(shared) & set(rows.task.inputs()):
            if isinstance(rows.source, ShuffleBuffer) or isinstance(held.source, StreamingSource):
                continue
            unseen = {key for i in range(len(held)) for key in held.item_keys(stream, i)}
            seen = sum(bool(unseen & set(rows.item_keys(stream, i))) for i in range(len(rows)))
            if seen:
                yield (
                    f"tasks.{other}.data.train: {seen:,} of its rows have a {stream} that "
                    f"tasks.{name} is validated on; hold out the same rows of both (the same "
                    "holdout, where and limit, or files of their own)"
                )


def training_batches(
    model: Model,
    datasets: Mapping[str, TaskDataset],
    settings: Train,
    accelerator: Accelerator,
    step: int,
    layout: Layout | None = None,
) -> Iterator[Batch]:
    """Yield this process's batches from an optimizer step on, without end. layout: see
    `BatchSampler`."""
    sampler = BatchSampler(
        {
            name: None if isinstance(rows.source, ShuffleBuffer) else len(rows.source)
            for name, rows in datasets.items()
        },
        settings.batch_size,
        settings.seed,
        settings.gradient_accumulation_steps,
        accelerator.num_processes,
        accelerator.process_index,
        settings.sampler.type,
        settings.task_weight,
        _column(datasets, settings.sampler),
        settings.sampler.share,
        layout,
    )
    refs = sampler.batches(step)
    workers, device = settings.num_workers, accelerator.device
    return batches(datasets, refs, model.collator(), workers, device)


def _column(
    datasets: Mapping[str, TaskDataset], sampler: SamplerSection
) -> dict[str, list[object]]:
    """Return, for each task, the values of the column that the sampler looks at."""
    if sampler.column is None:
        return {}
    values = {}
    for name, rows in datasets.items():
        if isinstance(rows.source, ShuffleBuffer):
            raise ConfigError(
                f"train.sampler: {sampler.type} reads every row first, and tasks.{name} is "
                "a stream; give it a `limit`, or set type: shuffle"
            )
        values[name] = [_value(rows.source, i, sampler.column) for i in range(len(rows.source))]
    return values


def _value(source: Source, index: int, column: str) -> object:
    """Return a cell, or None if it cannot be read: the row fails when its batch is made."""
    try:
        cell = source.cell(index, column)
    except FAILURES:
        return None
    return None if isinstance(cell, Unreadable) else cell


def _indexed(source: Source, settings: Train) -> Source:
    """Return a stream as rows by index, which a reader takes in order."""
    if not isinstance(source, StreamingSource):
        return source
    return ShuffleBuffer(source, settings.seed, settings.batch_size)


SHOWN = 50
"""Rows of a split that are listed by name."""


def check_data(recipe: Recipe) -> Iterator[str]:
    """Yield lines on the rows of each split of each task: how many there are, and those that
    cannot be read or learned from. Raise ConfigError at the end if a split has such rows and does
    not set `on_error: skip`."""
    refused: list[str] = []
    stages = stage_recipes(recipe)
    _, model = check_one(_skipping(stages[-1].recipe if stages else recipe))
    for name, task in recipe.tasks.items():
        holds_out = TRAIN in task.data and task.data[TRAIN].held_out and VALIDATION not in task.data
        for split in (*task.data, *((VALIDATION,) if holds_out else ())):
            where = f"tasks.{name}.data.{split}"
            failed = yield from _check_split(model, name, split, where)
            section = task.data.get(split, task.data.get(TRAIN))
            if failed and section is not None and section.on_error != "skip":
                refused.append(f"{where} ({failed})")
    if refused:
        raise ConfigError(
            f"rows cannot be read in {', '.join(refused)}; correct them, or set on_error: skip"
        )


def _skipping(recipe: Recipe) -> Recipe:
    """Return the recipe with every row that cannot be read left out instead of refused."""
    copy = recipe.model_copy(deep=True)
    for task in copy.tasks.values():
        for section in task.data.values():
            section.on_error = "skip"
    return copy


def _check_split(model: Model, task: str, split: str, where: str) -> Generator[str, None, int]:
    """Yield the lines of a split; return how many of its rows cannot be used."""
    source = load_split(model.plan, task, split)
    if isinstance(source, StreamingSource):
        yield f"{where}: a stream, which is not read to its end; give it a `limit`"
        return 0
    dataset = task_dataset(model.plan, model.encoders(), task, source)
    failed = 0
    for index in range(len(source)):
        row = dataset.prepare(index)
        if row.failure is None:
            continue
        failed += 1
        if failed <= SHOWN:
            yield f"{where}, row {row.key}: {row.failure}"
    if failed > SHOWN:
        yield f"{where}: and {failed - SHOWN} more rows"
    ignored = f"; {ignored_line(source)}" if source.ignored else ""
    yield from (f"{where}: {note}" for note in source.notes)
    yield f"{where}: {count_rows(source)}, {failed} cannot be read{ignored}"
    return failed
