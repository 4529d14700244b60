"""A whole recipe as plans: every class found and every option checked, nothing built.

What can be wrong between the parts of a recipe as written is found here: a prompt that
names no stream, a stream nobody uses, a task without its decoder.
"""

from __future__ import annotations

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
from .recipe import Recipe, Section, TaskSection, to_plain_dict
from .registry import find
from .stages import stage_recipes
from .streams import StreamPlan as StreamPlan
from .streams import plan_streams
from .validation import arguments


@dataclass
class TaskPlan:
    """task: built already, with parts that are not yet fitted."""

    plan: ComponentSpec
    task: Task
    heads: dict[str, ComponentSpec]


@dataclass
class ResolvedRecipe:
    """A recipe whose parts are found and checked and, after `resolve`, completed."""

    recipe: Recipe
    streams: dict[str, StreamPlan]
    decoders: dict[str, ComponentSpec]
    tasks: dict[str, TaskPlan]

    @property
    def tools(self) -> Tools:
        """What tasks prepare rows with: the tokenizers of the decoders."""
        fitted = {name: part.fitted.get("tokenizer") for name, part in self.decoders.items()}
        return Tools({n: cast(Tokenizer, t) for n, t in fitted.items() if t is not None})

    def plans(self) -> list[ComponentSpec]:
        """Every part, an owner before the parts within it."""
        found = list(self.decoders.values())
        for stream in self.streams.values():
            found += [stream.encoder, *([stream.connector] if stream.connector else [])]
        for task in self.tasks.values():
            found += [task.plan, *task.heads.values()]
        parts = {id(part): part for owner in found for part in owner.parts()}
        return list(parts.values())

    def streams_of(self, part: ComponentSpec) -> list[str]:
        """The streams whose encoder or connector runs a part; several if it is shared."""
        return [
            name
            for name, stream in self.streams.items()
            if any(end is not None and end.runs(part) for end in (stream.encoder, stream.connector))
        ]

    def shared(self) -> dict[ComponentPath, ComponentPath]:
        """The encoders and connectors of streams that are those of another, and whose."""
        ends = {
            joined("inputs", name, kind): part
            for name, stream in self.streams.items()
            for kind, part in (("encoder", stream.encoder), ("connector", stream.connector))
            if part is not None
        }
        return {where: part.where for where, part in ends.items() if part.where != where}

    def fitted(self) -> dict[ComponentPath, Fittable]:
        """Every part to be fitted, by its place: tasks', streams', decoders'."""
        return {p.where / name: p.fitted[name] for p, name in self.fitted_arguments()}

    def fitted_from(self) -> dict[ComponentPath, str]:
        """By its place, where the weights of a fitted part's owner come from, or what the part's
        own section says: it is not fitted again if that is a run."""
        return {
            p.where / name: p.fitted_sections[name].get("weights", p.weights)
            for p, name in self.fitted_arguments()
        }

    def fitted_arguments(self) -> list[tuple[ComponentSpec, str]]:
        """(part, argument) of every part to be fitted: tasks' first, decoders' last."""
        sections = ("tasks", "inputs", "decoders")
        order = sorted(self.plans(), key=lambda part: sections.index(part.where.section))
        return [(part, name) for part in order for name in part.fitted]

    def check_sources(self) -> None:
        """Raise ConfigError if weights that the recipe names are not there."""
        for part in self.plans():
            validate_source(part.weights, f"{part.where}.weights")
            for name, section in part.fitted_sections.items():
                if "weights" in section:
                    validate_source(section["weights"], f"{part.where}.{name}.weights")

    def resolve(self) -> None:
        """Complete every part's options, and the recipe by them (may download)."""
        for part in self.plans():
            part.resolve()
        self.update_recipe()

    def update_recipe(self) -> None:
        """Write the sections of the parts, as they are now, into the recipe."""
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
    """Find and check every part of a recipe. Raises ConfigError, a line a mistake.

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
        raise ConfigError("tasks: there are none; a recipe asks for at least one")
    tasks = {name: _task(name, section) for name, section in recipe.tasks.items()}
    found = ResolvedRecipe(recipe, streams, decoders, tasks)
    _cross_check(found)
    return found


def _decoders(recipe: Recipe) -> dict[str, ComponentSpec]:
    """The backbone first; it is a language model, the others may be decoders of any kind."""
    _names("decoders", recipe.decoders)
    found = {}
    if recipe.backbone is not None:
        found[BACKBONE] = plan(recipe.backbone, "backbone", ComponentPath(BACKBONE))
    for name, section in recipe.decoders.items():
        found[name] = plan(section, "decoder", ComponentPath(f"decoders.{name}"))
    return found


def _names(room: str, named: Iterable[str]) -> None:
    """Refuse names that torch's modules use: streams, decoders and tasks are modules by name."""
    taken = nn.ModuleDict()
    for name in named:
        if hasattr(taken, name):
            raise ConfigError(
                f"{room}.{name}: the name {name!r} is one that torch's modules use themselves; "
                f"say {name}_1, for example"
            )


def _task(name: str, section: TaskSection) -> TaskPlan:
    where = ComponentPath(f"tasks.{name}")
    return plan_task(find("task", section.type, f"{where}.type"), section, where)


def plan_task(part: Any, section: TaskSection, where: ComponentPath) -> TaskPlan:
    """Check the options of a section against a task class, its heads' among them, and build it."""
    options = section.options
    with located_errors(where):
        arguments(part)  # a task that names an engine's key is refused before its heads are read
    said = {name: options.pop(name, default) for name, default in part.head_types.items()}
    own = plan(section.with_options(options), "task", where)
    heads = {
        head: plan(Section.model_validate(value), "head", where / head, own)
        for head, value in said.items()
    }
    return TaskPlan(own, _built(own), heads)


def _built(own: ComponentSpec) -> Task:
    """The task, whose inner parts are there but not initialized: they wait for what is fitted."""
    children = {name: child.allocate() for name, child in own.children.items()}
    try:
        with own.located_errors(), seeded(0, own.where):
            made: Task = own.part(**own.options, **own.fitted, **children)
    except ConfigError as error:
        if not (children and isinstance(error.__cause__, AttributeError)):
            raise
        raise ConfigError(
            f"{own.where}: {own.part.__name__} uses {' or '.join(children)} in its constructor "
            f"({error.__cause__}); keep it there, and use it from build on"
        ) from error
    return made


def _cross_check(found: ResolvedRecipe) -> None:
    used: set[str] = set()
    decoders: set[str] = set()
    for name, task in found.tasks.items():
        for stream in task.task.streams:
            if stream not in found.streams:
                raise ConfigError(
                    f"tasks.{name}: uses the stream {stream!r}, which is not among inputs"
                    f"{did_you_mean(stream, found.streams)}"
                )
        used |= set(task.task.streams)
        for decoder in task.task.decoders:
            if decoder not in found.decoders:
                raise ConfigError(f"tasks.{name}: {_missing_decoder(decoder, found.decoders)}")
        decoders |= set(task.task.decoders)
    for name in found.streams:
        if name not in used:
            raise ConfigError(f"inputs.{name}: no task uses it; name it in a prompt or take it out")
    for name, part in found.decoders.items():
        if name not in decoders and not found.streams_of(part):
            raise ConfigError(f"{part.where}: no task uses it and no stream shares it; take it out")
    _agree_on_training(found.recipe)
    _agree_on_env(found.recipe)


def _missing_decoder(name: str, known: Iterable[str]) -> str:
    if name == BACKBONE:
        return (
            "needs a language decoder; add `backbone:`, for example "
            "{type: causal, name: tiny-llama, tokenizer: bpe, weights: none}"
        )
    return f"uses the decoder {name!r}, which is not among decoders{did_you_mean(name, known)}"


def _agree_on_training(recipe: Recipe) -> None:
    """What `train` says of the tasks and of their rows."""
    train, tasks = recipe.train, recipe.tasks
    for name in train.task_weights:
        if name not in tasks:
            raise ConfigError(f"train.task_weights.{name}: no such task{did_you_mean(name, tasks)}")
    sampler = train.sampler
    if sampler.column is None and sampler.type != "shuffle":
        raise ConfigError(
            f"train.sampler.column: is required with type: {sampler.type}; name the column that "
            "it looks at"
        )
    if sampler.column is not None and sampler.type == "shuffle":
        raise ConfigError(
            f"train.sampler.column: found {sampler.column!r}, and type: shuffle looks at no "
            "column; say type: length, balanced or single_group, or take it out"
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
    """What `env` says of the tasks and the streams."""
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
