"""A learned sum of hidden layers against its formula, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from sensorium.connectors.projectors import WeightedLayers
from sensorium.modalities.base import Features


def deep(count: int, width: int = 6) -> Features:
    torch.manual_seed(2)
    lengths = torch.tensor([5, 3])
    mask = torch.arange(5) < lengths[:, None]
    layers = tuple(Features(torch.randn(2, 5, width), mask) for _ in range(count))
    return Features(
        torch.randn(2, 5, 6), mask, grid=(5,), spacing=(0.1,), origin=(0.0,), hidden_states=layers
    )


@pytest.mark.parametrize("normalize", [False, True])
def test_it_is_the_sum_by_a_softmax(normalize: bool) -> None:
    part, features = WeightedLayers(6, 4, last=3, normalize=normalize), deep(3)
    with torch.no_grad():
        part.weights.copy_(torch.tensor([0.0, 1.0, 2.0]))
    stack = torch.stack([f.tokens for f in features.hidden_states])
    if normalize:
        stack = (stack - stack.mean(-1, keepdim=True)) / stack.std(-1, False, True)
    want = part.map(torch.einsum("l,lbtd->btd", part.weights.softmax(0), stack))
    result = part(features)
    real = features.mask
    torch.testing.assert_close(result.tokens[real], want[real], rtol=1e-4, atol=1e-4)
    assert (result.grid, result.spacing, result.hidden_states) == ((5,), (0.1,), ())


def test_it_begins_with_the_mean() -> None:
    part, features = WeightedLayers(6, 6, last=2), deep(2)
    mean = (features.hidden_states[0].tokens + features.hidden_states[1].tokens) / 2
    assert torch.allclose(part(features).tokens[0], part.map(mean)[0], atol=1e-6)
    assert part.hidden_layers == (-2, -1)


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="got 2 hidden layers, expected 3"):
        WeightedLayers(6, 4, last=3)(deep(2))
    with pytest.raises(ValueError, match=r"layer -2 is \(2, 5, 7\), the encoder's tokens"):
        WeightedLayers(6, 4, last=2)(deep(2, width=7))
    with pytest.raises(ValueError, match="last is 0, must be at least 1"):
        WeightedLayers(6, 4, last=0)
