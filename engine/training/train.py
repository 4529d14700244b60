"""Training: a recipe becomes a run's folder, from the start or from its newest checkpoint."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoint import (
    CHECKPOINTS,
    FROZEN,
    RECIPE,
    STAGES,
    Checkpoints,
    Trackers,
    check_claim,
    check_differences,
    check_run_fingerprints,
    check_trackers,
    command_header,
    frozen_tensors,
    is_changed,
    load_model,
    optimizer_by_name,
    read_command,
    read_run,
    remove_run,
    remove_run_parts,
    run_lock,
    run_place,
    save_run,
    saved_tensors,
    set_results_aside,
    write_fingerprints,
    write_run,
    write_tensors,
)
from ..model import FITTED, Model, resolve_and_fit, save_fitted
from ..recipe import WEIGHTS, Recipe, Stage, load_recipe, stage_recipes
from ..utils import (
    ConfigError,
    RunLogger,
    from_main,
    main_first,
    make_folder,
    whole_tensors,
)
from .parallel import compose_model, join_processes
from .resume import remove_best, restore_loop
from .stages import StageStart, save_optimizer, stage_settings
from .trainer import Trainer


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow_changes: Sequence[str] = (),
    show: bool = True,
    command: str = "",
    device: str | None = None,
    trainer: type[Trainer] = Trainer,
) -> Model:
    """Train a recipe into a run's folder, or go on from its newest checkpoint.

    The stages of a recipe are runs in `stages`, except for their log, which is the run's; the model
    of the last one is the run's. overwrite: remove the run that is there, and nothing else, once
    all of the new one is built. allow_changes: keys of the recipe that may differ from the run that
    is resumed, `train.steps`. device: see `pick`; of several processes each takes one of that
    kind. trainer: the class that trains, with other batches or another step. A folder on object
    storage is a copy below the cache, uploaded after each checkpoint and at the end; no lock.

    Raise ConfigError for a mistake, RuntimeFailure if it cannot go on, Interrupted after a signal,
    when the checkpoint is written.
    """
    if resume and overwrite:
        raise ConfigError("--resume continues a run and --overwrite starts over; take one out")
    if allow_changes and not resume:
        raise ConfigError("--allow-change: is for a run that is continued; add --resume")
    check_trackers(recipe.train.track)
    stages = stage_recipes(recipe)
    folder, mirror = run_place(folder)
    runs = _Runs(recipe, folder, resume, overwrite, allow_changes, show, command, device, trainer)
    runs.mirror = mirror
    accelerator = join_processes((stages[0].recipe if stages else recipe).train, device)
    with contextlib.ExitStack() as stack:
        from_main(accelerator, lambda: stack.enter_context(run_lock(folder, mirror)))
        runs.known = from_main(accelerator, lambda: runs.claim(stages))
        if stages:
            return runs.train_stages(stages)
        return runs.train(recipe, folder, RunLogger(folder, show=show), started=runs.started)


@dataclass
class _Runs:
    """The state shared by the runs of one call. known: the state of the run in the folder."""

    recipe: Recipe
    folder: Path
    resume: bool
    overwrite: bool
    allow_changes: Sequence[str]
    show: bool
    command: str
    device: str | None
    trainer: type[Trainer]
    known: dict[str, Any] = field(default_factory=dict)
    mirror: Any = None

    @property
    def started(self) -> bool:
        """Whether the folder holds a run to go on with."""
        return self.resume and bool(self.known.get("begun"))

    def claim(self, stages: Sequence[Stage]) -> dict[str, Any]:
        """Refuse a folder that holds another run or foreign files; return its state."""
        folder, run = self.folder, read_run(self.folder)
        saved_recipe = folder / STAGES / RECIPE
        started = run is not None and ((folder / RECIPE).exists() or saved_recipe.exists())
        check_claim(folder, run, started, self.resume, self.overwrite)
        remove_run_parts(folder)
        run_state = {**(run or {}), "begun": started}
        if self.resume and started:
            if bool(stages) != saved_recipe.exists():
                raise ConfigError(f"stages: the run has {'none' if stages else 'some'}")
            if stages:
                self._check_stages(load_recipe(saved_recipe), stages, run_state)
        return run_state

    def _check_stages(self, old: Recipe, stages: Sequence[Stage], state: dict[str, Any]) -> None:
        """Refuse changes of the recipe that are not allowed, or of a stage that is finished."""
        lines = check_differences(old, self.recipe, self.allow_changes)
        state["changed"] = is_changed(old, self.recipe)
        for stage, before in zip(stages[:-1], stage_recipes(old), strict=False):
            done = (self.folder / STAGES / stage.folder / WEIGHTS).is_file()
            if done and is_changed(before.recipe, stage.recipe):
                raise ConfigError(
                    f"{stage.where}: is finished, and the recipe has changed since; start over "
                    "with --overwrite"
                )
        self._report(lines)
        if not state.get("finished"):
            self.recipe.write(self.folder / STAGES / RECIPE, command_header(self.command))

    def _report(self, lines: Sequence[str]) -> None:
        for line in lines:
            RunLogger(None, show=self.show).info(line)

    def train_stages(self, stages: list[Stage]) -> Model:
        """Train stage after stage, each from where the last one ended."""
        if self.started and self.known.get("finished") and not self.known["changed"]:
            return self._finished()
        start, first_step = None, 0
        for stage, following in itertools.pairwise(stages):
            folder = self.folder / STAGES / stage.folder
            if not (self.started and (folder / WEIGHTS).is_file()):  # else it is finished
                self._train_stage(stage, start, following, first_step)
            first_step += stage.recipe.train.steps
            start = StageStart.of_folder(following, stage, folder)
        return self._train_stage(stages[-1], start, None, first_step)

    def _train_stage(
        self, stage: Stage, start: StageStart | None, following: Stage | None, first_step: int
    ) -> Model:
        folder = self.folder / STAGES / stage.folder
        log = RunLogger(self.folder, show=self.show, stage=stage.name, first_step=first_step)
        started = self.started and (folder / RECIPE).is_file()
        with stage.located_errors():
            way: dict[str, Any] = {"started": started, "start": start, "following": following}
            return self.train(stage.recipe, folder, log, **way)

    def train(
        self,
        recipe: Recipe,
        folder: Path,
        log: RunLogger,
        *,
        started: bool,
        start: StageStart | None = None,
        following: Stage | None = None,
    ) -> Model:
        """Train one recipe with its checkpoints in `folder`. started: go on from them. start: where
        a stage begins. following: the stage after this one, for which the model is left in
        `folder`; else it is the run's."""
        accelerator = join_processes(recipe.train, self.device)
        main = accelerator.is_main_process
        log = log if main else RunLogger(None, show=False)
        staged = folder != self.folder
        lines: list[str] = []

        def check(resolved: Recipe) -> None:
            if started and not staged:
                old = load_recipe(folder / RECIPE)
                lines[:] = check_differences(old, resolved, self.allow_changes)
                self.known["changed"] = is_changed(old, resolved)

        with main_first(accelerator):
            states = start.kept_states() if start and not started else None
            fitted = folder / FITTED if started else None
            plan = resolve_and_fit(recipe, fitted, states=states, check=check)
        if started and self.known.get("finished") and not self.known["changed"]:
            return self._finished()
        saved = Checkpoints(folder / CHECKPOINTS, 1).saved_names() if started else ()
        fill = start.fill if start is not None else lambda model: []
        model = compose_model(plan, accelerator, saved, fill)
        model.command = read_command(folder) if started else self.command
        run = self.trainer(stage_settings(recipe, start), folder, model, accelerator, log)
        run.allowed_changes = self.allow_changes
        run.checkpoints.mirror = self.mirror
        run.prepare()
        if start is not None:
            start.fill_optimizer(model, run.optimizer.optimizer)
        if started:
            self._go_on(run, lines if main else ())
        else:
            frozen = whole_tensors(frozen_tensors(model))
            from_main(accelerator, lambda: self._begin(model, folder, staged, frozen))
        accelerator.wait_for_everyone()
        if main and recipe.train.track:
            log.tracker = Trackers(recipe.train.track, self.folder, recipe.to_dict())
        with run.stop:
            run.run()
            if run.validator is not None:
                accelerator.wait_for_everyone()
                run.validator.restore_best()
            run.check_finite()
            self._save(run, following)
        return model

    def _begin(self, model: Model, folder: Path, staged: bool, frozen: dict[str, Tensor]) -> None:
        """Make the folder of a new run, now that all of it is built. Its recipe is written last: a
        folder that has one can be resumed."""
        if not self.known.get("cleared") and not (staged and self.started):
            make_folder(self.folder)
            write_run(self.folder, {"finished": False})
            remove_run(self.folder)
            if staged:
                make_folder(self.folder / STAGES)
                self.recipe.write(self.folder / STAGES / RECIPE, command_header(self.command))
            self.known.pop("step", None)
        self.known["cleared"] = True
        if staged:
            shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
        make_folder(folder)
        save_fitted(model.plan, folder / FITTED)
        write_fingerprints(model, folder)
        if frozen:
            write_tensors(folder / FROZEN, frozen)
        model.plan.recipe.write(folder / RECIPE, command_header(self.command))

    def _go_on(self, run: Trainer, lines: Sequence[str]) -> None:
        """Take up a run from its checkpoint."""
        accelerator = run.accelerator
        from_main(accelerator, lambda: check_run_fingerprints(run.model, run.folder))
        if self.known.get("finished") and not len(run.checkpoints):
            raise ConfigError(
                f"{run.folder}: is finished at step {self.known.get('step')} and keeps no "
                "checkpoint to continue from; begin another run with weights: "
                f"{self.folder}, or start over with --overwrite and train.checkpoint.every"
            )
        restore_loop(run)
        self._report(lines)
        if accelerator.is_main_process:
            write_run(self.folder, {"finished": False, "step": self.known.get("step")})
            header = command_header(read_command(run.folder))
            run.model.plan.recipe.write(run.folder / RECIPE, header)

    def _save(self, run: Trainer, following: Stage | None) -> None:
        """Write the model of a run that has come to its end; every process calls it."""
        tensors = whole_tensors(saved_tensors(run.model))
        optimizer = optimizer_by_name(run.model, run.optimizer.optimizer)

        def write() -> None:
            if following is not None:
                if following.section.keep_optimizer:
                    save_optimizer(optimizer, run.folder)
                save_run(run.model, run.folder, tensors)
            else:
                if self.known.get("step") is not None:  # weights of a finished run are replaced
                    set_results_aside(self.folder, self.known["step"])
                save_run(run.model, self.folder, tensors)
                write_run(self.folder, {"finished": True, "step": run.global_step})
            remove_best(self.folder, self.folder / STAGES)
            run.checkpoints.upload()

        from_main(run.accelerator, write)

    def _finished(self) -> Model:
        remove_best(self.folder, self.folder / STAGES)
        self._report([f"{self.folder}: is finished at step {self.known['step']}; nothing to do"])
        return load_model(self.folder)
