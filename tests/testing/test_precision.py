"""Rounding that a network amplifies is no mixing of rows; what float64 shows too is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sensorium.modalities.base import Encoder, Features, Sample
from sensorium.testing.common import check_gradients
from sensorium.testing.fittables import equal_in_float64


class Steps(Encoder):
    """Each value is a token; `error` is added to it, once for each row of the batch."""

    def __init__(self, error: float | None) -> None:
        super().__init__()
        self.dim, self.error = 1, error
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, values: Tensor) -> Features:
        tokens = values[..., None] * self.gain
        rounding = 2000 * torch.finfo(tokens.dtype).eps
        error = rounding if self.error is None else self.error
        return Features.dense(tokens + len(values) * error)


def samples() -> list[Sample]:
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    return [{"values": torch.from_numpy(row)} for row in values]


@pytest.mark.parametrize(("error", "equal"), [(None, True), (0.0, True), (5e-4, False)])
def test_rounding_vanishes_in_float64_and_mixing_does_not(error: float | None, equal: bool) -> None:
    assert equal_in_float64(Steps(error), samples(), 1) is equal


def test_what_stays_in_float32_is_not_excused() -> None:
    class Single(Steps):
        def forward(self, values: Tensor) -> Features:
            features = super().forward(values)
            return features.replace(tokens=features.tokens.float())

    assert not equal_in_float64(Single(None), samples(), 1)


def test_a_parameter_without_values_needs_no_gradient() -> None:
    layer = nn.Linear(3, 2)
    layer.registers = nn.Parameter(torch.empty(1, 0, 3))
    check_gradients(layer, [layer(torch.ones(1, 3))])
