"""A trained model applied to rows and files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...modalities.messages import did_you_mean
from ..checkpoint import load_model, save_run
from ..data import (
    RowList,
    Span,
    StreamDataset,
    observation_windows,
    split_windows,
    stream_readers,
    task_dataset,
    tile_to_window,
)
from ..model import Model
from ..recipe import ResolvedRecipe
from ..utils import ConfigError, autocast, located_errors, pick


@runtime_checkable
class ControlTask(Protocol):
    """The interface of a task that predicts actions.

    Each prediction holds `actions` `[steps, dof]`. chunk: `steps` and `dof`, known once fitted,
    and `first`, the action that episodes of the training split begin with. tokenizer:
    `fixed_start`, True if the first of the actions is the one executed last; `previous_action`
    is then the column that gives it. execution_start: the index of the action that is executed
    at the row's own frame, by the windows of the data.
    """

    streams: Any
    chunk: Any
    tokenizer: Any
    action: str
    previous_action: str

    def columns(self) -> tuple[str, ...]: ...

    def inputs(self) -> tuple[str, ...]: ...

    def execution_start(self, windows: Mapping[str, Span]) -> int: ...


def find_control_task(
    plan: ResolvedRecipe, name: str | None, where: str
) -> tuple[str, ControlTask]:
    """Return the control task of a name, or the only one, with its name.

    Raises ConfigError, which begins with `where`, if there is none or several.
    """
    if name is not None and name not in plan.tasks:
        raise ConfigError(f"{where}: there is no task {name!r}{did_you_mean(name, plan.tasks)}")
    tasks = {key: planned.task for key, planned in plan.tasks.items()}
    control = {key: task for key, task in tasks.items() if isinstance(task, ControlTask)}
    if name is None and len(control) == 1:
        return next(iter(control.items()))
    if name is None or name not in control:
        raise ConfigError(
            f"{where}: found {name or 'none'}, expected a control task; there are: "
            f"{', '.join(control) or 'none'}"
        )
    return name, control[name]


class Pipeline:
    """A loaded model with what a user asks of it: `generate`, `act`, `embed`, by name of the task
    or stream. Values are what the modality's `read` takes: a path, bytes, an array, a text."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._encoders = model.encoders()
        self._readers = stream_readers(model.plan, self._encoders, self._encoders)
        self._collator = model.collator()

    def to(self, device: str | torch.device | None) -> Pipeline:
        """Move the model to a device, see `pick`."""
        self.model.to(pick(device))
        return self

    def generate(
        self,
        task: str,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        options: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> Any:
        """Return what the task predicts for its streams and the columns of its prompt, given by
        name or as a mapping (which may hold any name, `options` too).

        Lists give a list of predictions; single values give one. The cell of a stream that takes
        several items is a list by itself.
        """
        inputs = {**(inputs or {}), **named}
        streams = self.streams_of(task, inputs)
        uses = self.model.plan.tasks[task].task.streams
        rows, several = rows_of(inputs, {name for name in streams if uses[name].many})
        predictions = []
        for prediction, failure in self.predict_rows(task, rows, streams, options):
            if failure is not None:
                raise ConfigError(f"{task}: {failure}")
            predictions.append(prediction)
        return predictions if several else predictions[0]

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
    ) -> Iterator[tuple[Any, str | None]]:
        """Yield prediction and None for each row, or None and why it could not be made. Rows are
        read and predicted in batches of the recipe's size."""
        size = self.model.plan.recipe.train.batch_size
        dataset = task_dataset(
            self.model.plan, self._encoders, task, RowList(rows), streams=streams
        )
        for start in range(0, len(rows), size):
            count = min(size, len(rows) - start)
            with located_errors(task):  # an option that nobody knows
                batch = self._collator(task, [dataset.prepare(start + i) for i in range(count)])
                with self._autocast():
                    batch, results = self.model.eval().predict_rows(
                        batch.to(self.model.device), **(options or {})
                    )
            failed = dict(batch.failed)
            predictions = dict(zip(batch.keys, results, strict=True))
            for key in (dataset.source.key(start + i) for i in range(count)):
                yield (None, failed[key]) if key in failed else (predictions[key], None)

    def act(
        self, task: str, inputs: Mapping[str, Any] | None = None, /, **named: Any
    ) -> np.ndarray:
        """Return the actions `[steps, dof]` to execute from now on, in their order; lists give
        `[B, steps, dof]`. What of a predicted chunk lies before now is left out.

        inputs, named: as in `generate`. Nothing is remembered: one frame stands for all of a
        stream's window. The policy of `engine.rollout` keeps the history, executes a part of each
        chunk and asks again.
        """
        plan, inputs = self.model.plan, {**(inputs or {}), **named}
        _, control_task = find_control_task(plan, task, "act")
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
    def embed(self, /, **stream: Any) -> Tensor:
        """`[B, D]` vectors of unit length of one stream: its connector's, or the encoder's."""
        if not self._encoders:
            raise ConfigError("embed: the recipe has no stream")
        if len(stream) != 1:
            raise ConfigError(f"embed: takes one stream, found {', '.join(stream) or 'none'}")
        ((name, values),) = stream.items()
        if name not in self._encoders:
            streams = ", ".join(self._encoders)
            raise ConfigError(f"embed: there is no stream {name!r}; there are: {streams}")
        values = values if isinstance(values, list) else [values]
        rows = RowList([{name: value} for value in values])
        dataset = StreamDataset(rows, {name: self._readers[name]})
        size = self.model.plan.recipe.train.batch_size
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
        """A value as its modality reads it, before anything is made of it."""
        return self._readers[stream].read(value)


def rows_of(
    inputs: Mapping[str, Any], many: Collection[str] = ()
) -> tuple[list[dict[str, Any]], bool]:
    """Return columns as rows, and whether a column holds the values of several rows: a list does.

    A single value stands in every row. many: streams whose cells are lists; a list of lists holds
    the cells of several rows. Raise ConfigError if columns differ in length.
    """
    columns = {
        name: value
        for name, value in inputs.items()
        if isinstance(value, list) and (name not in many or _is_nested(value))
    }
    if len({len(values) for values in columns.values()}) > 1:
        counts = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
        raise ConfigError(f"inputs: lists of different lengths: {counts}")
    count = len(next(iter(columns.values()), [None]))
    rows = [{n: v[i] if n in columns else v for n, v in inputs.items()} for i in range(count)]
    return rows, bool(columns)


def _is_nested(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(item, (list, tuple)) for item in value)


def load(
    folder: str | Path, *, device: str | torch.device | None = None, precision: str | None = None
) -> Pipeline:
    """Load a run's folder, or `hf-hub:org/name`, and move it to a device.

    device: `cuda`, `cuda:1`, `xpu`, `mps` or `cpu`; None: the first of them that there is.
    precision: `fp32`, `bf16` or `fp16`; None: as it was trained.
    """
    device = pick(device)  # before the weights are read
    return Pipeline(load_model(folder, precision)).to(device)


def save(model: Pipeline | Model, folder: str | Path) -> None:
    """Write a loaded or composed model into a folder of its own."""
    save_run(model.model if isinstance(model, Pipeline) else model, Path(folder))
