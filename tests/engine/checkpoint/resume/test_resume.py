"""A run that is killed, stopped or broken: what it leaves, and that it goes on bit for bit."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipe_changes import train

from sensorium.engine.checkpoint import checkpoints
from sensorium.engine.data import BatchSampler
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import Trainer
from sensorium.engine.training import train as run
from sensorium.engine.utils import ConfigError, RunLogger, RuntimeFailure
from sensorium.modalities.image.datasets.digits import Digits

NOISY = {"dropout": 0.3, "noise": 0.1, "norm": True}


EVERYTHING: dict[str, Any] = {
    "inputs": {
        "image": {"encoder": NOISY, "augment": {"shift": 0.2, "rotate": 10, "noise": 0.1}},
        "scan": {"encoder": NOISY},
    },
    "backbone": {"options": {"attention_dropout": 0.2}},
    "tasks": {"digit": {"head": {"type": "mlp", "dropout": 0.2}}},
    "train": {
        "steps": 12,
        "gradient_accumulation_steps": 2,
        "checkpoint": {"every": 3},
        "task_weights": {"caption": 0.7},
    },
}
"""All that could differ after a resume: two tasks, accumulation, augmentation, dropout."""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_in_mid_training_and_resumed_has_the_losses_of_a_whole_run(
    runner: Any, workers: int
) -> None:
    recipe = runner.both(EVERYTHING, train(num_workers=workers))
    runner.train(recipe, "whole")
    whole = runner.losses("whole")
    assert {task for _, task, _ in whole} == {"digit", "caption"}
    killed = runner.go(recipe, "killed", fault="kill@16")  # within step 8, behind checkpoint 6
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (runner.folder / "killed" / "model.safetensors").exists()
    before = runner.losses("killed")
    assert before == whole[:7]  # another process does the same to the last bit
    if workers:  # through the command line once
        resumed = runner.go(recipe, "killed", "--resume")
        assert resumed.returncode == 0, resumed.stderr
    else:
        runner.train(recipe, "killed", resume=True)
    assert runner.losses("killed") == whole


def test_every_source_of_chance_is_in_the_recipe_above(runner: Any) -> None:
    """Each of them alone changes the losses, so that the test above can see it."""
    plain = runner.values(runner.recipe(train(steps=3)), "plain")
    for name, change in {
        "dropout": {"inputs": {"image": {"encoder": {"dropout": 0.3}}}},
        "noise": {"inputs": {"image": {"encoder": {"noise": 0.1}}}},
        "norm": {"inputs": {"image": {"encoder": {"norm": True}}}},
        "augment": {"inputs": {"image": {"augment": {"shift": 0.2}}}},
    }.items():
        assert runner.values(runner.recipe(train(steps=3), change), name) != plain, name


def test_two_runs_of_a_recipe_are_equal_whatever_was_drawn_before(runner: Any) -> None:
    recipe = runner.both(
        EVERYTHING, train(steps=4), {"inputs": {"image": {"encoder": {"lora": {}}}}}
    )
    first = runner.values(recipe, "first")
    torch.rand(17)
    np.random.standard_normal(17)
    assert runner.values(recipe, "second") == first


def test_killed_before_its_first_checkpoint_it_begins_anew(runner: Any) -> None:
    recipe = runner.recipe(train(steps=5, checkpoint={"every": 4}))
    whole = runner.values(recipe, "whole")
    runner.cut(recipe, "begun", 2)
    with (runner.folder / "begun" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 3, "lo')
    runner.train(recipe, "begun", resume=True)
    assert [loss for _, _, loss in runner.losses("begun")] == whole


def test_a_kill_within_a_checkpoint_leaves_the_one_before(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = runner.recipe(train(steps=8, checkpoint={"every": 2, "keep": 9}))
    whole = runner.values(recipe, "whole")
    real, written = checkpoints.write_tensors, list[str]()

    def dies(path: Path, tensors: Any) -> None:
        written.append(path.name)
        if written.count("optimizer.safetensors") == 3:
            raise KeyboardInterrupt
        real(path, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_tensors", dies)
        with pytest.raises(KeyboardInterrupt):
            runner.train(recipe, "cut")
    folder = runner.folder / "cut" / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"step-00000002", "step-00000004"}
    runner.train(recipe, "cut", resume=True)
    assert [loss for _, _, loss in runner.losses("cut")] == whole
    left = {path.name for path in folder.iterdir()}
    assert left == {f"step-{n:08d}" for n in (2, 4, 6, 8)}  # and no rest of the one cut short


def test_the_newest_checkpoints_are_kept(runner: Any) -> None:
    runner.train(runner.recipe(train(steps=8, checkpoint={"every": 2, "keep": 3})), "run")
    result = sorted(path.name for path in (runner.folder / "run" / "checkpoints").iterdir())
    assert result == ["step-00000004", "step-00000006", "step-00000008"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "workers"), [("term@11", 0), ("group-int@11", 2), ("group-term@11", 2)]
)
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(
    runner: Any, fault: str, workers: int
) -> None:
    """`group-`: the loader's workers get the signal too, as from a terminal or a scheduler."""
    recipe = runner.recipe(train(steps=9, gradient_accumulation_steps=2, num_workers=workers))
    stopped = runner.go(recipe, "run", fault=fault)
    assert stopped.returncode == 130, stopped.stderr
    (line,) = [x for x in stopped.stderr.splitlines() if x.startswith("error: ")]
    assert line.startswith("error: stopped at step 6, ")
    assert "step-00000006" in line and "--resume" in line
    runner.train(recipe, "run", resume=True)
    assert [x for _, _, x in runner.losses("run")] == runner.values(recipe, "whole")


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_stops_with_the_step_and_the_rows(runner: Any) -> None:
    recipe = runner.recipe(train(gradient_accumulation_steps=2))
    stopped = runner.go(recipe, "run", fault="nan@6")
    assert stopped.returncode == 1
    (line,) = [x for x in stopped.stderr.splitlines() if x.startswith("error: ")]
    assert line.startswith("error: step 3: the loss is nan; rows ")
    batches = BatchSampler({"digit": 40}, 4, 0, gradient_accumulation_steps=2).batches(2)
    source = Digits(split="train")
    rows = [source.key(address.row) for _ in range(2) for address in next(batches)]
    assert f"rows {', '.join(rows)};" in line
    assert [step for step, _, _ in runner.losses("run")] == [1, 2]
    assert not (runner.folder / "run" / "model.safetensors").exists()


def test_what_cannot_go_on_says_so(runner: Any) -> None:
    recipe = runner.recipe(train(steps=2, checkpoint={"every": 2}))
    with pytest.raises(ConfigError, match="run: holds no run to resume; train it without --resume"):
        runner.train(recipe, "run", resume=True)
    runner.train(recipe, "run")
    with pytest.raises(ConfigError, match="holds a run already; pass --resume to continue, "):
        runner.train(recipe, "run")
    with pytest.raises(ConfigError, match="take one out"):
        runner.train(recipe, "run", resume=True, overwrite=True)
    wider = runner.recipe(
        train(steps=4, checkpoint={"every": 2}), {"inputs": {"image": {"encoder": {"dim": 6}}}}
    )
    allowed = ["train.steps", "inputs.image.encoder.dim"]
    with pytest.raises(ConfigError, match=r"\(4, 8, 8\)|is \(.*the recipe builds .*was the recipe"):
        runner.train(wider, "run", resume=True, allow_changes=allowed)


def tear(path: Path, how: str) -> None:
    """Damage a checkpoint in one of the ways that a crash or a disk does."""
    what, _, name = how.partition(" ")
    file = path / name
    if what == "cut":
        file.write_bytes(file.read_bytes()[:-7])
    elif what == "zero":
        file.write_bytes(bytes(file.stat().st_size))
    elif what == "flip":
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
    elif what == "remove":
        file.unlink()


FILES = ("state.json", "model.safetensors", "optimizer.safetensors", "callbacks.safetensors")


TEARS = [
    *(f"{what} {name}" for what in ("cut", "zero", "remove") for name in FILES),
    *(f"flip {name}" for name in FILES[1:3]),
]


@pytest.mark.slow
def test_a_torn_checkpoint_gives_way_to_the_older_whole_one(
    runner: Any, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(RunLogger, "warn", lambda self, text: warnings.append(text))
    recipe = runner.recipe(train(steps=6, checkpoint={"every": 2}))
    whole = runner.values(recipe, "whole")
    runner.cut(recipe, "stopped", 5)
    run, remaining = runner.folder / "run", ["step-00000004", "step-00000006"]
    for how in TEARS:
        with subtests.test(how):
            warnings.clear()
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(runner.folder / "stopped", run)
            tear(run / "checkpoints" / "step-00000004", how)
            runner.train(recipe, "run", resume=True)
            (line,) = warnings
            assert "step-00000004: is no whole checkpoint (" in line and "step-00000002" in line
            assert [loss for _, _, loss in runner.losses("run")] == whole
            assert sorted(path.name for path in (run / "checkpoints").iterdir()) == remaining


def test_without_a_whole_checkpoint_it_does_not_begin_anew(runner: Any) -> None:
    recipe = runner.recipe(train(steps=6, checkpoint={"every": 2}))
    runner.cut(recipe, "run", 3)
    tear(runner.folder / "run" / "checkpoints" / "step-00000002", "cut model.safetensors")
    with pytest.raises(RuntimeFailure, match="no checkpoint is whole; start over"):
        runner.train(recipe, "run", resume=True)


def test_moments_belong_to_parameters_by_name(runner: Any) -> None:
    """Whatever is reordered, frozen or given a rate of its own between two processes."""
    recipe = runner.both({"inputs": {"scan": {"encoder": {"dim": 8}}}}, train(steps=4))
    moments: list[dict[str, torch.Tensor]] = []

    class Watched(Trainer):
        def run(self) -> None:
            state = self.optimizer.optimizer.state
            named = self.model.named_parameters()
            moments.append({n: state[p]["exp_avg"].clone() for n, p in named if p in state})
            super().run()
            named = self.model.named_parameters()
            moments.append({n: state[p]["exp_avg"].clone() for n, p in named if p in state})

    changed = runner.changed(recipe, train(steps=5))
    for section in ("inputs", "tasks"):
        changed[section] = dict(reversed(changed[section].items()))
    changed["inputs"]["image"]["encoder"]["lr"] = 0.02
    changed["inputs"]["scan"]["encoder"]["freeze"] = True
    for values, more in ((recipe, {}), (changed, {"resume": True, "allow_changes": ALL})):
        values = runner.changed(values, train(checkpoint={"every": 4}))
        run(parse_recipe(values), runner.folder / "run", show=False, trainer=Watched, **more)
    _, before, after, _ = moments
    assert after and after.keys() < before.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


ALL = ("inputs", "tasks", "train")
