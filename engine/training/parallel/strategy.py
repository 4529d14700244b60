"""The choice of `train.parallel`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn

from ...checkpoint import fingerprints
from ...model import Model, compose, uncacheable_reason
from ...model.parameters import lower
from ...recipe import Recipe, ResolvedRecipe, Train
from ...utils import ConfigError, init_accelerator
from .build import compose_together
from .replicas import Replicas
from .shards import Shards


def check_parallel(recipe: Recipe) -> None:
    """Raise ConfigError for what cannot be combined with `train.parallel`."""
    settings = recipe.train
    if settings.parallel == "fsdp":
        _check_bits(recipe)
    if settings.parallel == "fsdp" and settings.precision == "fp16":
        raise ConfigError(
            "train.parallel: fsdp cannot scale the loss of fp16 over shards; set precision: bf16"
        )
    if settings.weights_precision == "bf16" and settings.precision != "bf16":
        raise ConfigError(
            f"train.weights_precision: bf16 needs products in bf16, found train.precision: "
            f"{settings.precision}; set precision: bf16"
        )
    if settings.weights_precision == "bf16" and settings.parallel == "fsdp":
        raise ConfigError(
            "train.weights_precision: fsdp reduces gradients of one type, and vectors stay in "
            "float32; set weights_precision: fp32, or parallel: ddp"
        )


def _check_bits(recipe: Recipe) -> None:
    """Refuse shards of what is held in a few bits."""
    if recipe.train.optimizer.type == "adamw8bit":
        raise ConfigError(
            "train.optimizer.type: the states of adamw8bit cannot be sharded; set adamw, or "
            "parallel: ddp"
        )
    sections: list[tuple[str, Any]] = list(recipe.to_dict().items())
    for where, section in sections:
        if isinstance(section, dict):
            if "quantize" in section:
                raise ConfigError(
                    f"{where}.quantize: weights in {section['quantize']} cannot be sharded; leave "
                    "it out, or set train.parallel: ddp"
                )
            sections += ((f"{where}.{key}", value) for key, value in section.items())


def compose_model(
    plan: ResolvedRecipe,
    accelerator: Accelerator,
    saved: Collection[str] = (),
    fill: Callable[[Model], Any] = lambda model: None,
) -> Model:
    """Return the model of a run; one that processes share takes no more memory than its shares.
    fill: called with it at the end."""
    if plan.recipe.train.parallel == "fsdp" and accelerator.num_processes > 1:
        return compose_together(plan, accelerator, saved=saved, fill=fill)
    model = compose(plan, saved=saved)
    fill(model)
    if plan.recipe.train.weights_precision == "bf16":
        model.fingerprints = fingerprints(model)
        lower(model, whole_parts(model))
    return model


def whole_parts(model: Model) -> list[nn.Module]:
    """Return the parts that stay in float32: encoders whose features are stored, as these belong to
    their weights. Raise ConfigError for a moving average, whose small steps would be rounded
    away."""
    for name in model.streams:
        if model.stream(name).ema is not None:
            raise ConfigError(
                f"train.weights_precision: the moving average of inputs.{name} needs weights in "
                "float32; set weights_precision: fp32"
            )
    stored = (n for n in model.streams if uncacheable_reason(model.plan, model, n) is None)
    return [model.stream(name).encoder for name in stored]


def join_processes(settings: Train, device: str | None) -> Accelerator:
    """Return the accelerator of a run, with the processes joined."""
    wait = timedelta(minutes=settings.process_timeout)
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    handlers = [ddp, InitProcessGroupKwargs(timeout=wait)]
    return init_accelerator(device, settings.precision, handlers)


def parallel_strategy(model: Model, settings: Train, accelerator: Accelerator) -> Replicas | Shards:
    """Return how the processes of a run share its model; one process alone has all of it."""
    check_parallel(model.plan.recipe)
    if settings.parallel == "fsdp" and accelerator.num_processes > 1:
        return Shards(model, accelerator, timedelta(minutes=settings.process_timeout))
    return Replicas(model, accelerator)
