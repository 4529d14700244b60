"""The optimizer `adamw8bit`: torchao's steps, a quarter of the state, and an exact resume."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from recipe_changes import train
from torch import Tensor, nn

from sensorium.engine.recipe import Train
from sensorium.engine.training.optim import build_optimizer
from sensorium.engine.training.optimizers import MasterWeights
from sensorium.engine.training.parallel.memory import state_share

pytest.importorskip("torchao")
SETTINGS = train(steps=6, checkpoint={"every": 2}, optimizer={"type": "adamw8bit", "lr": 0.01})


def optimizer(parameters: Any, **options: Any) -> Any:
    from sensorium.engine.training.optimizers.low_bits import AdamW8bit

    return AdamW8bit(parameters, **options)


def descend(made: Any, parameters: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        made.param_groups[0]["lr"] = 0.01 / (1 + step)
        made.step()


def matrices() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in ((64, 64), (100, 128), (7,), (3, 5))]


def test_its_steps_are_torchaos_and_close_to_adamw() -> None:
    from torchao.optim import AdamW8bit as Library

    ours, theirs, exact = matrices(), matrices(), matrices()
    library = Library(theirs, lr=0.01, weight_decay=0.1)
    made = optimizer(ours, lr=0.01, weight_decay=0.1)
    whole = torch.optim.AdamW(exact, lr=0.01, weight_decay=0.1)
    before = copy.deepcopy(ours)
    descend(made, ours, range(5))
    descend(whole, exact, range(5))
    with torch.compiler.set_stance("force_eager"):
        for step in range(5):
            generator = torch.Generator().manual_seed(step)
            for p in theirs:
                p.grad = torch.randn(p.shape, generator=generator)
            library.param_groups[0]["lr"].fill_(0.01 / (1 + step))
            library.step()
    for a, b, c, start in zip(ours, theirs, exact, before, strict=True):
        assert torch.equal(a, b)
        moved = (c - start).abs().mean()
        assert (a - c).abs().mean() < 0.1 * moved
    for small in (2, 3):  # of which torchao keeps the moments in float32
        torch.testing.assert_close(ours[small], exact[small])


def test_its_state_takes_a_byte_a_value_and_is_taken_back() -> None:
    first, second = matrices(), matrices()
    made, again = optimizer(first), optimizer(second)
    descend(made, first, range(3))
    state = made.state_dict()
    assert all(type(v) is Tensor for entry in state["state"].values() for v in entry.values())
    size = sum(v.numel() * v.element_size() for v in state["state"][1].values())
    assert 2 <= size / first[1].numel() < 2.1
    again.load_state_dict(copy.deepcopy(state))
    with torch.no_grad():
        for p, q in zip(first, second, strict=True):
            q.copy_(p)
    descend(made, first, range(3, 6))
    descend(again, second, range(3, 6))
    assert all(torch.equal(p, q) for p, q in zip(first, second, strict=True))


def test_the_plan_of_memory_counts_it() -> None:
    share = state_share(Train.model_validate(SETTINGS["train"]))
    assert share == pytest.approx(0.5, rel=0.05)  # two bytes beside four
    assert state_share(Train.model_validate({"optimizer": "adamw"})) == pytest.approx(2, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("lowered", [{}, {"precision": "bf16", "weights_precision": "bf16"}])
def test_a_run_goes_on_to_the_last_bit(runner: Any, lowered: dict[str, Any]) -> None:
    wide = {"backbone": {"options": {"hidden_size": 64, "intermediate_size": 64}}}
    recipe = runner.both(SETTINGS, wide, train(**lowered))
    whole = runner.values(recipe, "whole")
    runner.cut(recipe, "run", 3)
    model = runner.train(recipe, "run", resume=True)
    assert [loss for *_, loss in runner.losses("run")] == whole
    built = build_optimizer(model, model.plan.recipe.train)
    assert isinstance(built, MasterWeights) == bool(lowered)
