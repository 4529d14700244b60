"""Weights of tasks as functions of the step, and the package's own optimizers."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from sensorium.engine.data import BatchSampler
from sensorium.engine.recipe import Train
from sensorium.engine.training.optimizers import AdamWRMS, SGDSaI, gain


def sampler_of(weights: dict[str, Any], steps: int = 100) -> BatchSampler:
    train = Train(steps=steps, task_weights=weights)
    return BatchSampler({"causal": 64, "masked": 64}, 4, 0, task_weight=train.task_weight)


def test_a_task_gives_way_to_another_at_a_step() -> None:
    weights = {"causal": {"until": 40}, "masked": {"from": 40}}
    sampler = sampler_of(weights)
    assert [sampler.task(step) for step in range(100)] == ["causal"] * 40 + ["masked"] * 60
    whole = [b for _, b in zip(range(60), sampler.batches(0), strict=False)]
    resumed = [b for _, b in zip(range(20), sampler_of(weights).batches(40), strict=False)]
    assert resumed == whole[40:]


def test_a_weight_changes_linearly() -> None:
    weights = {"causal": {"weight": 1, "until": 1000, "until_weight": 0}, "masked": 0.5}
    sampler = sampler_of(weights, steps=1000)
    drawn = [Counter(sampler.task(s) for s in range(i, i + 250))["causal"] for i in (0, 750)]
    assert drawn[0] / 250 == pytest.approx(0.64, abs=0.1)
    assert drawn[1] / 250 == pytest.approx(0.2, abs=0.1)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ({"from": 10, "until": 10}, "until: found 10, expected a step after 10"),
        ({"until_weight": 2.0}, "until_weight: needs the step `until`"),
        ({"weight": -1.0}, "greater than or equal to 0"),
    ],
)
def test_weights_are_checked(weight: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Train(task_weights={"causal": weight})


def test_borders_are_the_steps_where_a_task_begins_or_ends() -> None:
    train = Train(steps=50, task_weights={"a": {"until": 20}, "b": {"from": 30, "until": 90}})
    assert train.task_borders() == [0, 20, 30]
    assert [train.task_weight(name, 25) for name in "abc"] == [0.0, 0.0, 1.0]


def trained(
    optimizer: type[Any], scale: float = 1.0, loss_scale: float = 1.0, **options: Any
) -> Any:
    """Return a matrix after two steps on a quadratic, and the optimizer."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(scale * torch.randn(4, 5, generator=generator))
    target = torch.randn(2, 4, 5, generator=generator)
    built = optimizer([weight], **options)
    states = [weight.detach().clone()]
    for goal in target:
        built.zero_grad()
        (loss_scale * (weight * goal).sum()).backward()
        built.step()
        states.append(weight.detach().clone())
    return states, built.state[weight], target


def test_sgd_sai_is_its_formula() -> None:
    """One gain a tensor, of the first gradient; a rescaled loss leaves it as it is."""
    (start, first, second), state, target = trained(SGDSaI, lr=0.1, weight_decay=0.5)
    expected = target[0].norm() / (target[0].std() + 1e-8)
    torch.testing.assert_close(state["gain"], expected)
    torch.testing.assert_close(first, start * 0.95 - 0.1 * expected * target[0])
    momentum = 0.9 * target[0] + 0.1 * target[1]
    torch.testing.assert_close(second, first * 0.95 - 0.1 * expected * momentum)
    assert {key: value.numel() for key, value in state.items()} == {"gain": 1, "momentum": 20}
    rescaled = trained(SGDSaI, loss_scale=7.0, lr=0.1)[1]["gain"]
    torch.testing.assert_close(rescaled, expected)
    assert float(gain(torch.tensor([3.0]), 1e-8)) == 1.0
    assert float(gain(torch.randn(100), 1e-8)) >= math.sqrt(99) - 1e-3


def test_adamw_rms_moves_by_the_size_of_the_tensor() -> None:
    """At a tensor of c times the size the first update is c times as large; the rest is AdamW."""
    (start, first, _), _, _ = trained(AdamWRMS, lr=0.01)
    (larger, moved, _), _, _ = trained(AdamWRMS, scale=3.0, lr=0.01)
    torch.testing.assert_close(3 * (first - start), moved - larger, atol=1e-6, rtol=1e-4)
    rms = float(start.square().mean().sqrt())
    (_, adam, _), _, _ = trained(torch.optim.AdamW, lr=0.01 * rms, weight_decay=0.0, eps=1e-6)
    torch.testing.assert_close(first, adam)
    zero = torch.nn.Parameter(torch.zeros(3))
    zero.grad = torch.ones(3)
    AdamWRMS([zero], lr=0.01).step()
    torch.testing.assert_close(zero.detach(), torch.full((3,), -1e-5), atol=1e-8, rtol=1e-3)


@pytest.mark.parametrize("optimizer", [SGDSaI, AdamWRMS])
def test_options_of_optimizers_are_checked(optimizer: type[Any]) -> None:
    weight = [torch.nn.Parameter(torch.zeros(2))]
    with pytest.raises(ValueError, match="eps: found -1"):
        optimizer(weight, eps=-1.0)
