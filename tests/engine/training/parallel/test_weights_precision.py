"""`train.weights_precision: bf16`: matrices in bfloat16, float32 copies in the optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recipe_changes import train
from safetensors.torch import load_file
from torch import nn

from sensorium.engine.inference import load
from sensorium.engine.training.optimizers import MasterWeights
from sensorium.engine.utils import ConfigError

LOWERED = train(precision="bf16", weights_precision="bf16")


def groups(*parameters: nn.Parameter, lr: float) -> list[dict[str, Any]]:
    return [{"params": list(parameters), "lr": lr, "base_lr": lr}]


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "Adafactor"])
def test_copies_take_the_steps_of_float32(name: str) -> None:
    """Steps that bfloat16 would round away add up; the parameters are the copies, rounded."""
    torch.manual_seed(0)
    start = torch.randn(6, 5).bfloat16()
    expected, rounded, vector = (nn.Parameter(t) for t in (start.float(), start, torch.ones(3)))
    kind: Any = getattr(torch.optim, name)
    plain = kind(groups(expected, lr=1e-4), lr=1.0)
    masters = MasterWeights(groups(rounded, vector, lr=1e-4), lambda g: kind(g, lr=1.0))
    for step in range(12):
        gradient = torch.randn(6, 5).bfloat16()
        expected.grad, rounded.grad = gradient.float(), gradient.clone()
        for optimizer in (plain, masters):
            optimizer.param_groups[0]["lr"] = 1e-4 * (1 + step)
            optimizer.step()
    assert torch.equal(masters.masters[rounded], expected)
    assert torch.equal(rounded, expected.bfloat16()) and rounded.dtype == torch.bfloat16
    assert masters.masters[vector] is vector


@pytest.mark.slow
def test_a_resumed_run_goes_on_to_the_last_bit(runner: Any) -> None:
    recipe = runner.both(LOWERED, train(steps=6, checkpoint={"every": 2}))
    expected = runner.values(recipe, "whole")
    runner.cut(recipe, "run", 3)
    model = runner.train(recipe, "run", resume=True)
    assert [loss for *_, loss in runner.losses("run")] == expected
    dtypes = {p.dtype for p in model.parameters() if p.ndim > 1}
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.ndim < 2} == {torch.float32}
    first, second = (
        load_file(runner.folder / run / "model.safetensors") for run in ("whole", "run")
    )
    assert all(torch.equal(second[name], value) for name, value in first.items())
    assert load(runner.folder / "run", device="cpu").model.precision == "bf16"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (train(weights_precision="bf16"), "found train.precision: fp32; set precision: bf16"),
        ({"train": {**LOWERED["train"], "parallel": "fsdp"}}, "fsdp reduces gradients of one type"),
    ],
)
def test_what_it_cannot_go_with(runner: Any, change: dict[str, Any], message: str) -> None:
    from sensorium.engine.recipe import parse_recipe
    from sensorium.engine.training import check

    with pytest.raises(ConfigError, match=rf"train\.weights_precision: .*{message}"):
        check(parse_recipe(runner.recipe(change)))
