"""The dry run: a recipe built on the meta device and walked through by two rows.

No weights, no device memory, and no network where configurations are local. Every mismatch
is found here. Reports the path of the data, stage by stage, and the cost of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ...modalities.base import Features, Source, StreamingSource
from ...tasks.batch import Batch
from ..checkpoint import check_trackers
from ..data import TRAIN, PreparedRow, RowList, failure_line, limit, load_split, task_dataset
from ..model import (
    Model,
    compose,
    count_own_parameters,
    decoder_notes,
    fit,
    tasks_to_meta,
    tokenizer_notes,
    uncacheable_reason,
)
from ..model.parameters import AdapterCheck, is_frozen
from ..recipe import Recipe, ResolvedRecipe, count, load, plan_recipe, stage_recipes
from ..rollout import check_env
from ..utils import ConfigError, check_training_precision, format_table, located_errors
from .callbacks import build_callbacks
from .optim import build_optimizer, lr_schedule
from .parallel import StepMemory, check_parallel, step_memory
from .stages import StageStart
from .totals import SavedTensors

ROWS = 2
MAX_ROWS_TRIED = 64
"""Rows that are tried before a data set is given up."""

FITTED_ON = 20_000
"""Rows that fitted parts are fitted on here; a longer data set is cut off."""


@dataclass
class ComponentSummary:
    """A part on the way of the data: its shapes, and what of it trains."""

    where: str
    type: str
    shape: str
    parameters: int
    trained: int
    note: str = ""


@dataclass
class Report:
    """What `check` found. flops: of a forward and backward of one batch. memory: bytes of such a
    step on one device at its peak; `steps` has their terms. stages: by folder, of a recipe with
    stages, whose own report is empty."""

    components: list[ComponentSummary] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    flops: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    steps: dict[str, StepMemory] = field(default_factory=dict)
    stages: dict[str, Report] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.stages:
            return "\n\n".join(f"stage {name}\n{report}" for name, report in self.stages.items())
        head = ("part", "type", "gives", "parameters", "trained", "")
        rows = [
            (s.where, s.type, s.shape, f"{s.parameters:,}", f"{s.trained:,}", s.note)
            for s in self.components
        ]
        lines = [format_table([head, *rows], right=(3, 4))]
        numbers = sum(s.parameters for s in self.components)
        lines.append(f"weights: {4 * numbers:,} bytes in float32, {numbers:,} in int8")
        for task, flops in self.flops.items():
            lines.append(
                f"a step of {task}: {flops / 1e9:.3g} GFLOP, about {self.memory[task] / 1e9:.2g} GB"
            )
        return "\n".join([*lines, *self.notes])


def check(recipe: Recipe) -> Report:
    """Build and walk a recipe, or each of its stages, on the meta device. Raise ConfigError for
    every mismatch."""
    stages = stage_recipes(recipe)
    if not stages:
        report, model = check_one(recipe)
        check_env(model.plan)
        return report
    report, start = Report(), None
    for stage, following in zip(stages, [*stages[1:], None], strict=True):
        with stage.located_errors():
            report.stages[stage.folder], model = check_one(stage.recipe, start)
            if following is None:
                check_env(model.plan)
        start = StageStart.of_model(following, stage, model) if following else None
    return report


def check_one(recipe: Recipe, start: StageStart | None = None) -> tuple[Report, Model]:
    plan = plan_recipe(recipe)
    plan.check_sources()
    plan.resolve()
    report = Report()
    sources = {name: _source(plan, name, report) for name in plan.tasks}
    states = start.kept_states() if start else None
    fit(plan, {n: _short(s) for n, s in sources.items()}, states)
    report.notes += tokenizer_notes(plan)
    with torch.device("meta"):
        model = compose(plan, weights=False)
        tasks_to_meta(model.tasks)
    if start is not None:
        anew = start.fill(model)
        report.notes += [f"starts over: {', '.join(anew)}"] if anew else []
    if recipe.train.steps:
        build_optimizer(model, recipe.train)  # refuses a recipe in which nothing trains
        lr_schedule(recipe.train)
        build_callbacks(recipe.callbacks)
        check_training_precision(recipe.train.precision)
    check_trackers(recipe.train.track)
    check_parallel(recipe)
    shapes: dict[str, str] = {}
    batches = {name: _batch(plan, model, name, sources[name]) for name in plan.tasks}
    adapters = AdapterCheck([(c.where, c.module, c.plan.section.lora) for c in model.components])
    for name, batch in batches.items():
        with adapters.watching():
            _dry_run_task(model, name, batch, report, shapes)
    for name, batch in {} if adapters.complete else batches.items():
        with located_errors(f"tasks.{name}"):
            adapters.walk_without_dropout(model, batch)
    report.notes += adapters.validate()
    _describe(model, shapes, report)
    report.notes += decoder_notes(model.decoders)
    return report, model


def _example_rows(plan: ResolvedRecipe, task: str) -> Source:
    """Return the rows of a task's own example, with made-up signals in its streams."""
    rows = []
    for i, row in enumerate(plan.tasks[task].task.example_rows()):
        example_row = dict(row)
        for name in plan.tasks[task].task.streams:
            example, rng = _example(plan, task, name), np.random.default_rng(i)
            is_many = plan.streams[name].many(plan.tasks[task].task.streams[name])
            example_row[name] = [example(rng) for _ in range(ROWS)] if is_many else example(rng)
        rows.append(example_row)
    return RowList(rows)


def _example(plan: ResolvedRecipe, task: str, stream: str) -> Callable[[np.random.Generator], Any]:
    """Return what makes cells of a stream. Raise ConfigError if its modality cannot."""
    path = plan.streams[stream].modality.example
    if path is None:
        raise ConfigError(
            f"tasks.{task}: has no data.train, and the modality of inputs.{stream}, "
            f"{plan.recipe.inputs[stream].modality}, makes no example; add data.train"
        )
    make: Callable[[np.random.Generator], Any] = load(path)
    return make


def _source(plan: ResolvedRecipe, task: str, report: Report) -> Source:
    """Return the task's training rows; its example where the recipe names no data."""
    if TRAIN not in plan.recipe.tasks[task].data:
        report.notes.append(f"tasks.{task}: has no data.train; walked with its example rows")
        return _example_rows(plan, task)
    for split in plan.recipe.tasks[task].data:
        source = load_split(plan, task, split)
        if split == TRAIN:
            opened = source
        if not isinstance(source, StreamingSource):
            report.notes.append(f"tasks.{task}.data.{split}: {len(source):,} rows")
    return opened


def _short(source: Source) -> Source:
    if isinstance(source, StreamingSource) or len(source) <= FITTED_ON:
        return source
    return limit(source, FITTED_ON)


def _batch(plan: ResolvedRecipe, model: Model, name: str, source: Source) -> Batch:
    """Return the first rows that can be read; another is an error, unless it may be skipped."""
    encoders = model.encoders()
    first = limit(source, MAX_ROWS_TRIED)
    dataset = task_dataset(plan, encoders, name, first, training=True)
    data = plan.recipe.tasks[name].data.get(TRAIN)
    skip = data is not None and data.on_error == "skip"
    where = f"tasks.{name}.data.{TRAIN}"
    rows: list[PreparedRow] = []
    failed = "there is none"
    for i in range(len(first)):
        if len(rows) == ROWS:
            break
        row = dataset.prepare(i)
        if row.failure is None:
            rows.append(row)
            continue
        failed = f"row {row.key}: {row.failure}"
        if not skip:
            raise ConfigError(failure_line(where, row.key, row.failure))
    if not rows:
        raise ConfigError(f"{where}: none of the first {len(first)} rows can be read; {failed}")
    return model.collator()(name, rows).to("meta")


def _dry_run_task(
    model: Model, name: str, batch: Batch, report: Report, shapes: dict[str, str]
) -> None:
    """Forward and backward on the meta device, counted; scaled to the recipe's batch."""
    scale = model.plan.recipe.train.batch_size / max(1, len(batch))
    saved = SavedTensors(model)
    handles = [
        component.module.register_forward_hook(_shape_hook(shapes, component.where))
        for component in model.components
    ]
    try:
        with (
            FlopCounterMode(display=False) as counter,
            saved.counting(),
            located_errors(f"tasks.{name}"),
        ):
            loss = model(batch)
            if loss.total.requires_grad:
                loss.total.backward()
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
    report.flops[name] = float(counter.get_total_flops()) * scale
    if model.plan.recipe.train.steps:
        report.steps[name] = step_memory(model, saved.bytes * scale, saved.largest * scale)
        report.memory[name] = report.steps[name].of_replicas()
    else:
        report.memory[name] = 4 * count(model) + saved.bytes * scale


def _shape_hook(shapes: dict[str, str], where: str) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        shapes.setdefault(where, _shape(output))

    return hook


def _shape(output: Any) -> str:
    if isinstance(output, Features):
        text = f"[B, {output.tokens.shape[1]}, {output.dim}]"
        return text + (f" grid {'x'.join(map(str, output.grid))}" if output.grid else "")
    if isinstance(output, Tensor):
        return f"[B, {', '.join(map(str, output.shape[1:]))}]"
    return ""


def _describe(model: Model, shapes: Mapping[str, str], report: Report) -> None:
    begins: list[str] = []
    for component in model.components:
        where, module, part = component
        total, trained = (count_own_parameters(model, component, only) for only in (None, True))
        if where.startswith("tasks.") and not total:
            continue
        frozen = is_frozen(module)
        note = "frozen" if frozen else ""
        if where.section == "inputs" and where.inside == "encoder":
            reason = uncacheable_reason(model.plan, model, where.name)
            note = "frozen, features cached" if reason is None else note
        if part.weights == "none" and frozen and total:
            report.notes.append(
                f"warning: {where} is frozen at random weights; name its weights, or let it train"
            )
        if part.weights == "none" and total and not frozen:
            begins.append(where)
        summary = ComponentSummary(
            where, part.section.type, shapes.get(where, ""), total, trained, note
        )
        report.components.append(summary)
    for where, source in model.plan.shared().items():
        report.components.append(ComponentSummary(where, "", "", 0, 0, f"shares {source}"))
    if begins:
        report.notes.append(f"begins at random weights: {', '.join(begins)}")
