"""Resuming a finished run: it stays, or trains for more steps from its best weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_changes import train

from sensorium.engine.checkpoint import read_tensors
from sensorium.engine.training.resume import remove_best
from sensorium.engine.training.validation import Validator
from sensorium.engine.utils import ConfigError

BEST = train(
    steps=12,
    checkpoint={"every": 4, "keep": 2},
    validate={"every": 2, "metric": "digit/accuracy", "batches": 2},
)


HELD_OUT = {
    "inputs": {"image": {"encoder": {"dropout": 0.3}}},
    "tasks": {"digit": {"data": {"train": {"holdout": 0.3}}}},
}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / "model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_a_finished_run_stays_as_it_is(runner: Any) -> None:
    recipe = runner.recipe(BEST, HELD_OUT)
    runner.train(recipe, "run")
    before = {path: path.stat().st_mtime_ns for path in (runner.folder / "run").rglob("*.*")}
    model = runner.train(recipe, "run", resume=True)
    after = {path: path.stat().st_mtime_ns for path in (runner.folder / "run").rglob("*.*")}
    assert {p for p in before if before[p] != after[p]} <= {runner.folder / "run" / ".lock"}
    assert equal(weights(runner.folder / "run"), dict(model.state_dict()))


def test_what_a_kill_at_the_very_end_left_is_removed(runner: Any) -> None:
    """The run counts as finished, and its best weights so far lie there still."""
    recipe = runner.recipe(BEST, HELD_OUT)
    runner.train(recipe, "run")
    stage = runner.folder / "run" / "stages" / "0-a"
    stage.mkdir(parents=True)
    (stage.parent / "recipe.yaml").write_text("{}")  # what a run of stages has beside them
    left = [runner.folder / "run" / "best.safetensors", stage / "best.safetensors"]
    for path in left:
        path.write_bytes(b"left")
    remove_best(runner.folder / "run", stage.parent)
    assert not any(path.exists() for path in left)


@pytest.mark.parametrize("cut", [0, 1])
def test_a_finished_run_goes_on_to_more_steps_with_its_best_weights(runner: Any, cut: int) -> None:
    """As if it had had them from the start. cut: it is stopped once more in between."""
    constant = train(schedule="constant", warmup_ratio=0.0)
    longer = runner.recipe(BEST, HELD_OUT, constant)
    runner.train(longer, "whole")
    shorter = runner.changed(longer, train(steps=8))
    runner.train(shorter, "run")
    (runner.folder / "run" / "evaluation.json").write_text("{}")
    allowed = {"resume": True, "allow_changes": ["train.steps"]}
    if cut:
        runner.cut(longer, "run", 11, **allowed)
        assert (runner.folder / "run" / "evaluation.json").exists()
    runner.train(longer, "run", **allowed)
    assert equal(weights(runner.folder / "run"), weights(runner.folder / "whole"))
    assert runner.losses("run") == runner.losses("whole")
    assert not (runner.folder / "run" / "evaluation.json").exists()  # it was of other weights
    assert (runner.folder / "run" / "step8-evaluation.json").exists()


def test_a_finished_run_without_checkpoints_does_not_begin_anew(runner: Any) -> None:
    runner.train(runner.recipe(train(steps=2)), "run")
    before = runner.losses("run"), (runner.folder / "run" / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="is finished at step 2 and keeps no checkpoint"):
        runner.train(
            runner.recipe(train(steps=4)), "run", resume=True, allow_changes=["train.steps"]
        )
    assert before == (
        runner.losses("run"),
        (runner.folder / "run" / "model.safetensors").read_bytes(),
    )


def test_an_early_end_is_kept_and_another_patience_goes_on(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Validator, "_score", lambda *_: {"digit": {"accuracy": 0.5}})
    rule = {"every": 1, "metric": "digit/accuracy", "patience": 2}
    recipe = runner.recipe(HELD_OUT, train(steps=8, checkpoint={"every": 5}, validate=rule))
    runner.train(recipe, "run")
    assert [step for step, _, _ in runner.losses("run")] == [1, 2, 3]
    runner.train(recipe, "run", resume=True)
    assert [step for step, _, _ in runner.losses("run")] == [1, 2, 3]
    patient = runner.changed(recipe, train(validate={**rule, "patience": 4}))
    runner.train(patient, "run", resume=True, allow_changes=["train.validate.patience"])
    assert [step for step, _, _ in runner.losses("run")] == [1, 2, 3, 4, 5]
