"""Filling of the stores before training, which the loader then reads.

A stream's features are cached if its encoder is frozen and its input does not vary: the encoder is
then neither run nor moved to the device. Samples are cached on request, for any encoder, so that
decoding and resampling are done once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from ...modalities.base import StreamingSource
from ...modalities.groups import groups_of
from ...modalities.paths import cache_root
from ...tasks.base import Row
from ..cache import (
    PRECISIONS,
    Record,
    Store,
    encoder_identity,
    fill,
    processor_identity,
    read_identity,
    sample_to_record,
    to_records,
)
from ..data import FAILURES, Collator, PreparedRow, StreamDataset, TaskDataset
from ..recipe import ResolvedRecipe
from ..utils import autocast, derive_seed, gather, located_errors, main_first
from .checks import check_processor
from .model import Model
from .parameters import is_frozen
from .stream import Stream

Progress = Callable[[str, int, int], None]
"""Called with (name of the fill, rows done, rows in all)."""


def uncacheable_reason(plan: ResolvedRecipe, model: Model, name: str) -> str | None:
    """Return why a stream's features cannot be cached, or None if they can."""
    stream = model.stream(name)
    if not plan.recipe.cache.features:
        return "cache.features is false"
    if not is_frozen(stream.encoder):
        return "the encoder trains"
    if plan.streams[name].augment is not None:
        return "its input is augmented"
    for key, task in plan.tasks.items():
        use = task.task.streams.get(name)
        if use is not None and use.views:
            return f"tasks.{key} takes views of it"
        if use is not None and use.inner:
            return f"tasks.{key} reaches into the encoder"
    check_processor(name, model.stream(name).encoder)
    return None


@dataclass
class FeatureCacher:
    """Fills the stores of a model's streams for rows of its tasks."""

    plan: ResolvedRecipe
    model: Model
    device: torch.device
    precision: str
    batch_size: int
    progress: Progress | None = None

    def attach_together(self, rows: Sequence[TaskDataset], accelerator: Accelerator) -> set[str]:
        """As `attach`, by all processes: each computes the records of its share of the keys."""
        if accelerator.num_processes > 1:
            self.attach(rows, (accelerator.process_index, accelerator.num_processes))
            gather(accelerator, None)  # waits as long as it takes
        with main_first(accelerator):  # what is missing still cannot be read
            return self.attach(rows)

    def attach(self, rows: Sequence[TaskDataset], share: tuple[int, int] = (0, 1)) -> set[str]:
        """Fill the stores for these rows; their readers then look there first.

        share: of a process, and of how many; the keys are dealt by their hash. Return the streams
        whose encoder is not needed any more.
        """
        process, processes = share
        served: set[str] = set()
        for name in self.plan.streams:
            users = [r for r in rows if name in r.readers]
            if not users or any(isinstance(r.source, StreamingSource) for r in users):
                continue
            for user in users:
                user.readers[name].features = None  # computed from samples where they are missing
            cells = [
                cell
                for cell in _cells(users, name)
                if processes == 1 or derive_seed(0, "share", cell.key) % processes == process
            ]
            with located_errors(f"inputs.{name}"):
                if self.plan.recipe.cache.samples:
                    self._samples(name, users, cells)
                if uncacheable_reason(self.plan, self.model, name) is None:
                    self._features(name, users, cells)
                    served.add(name)
        return served

    def _samples(self, name: str, users: Sequence[TaskDataset], cells: list[Cell]) -> None:
        reader = users[0].readers[name]
        plan = self.plan.streams[name]
        identity = {
            "read": read_identity(plan.modality.read, plan.prompt),
            "processor": processor_identity(reader.processor),
        }
        store = Store(cache_root(), "samples", identity)

        def compute(indices: list[int]) -> Iterable[Record | None]:
            for row in prepare_cells([cells[i] for i in indices], name):
                yield None if row.failure else sample_to_record(row.samples[name][0]["main"])

        self._fill(store, f"{name}: samples", cells, compute)
        for user in users:
            user.readers[name].samples = store

    def _features(self, name: str, users: Sequence[TaskDataset], cells: list[Cell]) -> None:
        stream = self.model.stream(name)
        precision = self.plan.recipe.cache.precision
        identity = encoder_identity(
            stream.encoder,
            read=self.plan.streams[name].modality.read,
            prompt=self.plan.streams[name].prompt,
            layers=stream.layers,
            precision=self.precision if precision == "as_computed" else precision,
            options=self.plan.streams[name].encoder.cache_identity,
        )
        store = Store(cache_root(), "features", identity)
        encoder = stream.encoder.eval()

        def compute(indices: list[int]) -> Iterable[Record | None]:
            rows = prepare_cells([cells[i] for i in indices], name)
            records = iter(self._encode(stream, name, rows))
            return [None if row.failure else next(records) for row in rows]

        if store.missing([cell.key for cell in cells]):
            encoder.to(self.device)
            self._fill(store, f"{name}: features", cells, compute)
            encoder.to("cpu")
        for user in users:
            user.readers[name].features = store

    def _encode(self, stream: Stream, name: str, rows: Sequence[PreparedRow]) -> list[Record]:
        """Return the features of the rows that could be read, in order, as records."""
        batch = Collator({name: stream.encoder})("", rows).to(self.device)
        if not len(batch):
            return []
        stored_precision = self.plan.recipe.cache.precision
        precision = stored_precision if stored_precision in PRECISIONS else None
        options: dict[str, Any] = {"hidden_states": stream.layers} if stream.layers else {}
        records: dict[int, Record] = {}
        with torch.no_grad(), autocast(self.device, self.precision):
            # Apart, since each group has its own grid.
            for members, tensors in groups_of(batch.streams[name]["main"]):
                features = stream.encoder(**tensors, **options).to("cpu")
                indices = range(len(batch)) if members is None else members
                records |= dict(zip(indices, to_records(features, precision), strict=True))
        return [records[i] for i in range(len(batch))]

    def _fill(
        self,
        store: Store,
        level_name: str,
        cells: list[Cell],
        compute: Callable[[list[int]], Iterable[Record | None]],
    ) -> None:
        def report(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(f"cache {level_name}", done, total)

        keys = [cell.key for cell in cells]
        fill(store, keys, compute, batch_size=self.batch_size, progress=report)


@dataclass(frozen=True)
class Cell:
    """One item of a stream: the row, the item's index in its cell, and its key in the stores."""

    dataset: StreamDataset
    index: int
    item: int
    key: str


def prepare_cells(cells: Sequence[Cell], stream: str) -> list[PreparedRow]:
    """Return each cell as a row. An unreadable cell is not stored: the loader reports or skips
    it."""
    prepared: list[PreparedRow] = []
    for _, group in itertools.groupby(cells, key=lambda cell: (id(cell.dataset), cell.index)):
        items = list(group)
        dataset, index = items[0].dataset, items[0].index
        row: Row | None = None
        for cell in items:
            try:
                row = dataset.source[index] if row is None else row
                value, key = dataset.items(stream, index, row)[cell.item]
                sample = dataset.readers[stream].sample(value, key)
            except FAILURES as error:
                prepared.append(PreparedRow.failed(cell.key, error))
            else:
                prepared.append(PreparedRow(cell.key, samples={stream: [{"main": sample}]}))
    return prepared


def _cells(users: Sequence[TaskDataset], name: str) -> list[Cell]:
    """Return the distinct items of a stream."""
    cells: dict[str, Cell] = {}
    for user in users:
        alone = StreamDataset(user.source, {name: user.readers[name]}, many=user.many)
        for index in range(len(user)):
            for item, key in enumerate(alone.item_keys(name, index)):
                cells.setdefault(key, Cell(alone, index, item, key))
    return list(cells.values())


def move_to_device(model: Model, device: torch.device, served: set[str]) -> None:
    """Move a model to a device, except for the encoders that are not run."""
    for name, module in model.named_children():
        if name != "streams":
            module.to(device)
    for name in model.streams:
        stream = model.stream(name)
        for part in (stream.connector, stream.ema, None if name in served else stream.encoder):
            if part is not None:
                part.to(device)
