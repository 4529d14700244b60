"""Two processes are one with a batch twice as large; and none of them waits for ever."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from process_recipes import TEXT, captions, descend, pairs, processes, unreadable, untrained
from recipe_changes import train
from safetensors.torch import load_file

from sensorium.engine.utils import ConfigError

pytestmark = pytest.mark.slow


def test_two_processes_learn_what_one_learns_from_batches_twice_as_large(runner: Any) -> None:
    """With rows that cannot be read there are steps for which a process has no row at all."""
    settings = train(  # Adam would turn gradients that are only rounding into whole steps
        steps=6,
        optimizer={"type": "sgd", "lr": 0.3},
        schedule="constant",
        checkpoint={"every": 6},
        max_grad_norm=0.5,
    )
    uneven, torn = captions(runner), unreadable(runner)
    stack = {"backbone": runner.both()["backbone"]}
    cases: dict[str, dict[str, Any]] = {
        "plain": runner.recipe(settings),
        "uneven": runner.both(settings, uneven),
        "accumulated": runner.both(settings, uneven, train(gradient_accumulation_steps=2)),
        "unclipped": runner.recipe(settings, train(max_grad_norm=None)),
        "adapted": runner.recipe(settings, {"inputs": {"image": {"encoder": {"lora": {"r": 2}}}}}),
        "shared": runner.changed(pairs(runner, TEXT), settings),
        "shared_stack": runner.changed(pairs(runner, {"share": "backbone"}, **stack), settings),
        "torn": runner.changed(torn, settings),
        "torn_cached": runner.changed(
            torn, settings, {"inputs": {"image": {"encoder": {"freeze": True}}}}
        ),
    }
    for count in (2, 1):
        size = train(batch_size=4 // count)
        recipes = {f"{n}_{count}": runner.changed(r, size) for n, r in cases.items()}
        descend(runner, recipes, count)
    for name, recipe in cases.items():
        runs = runner.folder / f"{name}_1", runner.folder / f"{name}_2"
        assert [processes(run) for run in runs] == [1, 2]
        first, second = (runner.losses(run.name) for run in runs)
        assert [(s, t) for s, t, _ in first] == [(s, t) for s, t, _ in second]
        assert [x for *_, x in first] == pytest.approx([x for *_, x in second], abs=1e-5), name
        alone, together = (load_file(run / "model.safetensors") for run in runs)
        before = untrained(runner, recipe)
        for key, expected in alone.items():
            torch.testing.assert_close(together[key], expected, rtol=0, atol=1e-5, msg=name + key)
        moved = max(float((alone[key].float() - before[key].float()).abs().max()) for key in alone)
        assert moved > 0.01, name  # far more than the two may differ by
    assert len({task for _, task, _ in runner.losses("uneven_2")}) == 2


def test_rows_that_no_process_can_read_are_counted_and_a_loss_that_is_none_ends_all(
    runner: Any,
) -> None:
    recipe = runner.changed(unreadable(runner), train(steps=6, batch_size=2, log_every=3))
    done = runner.go(recipe, "torn", processes=2)
    assert done.returncode == 0, done.stderr
    assert "16 rows could not be read and were skipped: " in done.stderr
    lines = [line for line in done.stderr.splitlines() if "tasks.digit.data.train, row" in line]
    assert len(lines) == len({line.partition(", row ")[2] for line in lines}) == 16
    ended = runner.go(
        runner.recipe(train(steps=4, log_every=4)), "nan", processes=2, fault="rank1-nan@2"
    )
    assert ended.returncode != 0
    assert "step 2: the loss is nan; rows of another process" in ended.stderr
    assert ended.stderr.count("step 2: the loss is nan; rows ") == 2


def test_the_command_line_under_torchrun_stops_and_goes_on(runner: Any) -> None:
    """Two tasks with streams of their own, a frozen one from the cache, workers, validation;
    one process alone is asked to stop."""
    held = {"tasks": {"digit": {"data": {"train": {"holdout": 0.2}}}}}
    held["tasks"]["caption"] = {"max_new_tokens": 4, "data": {"train": {"holdout": 0.2}}}
    recipe = runner.both(
        held,
        {"inputs": {"image": {"encoder": {"freeze": True}}}, "tasks": {"digit": {"head": "mlp"}}},
        train(
            steps=8,
            batch_size=2,
            gradient_accumulation_steps=2,
            num_workers=1,
            task_weights={"caption": 2.0},
            checkpoint={"every": 8},
            validate={"every": 2, "metric": "digit/accuracy"},
        ),
    )
    whole = runner.go(recipe, "whole", processes=2)
    assert whole.returncode == 0, whole.stderr
    assert processes(runner.folder / "whole") == 2
    losses = runner.losses("whole")
    assert {task for _, task, _ in losses} == {"digit", "caption"} and len(losses) == 8
    assert list((runner.folder / "cache" / "features").iterdir())
    stopped = runner.go(recipe, "run", processes=2, fault="rank1-term@3", fresh=True)
    assert stopped.returncode != 0 and "go on with --resume" in stopped.stderr
    before = runner.losses("run")
    assert processes(runner.folder / "run") == 2
    assert 0 < len(before) < 8 and before == losses[: len(before)]
    with pytest.raises(
        ConfigError, match=r"was written by 2 processes, there are now 1, .*; resume"
    ):
        runner.train(recipe, "run", resume=True)
    resumed = runner.go(recipe, "run", "--resume", processes=2)
    assert resumed.returncode == 0, resumed.stderr
    assert runner.losses("run") == losses
    weights = [load_file(runner.folder / name / "model.safetensors") for name in ("whole", "run")]
    assert all(torch.equal(weights[1][key], value) for key, value in weights[0].items())
