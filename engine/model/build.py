"""From a recipe to a model with its fitted parts: the first steps of every command.

Decoders, encoders, connectors, tasks and heads are built in this order. Widths are read from the
objects, never from the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ...backbones.base import Backbone
from ...modalities.base import Source
from ...modalities.groups import try_encoders
from ...modalities.signal_tokens import SignalTokenizer
from ...tasks.base import Task
from ..data import TRAIN, load_split
from ..recipe import ComponentSpec, Modules, Recipe, ResolvedRecipe, load_recipe, plan_recipe
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
from .fit import FITTED as FITTED
from .fit import States, check_heads, fit, load_fitted
from .model import BuiltComponent, Model
from .parameters import (
    apply_adapters,
    checkpoint_blocks,
    create_ema_encoders,
    quantize_part,
    without_adapter,
)
from .stream import Stream
from .transforms import load_and_transform


class _TrainingSplits(dict[str, Source]):
    """Training splits by task, opened when a part reads rows: a pretrained tokenizer reads none,
    and searching files with a published model needs no training data."""

    def __init__(self, plan: ResolvedRecipe) -> None:
        super().__init__()
        self._plan = plan

    def __missing__(self, task: str) -> Source:
        self[task] = load_split(self._plan, task, TRAIN)
        return self[task]


def resolve_and_fit(
    recipe: Recipe,
    fitted: Path | None = None,
    *,
    states: States | None = None,
    check: Callable[[Recipe], None] | None = None,
) -> ResolvedRecipe:
    """Return a resolved plan with fitted parts, from a run's folder or fitted now.

    Anything the recipe names may be downloaded here, and nowhere else. states: of parts that are
    fitted already. check: called with the resolved recipe before anything is fitted.
    """
    plan = plan_recipe(recipe)
    if fitted is None:
        plan.check_sources()
    plan.resolve()
    if check is not None:
        check(plan.recipe)
    if fitted is not None:
        load_fitted(plan, fitted)
    elif plan.fitted():
        fit(plan, _TrainingSplits(plan), states)
        check_heads(plan)
    return plan


def build(recipe: Recipe | str | Path, fitted: Path | None = None) -> Model:
    """Return the composed model of a recipe (or of its file), with the weights that the recipe
    names."""
    parsed = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    return compose(resolve_and_fit(parsed, fitted))


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
    not loaded, so that its initial weights need not exist any more. Raise ConfigError if
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

    def filled(part: ComponentSpec) -> bool:
        held = any(n.startswith(part.where.state_prefixes()) for n in saved)
        return weights and part.weights == "pretrained" and not held

    modules = Modules(finish, filled)
    decoders = {name: part.build(seed, modules) for name, part in plan.decoders.items()}
    streams = _build_streams(plan, decoders, modules, seed)
    _build_tasks(plan, streams, decoders, modules, seed)
    tasks = {name: t.task for name, t in plan.tasks.items()}
    components = [BuiltComponent(part.where, modules[id(part)], part) for part in plan.plans()]
    model = Model(plan, streams, decoders, tasks, components)
    if weights:
        _load_weights(model, saved, finished)
        try_encoders(model)
    for where, module, section in components:
        quantize_part(module, section, where)
        with seeded(seed, where, "adapters"):
            apply_adapters(module, section, where)
    check_frozen(plan, streams, decoders)
    create_ema_encoders(plan, streams)
    for _, module, _ in components:
        if isinstance(module, Backbone):
            module.unfreeze_added_tokens()
    if plan.recipe.train.activation_checkpointing:
        checkpoint_blocks(component.module for component in components)
    return model.train()


def _build_streams(
    plan: ResolvedRecipe, decoders: Mapping[str, Any], modules: Modules, seed: int
) -> dict[str, Stream]:
    """Build each stream's encoder, then the connectors, whose widths follow from other parts."""
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
    return streams


def _build_tasks(
    plan: ResolvedRecipe,
    streams: Mapping[str, Stream],
    decoders: Mapping[str, Any],
    modules: Modules,
    seed: int,
) -> None:
    """Build the modules of each task: its own modules, its parts and its heads."""
    widths = {f"{s}{p}": streams[s].width(p[1:]) for s in streams for p in ("", ".encoder")}
    widths |= {
        f"{s}.targets": streams[s].width("targets")
        for s in streams
        if "targets" in streams[s].encoder.supports
    }
    for name, task in plan.tasks.items():
        modules[id(task.plan)] = task.task
        task.plan.build_children(seed, modules, {})
        check_decoders(plan, name, decoders)
        task.task.signal_tokenizers = signal_tokenizers(task.task, streams)
        with task.plan.located_errors(), seeded(seed, task.plan.where, "build"):
            task.task.build(widths, decoders)
        for head, use in task.task.head_uses.items():
            ends = {"in_dim": widths[use.stream], "out_dim": use.out_dim}
            built = task.heads[head].build(seed, modules, **ends)
            task.task.heads[head] = built
            stream = streams[use.stream.partition(".")[0]]
            request_head_layers(plan, task.heads[head].where, use.stream, built, stream)


def signal_tokenizers(task: Task, streams: Mapping[str, Stream]) -> dict[str, SignalTokenizer]:
    """Return the tokenizers of a task's streams whose encoders return codes."""
    encoders = {name: streams[name].encoder for name in task.streams}
    return {
        name: encoder.tokenizer
        for name, encoder in encoders.items()
        if "codes" in encoder.supports and isinstance(encoder.tokenizer, SignalTokenizer)
    }


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
