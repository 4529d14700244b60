"""The model of a recipe: streams, decoders and tasks; its forward is a task's loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from ...backbones.base import Backbone
from ...modalities.base import Decoder, Encoder, Loss, RowErrors
from ...modalities.messages import did_you_mean
from ...tasks.base import Task
from ...tasks.batch import Batch
from ..data import Collator
from ..recipe import BACKBONE, ComponentPath, ComponentSpec, ResolvedRecipe
from .context import ModelContext
from .parameters import (
    on_step_end,
    restore_frozen_eval,
)
from .stream import Stream


class BuiltComponent(NamedTuple):
    """A part of a model and its section of the recipe, which holds the engine's keys."""

    where: ComponentPath
    module: nn.Module
    plan: ComponentSpec


class Model(nn.Module):
    """Streams, decoders and tasks of a recipe.

    `model(batch)` is the loss of the batch's task. plan: the plan it was composed from. command:
    the command that trained it. components: everything with a section in the recipe. precision: of
    matrix products outside training, the recipe's; `load_model` may set another.
    waits_for_gradients: whether other processes wait for the gradients of all parameters of this
    one. fingerprints: those of the frozen parts, kept before a model is sharded.
    """

    def __init__(
        self,
        plan: ResolvedRecipe,
        streams: dict[str, Stream],
        decoders: dict[str, Decoder],
        tasks: dict[str, Task],
        components: list[BuiltComponent],
    ) -> None:
        super().__init__()
        self.plan = plan
        self.components = components
        self.command = ""
        self.precision: str = plan.recipe.train.precision
        self.step, self.steps = 0, plan.recipe.train.steps
        self.logs = True  # whether the parts of losses are read
        self.waits_for_gradients = True
        self.fingerprints: dict[str, Any] | None = None
        self.streams = nn.ModuleDict(streams)
        self.decoders = nn.ModuleDict(decoders)
        self.tasks = nn.ModuleDict(tasks)

    def context(self, batch: Batch) -> ModelContext:
        """Return the context of one batch, by which its task gets features and decoders."""
        return ModelContext(self, batch)

    def stream(self, name: str) -> Stream:
        return cast(Stream, self.streams[name])

    def decoder(self, name: str = BACKBONE) -> Decoder:
        """Return a decoder by its name. Raise ValueError if the recipe has none of that name."""
        if name not in self.decoders:
            raise ValueError(f"there is no decoder {name!r}{did_you_mean(name, self.decoders)}")
        return cast(Decoder, self.decoders[name])

    @property
    def backbone(self) -> Backbone | None:
        """The decoder of that name, or None if the recipe has none."""
        return cast(Backbone, self.decoders[BACKBONE]) if BACKBONE in self.decoders else None

    def collator(self) -> Collator:
        """Return the collator of this model's rows."""
        return Collator(self.encoders(), {name: self.task(name) for name in self.tasks})

    def encoders(self) -> dict[str, Encoder]:
        return {name: self.stream(name).encoder for name in self.streams}

    def task(self, name: str) -> Task:
        return cast(Task, self.tasks[name])

    def forward(self, batch: Batch) -> Loss:
        """The task's loss of a batch. Rows that a part cannot process are in `Loss.failed`."""
        failed_before = len(batch.failed)
        while True:
            try:
                loss = self._loss(batch)
            except RowErrors as error:
                batch = batch.without(error)
            else:
                return replace(loss, failed=[*loss.failed, *batch.failed[failed_before:]])

    def _loss(self, batch: Batch) -> Loss:
        task = self.task(batch.task)
        unused = [self.stream(name) for name, views in batch.streams.items() if not views]
        if len(batch) and not unused:
            return self._with_auxiliary(task.loss(batch, self.context(batch)))
        if not self.waits_for_gradients:
            if not len(batch) and not task.cross_rows:
                return Loss(torch.zeros((), device=self.device), 0)
            return self._with_auxiliary(task.loss(batch, self.context(batch)))
        # Streams without an item, or all parts if every row of this process was unreadable, get
        # zero gradients, since other processes wait for them. Their graph is created first, so that
        # the backward reaches it last: the order of collectives is the same in every process.
        task_parameters = {id(p) for p in task.parameters()} if task.cross_rows else set()
        parts = unused if len(batch) else [self]
        other_parameters = (
            p for part in parts for p in part.parameters() if id(p) not in task_parameters
        )
        nothing = sum(
            (p.sum() * 0 for p in other_parameters if p.requires_grad),
            torch.zeros((), device=self.device),
        )
        if not len(batch) and not task.cross_rows:
            return Loss(nothing, 0)
        loss = self._with_auxiliary(task.loss(batch, self.context(batch)))
        return replace(loss, total=loss.total + nothing)

    def _with_auxiliary(self, loss: Loss) -> Loss:
        """Add the decoders' own losses to the loss of any task, for each of its items."""
        for name, decoder in self.decoders.items():
            terms = decoder.pop_auxiliary() if isinstance(decoder, Backbone) else None
            if terms is not None:
                parts = {f"{name}/{k}": value * loss.count for k, value in terms[1].items()}
                total = loss.total + terms[0] * loss.count
                loss = replace(loss, total=total, parts=loss.parts | parts)
        return loss

    @torch.no_grad()
    def predict(self, batch: Batch, **options: Any) -> list[Any]:
        """Return one JSON value a row."""
        return self.task(batch.task).predict(batch, self.context(batch), **options)

    def predict_rows(self, batch: Batch, **options: Any) -> tuple[Batch, list[Any]]:
        """Return the rows that could be predicted, and their predictions. The others join the
        batch's `failed`."""
        while len(batch):
            try:
                return batch, self.predict(batch, **options)
            except RowErrors as error:
                batch = batch.without(error)
        return batch, []

    def on_step_end(self, step: int, steps: int) -> None:
        """Call the tasks after an optimizer step, `step` of `steps`, and update the moving
        averages. Raise RuntimeFailure if a task stops the training."""
        self.step, self.steps, self.logs = step, steps, True
        for name in self.tasks:
            context = self.context(Batch(name, [], []))
            on_step_end(name, self.task(name), context, self.stream)

    def train(self, mode: bool = True) -> Model:
        """Set the training mode; frozen modules stay in `eval()`."""
        super().train(mode)
        restore_frozen_eval(self)
        return self

    @property
    def device(self) -> torch.device:
        """The device of the trainable parameters."""
        for parameter in self.parameters():
            if parameter.requires_grad:
                return parameter.device
        return next(self.parameters(), torch.empty(0)).device


def count_own_parameters(
    model: Model, component: BuiltComponent, trainable: bool | None = None
) -> int:
    """As `count`, without the parameters of the components within it."""
    within = {id(module) for module in component.module.modules()} - {id(component.module)}
    inner = {
        id(parameter)
        for other in model.components
        if id(other.module) in within
        for parameter in other.module.parameters()
    }
    return sum(
        p.numel()
        for p in component.module.parameters()
        if id(p) not in inner and trainable in (None, p.requires_grad)
    )
