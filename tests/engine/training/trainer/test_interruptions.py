"""What a signal, a killed worker or a gradient that is not finite does to a training."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_changes import train
from torch.utils.data import DataLoader

from sensorium.engine.checkpoint import load_model, read_tensors
from sensorium.engine.data import loader
from sensorium.engine.training import totals as training_totals
from sensorium.engine.training.trainer import Trainer
from sensorium.engine.utils import GracefulStop, RunLogger, RuntimeFailure, WorkerDied, read_metrics


class Signals:
    """Sends signals to this process at a step, or while the run is saved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, numbers: list[int], where: str) -> None:
        resume, module = (
            import_module(f"sensorium.engine.training.{name}") for name in ("resume", "train")
        )
        unsent = list(numbers)

        def send() -> None:
            while unsent:
                os.kill(os.getpid(), unsent.pop(0))

        if where == "step":
            real_update = Trainer.update

            def update(trainer: Trainer, totals: Any) -> None:
                if trainer.global_step == 2:
                    send()
                real_update(trainer, totals)

            monkeypatch.setattr(Trainer, "update", update)
        else:
            target = {"save": (module, "save_run"), "checkpoint": (resume, "from_main")}[where]
            real = getattr(*target)

            def during(*arguments: Any) -> Any:
                send()
                return real(*arguments)

            monkeypatch.setattr(*target, during)


STOPS = [[signal.SIGINT], [signal.SIGTERM], [signal.SIGHUP], [signal.SIGTERM] * 3,
         [signal.SIGHUP, signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]]  # fmt: skip
TWICE = ([signal.SIGINT], [signal.SIGTERM] * 3)


@pytest.mark.quick_share(3)
@pytest.mark.parametrize(
    ("where", "numbers"),
    [*(("step", stop) for stop in STOPS), *((w, s) for w in ("checkpoint", "save") for s in TWICE)],
    ids=lambda value: value if isinstance(value, str) else "-".join(x.name for x in value),
)
def test_no_signal_loses_what_was_trained(
    runner: Any, monkeypatch: pytest.MonkeyPatch, numbers: list[int], where: str
) -> None:
    recipe = runner.recipe(
        train(steps=4, checkpoint={"every": 2 if where == "checkpoint" else None})
    )
    whole = runner.values(recipe, "whole")
    handlers = {number: signal.getsignal(number) for number in set(numbers)}
    with monkeypatch.context() as patch:
        Signals(patch, numbers, where)
        if where == "save":
            runner.train(recipe, "run")
        else:
            with pytest.raises(RuntimeFailure, match="--resume"):
                runner.train(recipe, "run")
    assert handlers == {number: signal.getsignal(number) for number in set(numbers)}
    if where != "save":
        runner.train(recipe, "run", resume=True)
    assert [loss for _, _, loss in runner.losses("run")] == whole
    load_model(runner.folder / "run")


def test_what_the_parent_ignores_stays_ignored() -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulStop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.received is None and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)


def test_a_second_ctrl_c_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), GracefulStop():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def spoil(monkeypatch: pytest.MonkeyPatch, steps: set[int], value: float) -> None:
    """Put a value into one gradient of some steps; losses stay finite."""
    real = Trainer.backward

    def backward(trainer: Trainer, batch: Any, last: bool = True) -> Any:
        loss = real(trainer, batch, last)
        if trainer.global_step + 1 in steps:
            parameter = next(p for p in trainer.model.parameters() if p.grad is not None)
            assert parameter.grad is not None
            parameter.grad.view(-1)[0] = value
        return loss

    monkeypatch.setattr(Trainer, "backward", backward)


def finite(path: Path) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in read_tensors(path).values())


@pytest.mark.parametrize(
    ("value", "bad", "settings"),
    [
        (float("nan"), {6}, {}),
        (float("inf"), {3}, {}),
        (float("-inf"), {1, 2, 5}, {}),
        (float("nan"), {1, 2, 5}, {"max_grad_norm": None}),
        (float("inf"), {6}, {"gradient_accumulation_steps": 2}),
        (float("nan"), {3}, {"log_every": 4}),
    ],
)
def test_a_step_without_finite_gradients_is_skipped_and_counted(
    runner: Any,
    monkeypatch: pytest.MonkeyPatch,
    value: float,
    bad: set[int],
    settings: dict[str, Any],
) -> None:
    taken: list[int] = []
    real = torch.optim.AdamW.step
    warnings: list[str] = []
    monkeypatch.setattr(RunLogger, "warn", lambda self, text: warnings.append(text))
    spoil(monkeypatch, bad, value)
    recipe = runner.recipe(train(steps=6, checkpoint={"every": 1, "keep": 9}, **settings))

    def step(optimizer: Any, closure: Any = None) -> Any:
        taken.append(1)
        return real(optimizer, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    runner.train(recipe, "run")
    assert len(taken) == 6 - len(bad)
    for path in (runner.folder / "run").rglob("*.safetensors"):
        assert finite(path), path
    counted = [line.get("skipped_steps", 0) for line in read_metrics(runner.folder / "run")]
    assert sum(counted) == len(bad)
    assert f"step {min(bad)}: the gradients are not finite" in warnings[0]


def test_too_many_in_a_row_are_an_error(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_totals, "MAX_SKIPPED", 3)
    spoil(monkeypatch, {4, 5, 6, 7, 8}, float("nan"))
    recipe = runner.recipe(train(steps=9, checkpoint={"every": 2, "keep": 9}))
    with pytest.raises(RuntimeFailure, match="the gradients of 3 steps in a row are not finite"):
        runner.train(recipe, "run")
    assert [step for step, _, _ in runner.losses("run")] == [1, 2, 3, 4, 5]
    spoil(monkeypatch, set(), 0.0)


def test_a_training_without_a_single_step_is_an_error(
    runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {1, 2}, float("nan"))
    with pytest.raises(RuntimeFailure, match="the gradients of 2 steps in a row"):
        runner.train(runner.recipe(train(steps=2)), "run")
    assert not (runner.folder / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("step", [2, 3, 4])
def test_weights_that_are_not_finite_are_never_saved(
    runner: Any, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Whatever made them so: here the optimizer."""
    real = Trainer.update

    def update(trainer: Trainer, totals: Any) -> None:
        real(trainer, totals)
        if trainer.global_step + 1 == step:
            with torch.no_grad():
                next(p for p in trainer.model.parameters() if p.requires_grad).view(-1)[0] = (
                    torch.inf
                )

    monkeypatch.setattr(Trainer, "update", update)
    recipe = runner.recipe(train(steps=4, log_every=9, checkpoint={"every": 2}))
    with pytest.raises(RuntimeFailure):
        runner.train(recipe, "run")
    assert not (runner.folder / "run" / "model.safetensors").exists()
    assert all(finite(path) for path in (runner.folder / "run").rglob("*.safetensors"))


@pytest.mark.parametrize("clean", [True, False])
def test_a_killed_worker_is_one_line_and_what_was_trained_is_kept(
    runner: Any, monkeypatch: pytest.MonkeyPatch, clean: bool
) -> None:
    """clean: it is found out while a step waits for its first rows."""
    recipe = runner.recipe(train(steps=4, gradient_accumulation_steps=2))
    whole = runner.values(recipe, "whole")
    real = loader._guarded
    text = "DataLoader worker (pid 17) is killed by signal: Killed. "

    class Killed:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __iter__(self) -> Any:
            for count, batch in enumerate(self.inner):
                if count == (4 if clean else 5):
                    raise RuntimeError(text)
                yield batch

    with monkeypatch.context() as patch:
        patch.setattr(loader, "_guarded", lambda inner: real(iter(Killed(inner))))  # type: ignore[arg-type]
        with pytest.raises(WorkerDied, match=r"lower train\.num_workers") as died:
            runner.train(recipe, "run")
    assert ("step-00000002 written" in str(died.value)) == clean
    assert (runner.folder / "run" / "checkpoints" / "step-00000002").exists() == clean
    runner.train(recipe, "run", resume=True)
    assert [loss for _, _, loss in runner.losses("run")] == whole


@pytest.mark.parametrize(("kind", "pinned"), [("cuda", True), ("cpu", False), ("mps", False)])
def test_batches_for_cuda_are_made_in_page_locked_memory(
    monkeypatch: pytest.MonkeyPatch, kind: str, pinned: bool
) -> None:
    options: list[dict[str, Any]] = []

    class Watched(DataLoader[Any]):
        def __init__(self, dataset: Any, **loader_options: Any) -> None:
            options.append(loader_options)
            super().__init__(dataset, **{**loader_options, "pin_memory": False})

    monkeypatch.setattr(loader, "DataLoader", Watched)
    list(loader.batches({}, [], loader.Collator({}), device=torch.device(kind)))
    assert [each["pin_memory"] for each in options] == [pinned]


def test_run_json_says_whether_it_is_finished(runner: Any) -> None:
    recipe = runner.recipe(train(steps=4, checkpoint={"every": 2}))
    runner.cut(recipe, "run", 3)
    path = runner.folder / "run" / "run.json"
    assert json.loads(path.read_text()) == {"finished": False}
    runner.train(recipe, "run", resume=True)
    assert json.loads(path.read_text()) == {"finished": True, "step": 4}


def test_the_death_of_a_worker_interrupts_no_update() -> None:
    """torch would raise wherever the main process is; the next batch does."""
    handler = signal.getsignal(signal.SIGCHLD)
    before = set(multiprocessing.active_children())
    numbers = loader.stream_batches(lambda: iter(range(1000)), workers=1)
    assert next(numbers) == 0
    assert signal.getsignal(signal.SIGCHLD) == handler
    (worker,) = set(multiprocessing.active_children()) - before
    worker.kill()
    worker.join()  # a signal arrives, and nothing is raised
    assert worker.exitcode
