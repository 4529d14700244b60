"""A recipe of two streams for the dry run, and changes to it."""

from __future__ import annotations

import copy
from typing import Any

from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check
from sensorium.engine.training.dry_run import ComponentSummary, Report

RECIPE: dict[str, Any] = {
    "inputs": {
        "image": {
            "modality": "image",
            "encoder": {"type": "patches", "size": 8, "patch_size": 4, "dim": 12},
            "connector": "mlp",
        }
    },
    "backbone": {
        "type": "causal",
        "name": "tiny-llama",
        "tokenizer": "bpe",
        "options": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1},
    },
    "tasks": {
        "caption": {
            "type": "captioning",
            "prompt": "<image> It is",
            "target": "{word}",
            "data": {"train": {"source": "digits", "split": "train", "limit": 40}},
        },
        "digit": {
            "type": "classification",
            "input": "image",
            "head": "mlp",
            "data": {"train": {"source": "digits", "split": "train", "limit": 40}},
        },
    },
    "train": {"batch_size": 8},
}


def report_of(**changes: Any) -> Report:
    return check(parse_recipe(changed_recipe(**changes)))


def changed_recipe(**changes: Any) -> dict[str, Any]:
    """The recipe with `room__name__key=value` put in; None takes a key away."""
    recipe: dict[str, Any] = copy.deepcopy(RECIPE)
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = recipe
        for key in parents:
            section = section.setdefault(key, {})
        section.pop(last, None)
        if value is not None:
            section[last] = value
    return recipe


def stages_of(report: Report) -> dict[str, ComponentSummary]:
    return {stage.where: stage for stage in report.components}
