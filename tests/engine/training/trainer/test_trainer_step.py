"""The trainer: what may be overridden, what it computes, and when it waits for the device."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_changes import train
from torch.utils._python_dispatch import TorchDispatchMode

from sensorium.engine.data import TRAIN, BatchSampler, batches, load_split, task_dataset
from sensorium.engine.model import compose, resolve_and_fit
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import Trainer
from sensorium.engine.training import train as run
from sensorium.engine.training.totals import StepTotals
from sensorium.engine.utils import RuntimeFailure, read_metrics
from sensorium.tasks.batch import Batch


def lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log without its speed."""
    result = read_metrics(folder)
    return [{k: v for k, v in line.items() if k != "samples_per_s"} for line in result]


def reference(recipe: dict[str, Any]) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses and weights of a loop as one writes it by hand for a classifier: AdamW, constant
    rate, two batches a step, gradients clipped."""
    plan = resolve_and_fit(parse_recipe(recipe))
    model, settings = compose(plan), plan.recipe.train
    rows = task_dataset(
        plan, model.encoders(), "digit", load_split(plan, "digit", TRAIN), training=True
    )
    refs = BatchSampler({"digit": len(rows)}, settings.batch_size, settings.seed, 2).batches()
    loader = batches({"digit": rows}, refs, model.collator())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    losses = []
    for _ in range(settings.steps):
        pair = [model(batch) for batch in itertools.islice(loader, 2)]
        loss = sum(each.total for each in pair) / sum(each.count for each in pair)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    return losses, model.state_dict()


def test_it_computes_what_a_loop_written_by_hand_does(runner: Any) -> None:
    recipe = runner.recipe(
        train(
            steps=8,
            optimizer={"lr": 0.01, "weight_decay": 0.0},
            schedule="constant",
            warmup_ratio=0.0,
            gradient_accumulation_steps=2,
            max_grad_norm=0.5,
        )
    )
    losses, state = reference(recipe)
    model = runner.train(recipe, "run")
    assert [loss for _, _, loss in runner.losses("run")] == pytest.approx(losses, rel=1e-5)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=1e-4, atol=1e-5)


def test_how_often_it_logs_changes_no_number(runner: Any) -> None:
    recipe = runner.both(train(steps=9))
    runner.train(recipe, "each")
    runner.train(runner.changed(recipe, train(log_every=4)), "some")
    each, some = lines(runner.folder / "each"), lines(runner.folder / "some")
    assert [line["step"] for line in some] == [4, 8, 9]
    assert some == [line for line in each if line["step"] in (4, 8, 9)]


class Scalars(TorchDispatchMode):
    """Counts the values that Python asks tensors for; each is a wait on an accelerator."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_it_waits_for_the_device_only_where_it_logs(runner: Any) -> None:
    waits: dict[int, int] = {}

    class Watched(Trainer):
        def _end_step(self, totals: StepTotals, lr: float) -> None:
            with Scalars() as scalars:
                super()._end_step(totals, lr)
            waits[self.global_step] += scalars.count

        def step(self, batches: Iterator[Batch]) -> StepTotals:
            with Scalars() as scalars:
                totals = super().step(batches)
            waits[self.global_step + 1] = scalars.count
            return totals

    recipe = runner.recipe(train(steps=7, log_every=3, optimizer={"type": "sgd"}))
    run(parse_recipe(recipe), runner.folder / "run", show=False, trainer=Watched)
    assert {step for step, count in waits.items() if count} == {3, 6, 7}


def test_batches_and_step_may_be_overridden(runner: Any) -> None:
    class Twice(Trainer):
        """Every batch twice, and two updates a step."""

        def batches(self) -> Iterator[Batch]:
            for batch in super().batches():
                yield from (batch, batch)

        def step(self, batches: Iterator[Batch]) -> StepTotals:
            super().step(batches)
            return super().step(batches)

    recipe = runner.recipe(train(steps=3, max_grad_norm=None, optimizer={"type": "sgd", "lr": 0.1}))
    run(parse_recipe(recipe), runner.folder / "twice", show=False, trainer=Twice)
    runner.train(recipe, "once")
    once, twice = runner.losses("once"), runner.losses("twice")
    assert [step for step, _, _ in twice] == [1, 2, 3]
    assert twice[0][2] < once[0][2]  # the batch was learned when it was looked at again
    with pytest.raises(InterruptedError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Twice, "_validate_and_save", cut_after(2))
        path = runner.folder / "cut"
        run(parse_recipe(runner.changed(recipe, EVERY)), path, show=False, trainer=Twice)
    run(parse_recipe(runner.changed(recipe, EVERY)), path, show=False, resume=True, trainer=Twice)
    assert runner.losses("cut") == twice


EVERY = train(checkpoint={"every": 1})


def cut_after(step: int) -> Any:
    """Training ends without a word when a step's checkpoint is written."""
    real = Trainer._validate_and_save

    def cut(self: Trainer) -> None:
        real(self)
        if self.global_step == step:
            raise InterruptedError

    return cut


@pytest.mark.parametrize("where", [{"log_every": 5}, {"checkpoint": {"every": 4}}])
def test_a_loss_that_is_no_number_is_named_by_its_own_step(
    runner: Any, monkeypatch: pytest.MonkeyPatch, where: dict[str, Any]
) -> None:
    """Though it is only looked for where the trainer logs, validates or writes a checkpoint."""
    monkeypatch.setenv("TINY_FAULT", "nan@3")
    recipe = runner.recipe(train(steps=10, log_every=10), train(**where))
    refs = BatchSampler({"digit": 40}, 4, 0).batches(2)
    with pytest.raises(RuntimeFailure, match=r"^step 3: the loss is nan; rows ") as ended:
        runner.train(recipe, "run")
    source = load_split(resolve_and_fit(parse_recipe(recipe)), "digit", TRAIN)
    rows = ", ".join(source.key(ref.row) for ref in next(refs))
    assert f"rows {rows};" in str(ended.value)
    assert not list((runner.folder / "run").glob("checkpoints/step-*"))
    assert not runner.losses("run")
