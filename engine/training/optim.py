"""Optimizers and learning-rate schedules of a recipe.

Both are registries of names of other libraries; their options are read from the signature of
the class of the name. A schedule is a pure function of the step, so that resuming needs no
state of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ..model import Model
from ..recipe import OPTIMIZER_ARGUMENTS, SCHEDULE_ARGUMENTS, Train, find
from ..recipe.validation import library_options, parameters
from ..utils import ConfigError, located_errors
from .optimizers import MasterWeights, leave_untouched_rows


def build_optimizer(model: Model, train: Train) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over all that trains; a part's own `lr` holds for its
    parameters, weight decay for matrices alone.

    Raise ConfigError for options that the optimizer does not take, and if nothing trains.
    """
    where, section = "train.optimizer", train.optimizer
    optimizer_class = find("optimizer", section.type, f"{where}.type")
    options = library_options(optimizer_class, section.options, where, OPTIMIZER_ARGUMENTS)
    accepted = parameters(optimizer_class)
    closure = inspect.signature(optimizer_class.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(
            f"{where}.type: {section.type} evaluates the loss several times a step; expected an "
            "optimizer whose step() needs no closure"
        )
    groups = _parameter_groups(model, section.lr)
    if not groups:
        raise ConfigError("train: nothing trains; every part is frozen and there is no head")
    if "weight_decay" in accepted:
        for group in groups:
            if group["params"][0].ndim <= 1:
                group["weight_decay"] = 0.0

    def make(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        built: torch.optim.Optimizer = optimizer_class(groups, lr=section.lr, **options)
        return built

    with located_errors(where, accepted, options):
        if train.weights_precision == "bf16":
            optimizer: Any = MasterWeights(groups, make)
            leave_untouched_rows(optimizer.inner, [optimizer.masters[t] for t in _tables(model)])
            return cast(torch.optim.Optimizer, optimizer)
        optimizer = make(groups)
        leave_untouched_rows(optimizer, _tables(model))
        return cast(torch.optim.Optimizer, optimizer)


def _tables(model: nn.Module) -> list[Tensor]:
    """Return the parameters that modules name in `lazy_parameters`, those that train."""
    named = (
        getattr(module, name)
        for module in model.modules()
        for name in getattr(module, "lazy_parameters", ())
    )
    return [parameter for parameter in named if parameter.requires_grad]


def _parameter_groups(model: Model, default_lr: float) -> list[dict[str, Any]]:
    """Return one group for each learning rate and for matrices and vectors apart."""
    rates: dict[int, float] = {}
    for _, module, part in model.components:
        if part.section.lr is not None:
            rates |= {id(p): part.section.lr for p in module.parameters()}
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            is_split = hasattr(parameter, "device_mesh")  # torch steps whole ones apart
            key = (rates.get(id(parameter), default_lr), parameter.ndim > 1, is_split)
            groups.setdefault(key, []).append(parameter)
    return [{"params": params, "lr": lr, "base_lr": lr} for (lr, *_), params in groups.items()]


def lr_schedule(train: Train) -> Callable[[int], float]:
    """Return the factor of the learning rate as a function of the step (0 is the first).

    The values are those of the library's schedule except its very first step, at which warm-up
    has a learning rate of 0: that step is left out.
    """
    where, section = "train.schedule", train.schedule
    schedule = find("schedule", section.type, f"{where}.type")
    options = library_options(schedule, section.options, where, SCHEDULE_ARGUMENTS)
    warmup = round(train.warmup_ratio * train.steps)
    skipped = int(warmup > 0)
    counts = {
        "num_warmup_steps": warmup + skipped,
        "num_training_steps": train.steps + skipped,
    }
    accepted = parameters(schedule)
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=train.optimizer.lr)
    with located_errors(where, accepted, options):
        scheduler = schedule(dummy, **{k: v for k, v in counts.items() if k in accepted}, **options)
    if not isinstance(scheduler, LambdaLR):
        raise ConfigError(
            f"{where}.type: {section.type} returns {type(scheduler).__name__}; expected a "
            "LambdaLR, "
            "whose factor depends on the step alone"
        )
    factor = scheduler.lr_lambdas[0]
    return lambda step: float(factor(step + skipped))


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set each group's learning rate to `factor` times its base; return the first group's."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])
