"""Training into a folder that exists: `overwrite`, and the lock of a run."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from recipe_changes import train
from write_faults import die, in_child

from sensorium.engine.checkpoint import run_lock
from sensorium.engine.checkpoint.run_state import _held
from sensorium.engine.utils import ConfigError, RuntimeFailure

HELD_OUT = {
    "inputs": {"image": {"encoder": {"dropout": 0.3}}},
    "tasks": {"digit": {"data": {"train": {"holdout": 0.3}}}},
}


@pytest.mark.parametrize("name", ["README.md", "recipe.yaml", "model.safetensors", "fitted"])
def test_a_folder_that_is_no_run_is_left_alone(runner: Any, name: str) -> None:
    (runner.folder / "home").mkdir()
    path = runner.folder / "home" / name
    path.mkdir() if name == "fitted" else path.write_text("ten years of work")
    for more in ({}, {"overwrite": True}):
        with pytest.raises(ConfigError, match=f"is no run's folder and holds {name}"):
            runner.train(runner.recipe(train(steps=1)), "home", **more)
    assert path.exists()


def test_overwrite_removes_a_runs_own_files_alone(runner: Any) -> None:
    recipe = runner.recipe(train(steps=4, checkpoint={"every": 2}))
    runner.train(recipe, "run")
    folder = runner.folder / "run"
    for name in ("thesis.tex", "my-evaluation.json", "data/rows.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    for name in ("evaluation.json", "limit8-predictions-digit.jsonl", "report.html"):
        (folder / name).write_text("the run's")
    shorter = runner.changed(recipe, train(steps=1, checkpoint={"every": None}))
    runner.train(shorter, "run", overwrite=True)
    assert {"thesis.tex", "my-evaluation.json", "data"} <= {p.name for p in folder.iterdir()}
    run_files = ("evaluation.json", "limit8-predictions-digit.jsonl", "report.html", "checkpoints")
    assert not any((folder / name).exists() for name in run_files)
    assert [step for step, _, _ in runner.losses("run")] == [1]


MISTAKES = [
    {"tasks": {"digit": {"target": "wort"}}},
    {"tasks": {"digit": {"data": {"train": {"source": "nothing"}}}}},
    {"inputs": {"image": {"encoder": {"weights": "runs/none"}}}},
    train(validate={"every": 1, "metric": "digit/none"}),
    train(optimizer={"type": "adamw", "betas": 3}),
    {"callbacks": [{"type": "tiny_parts:Nothing"}]},
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_costs_nothing_of_the_run_that_is_overwritten(
    runner: Any, mistake: dict[str, Any]
) -> None:
    recipe = runner.recipe(train(steps=2, checkpoint={"every": 1}))
    runner.train(recipe, "run")
    before = {path: path.read_bytes() for path in (runner.folder / "run").rglob("*.*")}
    with pytest.raises((ConfigError, RuntimeFailure)):
        runner.train(runner.changed(recipe, HELD_OUT, mistake), "run", overwrite=True)
    assert {p: p.read_bytes() for p in before if p.name != ".lock"} == {
        p: b for p, b in before.items() if p.name != ".lock"
    }


def test_a_second_process_is_kept_out(runner: Any) -> None:
    recipe = runner.recipe(train(steps=2, checkpoint={"every": 1}))
    runner.train(recipe, "run")
    with run_lock(runner.folder / "run"):
        with pytest.raises(ConfigError, match="another process is training into it"):
            runner.train(recipe, "run", resume=True)

        def other() -> None:
            with pytest.raises(ConfigError, match=rf"training into it \(process {os.getppid()} on"):
                _held.clear()
                runner.train(recipe, "run", overwrite=True)

        assert in_child(other) == 0
    runner.train(recipe, "run", resume=True)


def test_a_killed_owner_leaves_no_lock(runner: Any) -> None:
    until_closed, keep_open = os.pipe()

    def killed() -> None:
        with run_lock(runner.folder / "run"):
            if not os.fork():  # a worker that outlives it, until this test ends
                os.close(keep_open)
                os.read(until_closed, 1)
                os._exit(0)
            die()

    assert in_child(killed) == -signal.SIGKILL
    with run_lock(runner.folder / "run"):
        pass
    os.close(keep_open)
    os.close(until_closed)
