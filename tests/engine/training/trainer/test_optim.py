"""Optimizers and learning-rate schedules of a recipe, beside the libraries that define them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers.optimization import get_scheduler

from sensorium.engine.model import Model, compose
from sensorium.engine.recipe import Train, parse_recipe, plan_recipe, registered
from sensorium.engine.training.catalogue import OPTIMIZERS, SCHEDULES
from sensorium.engine.training.optim import (
    build_optimizer,
    lr_schedule,
    set_lr,
)
from sensorium.engine.utils import ConfigError


def composed(runner: Any, *changes: dict[str, Any]) -> Model:
    plan = plan_recipe(parse_recipe(runner.recipe(*changes)))
    for part in plan.fitted().values():
        part.fit([{"word": "one"}, {"word": "two"}])
    return compose(plan)


def train(**settings: Any) -> Train:
    return Train.model_validate(settings)


@pytest.mark.parametrize("name", registered("optimizer"))
def test_each_optimizer_steps_and_takes_the_sections_rate(runner: Any, name: str) -> None:
    model = composed(runner)
    optimizer = build_optimizer(model, train(optimizer={"type": name, "lr": 0.02}))
    assert type(optimizer).__name__.lower() == name.replace("_", "")
    assert {group["lr"] for group in optimizer.param_groups} == {0.02}
    before = [p.clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_options_reach_the_optimizer_and_defaults_are_the_librarys(runner: Any) -> None:
    model = composed(runner)
    chosen = build_optimizer(model, train(optimizer={"type": "sgd", "momentum": 0.9}))
    assert chosen.defaults["momentum"] == 0.9 and chosen.defaults["nesterov"] is False
    assert build_optimizer(model, train()).defaults["betas"] == (0.9, 0.999)
    betas = train(optimizer={"betas": [0.5, 0.75]})
    assert build_optimizer(model, betas).defaults["betas"] == (0.5, 0.75)


def test_a_part_keeps_its_rate_and_vectors_do_not_decay(runner: Any) -> None:
    model = composed(runner, {"inputs": {"image": {"encoder": {"lr": 0.5}}}})
    settings = train(optimizer={"lr": 0.1, "weight_decay": 0.25})
    groups = build_optimizer(model, settings).param_groups
    of = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    encoder = {id(p) for p in model.stream("image").encoder.parameters()}
    for parameter in model.parameters():
        rate = 0.5 if id(parameter) in encoder else 0.1
        assert of[id(parameter)] == (rate, 0.25 if parameter.ndim > 1 else 0.0)


def test_a_library_without_annotations_is_an_optimizer_too(runner: Any) -> None:
    options = {"relative_step": False, "scale_parameter": False}
    name = "transformers.optimization:Adafactor"
    result = build_optimizer(composed(runner), train(optimizer={"type": name, **options}))
    assert type(result).__module__ == "transformers.optimization"
    with pytest.raises(
        ConfigError, match=r"train\.optimizer\.relative_step: found 'maybe' \(str\)"
    ):
        build_optimizer(composed(runner), train(optimizer={"type": name, "relative_step": "maybe"}))


class Secant(torch.optim.SGD):
    def step(self, closure: Any) -> Any:  # type: ignore[override]
        return closure()


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"type": "adamww"}, r"optimizer\.type: no optimizer is called 'adamww'.*'adamw'"),
        ({"type": "sgd", "betas": [0.9, 0.9]}, r"optimizer\.betas: SGD has no such option"),
        ({"type": "sgd", "momentun": 0.9}, r"optimizer\.momentun: .*'momentum'"),
        ({"eps": "small"}, r"optimizer\.eps: found 'small' \(str\), expected float"),
        ({"betas": [0.9]}, r"optimizer\.betas: found \[0\.9\].*tuple\[float, float\]"),
        ({"betas": [0.9, 1.5]}, r"optimizer: Invalid beta parameter.*1\.5"),
        ({"type": "sgd", "nesterov": True}, r"optimizer: Nesterov .*momentum"),
        ({"type": "torch.nn:Linear"}, r"optimizer\.type: .*inherits from torch\.optim"),
        ({"type": f"{__name__}:Secant"}, r"optimizer\.type: .*needs no closure"),
    ],
)
def test_a_wrong_optimizer_is_one_line(runner: Any, section: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=f"^train\\.{line}") as refused:
        build_optimizer(composed(runner), train(optimizer=section))
    assert "\n" not in str(refused.value)


SPECIFIC: dict[str, dict[str, Any]] = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_with_restarts": {"num_cycles": 3},
    "inverse_sqrt": {"timescale": 7},
    "polynomial": {"power": 2.0, "lr_end": 1e-5},
    "warmup_stable_decay": {"num_decay_steps": 10},
}


def librarys(name: str, warmup: int, steps: int) -> list[float]:
    """The learning rates of transformers' scheduler for a base of 1e-3, step by step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = get_scheduler(
        "constant_with_warmup" if name == "constant" else name,
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=steps,
        scheduler_specific_kwargs=SPECIFIC.get(name),
    )
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.2])
def test_a_schedule_is_transformers_without_its_step_at_rate_zero(
    name: str, warmup_ratio: float
) -> None:
    section = {"type": name, **SPECIFIC.get(name, {})}
    factor = lr_schedule(train(steps=50, schedule=section, warmup_ratio=warmup_ratio))
    skipped = int(warmup_ratio > 0)
    warmup = round(50 * warmup_ratio)
    expected = librarys(name, warmup + skipped, 50 + skipped)
    assert [1e-3 * factor(i) for i in range(50)] == pytest.approx(expected[skipped:], rel=1e-12)
    assert factor(0) > 0


def test_a_schedule_is_a_function_of_the_step_alone() -> None:
    factor = lr_schedule(train(steps=20))
    forward = [factor(i) for i in range(20)]
    assert [factor(i) for i in reversed(range(20))] == forward[::-1]


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("cosin", r"schedule\.type: no schedule is called 'cosin'.*'cosine'"),
        ({"type": "linear", "num_cycles": 2}, r"schedule\.num_cycles: .* no such option"),
        ({"type": "polynomial", "lr_end": 5.0}, r"schedule: lr_end \(5\.0\) must be smaller"),
        ("warmup_stable_decay", r"schedule\.num_decay_steps: is required"),
        (
            {"type": "torch.optim.lr_scheduler:StepLR", "step_size": 3},
            r"schedule\.type: .*StepLR; expected a LambdaLR",
        ),
    ],
)
def test_a_wrong_schedule_is_one_line(section: Any, line: str) -> None:
    with pytest.raises(ConfigError, match=f"^train\\.{line}") as refused:
        lr_schedule(train(schedule=section))
    assert "\n" not in str(refused.value)


def test_set_lr_scales_each_groups_own_rate(runner: Any) -> None:
    model = composed(runner, {"inputs": {"image": {"encoder": {"lr": 0.5}}}})
    optimizer = build_optimizer(model, train(optimizer={"lr": 0.1}))
    set_lr(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25, 0.05}
    set_lr(optimizer, 1.0)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5, 0.1}


class Counting(torch.optim.SGD):
    """Keeps a number of its own in its groups, as schedule-free optimizers do."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
            group["lr"] = group["lr"] / group["count"]
        return super().step(closure)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("adamw", "sgd") else pytest.mark.slow)
        for name in OPTIMIZERS
    ]
    + [f"{__name__}:Counting"],
)
def test_every_optimizer_resumes_bit_for_bit(runner: Any, name: str) -> None:
    settings = {"steps": 8, "optimizer": {"type": name}, "checkpoint": {"every": 3}}
    recipe = runner.recipe({"train": settings})
    whole = runner.values(recipe, "whole")
    runner.cut(recipe, "cut", 5)
    runner.train(recipe, "cut", resume=True)
    assert [loss for _, _, loss in runner.losses("cut")] == whole
