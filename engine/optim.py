"""The optimizer of a recipe: groups by part, decay on matrices alone, rates by the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from .compose import Model
from .config import Train
from .errors import RecipeError


def optimizer(model: Model, train: Train) -> torch.optim.AdamW:
    """AdamW over what trains; a part's own `lr` holds for its parameters."""
    rates: dict[int, float] = {}
    for _, module, part in model.components:
        if part.section.lr is not None:
            rates |= {id(p): part.section.lr for p in module.parameters()}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = (rates.get(id(parameter), train.lr), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise RecipeError("train: nothing trains; every part is frozen and there is no head")
    return torch.optim.AdamW(
        [
            {"params": params, "lr": lr, "base": lr, "weight_decay": train.weight_decay * decay}
            for (lr, decay), params in groups.items()
        ],
        betas=train.betas,
    )


def set_rates(optimizer: torch.optim.Optimizer, train: Train, step: int) -> float:
    """Set each group's rate for a step (0 is the first); gives the first group's."""
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * scale(train, step)
    return float(optimizer.param_groups[0]["lr"])


def scale(train: Train, step: int) -> float:
    """The share of its rate that a group has at a step: linear warm-up, then the schedule."""
    warm = round(train.warmup * train.steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    done = (step - warm) / max(1, train.steps - warm)
    return {
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        "linear": 1 - done,
        "constant": 1.0,
    }[train.schedule]
