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
    shop: Any, workers: int
) -> None:
    recipe = shop.both(EVERYTHING, train(num_workers=workers))
    shop.train(recipe, "whole")
    whole = shop.losses("whole")
    assert {task for _, task, _ in whole} == {"digit", "caption"}
    killed = shop.go(recipe, "killed", fault="kill@16")  # within step 8, behind checkpoint 6
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (shop.folder / "killed" / "model.safetensors").exists()
    before = shop.losses("killed")
    assert before == whole[:7]  # another process does the same to the last bit
    if workers:  # through the command line once
        resumed = shop.go(recipe, "killed", "--resume")
        assert resumed.returncode == 0, resumed.stderr
    else:
        shop.train(recipe, "killed", resume=True)
    assert shop.losses("killed") == whole


def test_every_source_of_chance_is_in_the_recipe_above(shop: Any) -> None:
    """Each of them alone changes the losses, so that the test above can see it."""
    plain = shop.values(shop.recipe(train(steps=3)), "plain")
    for name, change in {
        "dropout": {"inputs": {"image": {"encoder": {"dropout": 0.3}}}},
        "noise": {"inputs": {"image": {"encoder": {"noise": 0.1}}}},
        "norm": {"inputs": {"image": {"encoder": {"norm": True}}}},
        "augment": {"inputs": {"image": {"augment": {"shift": 0.2}}}},
    }.items():
        assert shop.values(shop.recipe(train(steps=3), change), name) != plain, name


def test_two_runs_of_a_recipe_are_equal_whatever_was_drawn_before(shop: Any) -> None:
    recipe = shop.both(EVERYTHING, train(steps=4), {"inputs": {"image": {"encoder": {"lora": {}}}}})
    first = shop.values(recipe, "first")
    torch.rand(17)
    np.random.standard_normal(17)
    assert shop.values(recipe, "second") == first


def test_killed_before_its_first_checkpoint_it_begins_anew(shop: Any) -> None:
    recipe = shop.recipe(train(steps=5, checkpoint={"every": 4}))
    whole = shop.values(recipe, "whole")
    shop.cut(recipe, "begun", 2)
    with (shop.folder / "begun" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 3, "lo')
    shop.train(recipe, "begun", resume=True)
    assert [loss for _, _, loss in shop.losses("begun")] == whole


def test_a_kill_within_a_checkpoint_leaves_the_one_before(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = shop.recipe(train(steps=8, checkpoint={"every": 2, "keep": 9}))
    whole = shop.values(recipe, "whole")
    real, written = checkpoints.write_tensors, list[str]()

    def dies(path: Path, tensors: Any) -> None:
        written.append(path.name)
        if written.count("optimizer.safetensors") == 3:
            raise KeyboardInterrupt
        real(path, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write_tensors", dies)
        with pytest.raises(KeyboardInterrupt):
            shop.train(recipe, "cut")
    folder = shop.folder / "cut" / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"step-00000002", "step-00000004"}
    shop.train(recipe, "cut", resume=True)
    assert [loss for _, _, loss in shop.losses("cut")] == whole
    left = {path.name for path in folder.iterdir()}
    assert left == {f"step-{n:08d}" for n in (2, 4, 6, 8)}  # and no rest of the one cut short


def test_the_newest_checkpoints_are_kept(shop: Any) -> None:
    shop.train(shop.recipe(train(steps=8, checkpoint={"every": 2, "keep": 3})), "run")
    result = sorted(path.name for path in (shop.folder / "run" / "checkpoints").iterdir())
    assert result == ["step-00000004", "step-00000006", "step-00000008"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "workers"), [("term@11", 0), ("group-int@11", 2), ("group-term@11", 2)]
)
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(
    shop: Any, fault: str, workers: int
) -> None:
    """`group-`: the loader's workers get the signal too, as from a terminal or a scheduler."""
    recipe = shop.recipe(train(steps=9, gradient_accumulation_steps=2, num_workers=workers))
    stopped = shop.go(recipe, "run", fault=fault)
    assert stopped.returncode == 130, stopped.stderr
    (line,) = [x for x in stopped.stderr.splitlines() if x.startswith("error: ")]
    assert line.startswith("error: stopped at step 6, ")
    assert "step-00000006" in line and "--resume" in line
    shop.train(recipe, "run", resume=True)
    assert [x for _, _, x in shop.losses("run")] == shop.values(recipe, "whole")


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_stops_with_the_step_and_the_rows(shop: Any) -> None:
    recipe = shop.recipe(train(gradient_accumulation_steps=2))
    stopped = shop.go(recipe, "run", fault="nan@6")
    assert stopped.returncode == 1
    (line,) = [x for x in stopped.stderr.splitlines() if x.startswith("error: ")]
    assert line.startswith("error: step 3: the loss is nan; rows ")
    batches = BatchSampler({"digit": 40}, 4, 0, gradient_accumulation_steps=2).batches(2)
    source = Digits(split="train")
    rows = [source.key(address.row) for _ in range(2) for address in next(batches)]
    assert f"rows {', '.join(rows)};" in line
    assert [step for step, _, _ in shop.losses("run")] == [1, 2]
    assert not (shop.folder / "run" / "model.safetensors").exists()


def test_what_cannot_go_on_says_so(shop: Any) -> None:
    recipe = shop.recipe(train(steps=2, checkpoint={"every": 2}))
    with pytest.raises(ConfigError, match="run: holds no run to resume; train it without --resume"):
        shop.train(recipe, "run", resume=True)
    shop.train(recipe, "run")
    with pytest.raises(ConfigError, match="holds a run already; pass --resume to continue, "):
        shop.train(recipe, "run")
    with pytest.raises(ConfigError, match="take one out"):
        shop.train(recipe, "run", resume=True, overwrite=True)
    wider = shop.recipe(
        train(steps=4, checkpoint={"every": 2}), {"inputs": {"image": {"encoder": {"dim": 6}}}}
    )
    allowed = ["train.steps", "inputs.image.encoder.dim"]
    with pytest.raises(ConfigError, match=r"\(4, 8, 8\)|is \(.*the recipe builds .*was the recipe"):
        shop.train(wider, "run", resume=True, allow_changes=allowed)


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
    shop: Any, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(RunLogger, "warn", lambda self, text: warnings.append(text))
    recipe = shop.recipe(train(steps=6, checkpoint={"every": 2}))
    whole = shop.values(recipe, "whole")
    shop.cut(recipe, "stopped", 5)
    run, remaining = shop.folder / "run", ["step-00000004", "step-00000006"]
    for how in TEARS:
        with subtests.test(how):
            warnings.clear()
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(shop.folder / "stopped", run)
            tear(run / "checkpoints" / "step-00000004", how)
            shop.train(recipe, "run", resume=True)
            (line,) = warnings
            assert "step-00000004: is no whole checkpoint (" in line and "step-00000002" in line
            assert [loss for _, _, loss in shop.losses("run")] == whole
            assert sorted(path.name for path in (run / "checkpoints").iterdir()) == remaining


def test_without_a_whole_checkpoint_it_does_not_begin_anew(shop: Any) -> None:
    recipe = shop.recipe(train(steps=6, checkpoint={"every": 2}))
    shop.cut(recipe, "run", 3)
    tear(shop.folder / "run" / "checkpoints" / "step-00000002", "cut model.safetensors")
    with pytest.raises(RuntimeFailure, match="no checkpoint is whole; start over"):
        shop.train(recipe, "run", resume=True)


def test_moments_belong_to_parameters_by_name(shop: Any) -> None:
    """Whatever is reordered, frozen or given a rate of its own between two processes."""
    recipe = shop.both({"inputs": {"scan": {"encoder": {"dim": 8}}}}, train(steps=4))
    moments: list[dict[str, torch.Tensor]] = []

    class Watched(Trainer):
        def run(self) -> None:
            state = self.optimizer.optimizer.state
            named = self.model.named_parameters()
            moments.append({n: state[p]["exp_avg"].clone() for n, p in named if p in state})
            super().run()
            named = self.model.named_parameters()
            moments.append({n: state[p]["exp_avg"].clone() for n, p in named if p in state})

    changed = shop.changed(recipe, train(steps=5))
    for section in ("inputs", "tasks"):
        changed[section] = dict(reversed(changed[section].items()))
    changed["inputs"]["image"]["encoder"]["lr"] = 0.02
    changed["inputs"]["scan"]["encoder"]["freeze"] = True
    for values, more in ((recipe, {}), (changed, {"resume": True, "allow_changes": ALL})):
        values = shop.changed(values, train(checkpoint={"every": 4}))
        run(parse_recipe(values), shop.folder / "run", show=False, trainer=Watched, **more)
    _, before, after, _ = moments
    assert after and after.keys() < before.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())


ALL = ("inputs", "tasks", "train")
