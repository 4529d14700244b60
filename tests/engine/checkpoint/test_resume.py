"""A run that is killed, stopped or broken: what it leaves, and that it goes on bit for bit."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.engine.checkpoint import state
from sensorium.engine.data import BatchSampler
from sensorium.engine.utils import ConfigError
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


def train(**settings: Any) -> dict[str, Any]:
    return {"train": settings}


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
    log = shop.folder / "begun" / "metrics.jsonl"
    shop.train(shop.recipe(train(steps=0)), "begun")
    log.write_text('{"step": 1, "task": "digit", "loss": 9.0}\n{"step": 2, "lo')
    shop.train(recipe, "begun", resume=True)
    assert [loss for _, _, loss in shop.losses("begun")] == whole


def test_a_kill_within_a_checkpoint_leaves_the_one_before(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = shop.recipe(train(steps=8, checkpoint={"every": 2, "keep": 9}))
    whole = shop.values(recipe, "whole")
    real, written = state.write_tensors, list[str]()

    def dies(path: Path, tensors: Any) -> None:
        written.append(path.name)
        if written.count("optimizer.safetensors") == 3:
            raise KeyboardInterrupt
        real(path, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(state, "write_tensors", dies)
        with pytest.raises(KeyboardInterrupt):
            shop.train(recipe, "cut")
    checkpoints = shop.folder / "cut" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} > {"step-00000002", "step-00000004"}
    shop.train(recipe, "cut", resume=True)
    assert [loss for _, _, loss in shop.losses("cut")] == whole
    left = {path.name for path in checkpoints.iterdir()}
    assert left == {f"step-{n:08d}" for n in (2, 4, 6, 8)}  # and no rest of the one cut short


def test_the_newest_checkpoints_are_kept(shop: Any) -> None:
    shop.train(shop.recipe(train(steps=8, checkpoint={"every": 2, "keep": 3})), "run")
    found = sorted(path.name for path in (shop.folder / "run" / "checkpoints").iterdir())
    assert found == ["step-00000004", "step-00000006", "step-00000008"]


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
    (line,) = stopped.stderr.splitlines()
    assert line.startswith("error: stopped at step 6, ")
    assert "step-00000006" in line and "--resume" in line
    shop.train(recipe, "run", resume=True)
    assert [x for _, _, x in shop.losses("run")] == shop.values(recipe, "whole")


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_stops_with_the_step_and_the_rows(shop: Any) -> None:
    recipe = shop.recipe(train(gradient_accumulation_steps=2))
    stopped = shop.go(recipe, "run", fault="nan@6")
    assert stopped.returncode == 1
    (line,) = stopped.stderr.splitlines()
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
    with pytest.raises(ConfigError, match="holds a run already; say --resume to go on, --overwr"):
        shop.train(recipe, "run")
    wider = shop.recipe(train(steps=4), {"inputs": {"image": {"encoder": {"dim": 6}}}})
    with pytest.raises(ConfigError, match=r"\(4, 8, 8\)|is \(.*the recipe builds .*was the recipe"):
        shop.train(wider, "run", resume=True)
