"""The stores of a recipe, filled before its training: on one machine, or by several processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from ...model import FeatureCacher, compose, resolve_and_fit
from ...recipe import load_recipe, stage_recipes
from ...utils import RunLogger, main_first
from ..batches import open_data
from .strategy import join_processes


def fill_cache(recipe: str, overrides: Sequence[str] = (), device: str | None = None) -> list[str]:
    """Fill the stores of a recipe, or of its first stage, as its training does at the start; with
    several processes, each its share. Return the streams whose features are stored."""
    parsed = load_recipe(recipe, overrides)
    stages = stage_recipes(parsed)
    parsed = stages[0].recipe if stages else parsed
    accelerator = join_processes(parsed.train, device)
    log = RunLogger(None, show=accelerator.is_main_process)
    with main_first(accelerator):
        model = compose(resolve_and_fit(parsed))
    train = parsed.train
    training, held_out = open_data(model, train, log.info)
    place = accelerator.device, train.precision, train.batch_size, log.progress
    cacher = FeatureCacher(model.plan, model, *place)
    return sorted(cacher.attach_together([*training.values(), *held_out.values()], accelerator))


def fill_with_torchrun(
    recipe: str, overrides: Sequence[str], processes: int, device: str | None
) -> int:
    """Run `sensorium cache fill` in several processes on this machine; return the exit status."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    job = ["-m", "sensorium", "cache", "fill", recipe, *overrides]
    return subprocess.call(
        [sys.executable, *start, *job, *(("--device", device) if device else ())]
    )
