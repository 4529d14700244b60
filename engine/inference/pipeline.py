"""A trained model applied to rows and files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ...tasks.batch import Batch
from ..data import (
    PreparedRow,
    RowList,
    StreamDataset,
    TaskDataset,
    observation_windows,
    split_windows,
    stream_readers,
    task_dataset,
    tile_to_window,
)
from ..model import Model
from ..recipe import load as load_object
from ..utils import ConfigError, autocast, culprit, located_errors, pick
from .abilities import Abilities
from .control import find_control_task
from .options import check_options
from .rows import fetch_addresses, is_lazy, lazy_chunks, rows_of
from .shared import encode_shared, shared_streams

Predicted = tuple[Any, str | None]
"""A prediction and None, or None and the reason."""


EMBED = "embed"
ABILITIES = (
    *("caption", "transcribe", "classify", "regress", "localize", "segment", "act", "draw"),
    *("rerank", "tag"),
)
"""What a task's `ability` may be; each is a method of `Pipeline`."""


class Pipeline(Abilities):
    """A loaded model with the methods that a user calls: `generate`, `embed`, and the abilities of
    its tasks, by name of the task or stream.

    Values are those that the modality's `read` takes: a path, bytes, an array, a picture, a text.
    Lists return lists, iterators are read lazily. allow_urls: fetch values that are addresses.
    """

    def __init__(self, model: Model, *, allow_urls: bool = False) -> None:
        self.model, self.allow_urls = model, allow_urls
        self._encoders = model.encoders()
        self._readers = stream_readers(model.plan, self._encoders, self._encoders)
        self._collator = model.collator()

    def to(self, device: str | torch.device | None) -> Pipeline:
        """Move the model to a device, see `pick`."""
        self.model.to(pick(device))
        return self

    def generate(
        self,
        task: str | Sequence[str],
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        options: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        **named: Any,
    ) -> Any:
        """Return the task's prediction for its streams and the columns of its prompt, passed by
        name or as a mapping (which may hold any name, `options` too).

        Lists return a list of predictions, iterators an iterator, single values one. The cell of
        a stream that takes several items is a list by itself. task: several return a dict by task;
        an encoder that they share runs once. options: of generation. batch_size: rows of a batch,
        by default the recipe's.
        """
        inputs = {**(inputs or {}), **named}
        names = [task] if isinstance(task, str) else list(task)
        streams = {name: self.streams_of(name, inputs) for name in names}
        size = batch_size or self.model.plan.recipe.train.batch_size
        for name in names:
            check_options(self.model.plan.tasks[name].task, name, options)
        if any(is_lazy(value) for value in inputs.values()):
            return self._lazily(task, inputs, options, size)
        plan = self.model.plan
        uses = [(n, plan.tasks[name].task.streams[n]) for name in names for n in streams[name]]
        many = {n for n, use in uses if plan.streams[n].many(use)}
        rows, several = rows_of(inputs, many)
        datasets = self._datasets(rows, streams)
        predictions: dict[str, list[Any]] = {name: [] for name in names}
        for start in range(0, len(rows), size):
            indices = range(start, min(start + size, len(rows)))
            self._share(datasets, indices)
            for name, dataset in datasets.items():
                for prediction, failure in self._predict(name, dataset, indices, options):
                    if failure is not None:
                        raise ConfigError(f"{name}: {failure}")
                    predictions[name].append(prediction)
        answer = {name: rows if several else rows[0] for name, rows in predictions.items()}
        return answer[task] if isinstance(task, str) else answer

    def _lazily(
        self,
        task: str | Sequence[str],
        inputs: Mapping[str, Any],
        options: Mapping[str, Any] | None,
        size: int,
    ) -> Iterator[Any]:
        """Yield a prediction a row, or a dict of them, a batch at a time."""
        for chunk in lazy_chunks(inputs, size):
            answers = self.generate(task, chunk, options=options, batch_size=size)
            if isinstance(task, str):
                yield from answers
            else:
                rows = zip(*answers.values(), strict=True)
                yield from (dict(zip(answers, row, strict=True)) for row in rows)

    def streams_of(self, task: str, inputs: Collection[str]) -> list[str]:
        """Return the streams of a task that are among the inputs. Raise ConfigError if one that it
        needs is not, or if there is no such task."""
        tasks = self.model.plan.tasks
        if task not in tasks:
            raise ConfigError(f"there is no task {task!r}; there are: {', '.join(tasks)}")
        needed = tasks[task].task.inputs()
        missing = [name for name in needed if name not in inputs]
        if missing:
            names = ", ".join(inputs) or "none"
            raise ConfigError(f"{task}: needs {', '.join(missing)} among its inputs, found {names}")
        return [name for name in tasks[task].task.streams if name in inputs]

    def predict_rows(
        self,
        task: str,
        rows: Sequence[Mapping[str, Any]],
        streams: Sequence[str],
        options: Mapping[str, Any] | None = None,
    ) -> Iterator[Predicted]:
        """Yield prediction and None for each row, or None and why it could not be made. Rows are
        read and predicted in batches of the recipe's size."""
        size = self.model.plan.recipe.train.batch_size
        dataset = self._datasets(rows, {task: streams})[task]
        for start in range(0, len(rows), size):
            indices = range(start, min(start + size, len(rows)))
            yield from self._predict(task, dataset, indices, options)

    def _datasets(
        self, rows: Sequence[Mapping[str, Any]], streams: Mapping[str, Sequence[str]]
    ) -> dict[str, TaskDataset]:
        """Return rows as each task sees them. streams: those to read, by task."""
        files = {name for names in streams.values() for name in names if self.names_files(name)}
        fetched = [
            {k: self._fetched(k, v) if k in files else v for k, v in row.items()} for row in rows
        ]
        source = RowList(fetched)
        return {
            task: task_dataset(self.model.plan, self._encoders, task, source, streams=names)
            for task, names in streams.items()
        }

    def _fetched(self, stream: str, cell: Any) -> Any:
        return fetch_addresses(cell, stream, self.allow_urls)

    def names_files(self, stream: str) -> bool:
        """Return whether a text among a stream's values is the name of a file."""
        return bool(load_object(self.model.plan.streams[stream].modality.files)(__file__))

    def _share(self, datasets: Mapping[str, TaskDataset], indices: Sequence[int]) -> None:
        """Run encoders that several tasks read once for a batch of rows."""
        for stream in shared_streams(self.model, list(datasets)):
            users = [dataset for dataset in datasets.values() if stream in dataset.readers]
            if len(users) < 2:
                continue
            many, bags = (frozenset({stream}) & s for s in (users[0].many, users[0].bags))
            alone = StreamDataset(
                users[0].source,
                {stream: replace(users[0].readers[stream], features=None)},
                many=many,
                bags=bags,
            )
            with torch.no_grad(), self._autocast():
                self.model.eval()
                memory = encode_shared(self.model, stream, alone, indices, self._collator)
            for user in users:
                user.readers[stream].features = memory

    def _predict(
        self,
        task: str,
        dataset: TaskDataset,
        indices: Sequence[int],
        options: Mapping[str, Any] | None,
    ) -> Iterator[Predicted]:
        """Yield prediction and None, or None and the reason, for one batch of rows."""
        with located_errors(task):
            rows = [dataset.prepare(index) for index in indices]
        yield from self._predict_rows(task, rows, options)

    def _predict_rows(
        self, task: str, rows: Sequence[PreparedRow], options: Mapping[str, Any] | None
    ) -> Iterator[Predicted]:
        """As `_predict`, for rows that are prepared."""
        checked = check_options(self.model.plan.tasks[task].task, task, options)
        with located_errors(task):
            inputs = self._collator(task, rows).to(self.model.device)

            def predict(options: Mapping[str, Any]) -> tuple[Batch, list[Any]]:
                with self._autocast():
                    return self.model.eval().predict_rows(inputs, **options)

            try:
                batch, results = predict(checked)
            except Exception as error:  # an option that does not fit, by its name
                line = culprit(predict, checked, error)
                if line is None:
                    raise
                raise ValueError(line) from error
        failed = dict(batch.failed)
        predictions = dict(zip(batch.keys, results, strict=True))
        for key in (row.key for row in rows):
            yield (None, failed[key]) if key in failed else (predictions[key], None)

    def act(
        self, task: str | None = None, inputs: Mapping[str, Any] | None = None, /, **named: Any
    ) -> np.ndarray:
        """Return the actions `[steps, dof]` to execute from now on, in their order; lists return
        `[B, steps, dof]`. What of a predicted chunk lies before now is left out.

        inputs, named: as in `generate`. No state is kept: one frame is used for all of a
        stream's window. The policy of `engine.rollout` keeps the history, executes a part of each
        chunk and predicts again.
        """
        plan, inputs = self.model.plan, {**(inputs or {}), **named}
        task, control_task = find_control_task(plan, task, "act")
        section, where = plan.recipe.tasks[task], f"tasks.{task}.data"
        spans = observation_windows(section, control_task.inputs(), where)
        rows = {k: tile_to_window(v, spans[k]) if k in spans else v for k, v in inputs.items()}
        predictions = self.generate(task, rows)
        start = control_task.execution_start(split_windows(section))
        if predictions == []:
            chunk = control_task.chunk
            return np.zeros((0, chunk.steps - start, chunk.dof), np.float32)
        if isinstance(predictions, list):
            return np.asarray([row["actions"] for row in predictions], np.float32)[:, start:]
        return np.asarray(predictions["actions"], np.float32)[start:]

    @torch.no_grad()
    def embed(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        batch_size: int | None = None,
        **stream: Any,
    ) -> Any:
        """Return `[B, D]` vectors of unit length of one stream: its connector's, or the encoder's.
        An iterator returns an iterator of vectors `[D]`."""
        stream = {**(inputs or {}), **stream}
        if not self._encoders:
            raise ConfigError("embed: the recipe has no stream")
        if len(stream) != 1:
            raise ConfigError(f"embed: takes one stream, found {', '.join(stream) or 'none'}")
        ((name, values),) = stream.items()
        if name not in self._encoders:
            names = ", ".join(self._encoders)
            raise ConfigError(f"embed: there is no stream {name!r}; there are: {names}")
        size = batch_size or self.model.plan.recipe.train.batch_size
        if is_lazy(values):
            chunks = lazy_chunks({name: values}, size)
            return (vector for chunk in chunks for vector in self.embed(chunk, batch_size=size))
        values = values if isinstance(values, list) else [values]
        if self.names_files(name):
            values = [self._fetched(name, value) for value in values]
        rows = RowList([{name: value} for value in values])
        bags = frozenset({name} if self.model.plan.streams[name].is_bag else ())
        dataset = StreamDataset(rows, {name: self._readers[name]}, many=bags, bags=bags)
        self.model.eval()
        vectors = [torch.zeros(0, self.model.stream(name).width(), device=self.model.device)]
        for start in range(0, len(rows), size):
            indices = range(start, min(start + size, len(rows)))
            batch = self._collator("", [dataset.load(i) for i in indices]).to(self.model.device)
            with self._autocast():
                features = self.model.context(batch).encode(name)
            vectors.append(F.normalize(features.pool().float(), dim=-1))
        return torch.cat(vectors)

    def _autocast(self) -> torch.autocast:
        return autocast(self.model.device, self.model.precision)

    def read_raw(self, stream: str, value: Any) -> Any:
        """Return a value as its modality reads it, before anything is made of it."""
        return self._readers[stream].read(value)
