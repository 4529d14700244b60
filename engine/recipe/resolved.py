"""A whole recipe as plans: every class imported and every option checked, nothing built.

Mistakes between the parts of a recipe are reported here: a prompt without a stream, a stream that
no task uses, a task without its decoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from ...modalities.base import Fittable, Tokenizer
from ...modalities.messages import did_you_mean
from ...tasks.base import Task
from ...tasks.batch import Tools
from ..utils import ConfigError, located_errors, seeded
from .component import ComponentSpec, plan
from .component_path import BACKBONE, ComponentPath, joined, validate_source
from .recipe import Recipe, TaskSection, to_plain_dict, to_section
from .registry import find
from .stages import stage_recipes
from .streams import StreamPlan as StreamPlan
from .streams import plan_streams
from .train_config import check_task_weights
from .validation import arguments


@dataclass
class TaskPlan:
    """task: built, with parts that are not yet fitted."""

    plan: ComponentSpec
    task: Task
    heads: dict[str, ComponentSpec]


@dataclass
class ResolvedRecipe:
    """A recipe whose parts are found and checked and, after `resolve`, completed.

    unfit_rows: training rows that parts could not be fitted on, `(task, key) -> reason`.
    """

    recipe: Recipe
    streams: dict[str, StreamPlan]
    decoders: dict[str, ComponentSpec]
    tasks: dict[str, TaskPlan]
    unfit_rows: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)

    @property
    def tools(self) -> Tools:
        """Return what tasks prepare rows with: the tokenizers of the decoders."""
        fitted = {name: part.fitted.get("tokenizer") for name, part in self.decoders.items()}
        return Tools({n: cast(Tokenizer, t) for n, t in fitted.items() if t is not None})

    def plans(self) -> list[ComponentSpec]:
        """Return every part, an owner before the parts within it."""
        owners = list(self.decoders.values())
        for stream in self.streams.values():
            owners += [stream.encoder, *([stream.connector] if stream.connector else [])]
        for task in self.tasks.values():
            owners += [task.plan, *task.heads.values()]
        parts = {id(part): part for owner in owners for part in owner.parts()}
        return list(parts.values())

    def streams_of(self, part: ComponentSpec) -> list[str]:
        """Return the streams whose encoder or connector runs a part; several if it is shared."""
        return [
            name
            for name, stream in self.streams.items()
            if any(end is not None and end.runs(part) for end in (stream.encoder, stream.connector))
        ]

    def shared(self) -> dict[ComponentPath, ComponentPath]:
        """Return the encoders and connectors of streams that are shared, and the stream that owns
        them."""
        ends = {
            joined("inputs", name, kind): part
            for name, stream in self.streams.items()
            for kind, part in (("encoder", stream.encoder), ("connector", stream.connector))
            if part is not None
        }
        return {where: part.where for where, part in ends.items() if part.where != where}

    def fitted(self) -> dict[ComponentPath, Fittable]:
        """Return every part to be fitted, by its place: tasks', streams', decoders'."""
        return {p.where / name: p.fitted[name] for p, name in self.fitted_arguments()}

    def fitted_from(self) -> dict[ComponentPath, str]:
        """Return by place the source of the weights of a fitted part's owner, or its own `weights`:
        it is not fitted again if that is a run."""
        return {
            p.where / name: p.fitted_sections[name].get("weights", p.weights)
            for p, name in self.fitted_arguments()
        }

    def fitted_arguments(self) -> list[tuple[ComponentSpec, str]]:
        """Return (part, argument) of every part to be fitted: tasks' first, decoders' last."""
        sections = ("tasks", "inputs", "decoders")
        order = sorted(self.plans(), key=lambda part: sections.index(part.where.section))
        return [(part, name) for part in order for name in part.fitted]

    def check_sources(self) -> None:
        """Raise ConfigError if weights that the recipe names are missing."""
        for part in self.plans():
            validate_source(part.weights, f"{part.where}.weights")
            for name, section in part.fitted_sections.items():
                if "weights" in section:
                    validate_source(section["weights"], f"{part.where}.{name}.weights")

    def resolve(self) -> None:
        """Complete every part's options, and update the recipe (may download)."""
        for part in self.plans():
            part.resolve()
        self.update_recipe()

    def update_recipe(self) -> None:
        """Write the current sections of the parts into the recipe."""
        recipe = self.recipe.model_copy(deep=True)
        sections = {name: part.resolved_section() for name, part in self.decoders.items()}
        recipe.backbone = sections.pop(BACKBONE, None)
        recipe.decoders = sections
        for name, stream in self.streams.items():
            for key, end in (("encoder", stream.encoder), ("connector", stream.connector)):
                if end is not None and getattr(recipe.inputs[name], key).share is None:
                    setattr(recipe.inputs[name], key, end.resolved_section())
        for name, task in self.tasks.items():
            section = task.plan.resolved_section()
            heads = {k: to_plain_dict(h.resolved_section()) for k, h in task.heads.items()}
            assert isinstance(section, TaskSection)
            recipe.tasks[name] = section.with_options({**section.options, **heads})
        self.recipe = recipe


def plan_recipe(recipe: Recipe) -> ResolvedRecipe:
    """Find and check every part of a recipe. Raise ConfigError, a line a mistake.

    Of a recipe with stages it is the last one. Weights are not looked for; see
    `ResolvedRecipe.check_sources`.
    """
    if recipe.stages:
        recipe = stage_recipes(recipe)[-1].recipe
    _names("inputs", recipe.inputs)
    _names("tasks", recipe.tasks)
    decoders = _decoders(recipe)
    streams = plan_streams(recipe.inputs, decoders)
    if not recipe.tasks:
        raise ConfigError("tasks: found none, expected at least one")
    tasks = {name: _task(name, section) for name, section in recipe.tasks.items()}
    resolved = ResolvedRecipe(recipe, streams, decoders, tasks)
    _cross_check(resolved)
    return resolved


def _decoders(recipe: Recipe) -> dict[str, ComponentSpec]:
    """Return the plans of the decoders, the backbone first; it is a language model, the others may
    be of any kind."""
    _names("decoders", recipe.decoders)
    decoders_of = {}
    if recipe.backbone is not None:
        decoders_of[BACKBONE] = plan(recipe.backbone, "backbone", ComponentPath(BACKBONE))
    for name, section in recipe.decoders.items():
        decoders_of[name] = plan(section, "decoder", ComponentPath(f"decoders.{name}"))
    return decoders_of


def _names(section: str, names: Iterable[str]) -> None:
    """Raise ConfigError for names that torch's modules use: streams, decoders and tasks are modules
    by name."""
    modules = nn.ModuleDict()
    for name in names:
        if hasattr(modules, name):
            raise ConfigError(
                f"{section}.{name}: the name {name!r} is one that torch's modules use themselves; "
                f"use {name}_1, for example"
            )


def _task(name: str, section: TaskSection) -> TaskPlan:
    where = ComponentPath(f"tasks.{name}")
    return plan_task(find("task", section.type, f"{where}.type"), section, where)


def plan_task(part: Any, section: TaskSection, where: ComponentPath) -> TaskPlan:
    """Check the options of a section against a task class, its heads' among them, and build it."""
    options = section.options
    with located_errors(where):
        arguments(part)  # a task that names an engine's key is refused before its heads are read
    head_sections = {name: options.pop(name, default) for name, default in part.head_types.items()}
    spec = plan(section.with_options(options), "task", where)
    heads = {
        head: plan(to_section(value, where / head, head), "head", where / head, spec)
        for head, value in head_sections.items()
    }
    return TaskPlan(spec, _built(spec), heads)


def _built(spec: ComponentSpec) -> Task:
    """Return the task; its inner parts are allocated but not initialized until fitting."""
    children = {name: child.allocate() for name, child in spec.children.items()}
    try:
        with spec.located_errors(), seeded(0, spec.where):
            task: Task = spec.part(**spec.options, **spec.fitted, **children)
    except ConfigError as error:
        if not (children and isinstance(error.__cause__, AttributeError)):
            raise
        raise ConfigError(
            f"{spec.where}: {spec.part.__name__} uses {' or '.join(children)} in its constructor "
            f"({error.__cause__}); keep it there, and use it from build on"
        ) from error
    return task


def _cross_check(resolved: ResolvedRecipe) -> None:
    used: set[str] = set()
    decoders: set[str] = set()
    for name, task in resolved.tasks.items():
        for stream in task.task.streams:
            if stream not in resolved.streams:
                raise ConfigError(
                    f"tasks.{name}: uses the stream {stream!r}, which is not among inputs"
                    f"{did_you_mean(stream, resolved.streams)}"
                )
        used |= set(task.task.streams)
        for decoder in task.task.decoders:
            if decoder not in resolved.decoders:
                raise ConfigError(f"tasks.{name}: {_missing_decoder(decoder, resolved.decoders)}")
        decoders |= set(task.task.decoders)
    for name in resolved.streams:
        if name not in used:
            raise ConfigError(f"inputs.{name}: no task uses it; name it in a prompt or take it out")
    for name, part in resolved.decoders.items():
        if name not in decoders and not resolved.streams_of(part):
            raise ConfigError(f"{part.where}: no task uses it and no stream shares it; take it out")
    _agree_on_training(resolved.recipe)
    _agree_on_env(resolved.recipe)


def _missing_decoder(name: str, decoders: Iterable[str]) -> str:
    if name == BACKBONE:
        return (
            "needs a language decoder; add `backbone:`, for example "
            "{type: causal, name: tiny-llama, tokenizer: bpe, weights: none}"
        )
    return f"uses the decoder {name!r}, which is not among decoders{did_you_mean(name, decoders)}"


def _agree_on_training(recipe: Recipe) -> None:
    """Check `train` against the tasks and their rows."""
    train, tasks = recipe.train, recipe.tasks
    check_task_weights(train, tasks)
    sampler = train.sampler
    if sampler.column is None and sampler.type != "shuffle":
        raise ConfigError(
            f"train.sampler.column: is required with type: {sampler.type}; name the column that "
            "it looks at"
        )
    if sampler.column is not None and sampler.type == "shuffle":
        raise ConfigError(
            f"train.sampler.column: found {sampler.column!r}, and type: shuffle looks at no "
            "column; set type: length, balanced or single_group, or take it out"
        )
    rule = train.validate_
    if rule is None:
        return
    for name, task in tasks.items():
        if "validation" not in task.data and not (
            "train" in task.data and task.data["train"].held_out
        ):
            raise ConfigError(
                f"tasks.{name}.data: train.validate needs rows that training does not see; add "
                "data.validation, or data.train.holdout: 0.1"
            )
    name, _, metric = (rule.metric or "").partition("/")
    if rule.metric is not None and not (name in tasks and metric):
        raise ConfigError(
            f"train.validate.metric: found {rule.metric!r}, expected task/metric"
            f"{did_you_mean(name, tasks)}"
        )


def _agree_on_env(recipe: Recipe) -> None:
    """Check `env` against the tasks and the streams."""
    env = recipe.env
    if env is None:
        return
    if env.task is not None and env.task not in recipe.tasks:
        near = did_you_mean(env.task, recipe.tasks)
        raise ConfigError(f"env.task: there is no task {env.task!r}{near}")
    for stream in env.observation_keys:
        if stream not in recipe.inputs:
            near = did_you_mean(stream, recipe.inputs)
            raise ConfigError(
                f"env.observation_keys.{stream}: there is no such stream among inputs{near}"
            )
