"""The choice of `train.parallel`."""

from __future__ import annotations

from datetime import timedelta

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from ...model import Model
from ...recipe import Train
from ...utils import ConfigError, init_accelerator
from .replicas import Replicas
from .shards import Shards


def check_parallel(settings: Train) -> None:
    """Raise ConfigError for settings that cannot be combined with `train.parallel`."""
    if settings.parallel == "fsdp" and settings.precision == "fp16":
        raise ConfigError(
            "train.parallel: fsdp cannot scale the loss of fp16 over shards; set precision: bf16"
        )


def join_processes(settings: Train, device: str | None) -> Accelerator:
    """Return the accelerator of a run, with the processes joined."""
    wait = timedelta(minutes=settings.process_timeout)
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True)
    handlers = [ddp, InitProcessGroupKwargs(timeout=wait)]
    return init_accelerator(device, settings.precision, handlers)


def parallel_strategy(model: Model, settings: Train, accelerator: Accelerator) -> Replicas | Shards:
    """Return how the processes of a run share its model; one process alone has all of it."""
    check_parallel(settings)
    if settings.parallel == "fsdp" and accelerator.num_processes > 1:
        return Shards(model, accelerator, timedelta(minutes=settings.process_timeout))
    return Replicas(model, accelerator)
