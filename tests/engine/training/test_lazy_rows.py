"""The optimizer of a recipe leaves rows without a gradient of tables that ask for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.engine.model import build
from sensorium.engine.recipe import parse_recipe
from sensorium.engine.training.optim import build_optimizer
from sensorium.engine.utils import ConfigError

LOWERED = {"precision": "bf16", "weights_precision": "bf16"}


@pytest.mark.parametrize("precision", [{}, LOWERED], ids=["float32", "bfloat16"])
def test_rows_that_no_batch_meets_stay(runner: Any, precision: dict[str, str]) -> None:
    """After a first step moved every row; an ordinary matrix, as control, is decayed."""
    head = {"type": "key_values", "heads": 2, "keys": 6, "key_steps": 0}
    values = runner.recipe(
        {
            "inputs": {"image": {"encoder": {"freeze": True}}},
            "tasks": {"digit": {"head": head}},
            "train": {"optimizer": {"lr": 0.1, "weight_decay": 0.5}, **precision},
        }
    )
    model = build(parse_recipe(values)).train()
    optimizer = build_optimizer(model, model.plan.recipe.train)
    table = model.task("digit").heads["head"].values
    table.grad = torch.ones_like(table)
    optimizer.step()
    before = table.detach().clone()
    table.grad = torch.zeros_like(table)
    table.grad[0, :2] = 1.0
    optimizer.step()
    met = torch.zeros(table.shape[:2], dtype=torch.bool)
    met[0, :2] = True
    assert torch.equal(table[~met], before[~met])
    assert (table[met] != before[met]).all()
    model.task("digit").heads["head"].lazy_parameters = ()  # type: ignore[assignment]
    plain = build_optimizer(model, model.plan.recipe.train)
    table.grad = torch.zeros_like(table)
    plain.step()
    assert not torch.equal(table[~met], before[~met])


def test_a_head_of_keys_trains(runner: Any) -> None:
    head = {"type": "key_values", "heads": 2, "keys": 6, "key_steps": 3}
    values = runner.recipe(
        {
            "inputs": {"image": {"encoder": {"freeze": True}}},
            "tasks": {"digit": {"head": head}},
        }
    )
    whole = runner.train(values, "whole").task("digit").heads["head"]
    assert int(whole.seen) == 3 and whole.values.any()


def test_an_optimizer_that_packs_its_state_is_refused(runner: Any) -> None:
    pytest.importorskip("torchao")
    values = runner.recipe(
        {
            "inputs": {"image": {"encoder": {"freeze": True}}},
            "tasks": {"digit": {"head": {"type": "key_values", "heads": 2, "keys": 6}}},
            "train": {"optimizer": {"type": "adamw8bit"}},
        }
    )
    model = build(parse_recipe(values))
    with pytest.raises(ConfigError, match="AdamW8bit packs its state, of which the rows"):
        build_optimizer(model, model.plan.recipe.train)
