"""Recipes in stages, and what their runs are compared by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from recipe_changes import train
from torch import Tensor

from sensorium.engine.utils import read_metrics


def encoder(**keys: Any) -> dict[str, Any]:
    return {"inputs": {"image": {"encoder": keys}}}


def stage(name: str, *changes: dict[str, Any], **keys: Any) -> dict[str, Any]:
    result: dict[str, Any] = {"name": name, **keys}
    for change in changes:
        result |= change
    return result


def staged(runner: Any, *stages: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The recipe of one task, with dropout, noise and a batch norm, in stages."""
    noisy = encoder(dropout=0.3, noise=0.1, norm=True)
    return {**runner.recipe(noisy, train(steps=4, **settings)), "stages": list(stages)}


def warm_up_and_all(runner: Any, **settings: Any) -> dict[str, Any]:
    """The head alone, then the encoder too."""
    head = stage("head", encoder(freeze=True), train(steps=3))
    every = stage("all", train(steps=4, optimizer={"lr": 0.002}))
    return staged(runner, head, every, **settings)


def lines(folder: Path) -> list[dict[str, Any]]:
    result = read_metrics(folder)
    return [{k: v for k, v in line.items() if k != "samples_per_s"} for line in result]


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
