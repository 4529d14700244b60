"""The implementation of `tasks.base.Context`."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from typing import Any, Protocol, cast

import torch

from ...backbones.base import Backbone
from ...modalities.base import Decoder, Features
from ...modalities.groups import EncoderInputs
from ...tasks.base import Task
from ...tasks.batch import Batch
from ...tasks.uses import BACKBONE, VocabularyEncoder
from ..recipe import ResolvedRecipe
from ..utils import derive_seed
from .grad_cache import checkpointed_chunks
from .stream import Stream


class ComposedModel(Protocol):
    """The interface of a model that the context needs."""

    plan: ResolvedRecipe
    step: int
    steps: int
    logs: bool

    def stream(self, name: str) -> Stream: ...

    def task(self, name: str) -> Task: ...

    def decoder(self, name: str = BACKBONE) -> Decoder: ...


class ModelContext:
    """The context of one batch: each stream, view and set of options is encoded once."""

    def __init__(self, model: ComposedModel, batch: Batch) -> None:
        self.model, self.batch = model, batch
        self.step, self.progress = model.step, model.step / max(1, model.steps)
        self.logs = model.logs
        self._memo: dict[Hashable, Features] = {}

    @functools.cached_property
    def generator(self) -> torch.Generator:
        seed, batch = self.model.plan.recipe.train.seed, self.batch
        generator = torch.Generator()
        generator.manual_seed(derive_seed(seed, "generator", self.step, batch.task, *batch.keys))
        return generator

    def encode(
        self, stream: str, view: str = "main", chunk: int | None = None, **options: Any
    ) -> Features:
        name, _, point = stream.partition(".")
        task = self.model.task(self.batch.task) if self.batch.task else None
        use = None if task is None else task.streams.get(name)
        graph = torch.is_grad_enabled() and not (use is not None and use.role == "teacher")
        with torch.set_grad_enabled(graph):
            features = self._encode(stream, view, chunk, options)
        return self.model.stream(name).for_tasks(features) if point else features

    def _encode(
        self, stream: str, view: str, chunk: int | None, options: Mapping[str, Any]
    ) -> Features:
        key = (stream, view, *((k, _hashable(options[k])) for k in sorted(options)))
        if key in self._memo:
            return self._memo[key]
        name, _, point = stream.partition(".")
        part = self.model.stream(name)
        cached = self.batch.features.get(name)
        if cached is None and not self.batch.streams[name] and (point or not part.is_bag):
            return part.without_items(point, options)
        if not point and (chunk is None or part.is_bag):
            encoded = self._encode(f"{name}.encoder", view, chunk, options)
            self._memo[key] = part(encoded, self.batch.bags.get(name))
            return self._memo[key]
        inputs = self.batch.streams[name][view] if cached is None else cached
        run = part.point(point)
        if chunk is None:
            self._memo[key] = run(inputs, options)
        else:
            self._memo[key] = checkpointed_chunks(part, run, inputs, options, rows=chunk)
        return self._memo[key]

    def sample(self, stream: str, view: str = "main") -> EncoderInputs:
        return self.batch.streams[stream][view]

    def encoder(self, stream: str) -> VocabularyEncoder:
        return cast(VocabularyEncoder, self.model.stream(stream).encoder)

    def decoder(self, name: str = BACKBONE) -> Backbone:
        return cast(Backbone, self.model.decoder(name))


def _hashable(value: Any) -> Hashable:
    return value if isinstance(value, (tuple, str, int, float)) else id(value)
