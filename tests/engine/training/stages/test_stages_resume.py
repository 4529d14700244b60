"""Stages that were killed: they are resumed exactly, wherever it was."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from recipe_changes import train

from sensorium.engine.checkpoint import read_tensors, state
from sensorium.engine.training import Trainer
from sensorium.engine.utils import RunLogger
from sensorium.tests.engine.training.stages.stage_recipes import (
    encoder,
    equal,
    lines,
    stage,
    staged,
)

KEPT = {"keep_optimizer": True}


def resumable(runner: Any, head: str = "freeze") -> dict[str, Any]:
    """All that a stage hands on: fitted parts, weights, the optimizer, the best weights.

    head: whether the encoder is frozen in the first stage, or trains its `biases` alone.
    """
    alone = {"freeze": True} if head == "freeze" else {"train_only": "bias"}
    held = {"tasks": {"digit": {"data": {"train": {"holdout": 0.2}}}}}
    rule = {"every": 2, "metric": "digit/accuracy"}
    every = encoder(**dict.fromkeys(alone))
    recipe = staged(
        runner,
        stage("head", encoder(**alone), train(steps=3, validate=rule)),
        stage("all", every, **KEPT),
        stage("last", every, train(steps=2), **KEPT),
        checkpoint={"every": 2},
    )
    return dict(runner.changed(recipe, held))


class Killed(BaseException):
    """What nothing catches."""


def die_at(patch: pytest.MonkeyPatch, count: int) -> None:
    """Be gone before the process writes for the `count`th time: a line, a file or tensors."""
    left = iter(range(count, -1, -1))

    def dying(real: Any) -> Any:
        def write(*args: Any, **options: Any) -> Any:
            if not next(left, 1):
                raise Killed
            return real(*args, **options)

        return write

    patch.setattr(state, "save_file", dying(state.save_file))
    patch.setattr(RunLogger, "write", dying(RunLogger.write))
    patch.setattr(Path, "write_text", dying(Path.write_text))


def resumes_after(runner: Any, recipe: dict[str, Any], count: int) -> bool:
    """Die at a write and resume; return whether the run came that far."""
    name = f"killed{count}"
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, count)
        try:
            runner.train(recipe, name)
            return False
        except Killed:
            pass
    folder = runner.folder / name
    begun = (folder / "stages/recipe.yaml").exists() and (folder / "stages/recipe.yaml").read_text()
    runner.train(recipe, name, resume=bool(begun))
    whole = runner.folder / "whole"
    assert lines(folder) == lines(whole), count
    one, other = (read_tensors(p / "model.safetensors") for p in (folder, whole))
    assert equal(one, other), count
    return True


@pytest.mark.quick_share(3)
@pytest.mark.parametrize("count", [8, 24, 38])
def test_it_resumes_exactly_wherever_it_was_killed(runner: Any, count: int) -> None:
    recipe = resumable(runner)
    runner.train(recipe, "whole")
    assert resumes_after(runner, recipe, count)


def test_what_was_half_written_is_removed_wherever_it_lies(runner: Any) -> None:
    recipe, folder = resumable(runner), runner.folder / "run"
    runner.train(recipe, "run")
    directories = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    assert folder / "stages" in directories and len(directories) > 4
    for directory in directories:
        (directory / ".recipe.yaml.0123abcd.part").mkdir()
    runner.train(recipe, "run", resume=True)
    assert not list(folder.rglob("*.part"))


@pytest.mark.slow
def test_it_resumes_exactly_from_every_write(runner: Any) -> None:
    recipe = resumable(runner)
    runner.train(recipe, "whole")
    count = 0
    while resumes_after(runner, recipe, count):
        count += 1
    assert count > 45


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_by_a_signal_in_each_stage_it_resumes_exactly(runner: Any, processes: int) -> None:
    recipe = resumable(runner, "biases")
    assert runner.go(recipe, "whole", processes=processes).returncode == 0
    whole = lines(runner.folder / "whole")
    # 3 steps, then 4, then 2; each process counts its own. Every write is tried without processes.
    for forward in (2, 6, 9) if processes == 1 else (4,):
        killed = runner.go(recipe, f"killed{forward}", processes=processes, fault=f"kill@{forward}")
        assert killed.returncode in (-signal.SIGKILL, 1), killed.stderr
        resumed = runner.go(recipe, f"killed{forward}", "--resume", processes=processes)
        assert resumed.returncode == 0, resumed.stderr
        assert lines(runner.folder / f"killed{forward}") == whole


def test_an_early_end_is_not_forgotten(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed behind the checkpoint of the step that ended a stage, it does not go on there."""
    from sensorium.engine.training.validation import Validator

    monkeypatch.setattr(Validator, "run", lambda self, step: step == 2)
    held = {"tasks": {"digit": {"data": {"train": {"holdout": 0.2}}}}}
    early = stage("early", train(steps=6, validate={"every": 2}))
    recipe = runner.changed(staged(runner, early, stage("late"), checkpoint={"every": 2}), held)
    runner.train(recipe, "whole")
    assert [line["step"] for line in lines(runner.folder / "whole")] == [1, 2, 7, 8, 9, 10]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_report_failures", _raise_after(2))
        with pytest.raises(Killed):
            runner.train(recipe, "killed")
    runner.train(recipe, "killed", resume=True)
    assert lines(runner.folder / "killed") == lines(runner.folder / "whole")


def _raise_after(step: int) -> Any:
    real = Trainer._report_failures

    def report(self: Trainer) -> None:
        if self.global_step == step and self.should_stop:
            raise Killed
        real(self)

    return report
