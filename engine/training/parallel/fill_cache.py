"""The stores of a recipe, filled before its training: by one process, by several that torchrun
starts, or by Ray actors."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import torch

from ...data import TaskDataset
from ...model import FeatureCacher, compose, resolve_and_fit
from ...recipe import Recipe, import_optional, load_recipe, stage_recipes
from ...utils import ConfigError, RunLogger, RuntimeFailure, main_first, pick
from ..batches import open_data
from .strategy import join_processes

SHARES = 16
"""Shares of the keys for each Ray actor: what one of them computes is lost if it is killed."""


def fill_cache(recipe: str, overrides: Sequence[str] = (), device: str | None = None) -> list[str]:
    """Fill the stores of a recipe, or of its first stage, as its training does at the start; with
    several processes, each its share. Return the streams whose features are stored."""
    parsed = _first_stage(recipe, overrides)
    accelerator = join_processes(parsed.train, device)
    log = RunLogger(None, show=accelerator.is_main_process)
    with main_first(accelerator):
        cacher, rows = _open(parsed, accelerator.device, log)
    return sorted(cacher.attach_together(rows, accelerator))


def fill_with_torchrun(
    recipe: str, overrides: Sequence[str], processes: int, device: str | None
) -> int:
    """Run `sensorium cache fill` in several processes on this machine; return the exit status."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    job = ["-m", "sensorium", "cache", "fill", recipe, *overrides]
    return subprocess.call(
        [sys.executable, *start, *job, *(("--device", device) if device else ())]
    )


class FillActor:
    """A process of Ray: opens the data and the model by itself, and fills shares of the keys."""

    def __init__(self, recipe: str, overrides: Sequence[str], device: str) -> None:
        log = RunLogger(None, show=False)
        self.cacher, self.rows = _open(_first_stage(recipe, overrides), torch.device(device), log)

    def fill(self, share: int, shares: int) -> list[str]:
        """Fill one of `shares` shares; return the streams whose features are stored."""
        return sorted(self.cacher.attach(self.rows, (share, shares)))


def fill_with_ray(
    recipe: str, overrides: Sequence[str], processes: int, device: str | None
) -> list[str]:
    """Fill the stores by Ray actors: on the cluster that `RAY_ADDRESS` names, else on this machine.
    An actor that is killed is started again, and computes its share anew.

    Raise ConfigError for a mistake in the recipe, RuntimeFailure if actors end again and again.
    """
    chosen = str(pick(device))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
    ray = import_optional("ray")
    pool = import_optional("ray.util").ActorPool
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    gpus = int(chosen.startswith("cuda"))
    # A share that a killed actor did not finish is given to it again, as often as there are shares.
    limits = {"max_restarts": SHARES, "max_task_retries": SHARES, "num_gpus": gpus}
    make: Any = ray.remote(**limits)(FillActor)
    shares = processes * SHARES
    try:
        actors = pool([make.remote(recipe, list(overrides), chosen) for _ in range(processes)])
        done = actors.map_unordered(lambda actor, i: actor.fill.remote(i, shares), range(shares))
        return sorted({stream for streams in done for stream in streams})
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, ConfigError):
            raise ConfigError(str(cause)) from error
        text = str(cause or error).strip().splitlines()
        raise RuntimeFailure(f"--engine ray: {text[-1] if text else error!r}") from error
    finally:
        if started:
            ray.shutdown()


def _first_stage(recipe: str, overrides: Sequence[str]) -> Recipe:
    parsed = load_recipe(recipe, overrides)
    stages = stage_recipes(parsed)
    return stages[0].recipe if stages else parsed


def _open(
    parsed: Recipe, device: torch.device, log: RunLogger
) -> tuple[FeatureCacher, list[TaskDataset]]:
    """Return what fills the stores, and the rows whose inputs they hold."""
    model, train = compose(resolve_and_fit(parsed)), parsed.train
    training, held_out = open_data(model, train, log.info)
    cacher = FeatureCacher(
        model.plan, model, device, train.precision, train.batch_size, log.progress
    )
    return cacher, [*training.values(), *held_out.values()]
