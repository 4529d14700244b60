"""Rows on their way to a batch: read, prepared, varied, collated, in the loader's workers.

What a sample becomes depends on (seed, epoch, row) alone, so any number of workers and a
resumed run see the same values. A row that cannot be read travels in the batch as a
failure and is dealt with in the main process.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..modalities.base import (
    Encoder,
    Processor,
    ReadError,
    Sample,
    Source,
    StreamingSource,
)
from ..modalities.groups import collate
from ..tasks.base import Batch, Task
from ._order import Address
from .cache import Record, Store, from_records, record_to_sample
from .catalogue import load
from .errors import RunError
from .parts import derive
from .plan import RecipePlan
from .rows import Skipped

WINDOW = 2048
"""Rows of a stream that are held in memory and shuffled."""


@dataclass
class StreamReader:
    """One stream as the loader sees it: how its cells are read, prepared and varied.

    samples, features: stores to look in first; what is missing there is read again.
    """

    read: Callable[[Any], Any]
    processor: Processor
    augment: Callable[[Sample, np.random.Generator], Sample] | None = None
    samples: Store | None = None
    features: Store | None = None

    def sample(self, cell: Any, identity: str) -> Sample:
        """What `prepare` gives for a cell, from the store where it is there."""
        if self.samples is not None and identity in self.samples:
            return record_to_sample(self.samples.get([identity])[0])
        return self.prepare(cell)

    def prepare(self, cell: Any) -> Sample:
        """What `prepare` gives for a cell. Raises ReadError, which names the cell."""
        raw = self.read(cell)
        try:
            return self.processor.prepare(raw)
        except ReadError as error:
            raise ReadError(cell, error.wrong, error.right) from error


@dataclass
class PreparedRow:
    """A row, ready to be collated; `failure` says why it is not."""

    key: str
    targets: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, dict[str, Sample]] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    failure: str | None = None


@dataclass
class TaskDataset:
    """A split of a task: its source, and what becomes of a row."""

    name: str
    task: Task
    source: Source
    readers: Mapping[str, StreamReader]
    training: bool = False
    seed: int = 0

    def prepare(self, index: int, epoch: int = 0) -> PreparedRow:
        """The row at an index, at an epoch; reads only what no store holds."""
        key = self.source.key(index)
        try:
            row = self.source[index]
            made = PreparedRow(key, self.task.targets(row))
            for name in self.task.streams:
                self._add(made, name, row[name], self.source.identity(index, name), epoch)
        except ReadError as error:
            return PreparedRow(key, failure=str(error))
        except (ValueError, KeyError, OSError) as error:
            return PreparedRow(key, failure=" ".join(f"{type(error).__name__}: {error}".split()))
        return made

    def _add(self, item: PreparedRow, name: str, cell: Any, identity: str, epoch: int) -> None:
        reader = self.readers[name]
        if reader.features is not None:
            item.records[name] = _stored(reader.features, reader, cell, identity)
            return
        sample = reader.sample(cell, identity)
        if not self.training:
            item.samples[name] = {"main": sample}
            return
        rng = np.random.default_rng(derive(self.seed, epoch, self.name, name, identity))
        vary, apart = reader.augment, self.task.varies_views
        if vary is not None and not apart:
            sample = vary(sample, rng)
        views = self.task.views(name, sample, rng)
        if vary is not None and apart:
            views = {view: vary(made, rng) for view, made in views.items()}
        item.samples[name] = views


def _stored(store: Store, reader: StreamReader, cell: Any, identity: str) -> Record:
    """What the encoder gave, which is not there any more: a row without it could not be read."""
    if identity not in store:
        reader.sample(cell, identity)  # says what is wrong with it
        raise ReadError(
            cell, "could not be read when the cache was filled, and can now", "the same; run again"
        )
    return store.get([identity])[0]


@dataclass
class Collator:
    """Items -> Batch. `encoders` collate their own samples."""

    encoders: Mapping[str, Encoder]

    def __call__(self, task: str, items: Sequence[PreparedRow]) -> Batch:
        good = [item for item in items if item.failure is None]
        batch = Batch(task, [i.targets for i in good], [i.key for i in good])
        batch.failed = [(i.key, i.failure) for i in items if i.failure is not None]
        if not good:
            return batch
        for name in good[0].samples.keys() | good[0].records.keys():
            if all(name in item.records for item in good):
                batch.features[name] = from_records([item.records[name] for item in good])
                continue
            views = good[0].samples[name]
            batch.streams[name] = {
                view: collate(self.encoders[name], [item.samples[name][view] for item in good])
                for view in views
            }
        return batch


class _Addressed(Dataset[Batch]):
    """A whole batch by its rows' addresses: `batch_sampler` gives one at a time."""

    def __init__(self, rows: Mapping[str, TaskDataset], collate: Collator) -> None:
        self.rows, self.collate = rows, collate

    def __getitem__(self, addresses: Any) -> Batch:
        items = [self.rows[a.task].prepare(a.row, a.epoch) for a in addresses]
        return self.collate(addresses[0].task, items)


def batches(
    rows: Mapping[str, TaskDataset],
    addresses: Iterable[Sequence[Address]],
    collate: Collator,
    workers: int = 0,
) -> Iterator[Batch]:
    """The batches of the addresses, in their order, made by `workers` processes."""
    loader: DataLoader[Batch] = DataLoader(
        _Addressed(rows, collate),
        sampler=_Given(addresses),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_deaf,
        generator=torch.Generator(),  # the loader's own: torch's global one is not touched
    )
    return iter(loader)


def _deaf(worker: int) -> None:
    """A terminal's Ctrl-C, or a scheduler's SIGTERM, reaches the workers too; they go on, for
    the main process wants the rest of its step before it writes a checkpoint and ends them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _Given:
    """The addresses as a sampler."""

    def __init__(self, addresses: Iterable[Sequence[Address]]) -> None:
        self.addresses = addresses

    def __iter__(self) -> Iterator[Sequence[Address]]:
        return iter(self.addresses)


def sequential_batches(
    rows: TaskDataset, batch_size: int, world: int = 1, rank: int = 0
) -> list[list[Address]]:
    """Every row once, in order; this process's share, as batches."""
    if isinstance(rows.source, StreamingSource):
        raise RunError(f"tasks.{rows.name}: a streaming split has no end; give it a `limit`")
    mine = range(rank, len(rows.source), world)
    every = [Address(rows.name, 0, i) for i in mine]
    return [every[i : i + batch_size] for i in range(0, len(every), batch_size)]


def stream_readers(
    plan: RecipePlan, encoders: Mapping[str, Encoder], augment: bool
) -> dict[str, StreamReader]:
    """A reader a stream, without stores."""
    return {
        name: StreamReader(
            load(stream.modality.read),
            encoders[name].processor,
            stream.augment if augment else None,
        )
        for name, stream in plan.streams.items()
    }


def handle_failures(
    failed: Sequence[tuple[str, str]], where: str, skip: bool, skipped: Skipped
) -> list[str]:
    """Count failures (keys and reasons), or raise the first; gives what is new to be reported."""
    lines = []
    for key, reason in failed:
        line = f"{where}, row {key}: {reason}"
        if not skip:
            raise RunError(f"{line} (data.*.on_error: skip goes on without it)")
        if skipped.add(key, reason):
            lines.append(line)
    return lines


class ShuffleBuffer(StreamingSource):
    """A stream as rows by index, for a reader that goes forward: shuffled within windows.

    At the end of the stream it begins again. Going back starts it anew.
    """

    def __init__(self, source: StreamingSource, seed: int) -> None:
        self.source, self.seed = source, seed
        self.columns = source.columns
        self._block, self._rows = -1, []  # type: tuple[int, list[dict[str, Any]]]
        self._endless: Iterator[dict[str, Any]] | None = None

    def __getitem__(self, index: int) -> dict[str, Any]:
        block, place = divmod(index, WINDOW)
        if self._endless is None or block < self._block:
            self._endless, self._block = self._again_and_again(), -1
        while self._block < block:
            self._rows = list(itertools.islice(self._endless, WINDOW))
            self._block += 1
        return self._rows[self._order(block)[place]]

    def key(self, index: int) -> str:
        """Its place in the stream, counted on when the stream begins again."""
        block, place = divmod(index, WINDOW)
        return str(block * WINDOW + self._order(block)[place])

    def _again_and_again(self) -> Iterator[dict[str, Any]]:
        while True:
            row = None
            for row in self.source:
                yield row
            if row is None:
                raise RunError(f"{self.source.fingerprint()}: the stream has no row")

    def _order(self, block: int) -> np.ndarray:
        return np.random.default_rng(derive(self.seed, "window", block)).permutation(WINDOW)

    def fingerprint(self) -> str:
        return self.source.fingerprint()
