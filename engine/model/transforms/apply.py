"""`transforms` of a part: found, checked, applied in order after its weights are loaded.

A transform is a function `(module, context, **options)` that changes modules in place, or returns
the module that takes their place. Its structure has to follow from the options and the module's
structure alone: a run's folder is built again by the same transforms, without their sources.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ....modalities.base import Component, Tokenizer
from ...recipe import ComponentSpec, TransformSection, find, source_run, to_plain_dict
from ...recipe.validation import library_options
from ...utils import ConfigError, located_errors, seeded
from ..parameters import load_weights, run_section
from .context import TransformContext

PASSED = ("module", "context")
"""The arguments of a transform that the engine passes."""


def load_and_transform(
    spec: ComponentSpec,
    module: nn.Module,
    seed: int,
    *,
    values: bool = True,
    within: Sequence[tuple[ComponentSpec, nn.Module]] = (),
) -> None:
    """Fill a part that was just built with its weights, and transform it.

    within: parts within it that have their own weights, loaded after the part's and before its
    transforms. values: False leaves the weights unchanged and builds the structure
    alone. Transforms that the run named by `weights` was built with are in its weights: they shape
    the part before it is loaded, and the others follow. Raise ConfigError, one line, for a
    transform that does not fit.
    """
    steps = list(spec.section.transforms or ())
    before = len(_in_weights(spec, steps)) if values else len(steps)
    context = _context(spec, module, values)
    with seeded(seed, spec.where, "transforms"):
        _apply(module, steps, range(before), spec, _without_values(context))
    if values and not spec.comes_with_owner:
        with seeded(seed, spec.where, "fill"):
            load_weights(module, spec.weights, spec.where, spec.options.get("name"))
    for inner, part in within if values else ():
        load_and_transform(inner, part, seed)
    with seeded(seed, spec.where, "transforms"):
        _apply(module, steps, range(before, len(steps)), spec, context)
    if isinstance(module, Component) and steps:
        with spec.located_errors():
            module.transformed()


def apply_steps(
    module: nn.Module,
    steps: Sequence[TransformSection],
    where: str,
    context: TransformContext,
) -> nn.Module:
    """Apply transforms in order; return the module, or what takes its place."""
    for i, step in enumerate(steps):
        place = f"{where}[{i}]"
        transform = find("transform", step.type, f"{place}.type")
        options = library_options(transform, step.options, place, PASSED)
        with located_errors(place, options):
            changed = transform(module, context, **options)
        module = module if changed is None else changed
    return module


def _apply(
    module: nn.Module,
    steps: Sequence[TransformSection],
    chosen: range,
    spec: ComponentSpec,
    context: TransformContext,
) -> None:
    for i in chosen:
        where = f"{spec.where}.transforms"
        with located_errors(where):
            changed = apply_steps(module, [steps[i]], where, context)
        if changed is not module:
            raise ConfigError(
                f"{where}: {steps[i].type} makes another model of {type(module).__name__}; run it "
                "on the checkpoint's folder by `sensorium convert`, and name the result here"
            )


def _context(spec: ComponentSpec, module: nn.Module, values: bool) -> TransformContext:
    def load(weights: str) -> nn.Module:
        other = copy.deepcopy(module)
        load_weights(other, weights, spec.where)
        return other

    tokenizer = spec.fitted.get("tokenizer")
    name = spec.options.get("name")
    return TransformContext(
        values=values,
        name=name if isinstance(name, str) else None,
        tokenizer=tokenizer if isinstance(tokenizer, Tokenizer) else None,
        where=spec.where,
        load=load if values else None,
    )


def _without_values(context: TransformContext) -> TransformContext:
    return dataclasses.replace(context, values=False, load=None)


def _in_weights(spec: ComponentSpec, steps: Sequence[TransformSection]) -> list[Any]:
    """Return the transforms that the weights of a part have been through already."""
    source = source_run(spec.weights, spec.where)
    section: Mapping[str, Any] = {}
    if source is not None:
        run, path = source
        average = path.section == "inputs" and path.keys[2] == "ema"
        section = {} if average else run_section(run, path, spec.where)
    applied = list(section.get("transforms") or ())
    named = [to_plain_dict(step) for step in steps]
    if named[: len(applied)] != applied:
        kinds = ", ".join(step["type"] for step in applied)
        raise ConfigError(
            f"{spec.where}.transforms: the weights of {spec.weights} were transformed by {kinds}; "
            f"begin the list with the same, as in its recipe.yaml"
        )
    if spec.owner is not None and spec.comes_with_owner and len(applied) < len(steps):
        raise ConfigError(
            f"{spec.where}.transforms: its weights come with those of {spec.owner.where}; set "
            f"weights: {spec.weights} here too"
        )
    return applied
