"""The rows that a recipe is trained and validated on, and their batches in the order of steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Generator, Iterator, Mapping

from accelerate import Accelerator

from ...modalities.base import Source, StreamingSource, Unreadable
from ...tasks.batch import Batch
from ..data import (
    FAILURES,
    TRAIN,
    VALIDATION,
    BatchSampler,
    InMemoryPrefix,
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
from ..recipe import Recipe, SamplerSection, TaskSection, Train, stage_recipes
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
    tasks = plan.recipe.tasks.items()
    parted = [name for name, task in tasks if VALIDATION not in task.data and _by_files(task)]
    for line in rows_of_both_sides(training, held_out, parted):
        log(line)
    return training, held_out


def _by_files(task: TaskSection) -> bool:
    """Return whether a task holds out rows of its training split, those of one file together."""
    holdout = task.data[TRAIN].held_out if TRAIN in task.data else None
    return holdout is not None and holdout.by is None


def rows_of_both_sides(
    training: Datasets, held_out: Datasets, parted: Collection[str] = ()
) -> Iterator[str]:
    """Yield a line for each task that is validated on inputs which it, or another task, trains on:
    its score is then not that of unseen inputs. parted: tasks whose own two splits share none."""
    for (name, held), (other, rows) in itertools.product(held_out.items(), training.items()):
        if name == other and name in parted:
            continue
        cure = (
            "hold out the same rows of both (the same holdout, where and limit, or files of "
            "their own)"
        )
        if name == other:
            cure = "part them (holdout, where, or files of their own)"
        for shared in shared_inputs(rows, held):
            yield f"tasks.{other}.data.train: {shared} that tasks.{name} is validated on; {cure}"


def shared_inputs(rows: TaskDataset, held: TaskDataset) -> Iterator[str]:
    """Yield, for each input, how many rows of `rows` have one of `held`; of streams, how many
    shards are read by both."""
    streams = sorted(set(held.task.inputs()) & set(rows.task.inputs()))
    stream_of_rows, stream_of_held = _stream(rows.source), _stream(held.source)
    if stream_of_rows is not None or stream_of_held is not None:
        if streams and stream_of_rows is not None and stream_of_held is not None:
            shards = [
                {shard.fingerprint() for shard in stream.shards()}
                for stream in (stream_of_rows, stream_of_held)
            ]
            if shared := shards[0] & shards[1]:
                yield f"{len(shared)} of its {len(shards[0])} shards hold the {streams[0]}"
        return
    for stream in streams:
        unseen = {key for i in range(len(held)) for key in held.item_keys(stream, i)}
        seen = sum(bool(unseen & set(rows.item_keys(stream, i))) for i in range(len(rows)))
        if seen:
            yield f"{seen:,} of its rows have a {stream}"


def _stream(source: Source) -> StreamingSource | None:
    """Return the stream whose rows a source has, if it is one."""
    if isinstance(source, (ShuffleBuffer, InMemoryPrefix)):
        source = source.source
    return source if isinstance(source, StreamingSource) else None


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
            yield from _check_shared(model, name, split, where)
            section = task.data.get(split, task.data.get(TRAIN))
            if failed and section is not None and section.on_error != "skip":
                refused.append(f"{where} ({failed})")
    if refused:
        raise ConfigError(
            f"rows cannot be read in {', '.join(refused)}; correct them, or set on_error: skip"
        )


def _check_shared(model: Model, task: str, split: str, where: str) -> Iterator[str]:
    """Yield a line for each input of which a split has cells that the training split has too."""
    section = model.plan.recipe.tasks[task]
    if split == TRAIN or TRAIN not in section.data or split not in section.data:
        return
    encoders = model.encoders()
    rows, held = (
        task_dataset(model.plan, encoders, task, load_split(model.plan, task, name))
        for name in (TRAIN, split)
    )
    for shared in shared_inputs(rows, held):
        yield f"{where}: data.train is not apart from it: {shared} of this split"


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
