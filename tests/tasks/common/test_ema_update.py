"""Moving averages of weights, beside torch's `AveragedModel`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sensorium.tasks.common import ema_copy, ema_update


def module() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def moved(model: nn.Module) -> None:
    with torch.no_grad():
        for value in [*model.parameters(), *model.buffers()]:
            value.add_(torch.ones_like(value))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.996, 1.0])
def test_it_is_torchs_average(decay: float) -> None:
    model = module()
    average = ema_copy(model)

    def step(old: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        return decay * old + (1 - decay) * new

    reference = AveragedModel(model, avg_fn=step)
    reference.update_parameters(model)  # the first update copies
    for _ in range(3):
        moved(model)
        ema_update(average, model, decay)
        reference.update_parameters(model)
    pairs = zip(average.parameters(), reference.module.parameters(), strict=True)
    for value, other in pairs:
        torch.testing.assert_close(value, other)
    for value, other in zip(average.buffers(), model.buffers(), strict=True):
        assert torch.equal(value, other)


def test_a_copy_neither_trains_nor_follows_by_itself() -> None:
    model = module()
    average, before = ema_copy(model), copy.deepcopy(model)
    moved(model)
    assert not average.training and not any(p.requires_grad for p in average.parameters())
    for value, other in zip(average.parameters(), before.parameters(), strict=True):
        assert torch.equal(value, other)


def test_modules_without_parameters_have_an_average_too() -> None:
    ema_update(ema_copy(nn.ReLU()), nn.ReLU(), 0.5)
