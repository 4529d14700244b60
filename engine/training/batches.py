"""The rows that a recipe is trained and validated on, and their batches in the order of steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from accelerate import Accelerator

from ...modalities.base import Source, StreamingSource, Unreadable
from ...tasks.batch import Batch
from ..data import (
    FAILURES,
    TRAIN,
    VALIDATION,
    BatchSampler,
    ShuffleBuffer,
    TaskDataset,
    batches,
    load_split,
    task_dataset,
)
from ..model import Model
from ..recipe import SamplerSection, Train
from ..utils import ConfigError

Datasets = dict[str, TaskDataset]


def open_data(model: Model, settings: Train) -> tuple[Datasets, Datasets]:
    """Return the rows of each task to train on, and those to validate on if the recipe does."""
    plan, encoders = model.plan, model.encoders()
    training: Datasets = {}
    held_out: Datasets = {}
    for name in plan.tasks:
        source = _indexed(load_split(plan, name, TRAIN), settings.seed)
        training[name] = task_dataset(plan, encoders, name, source, training=True, augment=True)
        if settings.validate_ is not None:
            held_out[name] = task_dataset(plan, encoders, name, load_split(plan, name, VALIDATION))
    return training, held_out


def training_batches(
    model: Model,
    datasets: Mapping[str, TaskDataset],
    settings: Train,
    accelerator: Accelerator,
    step: int,
) -> Iterator[Batch]:
    """Yield this process's batches from an optimizer step on, without end."""
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
        settings.task_weights,
        _column(datasets, settings.sampler),
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
                f"train.sampler: {sampler.type} looks at every row first, and tasks.{name} is "
                "a stream; give it a `limit`, or say type: shuffle"
            )
        values[name] = [_value(rows.source, i, sampler.column) for i in range(len(rows.source))]
    return values


def _value(source: Source, index: int, column: str) -> object:
    """A cell, or None if it cannot be read: the row fails when its batch is made."""
    try:
        cell = source.cell(index, column)
    except FAILURES:
        return None
    return None if isinstance(cell, Unreadable) else cell


def _indexed(source: Source, seed: int) -> Source:
    """A stream as rows by index, which a reader takes in order."""
    return ShuffleBuffer(source, seed) if isinstance(source, StreamingSource) else source
