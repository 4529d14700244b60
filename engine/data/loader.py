"""Prepared rows as batches, collated and loaded in workers.

A row that cannot be read travels in its batch as a failure and is handled in the main process.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ...modalities.base import Encoder, StreamingSource
from ...modalities.groups import collate
from ...tasks.base import Task
from ...tasks.batch import Batch
from ..cache import from_records
from ..utils import RuntimeFailure, WorkerDied, ignore_stopping
from .dataset import PreparedRow, TaskDataset
from .sampler import RowRef
from .splits import SkippedRows, failure_line

T = TypeVar("T")


@dataclass
class Collator:
    """Prepared rows -> Batch. `encoders` collate the samples of their streams, `tasks` add labels
    that are computed for a batch."""

    encoders: Mapping[str, Encoder]
    tasks: Mapping[str, Task] = field(default_factory=dict)

    def __call__(self, name: str, rows: Sequence[PreparedRow]) -> Batch:
        good = [row for row in rows if row.failure is None]
        batch = Batch.of(name, [row.key for row in good], [row.example for row in good])
        if name in self.tasks and good:
            self.tasks[name].prepare_batch(batch)
        batch.cut = [row.key for row in good if row.cut]
        batch.failed = [(row.key, row.failure) for row in rows if row.failure is not None]
        if not good:
            return batch
        for name in good[0].many:
            counts = batch.bags if name in good[0].bags else batch.items
            counts[name] = torch.tensor([row.count(name) for row in good])
        for name in good[0].records:
            records = [record for row in good for record in row.records[name]]
            if records:
                batch.features[name] = from_records(records)
            else:
                batch.streams[name] = {}
        for name in good[0].samples:
            items = [views for row in good for views in row.samples[name]]
            batch.streams[name] = {
                view: collate(self.encoders[name], [views[view] for views in items])
                for view in (items[0] if items else ())
            }
        return batch


def batches(
    datasets: Mapping[str, TaskDataset],
    refs: Iterable[Sequence[RowRef]],
    collator: Collator,
    workers: int = 0,
    device: torch.device | None = None,
) -> Iterator[Batch]:
    """Yield the batches of the rows that are referred to, in order, made by `workers` processes.

    device: where they go; on the way to CUDA they lie in page-locked memory.
    """
    pin = device is not None and device.type == "cuda"
    return load_batches(functools.partial(_batch, datasets, collator), refs, workers, pin)


def _batch(
    datasets: Mapping[str, TaskDataset], collator: Collator, refs: Sequence[RowRef]
) -> Batch:
    rows = [_counted(datasets[ref.task], ref) for ref in refs]
    return collator(refs[0].task, rows)


def _counted(rows: TaskDataset, ref: RowRef) -> PreparedRow:
    """Return a prepared row, which says whether a text of it was cut: workers count alone."""
    before = _texts_cut(rows)
    row = rows.prepare(ref.row, ref.epoch)
    row.cut = _texts_cut(rows) > before
    return row


def _texts_cut(rows: TaskDataset) -> int:
    """Return how many texts the processors of a data set have cut so far, in this process."""
    counters = (getattr(reader.processor, "cut", None) for reader in rows.readers.values())
    return sum(counter.count for counter in counters if counter is not None)


def load_batches(
    make: Callable[[Any], T], refs: Iterable[Any], workers: int = 0, pin_memory: bool = False
) -> Iterator[T]:
    """Yield `make(ref)` of each reference, in order, called in `workers` processes."""
    sampler = _ListSampler(refs)
    return _iterate(_loader(_MappedDataset(make), workers, sampler=sampler, pin_memory=pin_memory))


def stream_batches(make: Callable[[], Iterator[T]], workers: int = 0) -> Iterator[T]:
    """Yield from `make()`, which is called once, in a separate process if there are workers."""
    return _iterate(_loader(_Streamed(make), min(workers, 1)))


def _iterate(loader: DataLoader[T]) -> Iterator[T]:
    """Start a loader's processes, and return its batches.

    torch's handler of SIGCHLD raises wherever the main process is when one of them dies, in the
    middle of an update too; without it the next batch raises.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, handler)
    return _guarded(batches)


def _guarded(values: Iterator[T]) -> Iterator[T]:
    """Yield values; raise WorkerDied where a process that makes them was killed."""
    workers = getattr(values, "_workers", ())
    try:
        yield from values
    except RuntimeError as error:
        raise worker_death(error) or error from error
    except (EOFError, OSError) as error:  # its sockets and files are gone
        if workers and wait([worker.sentinel for worker in workers], timeout=1.0):
            raise WorkerDied(KILLED) from error
        raise
    finally:
        # One that is killed while it holds the lock of a queue leaves the others waiting for it,
        # and they ignore SIGTERM.
        if any(worker.exitcode for worker in workers):
            for worker in workers:
                worker.kill()


KILLED = (
    "a process that loads rows was killed, as the system does where memory runs out; lower "
    "train.num_workers or train.batch_size"
)


def worker_death(error: RuntimeError) -> WorkerDied | None:
    """Return what torch's error about a killed worker is to the user; None for another error."""
    if not str(error).startswith("DataLoader worker (pid"):
        return None
    return WorkerDied(KILLED)


def _loader(dataset: Dataset[T], workers: int, **options: Any) -> DataLoader[T]:
    return DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # the loader's own: torch's global one is not touched
        **options,
    )


def _ignore_signals(worker: int) -> None:
    """Ignore what stops the main process, which still needs the workers' batches to finish the step
    and to write a checkpoint."""
    ignore_stopping()


class _MappedDataset(Dataset[T]):
    def __init__(self, make: Callable[[Any], T]) -> None:
        self.make = make

    def __getitem__(self, ref: Any) -> T:
        return self.make(ref)


class _Streamed(IterableDataset[T]):
    def __init__(self, make: Callable[[], Iterator[T]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[T]:
        return self.make()


class _ListSampler:
    """References as a sampler; any iterable, read as batches are requested."""

    def __init__(self, refs: Iterable[Any]) -> None:
        self.refs = refs

    def __iter__(self) -> Iterator[Any]:
        return iter(self.refs)


def sequential_batches(
    rows: TaskDataset, batch_size: int, world: int = 1, rank: int = 0
) -> list[list[RowRef]]:
    """Return references to every row once, in order; this process's share, as batches."""
    if isinstance(rows.source, StreamingSource):
        raise RuntimeFailure(f"tasks.{rows.name}: a streaming split has no end; give it a `limit`")
    mine = range(rank, len(rows), world)
    refs = [RowRef(rows.name, 0, i) for i in mine]
    return [refs[i : i + batch_size] for i in range(0, len(refs), batch_size)]


def handle_failures(
    failed: Sequence[tuple[str, str]], where: str, skip: bool, skipped: SkippedRows
) -> list[str]:
    """Count failures (keys and reasons), or raise RuntimeFailure at the first; return new ones as
    lines to be reported."""
    if failed and not skip:
        raise RuntimeFailure(failure_line(where, *failed[0]))
    return [f"{where}, row {key}: {reason}" for key, reason in failed if skipped.add(key, reason)]
