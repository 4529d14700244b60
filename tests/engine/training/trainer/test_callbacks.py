"""Callbacks of a recipe: called after every step, their state part of every checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.engine.checkpoint import read_tensors
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check
from sensorium.engine.training.callbacks import MagnitudePruning, magnitude_mask
from sensorium.engine.utils import ConfigError

ADD_MEAN = {"type": "tiny_parts:AddMean", "rate": 0.3}
PRUNE = {"type": "magnitude_pruning", "sparsity": 0.5, "end": 4}


def recipe(runner: Any, *callbacks: Any, steps: int = 8, **more: Any) -> dict[str, Any]:
    settings = {"train": {"steps": steps, "checkpoint": {"every": 3}, "log_every": 1}}
    return {**runner.recipe(settings), "callbacks": list(callbacks), **more}


def test_they_change_the_training(runner: Any) -> None:
    plain = runner.values(recipe(runner), "plain")
    assert runner.values(recipe(runner, ADD_MEAN), "mean")[1:] != plain[1:]


@pytest.mark.parametrize("step", [2, 5, 7])
def test_their_state_survives_a_kill(runner: Any, step: int) -> None:
    values = recipe(runner, PRUNE, ADD_MEAN)
    whole = runner.values(values, "whole")
    runner.cut(values, "killed", step)
    runner.train(values, "killed", resume=True)
    assert [loss for _, _, loss in runner.losses("killed")] == whole
    both = (
        read_tensors(runner.folder / name / "model.safetensors") for name in ("whole", "killed")
    )
    first, second = both
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_one_ends_the_training(runner: Any) -> None:
    runner.train(recipe(runner, {"type": "tiny_parts:StopAt", "step": 3}), "run")
    assert [step for step, _, _ in runner.losses("run")] == [1, 2, 3]


def test_a_stage_has_its_own(runner: Any) -> None:
    stages = [{"name": "free"}, {"name": "pruned", "callbacks": [PRUNE]}]
    model = runner.train(recipe(runner, stages=stages), "run")
    before = read_tensors(runner.folder / "run/stages/0-free/model.safetensors")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.ndim > 1:
            assert not (before[name] == 0).any()
            assert int((parameter == 0).sum()) == round(0.5 * parameter.numel())


def test_pruning_follows_its_curve_and_keeps_zeros(runner: Any) -> None:
    """Equation 1 of Zhu and Gupta, 2017, by hand at its ends and its middle."""
    callback = MagnitudePruning(sparsity=0.8, begin=10, end=20)
    assert [callback.target(step) for step in (0, 10, 20, 99)] == [0, 0, 0.8, 0.8]
    assert callback.target(15) == pytest.approx(0.8 * (1 - 1 / 8))
    model = runner.train(recipe(runner, PRUNE), "run")
    trained = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    assert trained and all(int((p == 0).sum()) == round(0.5 * p.numel()) for p in trained)


def test_the_mask_of_a_sparsity_of_zero_keeps_all() -> None:
    weights = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert magnitude_mask(weights, 0.0).all()
    remaining = magnitude_mask(weights, 0.4)
    assert (
        int((~remaining).sum()) == 6
        and weights[~remaining].abs().max() < weights[remaining].abs().min()
    )


@pytest.mark.parametrize(
    ("callback", "line"),
    [
        ("magnitud_pruning", r"callbacks\.0\.type: .*did you mean 'magnitude_pruning'"),
        ({**PRUNE, "spars": 1}, r"callbacks\.0\.spars: "),
        ({**PRUNE, "end": "x"}, r"callbacks\.0\.end: found 'x' \(str\)"),
        ({**PRUNE, "sparsity": 1.5}, r"callbacks\.0\.sparsity: found 1\.5, expected 0 <= "),
        ({"type": "magnitude_pruning", "end": 3}, r"callbacks\.0\.sparsity: "),
        ({"type": "tiny_parts:Tiny"}, r"callbacks\.0\.type: .*Callback"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(runner: Any, callback: Any, line: str) -> None:
    with pytest.raises(ConfigError, match=f"^{line}") as refused:
        check(parse_recipe(recipe(runner, callback)))
    assert "\n" not in str(refused.value)
