"""Composition of a planned recipe into one model: backbone, encoders, connectors, heads, in order.

Widths are read from the objects, never from the recipe. The model's forward is the loss of the
batch's task.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from ...backbones.base import Backbone
from ...modalities.base import Decoder, Encoder, Loss, RowErrors
from ...modalities.groups import try_encoders
from ...modalities.messages import did_you_mean
from ...tasks.base import Task
from ...tasks.batch import Batch
from ..data import Collator
from ..recipe import BACKBONE, ComponentPath, ComponentSpec, Modules, ResolvedRecipe
from ..utils import located_errors, seeded
from .checks import (
    check_decoders,
    check_encoder,
    check_encoder_support,
    check_frozen,
    check_shared_widths,
    check_width,
    hidden_layers,
    order_by_dependency,
    request_head_layers,
    required_width,
)
from .context import ModelContext
from .parameters import (
    apply_adapters,
    create_ema_encoders,
    on_step_end,
    restore_frozen_eval,
    without_adapter,
)
from .stream import Stream
from .transforms import load_and_transform


class BuiltComponent(NamedTuple):
    """A part of a model and its section of the recipe, which holds the engine's keys."""

    where: ComponentPath
    module: nn.Module
    plan: ComponentSpec


class Model(nn.Module):
    """Streams, decoders and tasks of a recipe.

    `model(batch)` is the loss of the batch's task. plan: what it was composed from. command: the
    command that trained it. components: everything with a section in the recipe. precision: of
    matrix products outside training, the recipe's; `load_model` may set another.
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
        """Add what the decoders add to the loss of any task, for each of its items."""
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
        self.step, self.steps = step, steps
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


def compose(
    plan: ResolvedRecipe,
    *,
    weights: bool = True,
    saved: Collection[str] = (),
    seed: int | None = None,
) -> Model:
    """Build the model of a resolved plan whose fitted parts are fitted.

    weights: False leaves every part as its constructor made it (the dry run on the meta
    device). saved: names of the tensors that a run's file holds; a part that it holds in full is
    not loaded, so that what it began with need not be there any more. Raise ConfigError if
    widths do not match: both parts, both numbers, the key.
    """
    seed = plan.recipe.train.seed if seed is None else seed
    saved = {without_adapter(name) for name in saved}
    finished: set[int] = set()

    def finish(part: ComponentSpec, module: nn.Module) -> None:
        """Load and transform a part before others read its widths."""
        if part.section.transforms:
            held = any(n.startswith(part.where.state_prefixes()) for n in saved)
            within = [(p, modules[id(p)]) for p in part.parts()[1:] if not p.comes_with_owner]
            within = [(p, m) for p, m in within if id(m) not in finished]
            load_and_transform(part, module, seed, values=weights and not held, within=within)
            finished.update(id(m) for m in (module, *(m for _, m in within)))

    modules = Modules(finish)
    decoders = {name: part.build(seed, modules) for name, part in plan.decoders.items()}
    encoders = {name: s.encoder.build(seed, modules) for name, s in plan.streams.items()}
    for name, encoder in encoders.items():
        check_encoder(name, encoder)
    streams = {name: Stream(encoder, None) for name, encoder in encoders.items()}
    for name in order_by_dependency(plan):
        part = plan.streams[name].connector
        if part is not None:
            out_dim = required_width(plan, name, streams, decoders)
            connector = part.build(seed, modules, in_dim=encoders[name].dim, out_dim=out_dim)
            streams[name] = Stream(encoders[name], connector)
            check_shared_widths(plan, name, streams)
        streams[name].layers += hidden_layers(plan, name)
        check_width(plan, name, streams, decoders)
        check_encoder_support(plan, name, streams[name])
    tasks = {name: t.task for name, t in plan.tasks.items()}
    widths = {f"{s}{p}": streams[s].width(p[1:]) for s in streams for p in ("", ".encoder")}
    for name, task in plan.tasks.items():
        modules[id(task.plan)] = task.task
        task.plan.build_children(seed, modules, {})
        check_decoders(plan, name, decoders)
        with task.plan.located_errors(), seeded(seed, task.plan.where, "build"):
            task.task.build(widths, decoders)
        for head, use in task.task.head_uses.items():
            ends = {"in_dim": widths[use.stream], "out_dim": use.out_dim}
            built = task.heads[head].build(seed, modules, **ends)
            tasks[name].heads[head] = built
            stream = streams[use.stream.partition(".")[0]]
            request_head_layers(plan, task.heads[head].where, use.stream, built, stream)
    components = [BuiltComponent(part.where, modules[id(part)], part) for part in plan.plans()]
    model = Model(plan, streams, decoders, tasks, components)
    if weights:
        _load_weights(model, saved, finished)
        try_encoders(model)
    for where, module, section in components:
        with seeded(seed, where, "adapters"):
            apply_adapters(module, section, where)
    check_frozen(plan, streams, decoders)
    create_ema_encoders(plan, streams)
    for _, module, _ in components:
        if isinstance(module, Backbone):
            module.unfreeze_added_tokens()
    return model.train()


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


def validate_loaded(module: nn.Module, where: str) -> None:
    """Let a task validate its loaded tensors. Raise ConfigError with its place."""
    if isinstance(module, Task):
        with located_errors(where):
            module.validate_loaded()


def _load_weights(model: Model, saved: Collection[str], finished: Collection[int]) -> None:
    """Load the parts that a run does not hold and that are not finished (ids of modules)."""
    prefixes = {id(module): f"{name}." for name, module in model.named_modules()}
    for where, module, part in model.components:
        tensors = [prefixes[id(module)] + name for name in module.state_dict()]
        if saved and all(name in saved for name in tensors):
            continue
        if id(module) not in finished and not part.comes_with_owner:
            load_and_transform(part, module, model.plan.recipe.train.seed)
        validate_loaded(module, where)
