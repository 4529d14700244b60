"""A run that is killed, stopped or broken: what it leaves, and that it goes on bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from write_faults import die, in_child

from sensorium.engine.checkpoint import checkpoints, read_tensors, run_lock
from sensorium.engine.checkpoint.run_state import _held
from sensorium.engine.data import BatchSampler
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import Trainer
from sensorium.engine.training import train as run
from sensorium.engine.training.validation import Validator
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
    with pytest.raises(ConfigError, match="holds a run already; say --resume to go on, --overwr"):
        shop.train(recipe, "run")
    with pytest.raises(ConfigError, match="take one out"):
        shop.train(recipe, "run", resume=True, overwrite=True)
    wider = shop.recipe(
        train(steps=4, checkpoint={"every": 2}), {"inputs": {"image": {"encoder": {"dim": 6}}}}
    )
    allowed = ["train.steps", "inputs.image.encoder.dim"]
    with pytest.raises(ConfigError, match=r"\(4, 8, 8\)|is \(.*the recipe builds .*was the recipe"):
        shop.train(wider, "run", resume=True, allow_changes=allowed)


CHANGES: dict[str, dict[str, Any]] = {
    "train.seed": train(seed=4),
    "train.optimizer.lr": train(optimizer={"lr": 1e-4}),
    "train.batch_size": train(batch_size=5),
    "train.precision": train(precision="bf16"),
    "train.steps": train(steps=5),
    "train.gradient_accumulation_steps": train(gradient_accumulation_steps=2),
    "train.warmup_ratio": train(warmup_ratio=0.5),
    "train.sampler.type": train(sampler={"type": "balanced", "column": "word"}),
    "tasks.digit.data.train.holdout": {"tasks": {"digit": {"data": {"train": {"holdout": 0.5}}}}},
    "tasks.digit.data.train.limit": {"tasks": {"digit": {"data": {"train": {"limit": 30}}}}},
    "tasks.digit.target": {"tasks": {"digit": {"target": "label"}}},
    "inputs.image.encoder.dropout": {"inputs": {"image": {"encoder": {"dropout": 0.5}}}},
    "inputs.image.encoder.freeze": {"inputs": {"image": {"encoder": {"freeze": True}}}},
    "inputs.image.augment.shift": {"inputs": {"image": {"augment": {"shift": 0.1}}}},
    "inputs.image.connector.type": {"inputs": {"image": {"connector": "linear"}}},
}
"""Keys that a weight depends on, each with a recipe that differs in it."""


@pytest.fixture
def stopped(shop: Any) -> dict[str, Any]:
    """A run that was stopped after step 3 of 6, with a checkpoint at step 2; its recipe."""
    recipe: dict[str, Any] = shop.recipe(train(steps=6, checkpoint={"every": 2}))
    shop.cut(recipe, "run", 3)
    return recipe


def test_a_changed_recipe_is_refused_by_its_key(
    shop: Any, stopped: dict[str, Any], subtests: pytest.Subtests
) -> None:
    def content() -> dict[Path, bytes]:
        files = (shop.folder / "run").rglob("*.*")
        return {path: path.read_bytes() for path in files if path.name != ".lock"}

    before = content()
    for key, change in CHANGES.items():
        with subtests.test(key):
            with pytest.raises(ConfigError) as refused:
                shop.train(shop.changed(stopped, change), "run", resume=True)
            lines = str(refused.value).splitlines()
            assert any(line.startswith(f"{key}: the run has ") for line in lines), lines
            assert all("--allow-change" in line for line in lines)
            assert content() == before


@pytest.mark.parametrize(
    "key", ["train.optimizer.lr", "train.steps", "train.seed", "inputs.image.encoder.freeze"]
)
def test_a_change_that_is_allowed_is_said_and_written(
    shop: Any, stopped: dict[str, Any], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(RunLogger, "info", lambda self, text: lines.append(text))
    recipe = shop.changed(stopped, CHANGES[key])
    shop.train(recipe, "run", resume=True, allow_changes=[key])
    assert any(line.startswith(f"{key}: ") and "from now on" in line for line in lines)
    steps = [step for step, _, _ in shop.losses("run")]
    assert steps == list(range(1, recipe["train"]["steps"] + 1))
    lines.clear()
    shop.train(recipe, "run", resume=True)  # the change is the run's now
    assert "nothing to do" in lines[-1]


NEUTRAL = [
    train(log_every=2),
    train(num_workers=1),
    train(checkpoint={"every": 1, "keep": 5}),
    {"tasks": {"digit": {"data": {"test": {"source": "digits", "split": "test"}}}}},
]


@pytest.mark.parametrize("change", NEUTRAL)
def test_what_changes_no_weight_may_change(
    shop: Any, stopped: dict[str, Any], change: dict[str, Any]
) -> None:
    whole = shop.train(stopped, "whole").state_dict()
    model = shop.train(shop.changed(stopped, change), "run", resume=True)
    assert all(torch.equal(value, whole[name]) for name, value in model.state_dict().items())


def test_fewer_steps_than_are_done_are_refused(shop: Any, stopped: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"train.steps: found 1, the run is at step 2"):
        shop.train(
            shop.changed(stopped, train(steps=1)),
            "run",
            resume=True,
            allow_changes=["train.steps"],
        )


def test_other_rows_behind_the_same_recipe_are_refused(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = shop.recipe(train(steps=6, checkpoint={"every": 2}))
    shop.cut(recipe, "run", 3)
    monkeypatch.setattr(Digits, "key", lambda self, index: f"other{index}")
    with pytest.raises(ConfigError, match=r"data.train: the run has 40 rows, here are"):
        shop.train(recipe, "run", resume=True)
    shop.train(recipe, "run", resume=True, allow_changes=["tasks.digit.data.train"])


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


def test_a_finished_run_stays_as_it_is(shop: Any) -> None:
    recipe = shop.recipe(BEST, HELD_OUT)
    shop.train(recipe, "run")
    before = {path: path.stat().st_mtime_ns for path in (shop.folder / "run").rglob("*.*")}
    model = shop.train(recipe, "run", resume=True)
    after = {path: path.stat().st_mtime_ns for path in (shop.folder / "run").rglob("*.*")}
    assert {p for p in before if before[p] != after[p]} <= {shop.folder / "run" / ".lock"}
    assert equal(weights(shop.folder / "run"), dict(model.state_dict()))


@pytest.mark.parametrize("cut", [0, 1])
def test_a_finished_run_goes_on_to_more_steps_with_its_best_weights(shop: Any, cut: int) -> None:
    """As if it had had them from the start. cut: it is stopped once more in between."""
    constant = train(schedule="constant", warmup_ratio=0.0)
    longer = shop.recipe(BEST, HELD_OUT, constant)
    shop.train(longer, "whole")
    shorter = shop.changed(longer, train(steps=8))
    shop.train(shorter, "run")
    (shop.folder / "run" / "evaluation.json").write_text("{}")
    allowed = {"resume": True, "allow_changes": ["train.steps"]}
    if cut:
        shop.cut(longer, "run", 11, **allowed)
        assert (shop.folder / "run" / "evaluation.json").exists()
    shop.train(longer, "run", **allowed)
    assert equal(weights(shop.folder / "run"), weights(shop.folder / "whole"))
    assert shop.losses("run") == shop.losses("whole")
    assert not (shop.folder / "run" / "evaluation.json").exists()  # it was of other weights
    assert (shop.folder / "run" / "step8-evaluation.json").exists()


def test_a_finished_run_without_checkpoints_does_not_begin_anew(shop: Any) -> None:
    shop.train(shop.recipe(train(steps=2)), "run")
    before = shop.losses("run"), (shop.folder / "run" / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="is finished at step 2 and keeps no checkpoint"):
        shop.train(shop.recipe(train(steps=4)), "run", resume=True, allow_changes=["train.steps"])
    assert before == (shop.losses("run"), (shop.folder / "run" / "model.safetensors").read_bytes())


def test_an_early_end_is_kept_and_another_patience_goes_on(
    shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Validator, "_score", lambda *_: {"digit": {"accuracy": 0.5}})
    rule = {"every": 1, "metric": "digit/accuracy", "patience": 2}
    recipe = shop.recipe(HELD_OUT, train(steps=8, checkpoint={"every": 5}, validate=rule))
    shop.train(recipe, "run")
    assert [step for step, _, _ in shop.losses("run")] == [1, 2, 3]
    shop.train(recipe, "run", resume=True)
    assert [step for step, _, _ in shop.losses("run")] == [1, 2, 3]
    patient = shop.changed(recipe, train(validate={**rule, "patience": 4}))
    shop.train(patient, "run", resume=True, allow_changes=["train.validate.patience"])
    assert [step for step, _, _ in shop.losses("run")] == [1, 2, 3, 4, 5]


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
    with pytest.raises(RuntimeFailure, match="no checkpoint is whole; begin anew"):
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


@pytest.mark.parametrize("name", ["README.md", "recipe.yaml", "model.safetensors", "fitted"])
def test_a_folder_that_is_no_run_is_left_alone(shop: Any, name: str) -> None:
    (shop.folder / "home").mkdir()
    path = shop.folder / "home" / name
    path.mkdir() if name == "fitted" else path.write_text("ten years of work")
    for more in ({}, {"overwrite": True}):
        with pytest.raises(ConfigError, match=f"is no run's folder and holds {name}"):
            shop.train(shop.recipe(train(steps=1)), "home", **more)
    assert path.exists()


def test_overwrite_removes_a_runs_own_files_alone(shop: Any) -> None:
    recipe = shop.recipe(train(steps=4, checkpoint={"every": 2}))
    shop.train(recipe, "run")
    folder = shop.folder / "run"
    for name in ("thesis.tex", "my-evaluation.json", "data/rows.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    for name in ("evaluation.json", "limit8-predictions-digit.jsonl", "report.html"):
        (folder / name).write_text("the run's")
    shorter = shop.changed(recipe, train(steps=1, checkpoint={"every": None}))
    shop.train(shorter, "run", overwrite=True)
    assert {"thesis.tex", "my-evaluation.json", "data"} <= {p.name for p in folder.iterdir()}
    own = ("evaluation.json", "limit8-predictions-digit.jsonl", "report.html", "checkpoints")
    assert not any((folder / name).exists() for name in own)
    assert [step for step, _, _ in shop.losses("run")] == [1]


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
    shop: Any, mistake: dict[str, Any]
) -> None:
    recipe = shop.recipe(train(steps=2, checkpoint={"every": 1}))
    shop.train(recipe, "run")
    before = {path: path.read_bytes() for path in (shop.folder / "run").rglob("*.*")}
    with pytest.raises((ConfigError, RuntimeFailure)):
        shop.train(shop.changed(recipe, HELD_OUT, mistake), "run", overwrite=True)
    assert {p: p.read_bytes() for p in before if p.name != ".lock"} == {
        p: b for p, b in before.items() if p.name != ".lock"
    }


def test_a_second_process_is_kept_out(shop: Any) -> None:
    recipe = shop.recipe(train(steps=2, checkpoint={"every": 1}))
    shop.train(recipe, "run")
    with run_lock(shop.folder / "run"):
        with pytest.raises(ConfigError, match="another process is training into it"):
            shop.train(recipe, "run", resume=True)

        def other() -> None:
            with pytest.raises(ConfigError, match=rf"training into it \(process {os.getppid()} on"):
                _held.clear()
                shop.train(recipe, "run", overwrite=True)

        assert in_child(other) == 0
    shop.train(recipe, "run", resume=True)


def test_a_killed_owner_leaves_no_lock(shop: Any) -> None:
    until_closed, keep_open = os.pipe()

    def killed() -> None:
        with run_lock(shop.folder / "run"):
            if not os.fork():  # a worker that outlives it, until this test ends
                os.close(keep_open)
                os.read(until_closed, 1)
                os._exit(0)
            die()

    assert in_child(killed) == -signal.SIGKILL
    with run_lock(shop.folder / "run"):
        pass
    os.close(keep_open)
    os.close(until_closed)
