"""The score of a prediction's units as a function of one tensor of the batch.

Legend: `N` variants of one row, `U` units (words) of its prediction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ....modalities.base import Features
from ....modalities.groups import ShapeGroups
from ....tasks.base import Explains, Unit
from ....tasks.batch import Batch
from ...data import RowList, task_dataset
from ...model import Model
from ...utils import ConfigError

Place = tuple[str, str]
"""The place of a tensor in a batch: (stream, argument of its encoder), or ("", label)."""


@dataclass
class Scorer:
    """One row of a task, scored with variants of its tensors. size: variants in one forward.
    forwards: how many variants were scored."""

    model: Model
    task: Explains
    batch: Batch
    units: Sequence[Unit]
    size: int = 32
    forwards: int = field(default=0, init=False)

    @classmethod
    def of(cls, model: Model, task: str, row: Mapping[str, Any], *, size: int = 32) -> Scorer:
        """Return the scorer of a row's prediction. Raise ConfigError if the task's predictions are
        not made of units, or the row cannot be read."""
        module = model.task(task)
        if not isinstance(module, Explains):
            able = [n for n in model.tasks if isinstance(model.task(n), Explains)]
            kind = type(module).__name__
            raise ConfigError(
                f"explain: {kind} predicts no words, labels or numbers; tasks that can be "
                f"explained: {', '.join(able) or 'none'}"
            )
        streams = [name for name in module.streams if name in row]
        dataset = task_dataset(model.plan, model.encoders(), task, RowList([row]), streams=streams)
        batch = model.collator()(task, [dataset.prepare(0)])
        if batch.failed:
            raise ConfigError(f"explain: {batch.failed[0][1]}")
        model.eval()
        batch = _without_groups(batch.to(model.device))
        with torch.no_grad():
            units = module.units(batch, model.context(batch))
        if not units:
            raise ConfigError(f"explain: {task} predicts nothing for this row")
        return cls(model, module, batch, units, size)

    def tensor(self, place: Place) -> Tensor:
        """Return the tensor `[1, ...]` at a place."""
        stream, name = place
        return self.batch.streams[stream]["main"][name] if stream else self.batch.labels[name]  # type: ignore[index]

    def scores(self, place: Place, values: Tensor) -> Tensor:
        """Return `[N, U]` of variants `[N, ...]` of the tensor at a place, with a graph."""
        batch = self.batch.select([0] * len(values))
        stream, name = place
        if stream:
            inputs = {**batch.streams[stream]["main"], name: values}  # type: ignore[dict-item]
            batch = replace(batch, streams={**batch.streams, stream: {"main": inputs}})
        else:
            batch = replace(batch, labels={**batch.labels, name: values})
        self.forwards += len(values)
        return self.task.unit_scores(batch, self.model.context(batch), self.units)

    @torch.no_grad()
    def score_many(self, place: Place, values: Sequence[Tensor]) -> Tensor:
        """Return `[N, U]` of any number of variants `[...]`, without a graph."""
        chunks = [values[i : i + self.size] for i in range(0, len(values), self.size)]
        return torch.cat([self.scores(place, torch.stack(list(c))) for c in chunks]).float()

    @torch.no_grad()
    def features(self, stream: str) -> Features:
        """Return the encoder's output of the row."""
        return self.model.context(self.batch).encode(f"{stream}.encoder")


def _without_groups(batch: Batch) -> Batch:
    """Return a batch of one row whose samples are plain dicts."""
    streams = {
        name: {
            view: next(iter(inputs))[1] if isinstance(inputs, ShapeGroups) else inputs
            for view, inputs in views.items()
        }
        for name, views in batch.streams.items()
    }
    return replace(batch, streams=streams)  # type: ignore[arg-type]


@contextlib.contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Within it frozen parts let gradients through to their inputs; no parameter gets one."""
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
