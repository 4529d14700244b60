"""The memory of a recipe's step under several plans, in a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ...recipe import Recipe, stage_recipes
from ...utils import ConfigError, format_table
from ..dry_run import check_one
from .memory import StepMemory

DEVICES = 8, 64
"""Numbers of devices of which `memory_plans` tells the memory of each."""


def memory_plans(recipe: Recipe) -> dict[str, dict[str, float]]:
    """Return the bytes that a step of a recipe, or of its last stage, needs on each device at its
    peak, by plan and task: shards of several numbers of devices, matrices in bfloat16, activation
    checkpointing."""
    stages = stage_recipes(recipe)
    base = stages[-1].recipe if stages else recipe
    plans: dict[str, dict[str, float]] = {}
    whole: dict[str, StepMemory] = {}
    for recomputed in (False, True):
        copy = base.model_copy(deep=True)
        copy.train.activation_checkpointing = recomputed
        try:
            report, _ = check_one(copy)
        except ConfigError:
            if not recomputed:
                raise
            continue  # no part names its blocks
        steps = {name: _recomputing(step, whole.get(name)) for name, step in report.steps.items()}
        whole = whole or steps
        end = ", activation_checkpointing" if recomputed else ""
        plans[f"one device, or ddp{end}"] = {t: s.of_replicas() for t, s in steps.items()}
        if any(s.halves for s in steps.values()):
            lowered = {task: step.lowered().of_replicas() for task, step in steps.items()}
            plans[f"one device, or ddp, weights_precision: bf16{end}"] = lowered
        for devices in () if base.train.weights_precision == "bf16" else DEVICES:
            plans[f"fsdp on {devices} devices{end}"] = {
                task: step.of_shards(devices) for task, step in steps.items()
            }
    return plans


def _recomputing(step: StepMemory, whole: StepMemory | None) -> StepMemory:
    """Return a step with what one block keeps in the backward, as `whole` keeps it of all."""
    if whole is None or not step.blocks:
        return step
    block = (whole.activations - step.activations) / step.blocks
    return dataclasses.replace(step, recomputed=max(block, 0.0))


def memory_table(plans: Mapping[str, Mapping[str, float]]) -> str:
    """Return the plans as a table of GB."""
    tasks = list(next(iter(plans.values())))
    head = ("GB of each device", *tasks)
    rows = [(plan, *(f"{values[t] / 1e9:.3g}" for t in tasks)) for plan, values in plans.items()]
    return format_table([head, *rows], right=range(1, len(head)))
