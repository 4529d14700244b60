"""`check_connector` names what a connector violates, in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sensorium.connectors.base import Connector
from sensorium.modalities.base import Features
from sensorium.testing.connectors import check_connector


class Good(Connector):
    """A linear map of every token."""

    def __init__(self, in_dim: int, out_dim: int, *, bias: bool = True) -> None:
        super().__init__(in_dim, out_dim)
        self.map = nn.Linear(in_dim, out_dim, bias=bias)

    def forward(self, features: Features) -> Features:
        hidden = ~features.mask[..., None]
        tokens = self.map(features.tokens.masked_fill(hidden, 0)).masked_fill(hidden, 0)
        return features.replace(tokens=tokens, pooled=None)


class Garbage(Good):
    def forward(self, features: Features) -> Features:
        tokens = self.map(features.tokens) * features.mask[..., None]
        return features.replace(tokens=tokens, pooled=None)


class Narrow(Good):
    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim)
        self.map = nn.Linear(in_dim, out_dim - 1)


class Mixing(Good):
    def forward(self, features: Features) -> Features:
        built = super().forward(features)
        mean = built.tokens.mean((0, 1)) * built.mask[..., None]
        return built.replace(tokens=built.tokens + mean)


class Dividing(Good):
    def forward(self, features: Features) -> Features:
        built = super().forward(features)
        scale = built.mask.sum(1)[:, None, None] * built.tokens.abs().amax((1, 2), keepdim=True)
        return built.replace(tokens=built.tokens / scale)


class Dropping(Good):
    def forward(self, features: Features) -> Features:
        return super().forward(features).replace(hidden_states=())


class Pooling(Good):
    def forward(self, features: Features) -> Features:
        built = super().forward(features)
        return built.replace(pooled=built.mean())


class Idle(Good):
    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim)
        self.idle = nn.Parameter(torch.zeros(2))


class First(Good):
    def forward(self, features: Features) -> Features:
        built = super().forward(features)
        some = torch.arange(built.tokens.shape[1]) < 4
        return built.replace(tokens=built.tokens * some[:, None])


class Nameless(Good):
    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, out_dim)
        self.out_dim = 3


class Foreseeing(Good):
    causal = True

    def forward(self, features: Features) -> Features:
        built = super().forward(features)
        total = built.tokens.sum(1, keepdim=True)
        return built.replace(tokens=(built.tokens + total) * built.mask[..., None])


class Stranger(nn.Module):
    """No connector."""


BROKEN: dict[type, str] = {
    Garbage: "padding: values in the padding change the result",
    Narrow: "grid None: tokens have width 23, expected 24",
    Mixing: "rows: row 0 alone and in a batch: they differ by up to",
    Dividing: "a row without tokens: returns NaN or infinity",
    Dropping: "hidden states of the input do not pass through",
    Pooling: "pooled is set: expected one token, no grid",
    Idle: "gradients: no gradient reaches the parameter idle",
    First: "gradients: a gradient reaches 33% of the tokens",
    Nameless: "constructor: in_dim and out_dim are (16, 3), as attributes",
    Foreseeing: "causal: it looks ahead: they differ by up to",
    Stranger: "options: is no subclass of connectors.base.Connector",
}


@pytest.mark.parametrize("options", [{}, {"bias": False}])
def test_a_good_connector_passes(options: dict[str, Any]) -> None:
    check_connector(Good, **options)


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_a_violation_is_one_line(cls: type[Connector]) -> None:
    with pytest.raises(AssertionError) as error:
        check_connector(cls)
    line = str(error.value)
    assert line.startswith(f"{cls.__name__}, ") and BROKEN[cls] in line, line
    assert "\n" not in line
