"""Training: a recipe becomes a run's folder, from the start or from its newest checkpoint."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from ..checkpoint import command_header, read_command, save_run
from ..model import FITTED, Model, compose, resolve_and_fit, save_fitted
from ..recipe import Recipe
from ..utils import ConfigError, RunLogger, init_accelerator
from .trainer import Trainer
from .validation import BEST


def train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    show: bool = True,
    command: str = "",
    device: str | None = None,
    trainer: type[Trainer] = Trainer,
) -> Model:
    """Train a recipe into a run's folder, or go on from its newest checkpoint.

    device: see `pick`; of several processes each takes one of that kind. trainer: the class that
    trains, with other batches or another step.

    Raises ConfigError for a mistake, RuntimeFailure if it cannot go on, Interrupted after SIGINT or
    SIGTERM, when the checkpoint is written.
    """
    accelerator = init_accelerator(
        device,
        recipe.train.precision,
        [
            DistributedDataParallelKwargs(find_unused_parameters=True),
            # The others wait while one downloads weights or fills the cache.
            InitProcessGroupKwargs(timeout=timedelta(days=1)),
        ],
    )
    main = accelerator.is_main_process
    _claim(folder, resume)
    accelerator.wait_for_everyone()  # every process has looked before one writes
    log = RunLogger(folder if main else None, show=show and main)
    with accelerator.main_process_first():
        plan = resolve_and_fit(recipe, folder / FITTED if resume else None)
    if main and not resume:
        folder.mkdir(parents=True, exist_ok=True)
        save_fitted(plan, folder / FITTED)
        # Last: a folder that has a recipe can be resumed.
        plan.recipe.write(folder / "recipe.yaml", command_header(command))
    model = compose(plan)
    model.command = read_command(folder) if resume else command
    run = trainer(recipe.train, folder, model, accelerator, log)
    run.prepare()
    run.run(resume)
    if run.validator is not None:
        accelerator.wait_for_everyone()
        run.validator.restore_best()
    if main:
        save_run(model, folder)
        (folder / BEST).unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    return model


def _claim(folder: Path, resume: bool) -> None:
    there = (folder / "recipe.yaml").exists()
    if resume and not there:
        raise ConfigError(f"{folder}: holds no run to resume; train it without --resume")
    if there and not resume:
        raise ConfigError(
            f"{folder}: holds a run already; say --resume to go on, --overwrite to begin "
            "anew, or --out for another folder"
        )
