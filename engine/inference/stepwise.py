"""A pipeline in two steps: a request is prepared alone, on any thread; those that wait together are
answered in one batch, on the thread that owns the model. What encoders computed is remembered.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import uuid
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ...modalities.base import Sample
from ..cache import Record
from ..data import PreparedRow, RowList, StreamDataset
from ..model import Model
from ..utils import ConfigError
from .pipeline import EMBED, Pipeline, Predicted
from .shared import SharedFeatures, encode_items, shared_streams


class FeatureMemory:
    """Features by stream and content of the input, the least recently used left out first.

    max_bytes: of all records. Safe to call from any thread.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.size, self.hits, self.misses = max_bytes, 0, 0, 0
        self._records: OrderedDict[tuple[str, str], Record] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, stream: str, keys: Sequence[str]) -> list[Record] | None:
        """Return the records of keys, or None if one of them is not held."""
        with self._lock:
            if any((stream, key) not in self._records for key in keys):
                self.misses += 1
                return None
            self.hits += 1
            for key in keys:
                self._records.move_to_end((stream, key))
            return [self._records[stream, key] for key in keys]

    def put(self, stream: str, records: Mapping[str, Record]) -> None:
        """Hold records, and forget the oldest beyond `max_bytes`."""
        with self._lock:
            for key, record in records.items():
                if (stream, key) not in self._records:
                    self._records[stream, key] = record
                    self.size += _size(record)
            while self.size > self.max_bytes and self._records:
                _, record = self._records.popitem(last=False)
                self.size -= _size(record)


def _size(record: Record) -> int:
    return sum(array.nbytes for array in record.values())


@dataclass
class PreparedRequest:
    """One row, read and prepared. pending: streams whose encoder has to run, and the keys of their
    items."""

    row: PreparedRow
    pending: dict[str, list[str]] = field(default_factory=dict)


class StepwisePipeline(Pipeline):
    """A pipeline whose `prepare_row` and `answer` are the two halves of a prediction.

    memory_bytes: of features that are remembered. encoded: number of items that encoders computed.
    """

    def __init__(self, model: Model, *, memory_bytes: int = 2**28) -> None:
        super().__init__(model)
        self.memory, self.encoded = FeatureMemory(memory_bytes), 0

    def prepare_row(self, task: str, row: Mapping[str, Any]) -> PreparedRequest:
        """Read and prepare one row of a task, or of a stream for `embed`. Raise ConfigError if it
        cannot be used. Safe to call from several threads."""
        dataset = self._dataset(task, row)
        pending: dict[str, list[str]] = {}
        for stream in self._remembered(task, dataset.readers):
            names = dataset.item_keys(stream, 0)
            if not names:
                continue
            cell = row[stream] if stream in dataset.many else [row[stream]]
            keys = [self._content_key(stream, item) for item in cell]
            records = self.memory.get(stream, keys)
            if records is None:
                pending[stream] = keys
            else:
                held = SharedFeatures()
                held.records = dict(zip(names, records, strict=True))
                dataset.readers[stream].features = held
        prepared = dataset.prepare(0)
        if prepared.failure is not None:
            raise ConfigError(f"{task}: {prepared.failure}")
        return PreparedRequest(prepared, pending)

    def _dataset(self, task: str, row: Mapping[str, Any]) -> StreamDataset:
        if task != EMBED:
            return self._datasets([row], {task: self.streams_of(task, row)})[task]
        ((stream, value),) = row.items()
        if stream not in self._readers:
            raise ConfigError(f"embed: there is no stream {stream!r}")
        reader = dataclasses.replace(self._readers[stream])
        return StreamDataset(RowList([{stream: value}]), {stream: reader})

    def _content_key(self, stream: str, value: Any) -> str:
        """Return the hash of an item's content; a new name for one that is held elsewhere (a
        file), which may change."""
        if isinstance(value, str) and not self.names_files(stream):
            value = value.encode("utf-8", "surrogatepass")
        if isinstance(value, np.ndarray):
            value = f"{value.dtype} {value.shape} ".encode() + value.tobytes()
        return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else uuid.uuid4().hex

    def _remembered(self, task: str, streams: Collection[str]) -> list[str]:
        """Return the streams of which the encoder's output is all that is needed."""
        if task == EMBED:
            return list(streams)
        return [stream for stream in shared_streams(self.model, [task], 1) if stream in streams]

    @torch.no_grad()
    def answer(
        self,
        task: str,
        requests: Sequence[PreparedRequest],
        options: Mapping[str, Any] | None = None,
    ) -> list[Predicted]:
        """Return the predictions of requests for one task and of the same streams, or for `embed`
        vectors `[D]` of one stream; of each its value and None, or None and the reason."""
        try:
            return list(self._answer_all(task, requests, options))
        except Exception as error:
            if len(requests) == 1:
                return [(None, str(error) or type(error).__name__)]
        # One of them fails for all: the others are answered alone.
        return [self.answer(task, [request], options)[0] for request in requests]

    def _answer_all(
        self, task: str, requests: Sequence[PreparedRequest], options: Mapping[str, Any] | None
    ) -> Iterator[Predicted]:
        self._encode(requests)
        rows = [dataclasses.replace(request.row, key=str(i)) for i, request in enumerate(requests)]
        if task != EMBED:
            yield from self._predict_rows(task, rows, options)
            return
        self.model.eval()
        batch = self._collator("", rows).to(self.model.device)
        (stream,) = rows[0].records
        with self._autocast():
            features = self.model.context(batch).encode(stream)
        yield from ((vector, None) for vector in F.normalize(features.pool().float(), dim=-1).cpu())

    def _encode(self, requests: Sequence[PreparedRequest]) -> None:
        """Run the encoders on items that are not cached, each different item once."""
        for stream in {name for request in requests for name in request.pending}:
            samples: dict[str, dict[str, Sample]] = {}
            records: dict[str, Record] = {}
            for request in requests:
                keys = request.pending.get(stream, ())
                for key, views in zip(keys, request.row.samples.get(stream, ()), strict=False):
                    held = self.memory.get(stream, [key])  # since it was prepared
                    if held is None:
                        samples[key] = views
                    else:
                        records[key] = held[0]
            records |= self._run_encoder(stream, samples)
            self.memory.put(stream, records)
            for request in requests:
                if stream in request.pending:
                    keys = request.pending.pop(stream)
                    request.row.samples.pop(stream)
                    request.row.records[stream] = [records[key] for key in keys]

    def _run_encoder(
        self, stream: str, samples: Mapping[str, dict[str, Sample]]
    ) -> dict[str, Record]:
        """Return the records of samples by their keys."""
        rows = [PreparedRow(key, samples={stream: [views]}) for key, views in samples.items()]
        self.model.eval()
        with self._autocast():
            records = encode_items(self.model, stream, rows, list(samples), self._collator)
        self.encoded += len(records)
        return records
