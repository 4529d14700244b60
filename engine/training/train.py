"""Training: a recipe becomes a run's folder, from the start or from its newest checkpoint."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from ..checkpoint import command_header, read_command, save_run
from ..model import FITTED, Model, compose, resolve_and_fit, save_fitted
from ..recipe import WEIGHTS, Recipe, Stage, Train, stage_recipes
from ..utils import ConfigError, RunLogger, derive_seed, init_accelerator
from .stages import STAGES, StageStart, save_optimizer
from .trainer import Trainer
from .validation import BEST

RECIPE = "recipe.yaml"


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

    The stages of a recipe are runs in `stages`, but for their log, which is the run's; the model
    of the last one is the run's. device: see `pick`; of several processes each takes one of that
    kind. trainer: the class that trains, with other batches or another step.

    Raises ConfigError for a mistake, RuntimeFailure if it cannot go on, Interrupted after SIGINT or
    SIGTERM, when the checkpoint is written.
    """
    runs = _Runs(folder, resume, show, command, device, trainer)
    stages = stage_recipes(recipe)
    runs.claim(recipe if stages else None)
    if not stages:
        return runs.train(recipe, folder, RunLogger(folder, show=show), begun=resume)
    return runs.train_stages(stages)


@dataclass
class _Runs:
    """What the runs of one call have in common."""

    folder: Path
    resume: bool
    show: bool
    command: str
    device: str | None
    trainer: type[Trainer]

    def claim(self, staged: Recipe | None) -> None:
        """Refuse a folder with another run in it. staged: a recipe with stages is written there."""
        marks = [self.folder / RECIPE, self.folder / STAGES / RECIPE]
        there = any(path.exists() for path in marks)
        if self.resume and not there:
            raise ConfigError(f"{self.folder}: holds no run to resume; train it without --resume")
        if there and not self.resume:
            raise ConfigError(
                f"{self.folder}: holds a run already; say --resume to go on, --overwrite to begin "
                "anew, or --out for another folder"
            )
        if staged is None:
            return
        if self._accelerator(staged).is_main_process and not self.resume:
            (self.folder / STAGES).mkdir(parents=True, exist_ok=True)
            staged.write(self.folder / STAGES / RECIPE, command_header(self.command))

    def train_stages(self, stages: list[Stage]) -> Model:
        """Train stage after stage, each from where the last one ended."""
        start, first_step = None, 0
        for stage, following in itertools.pairwise(stages):
            folder = self.folder / STAGES / stage.folder
            if not (folder / WEIGHTS).is_file():  # else it is finished
                self._train_stage(stage, start, following, first_step)
            first_step += stage.recipe.train.steps
            start = StageStart.of_folder(following, stage, folder)
        return self._train_stage(stages[-1], start, None, first_step)

    def _train_stage(
        self, stage: Stage, start: StageStart | None, following: Stage | None, first_step: int
    ) -> Model:
        folder = self.folder / STAGES / stage.folder
        log = RunLogger(self.folder, show=self.show, stage=stage.name, first_step=first_step)
        begun = self.resume and (folder / RECIPE).is_file()
        with stage.located_errors():
            return self.train(
                stage.recipe, folder, log, begun=begun, start=start, following=following
            )

    def train(
        self,
        recipe: Recipe,
        folder: Path,
        log: RunLogger,
        *,
        begun: bool,
        start: StageStart | None = None,
        following: Stage | None = None,
    ) -> Model:
        """Train one recipe with its checkpoints in `folder`. begun: go on from them. start: where
        a stage begins. following: the stage after this one, for which the model is left in
        `folder`; else it is the run's."""
        accelerator = self._accelerator(recipe)
        main = accelerator.is_main_process
        log = log if main else RunLogger(None, show=False)
        with accelerator.main_process_first():
            states = start.kept_states() if start and not begun else None
            plan = resolve_and_fit(recipe, folder / FITTED if begun else None, states=states)
        if main and not begun:
            folder.mkdir(parents=True, exist_ok=True)
            save_fitted(plan, folder / FITTED)
            # Last: a folder that has a recipe can be resumed.
            plan.recipe.write(folder / RECIPE, command_header(self.command))
        model = compose(plan)
        if start is not None:
            start.fill(model)
        model.command = read_command(folder) if begun else self.command
        run = self.trainer(self._settings(recipe, start), folder, model, accelerator, log)
        run.prepare()
        if start is not None:
            start.fill_optimizer(model, run.optimizer.optimizer)
        run.run(begun)
        if run.validator is not None:
            accelerator.wait_for_everyone()
            run.validator.restore_best()
        if main:
            if following is not None and following.section.keep_optimizer:
                save_optimizer(model, run.optimizer.optimizer, folder)
            save_run(model, folder if following else self.folder)
            (folder / BEST).unlink(missing_ok=True)
        accelerator.wait_for_everyone()
        return model

    def _accelerator(self, recipe: Recipe) -> Accelerator:
        accelerator = init_accelerator(
            self.device,
            recipe.train.precision,
            [
                DistributedDataParallelKwargs(find_unused_parameters=True),
                # The others wait while one downloads weights or fills the cache.
                InitProcessGroupKwargs(timeout=timedelta(days=1)),
            ],
        )
        accelerator.wait_for_everyone()  # every process has looked before one writes
        return accelerator

    def _settings(self, recipe: Recipe, start: StageStart | None) -> Train:
        """The settings of a run; each stage draws rows and noise of its own."""
        if start is None:
            return recipe.train
        seed = derive_seed(recipe.train.seed, "stage", start.stage.index)
        return recipe.train.model_copy(update={"seed": seed})
