"""What an analysis reads: a model, rows of one of its tasks, their targets and frozen features."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ....backbones.base import Backbone
from ....modalities.base import Features, StreamingSource
from ....modalities.messages import did_you_mean
from ....tasks.batch import Batch
from ...data import (
    Subset,
    TaskDataset,
    batches,
    cell_items,
    load_split,
    sequential_batches,
    task_dataset,
)
from ...model import FeatureCacher, Model
from ...recipe import BACKBONE
from ...utils import ConfigError, autocast

OUTPUT, CONNECTOR = "output", "connector"
"""Names of the encoder's output and of the end of a stream among its layers."""


@dataclass
class Subject:
    """A model without gradients, and the first rows of a split of one task."""

    model: Model
    task: str
    rows: TaskDataset
    device: torch.device

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        task: str | None = None,
        split: str | None = None,
        limit: int = 1000,
        device: torch.device | str = "cpu",
    ) -> Subject:
        """Return the subject of a model. task: the only one by default. split: `test`, or the first
        that there is. Raise ConfigError if one is missing."""
        name = chosen(task, model.plan.tasks, "--task")
        sections = model.plan.recipe.tasks[name].data
        if not sections:
            raise ConfigError(f"tasks.{name}: has no data to analyze; add data.test")
        split_name = split or ("test" if "test" in sections else next(iter(sections)))
        source = load_split(model.plan, name, split_name)
        if isinstance(source, StreamingSource):
            raise ConfigError(f"tasks.{name}.data.{split_name}: is a stream; save rows of it first")
        if limit < len(source):
            source = Subset(source, np.arange(limit))
        model.requires_grad_(False).eval()
        rows = task_dataset(model.plan, model.encoders(), name, source)
        return cls(model, name, rows, torch.device(device))

    def target(self, column: str | None = None) -> np.ndarray:
        """Return the targets `[N]`: a column of numbers (float), or of classes (texts, integers).

        column: by default the first that the task reads.
        """
        columns = self.rows.task.columns()
        name = column or (columns[0] if columns else None)
        if name is None:
            raise ConfigError(f"tasks.{self.task}: reads no column; set target=COLUMN")
        known = getattr(self.rows.source, "columns", ())
        if name not in known:
            raise ConfigError(f"target: there is no column {name!r}{did_you_mean(name, known)}")
        values = [self.rows.source.cell(i, name) for i in range(len(self.rows))]
        array = np.asarray(values)
        if array.ndim != 1 or array.dtype == object:
            kind = type(values[0]).__name__ if values else "nothing"
            raise ConfigError(f"target: {name!r} holds {kind}; expected one number or text a row")
        return array

    def stream(self, name: str | None = None) -> str:
        """Return the name of a stream that the task reads; the only input by default."""
        inputs = self.rows.task.streams if name else self.rows.task.inputs()
        return chosen(name, inputs, "stream")

    def layer_names(self, stream: str) -> dict[int | str, str]:
        """Return what `features` returns: hidden layers by number, the encoder's output, and the
        connector's."""
        part = self.model.stream(stream)
        names: dict[int | str, str] = {}
        if "hidden_states" in part.encoder.supports:
            names |= {i: f"layer {i}" for i in range(self._depth(stream))}
        names[OUTPUT] = OUTPUT
        if part.connector is not None:
            names[CONNECTOR] = CONNECTOR
        return names

    @torch.no_grad()
    def _depth(self, stream: str) -> int:
        """Return the number of hidden layers of an encoder: at most its blocks, of which some (a
        stem) may be none."""
        encoder, reader = self.model.stream(stream).encoder, self.rows.readers[stream]
        cell = cell_items(self.rows.source.cell(0, stream), stream in self.rows.many)[0]
        inputs = {k: v.to(self.device) for k, v in encoder.collate([reader.prepare(cell)]).items()}
        encoder.to(self.device)
        for count in range(len(encoder.blocks()), 0, -1):
            with contextlib.suppress(ValueError):
                encoder(**inputs, hidden_states=(count - 1,))
                return count
        return 0

    def features(self, stream: str) -> dict[str, np.ndarray]:
        """Return `[N, D]` vectors of the rows for every layer of a stream, by the layer's name.

        They are computed once and kept in the cache of features, as those of a training are.
        """
        parts: dict[str, list[Tensor]] = {}
        for layers in self._layers(stream):
            for name, features in layers.items():
                parts.setdefault(name, []).append(features.pool().float().cpu())
        return {name: torch.cat(values).double().numpy() for name, values in parts.items()}

    def sequences(self, stream: str) -> dict[str, list[np.ndarray]]:
        """Return the tokens `[T, D]` of each row for every layer of a stream."""
        rows: dict[str, list[np.ndarray]] = {}
        for layers in self._layers(stream):
            for name, features in layers.items():
                tokens = features.tokens.double().cpu()
                rows.setdefault(name, []).extend(
                    t[m].numpy() for t, m in zip(tokens, features.mask.cpu(), strict=True)
                )
        return rows

    def _layers(self, stream: str) -> Iterator[dict[str, Features]]:
        """Yield the features of a batch by layer."""
        names = self.layer_names(stream)
        numbers = tuple(key for key in names if isinstance(key, int))
        part = self.model.stream(stream)
        part.layers = (*part.connector_layers, *numbers)
        self._attach()
        for batch in self.batches():
            context = self.model.context(batch)
            options: dict[str, Any] = {"hidden_states": numbers} if numbers else {}
            with torch.no_grad(), autocast(self.device, self.model.precision):
                output = context.encode(f"{stream}.encoder", **options)
                layers = dict(zip((names[n] for n in numbers), output.hidden_states, strict=True))
                layers[OUTPUT] = output
                if CONNECTOR in names:
                    layers[CONNECTOR] = context.encode(stream, **options)
            yield layers

    def _attach(self) -> None:
        size = self.model.plan.recipe.train.batch_size
        cacher = FeatureCacher(self.model.plan, self.model, self.device, self.model.precision, size)
        cacher.attach([self.rows])

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        """Yield the rows in batches of `size`, by default as in training, on the device. Raise
        ConfigError for a row that cannot be read."""
        self.model.to(self.device)
        size = size or self.model.plan.recipe.train.batch_size
        addresses = sequential_batches(self.rows, size, 1, 0)
        loaded = batches(
            {self.task: self.rows}, addresses, self.model.collator(), device=self.device
        )
        for batch in loaded:
            if batch.failed:
                key, reason = batch.failed[0]
                raise ConfigError(f"tasks.{self.task}: row {key!r}: {reason}")
            yield batch.to(self.device)

    @torch.no_grad()
    def loss(self) -> float:
        """Return the mean loss of an item of the rows."""
        total, count = 0.0, 0
        for batch in self.batches():
            with autocast(self.device, self.model.precision):
                loss = self.model(batch)
            total, count = total + float(loss.total), count + int(loss.count)
        return total / count if count else math.nan

    def part(self, name: str | None = None) -> tuple[str, nn.Module]:
        """Return a network by its name, a decoder's or a stream's (its encoder); the backbone by
        default, or else the only input."""
        parts: dict[str, nn.Module] = {n: self.model.decoder(n) for n in self.model.decoders}
        parts |= {n: self.model.stream(n).encoder for n in self.rows.task.streams}
        default = BACKBONE if BACKBONE in parts else None
        part_name = chosen(name or default, parts, "part")
        return part_name, parts[part_name]

    def blocks(self, name: str | None = None) -> tuple[str, Sequence[nn.Module]]:
        """Return a network's name and its layers. Raise ConfigError if they are not known."""
        part_name, module = self.part(name)
        blocks = list(module.blocks())  # type: ignore[operator]
        if not blocks:
            raise ConfigError(
                f"part: {part_name}: {type(module).__name__} does not list its layers"
            )
        return part_name, blocks

    def decoder(self, name: str | None = None) -> Backbone:
        """Return a language model by its name. Raise ConfigError if there is none."""
        part_name, module = self.part(name or BACKBONE)
        if not isinstance(module, Backbone):
            raise ConfigError(f"part: {part_name} is no language model")
        return module

    def texts(self, column: str | None = None) -> list[str]:
        """Return the texts of a column."""
        return [str(value) for value in self.target(column)]


@contextlib.contextmanager
def captured_logits(decoder: Backbone, into: list[Tensor]) -> Iterator[None]:
    """Within it every result of a decoder's `logits` is kept."""
    compute = decoder.logits

    def keep(hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        logits = compute(hidden, ids)
        into.append(logits.detach().float().flatten(0, -2))
        return logits

    decoder.logits = keep  # type: ignore[method-assign]
    try:
        yield
    finally:
        del decoder.logits


def chosen(name: str | None, known: Any, option: str) -> str:
    """Return a name that is known, or the only one. Raise ConfigError."""
    if name is None and len(known) == 1:
        return str(next(iter(known)))
    if name is None:
        raise ConfigError(f"{option}: there are {', '.join(known) or 'none'}; name one")
    if name not in known:
        raise ConfigError(f"{option}: there is no {name!r}{did_you_mean(name, known)}")
    return name
