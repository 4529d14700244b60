"""Parts within parts of every kind: resolved, fitted, frozen, adapted, loaded by their section."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training import check
from sensorium.engine.training.optim import build_optimizer
from sensorium.tests.engine.model.inner.inner_recipes import (
    INNER,
    changed,
    inside,
    made,
    places,
    recipe,
)


@places
def test_the_model_holds_it_and_its_component(place: str) -> None:
    model = made(recipe())
    components = {c.where: c.module for c in model.components}
    assert components[place] is inside(model, place)
    assert list(inside(model, place).parameters())


@places
def test_freeze_freezes_it_alone(place: str) -> None:
    model = made(changed(place, freeze=True))
    module = inside(model, place)
    assert not any(p.requires_grad for p in module.parameters())
    assert not module.training and model.training
    frozen = {id(p) for p in module.parameters()}
    assert all(p.requires_grad for p in model.parameters() if id(p) not in frozen)


@pytest.mark.parametrize("place", [p for p in INNER if "encoder" not in p and "picture" not in p])
def test_adapters_are_all_that_trains_of_it(place: str) -> None:
    """Of those that have a linear layer; `patches` has none."""
    module = inside(made(changed(place, lora={"r": 2})), place)
    trains = {name for name, p in module.named_parameters() if p.requires_grad}
    assert trains and all("lora_" in name for name in trains)


@places
def test_train_only_and_lr_hold_for_it(place: str) -> None:
    model = made(changed(place, lr=0.5))
    rates = {
        id(p): g["base_lr"]
        for g in build_optimizer(model, model.plan.recipe.train).param_groups
        for p in g["params"]
    }
    assert {rates[id(p)] for p in inside(model, place).parameters()} == {0.5}
    if any(n.endswith("bias") for n, _ in inside(model, place).named_parameters()):
        module = inside(made(changed(place, train_only="bias")), place)
        assert all(p.requires_grad == n.endswith("bias") for n, p in module.named_parameters())


def test_options_within_are_resolved(tmp_path: Path) -> None:
    resolved = made(recipe()).plan.recipe.tasks["distil"].options["teacher"]
    assert resolved["config"]["model_type"] == "llama" and resolved["weights"] == "none"


def test_check_lists_them_and_counts_each_parameter_once() -> None:
    report = check(parse_recipe(changed("tasks.distil.teacher", freeze=True)))
    stages = {stage.where: stage for stage in report.components}
    assert set(INNER) <= set(stages)
    assert stages["tasks.distil.teacher"].trained == 0 and stages["tasks.distil.teacher"].note
    model = made(recipe())
    total = sum(p.numel() for p in model.parameters())
    assert sum(stage.parameters for stage in report.components) == total
