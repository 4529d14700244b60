"""A model's stand-in for tests of tasks: features that are already there, and a decoder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch

from ..modalities.base import Features
from ..tasks.base import Task
from ..tasks.batch import Batch, Tools
from ..tasks.uses import BACKBONE

Encode = Callable[..., Features]
"""`(stream, view, **options) -> Features`."""


class StubContext:
    """A `tasks.base.Context` over given features, or over a function that returns them.

    teachers: streams that are encoded without a graph, as the engine encodes a task's teachers.

    >>> context = StubContext({"image": features}).on(backbone)
    >>> task.loss(batch, context).total.backward()
    """

    step = 0
    progress = 0.0
    logs = True

    def __init__(
        self,
        features: Mapping[str, Features] | Encode,
        decoder: Any = None,
        teachers: Collection[str] = (),
    ) -> None:
        self.features, self.teachers = features, teachers
        self.encoders: dict[str, Any] = {}
        self.samples: dict[str, Any] = {}
        self.decoders = {} if decoder is None else {BACKBONE: decoder}
        self.generator = torch.Generator().manual_seed(0)

    def on(self, decoder: Any, name: str = BACKBONE) -> Self:
        """Return the same context with a decoder (None: without), its generator at the start."""
        context = copy.copy(self)
        context.decoders = {} if decoder is None else {name: decoder}
        context.generator = torch.Generator().manual_seed(0)
        return context

    def at(self, step: int, progress: float) -> Self:
        """Return the same context at a step of training."""
        context = copy.copy(self)
        context.step, context.progress = step, progress
        return context

    def encode(self, stream: str, view: str = "main", **options: Any) -> Features:
        name = stream.partition(".")[0]
        if callable(self.features):
            features = self.features(stream, view, **options)
        else:
            features = self.features[name]
            for hook in options.get("layer_hooks", {}).values():
                features = features.replace(tokens=hook(features.tokens, features.mask))
        return _detached(features) if name in self.teachers else features

    __call__ = encode

    def reading(self, stream: str, encoder: Any, texts: Sequence[str]) -> Self:
        """Return the same context with the encoder of a text stream, and texts as its samples."""
        context = copy.copy(self)
        context.encoders = {**self.encoders, stream: encoder}
        samples = [encoder.processor.prepare(text) for text in texts]
        device = next(encoder.parameters()).device
        batch = {name: value.to(device) for name, value in encoder.collate(samples).items()}
        context.samples = {**self.samples, stream: batch}
        return context

    def sample(self, stream: str, view: str = "main") -> Any:
        if stream not in self.samples:
            raise KeyError(f"{stream}: the stub has features and no samples")
        return self.samples[stream]

    def encoder(self, stream: str) -> Any:
        return self.encoders[stream]

    def decoder(self, name: str = BACKBONE) -> Any:
        if name not in self.decoders:
            raise ValueError(f"there is no decoder {name!r}; add a `{name}` section to the recipe")
        return self.decoders[name]

    def rows(self, start: int, stop: int) -> Self:
        """Return the same context for some rows of the features."""
        assert not callable(self.features)
        context = copy.copy(self)
        context.features = {
            name: f.replace(
                tokens=f.tokens[start:stop],
                mask=f.mask[start:stop],
                codes=None if f.codes is None else f.codes[start:stop],
            )
            for name, f in self.features.items()
        }
        return context


def _detached(features: Features) -> Features:
    pooled = None if features.pooled is None else features.pooled.detach()
    return features.replace(tokens=features.tokens.detach(), pooled=pooled)


def prepare_batch(
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    keys: Sequence[str] | None = None,
    decoder: Any = None,
    training: bool = True,
) -> Batch:
    """Return rows as the loader hands them to a task, without their streams."""
    tools = Tools({} if decoder is None else {BACKBONE: decoder.tokenizer})
    rng = np.random.default_rng(0) if training else None
    names = [str(i) for i in range(len(rows))] if keys is None else list(keys)
    batch = Batch.of("task", names, [task.prepare(row, tools, rng) for row in rows])
    task.prepare_batch(batch)
    return batch
