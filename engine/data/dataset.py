"""The rows of a source, each read, prepared and augmented on access.

What a sample becomes depends on (seed, epoch, row) alone, so any number of workers and a resumed
run see the same values.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np
import torch

from ...modalities.base import TO_SOURCE, Encoder, Processor, ReadError, Sample, Source
from ...modalities.messages import read_errors, shorten
from ...modalities.paths import FileLister, cell_files
from ...tasks.base import Row, Task
from ...tasks.batch import Example, Tools
from ..cache import Record, Store, record_to_sample
from ..recipe import ResolvedRecipe, load
from ..utils import derive_seed, log_cause
from .row_errors import FAILURES, cell_items, check_nulls, readable

logger = logging.getLogger(__name__)


class FeatureRecords(Protocol):
    """Stored features by the key of an item: a store, or what several tasks of a call share."""

    def __contains__(self, key: object) -> bool: ...

    def get(self, keys: Sequence[str]) -> list[Record]: ...


@dataclass
class StreamReader:
    """One stream of a data set: how its cells are read, prepared and augmented.

    files: lists the files that `read` opens for a cell. samples, features: stores to look in
    first; missing items are read again.
    """

    read: Callable[[Any], Any]
    processor: Processor
    augment: Callable[[Sample, np.random.Generator], Sample] | None = None
    samples: Store | None = None
    features: FeatureRecords | None = None
    files: FileLister = cell_files

    @property
    def cached(self) -> bool:
        """Whether a cell's key is looked up in a store."""
        return self.samples is not None or self.features is not None

    def sample(self, cell: Any, key: str) -> Sample:
        """Return the sample of a cell, from the store if it is there."""
        if self.samples is not None and key in self.samples:
            return record_to_sample(self.samples.get([key])[0])
        return self.prepare(cell)

    def prepare(self, cell: Any) -> Sample:
        """Read a cell and return its sample. Raise ReadError, which names the cell."""
        with read_errors(cell, "a cell that its modality reads"):
            raw = self.read(cell)
        kind = type(self.processor).__name__
        try:
            with read_errors(raw, f"what {kind} takes", "cannot be prepared"):
                sample, to_source = self.processor.prepare_located(raw)
        except ReadError as error:
            raise ReadError(cell, error.wrong, error.right) from error
        if not isinstance(sample, Mapping) or not all(map(torch.is_tensor, sample.values())):
            raise ReadError(cell, f"{kind}.prepare returned {_type(sample)}", "a dict of tensors")
        return sample if to_source is None else {**sample, TO_SOURCE: to_source}

    def record(self, cell: Any, key: str) -> Record:
        """Return the stored features of a cell. Raise ReadError if there are none: the encoder
        that would compute them is not loaded any more."""
        assert self.features is not None
        if key not in self.features:
            self.sample(cell, key)  # raises its error
            wrong = "could not be read when the cache was filled, and can now"
            raise ReadError(cell, wrong, "the same; run again")
        return self.features.get([key])[0]


@dataclass
class PreparedRow:
    """A row, ready to be collated; `failure` is the reason if it is not.

    row: the cells as the source returned them. example: the task's, made of it. samples: of each
    stream, the views of each of its items. records: of each stream, the stored features of each
    item. many: streams with any number of items; all others have one. bags: those of them whose
    connector reads the items of a row. cut: whether a text was.
    """

    key: str
    row: Row = field(default_factory=dict, repr=False)
    example: Example = field(default_factory=Example)
    samples: dict[str, list[dict[str, Sample]]] = field(default_factory=dict)
    records: dict[str, list[Record]] = field(default_factory=dict)
    many: frozenset[str] = frozenset()
    bags: frozenset[str] = frozenset()
    failure: str | None = None
    cut: bool = False

    @classmethod
    def failed(cls, key: str, error: Exception) -> Self:
        """Return a row that could not be read, with the reason in one line."""
        log_cause(logger, error)
        reason = f"{type(error).__name__}: {error}"
        return cls(key, failure=str(error) if isinstance(error, ReadError) else shorten(reason))

    def count(self, stream: str) -> int:
        """Return the number of items of a stream."""
        return len(self.samples[stream] if stream in self.samples else self.records[stream])


def _type(value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"a {type(value).__name__}"
    return f"a dict of {', '.join(sorted({type(v).__name__ for v in value.values()}))}"


@dataclass
class StreamDataset:
    """The rows of a source, the cells of some streams prepared.

    readers: by stream. many: streams whose cells are lists of items; bags: see `PreparedRow`. An
    item is read, cached and augmented by itself, under the cell's key and its place.
    """

    source: Source
    readers: Mapping[str, StreamReader]
    many: frozenset[str] = field(default=frozenset(), kw_only=True)
    bags: frozenset[str] = field(default=frozenset(), kw_only=True)

    def __len__(self) -> int:
        return len(self.source)

    def prepare(self, index: int, epoch: int = 0, row: Row | None = None) -> PreparedRow:
        """Return the row at an index, at an epoch; with a `failure` if it cannot be read.

        row: its cells, if they were read before.
        """
        try:
            return self.load(index, epoch, row)
        except FAILURES as error:
            return PreparedRow.failed(self.source.key(index), error)

    def load(self, index: int, epoch: int = 0, row: Row | None = None) -> PreparedRow:
        """As `prepare`. Raise one of `FAILURES` if the row cannot be read."""
        cells = self.source[index] if row is None else row
        row_key = self.source.key(index)
        cells = readable(cells, self.readers.keys() | self.columns)
        example = self.example(cells, row_key, epoch)
        many, bags = (names & self.readers.keys() for names in (self.many, self.bags))
        prepared = PreparedRow(row_key, cells, example, many=many, bags=bags)
        for name, reader in self.readers.items():
            items = self.items(name, index, cells)
            if reader.features is not None:
                prepared.records[name] = [reader.record(value, key) for value, key in items]
            else:
                prepared.samples[name] = [
                    self.views(name, reader.sample(value, key), key, epoch) for value, key in items
                ]
        return prepared

    def items(self, stream: str, index: int, row: Row) -> list[tuple[Any, str]]:
        """Return the raw values of a row's cell and their keys in stores and random draws."""
        values = cell_items(row[stream], stream in self.many)
        needs_key = self.draws or self.readers[stream].cached
        cell_key = (
            self.source.cell_key(index, stream, self.readers[stream].files) if needs_key else ""
        )
        return list(zip(values, self._keys(stream, cell_key, len(values)), strict=True))

    def item_keys(self, stream: str, index: int) -> list[str]:
        """Return the keys of a row's items; of a row whose cell cannot be read there are none."""
        try:
            key = self.source.cell_key(index, stream, self.readers[stream].files)
            if stream not in self.many:
                return [key]
            return self._keys(stream, key, len(cell_items(self.source.cell(index, stream), True)))
        except FAILURES:
            return []

    def _keys(self, stream: str, key: str, count: int) -> list[str]:
        return [f"{key}#{number}" for number in range(count)] if stream in self.many else [key]

    @property
    def columns(self) -> frozenset[str]:
        """The columns of a row that are used beside the streams."""
        return frozenset()

    @property
    def draws(self) -> bool:
        """Whether views depend on random draws, which depend on the cell's key."""
        return False

    def example(self, row: Row, key: str, epoch: int) -> Example:
        """Return the items that a row adds to the batch besides its streams."""
        return Example()

    def views(self, stream: str, sample: Sample, key: str, epoch: int) -> dict[str, Sample]:
        """Return the views of a sample."""
        return {"main": sample}


@dataclass
class TaskDataset(StreamDataset):
    """The rows of a source as a task sees them.

    name: of the task, in errors and random draws. training: views are drawn and samples augmented.
    """

    name: str
    task: Task
    tools: Tools = field(default_factory=Tools)
    training: bool = False
    seed: int = 0

    @property
    def draws(self) -> bool:
        return self.training

    def example(self, row: Row, key: str, epoch: int) -> Example:
        rng = None
        if self.training:
            rng = np.random.default_rng(derive_seed(self.seed, epoch, self.name, key))
        check_nulls(row, self.task)
        return self.task.prepare(row, self.tools, rng)

    @property
    def columns(self) -> frozenset[str]:
        extra = self.task.training_columns() if self.training else ()
        return frozenset((*self.task.columns(), *extra))

    def views(self, stream: str, sample: Sample, key: str, epoch: int) -> dict[str, Sample]:
        if not self.training:
            return {"main": sample}
        rng = np.random.default_rng(derive_seed(self.seed, epoch, self.name, stream, key))
        augment = self.readers[stream].augment
        per_view = self.task.streams[stream].augment == "view"
        if augment is not None and not per_view:
            sample = augment(sample, rng)
        views = self.task.views(stream, sample, rng)
        if augment is not None and per_view:
            views = {view: augment(view_sample, rng) for view, view_sample in views.items()}
        return views


def task_dataset(
    plan: ResolvedRecipe,
    encoders: Mapping[str, Encoder],
    name: str,
    source: Source,
    *,
    streams: Iterable[str] | None = None,
    training: bool = False,
    augment: bool = False,
) -> TaskDataset:
    """Return the rows of a source as a task of the recipe sees them, without stores.

    streams: those that are prepared, by default all that the task reads of such rows.
    """
    task = plan.tasks[name].task
    chosen = task.read_streams(training) if streams is None else streams
    readers = stream_readers(plan, encoders, chosen, augment=augment)
    many = frozenset(n for n in readers if plan.streams[n].many(task.streams[n]))
    bags = frozenset(n for n in readers if plan.streams[n].is_bag)
    found = {n: getattr(e.processor, "tokenizer", None) for n, e in encoders.items()}
    tokenizers, prompts = (
        {n: t for n, t in found.items() if t},
        {n: s.prompt for n, s in plan.streams.items()},
    )
    tools = replace(plan.tools, stream_tokenizers=tokenizers, stream_prompts=prompts)
    seed = plan.recipe.train.seed
    return TaskDataset(source, readers, name, task, tools, training, seed, many=many, bags=bags)


def stream_readers(
    plan: ResolvedRecipe,
    encoders: Mapping[str, Encoder],
    streams: Iterable[str],
    *,
    augment: bool = False,
) -> dict[str, StreamReader]:
    """Return a reader for each stream, without stores."""
    return {
        name: StreamReader(
            plan.streams[name].reader(),
            encoders[name].processor,
            plan.streams[name].augment if augment else None,
            files=load(plan.streams[name].modality.files),
        )
        for name in streams
    }
