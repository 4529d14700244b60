"""Bags of items: their order, their padding, empty ones, and the channels of a picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.connectors.bags import Bag, ChannelTransformer, Transformer, group
from sensorium.connectors.base import Connector
from sensorium.connectors.poolers import GatedAttention, Mean
from sensorium.modalities.base import Features

CHANNELS, WIDTH = 3, 16
COUNTS = torch.tensor([4, 0, 2])


def items(channels: int = CHANNELS) -> Features:
    torch.manual_seed(0)
    return Features.dense(torch.randn(int(COUNTS.sum()), channels, WIDTH), grid=(channels,))


def bag(kind: str) -> Connector:
    torch.manual_seed(1)
    over: dict[str, Any] = {
        "gated_attention": lambda: GatedAttention(WIDTH, 8, hidden=6),
        "channels": lambda: ChannelTransformer(WIDTH, 8, channels=CHANNELS, depth=1, hidden=6),
        "set": lambda: Transformer(WIDTH, 8, depth=1, positions=False),
        "sequence": lambda: Transformer(WIDTH, 8, depth=1),
    }
    item = None if kind == "channels" else Mean(WIDTH, WIDTH)
    return Bag(WIDTH, 8, item=item, over=over[kind]()).eval()


@pytest.mark.parametrize("kind", ["gated_attention", "channels", "set", "sequence"])
def test_only_a_sequence_has_an_order(kind: str) -> None:
    part, features = bag(kind), items()
    order = [3, 0, 2, 1, 5, 4]
    turned = features.replace(tokens=features.tokens[order])
    output, other = part(features, COUNTS), part(turned, COUNTS)
    vectors, others = output.pool(), other.pool()
    if kind == "sequence":
        assert not torch.allclose(vectors[0], others[0], atol=1e-3)
    else:
        torch.testing.assert_close(vectors, others, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["gated_attention", "channels", "set", "sequence"])
def test_a_row_is_itself_beside_longer_ones(kind: str) -> None:
    """And a row without items stays finite, whatever lies in the padding."""
    part, features = bag(kind), items()
    together = part(features, COUNTS)
    alone = part(features.replace(tokens=features.tokens[4:], mask=features.mask[4:]), COUNTS[2:])
    torch.testing.assert_close(together.pool()[2], alone.pool()[0], rtol=1e-4, atol=1e-5)
    assert together.pool().isfinite().all() and len(together.mask) == 3
    nothing = part(features.replace(tokens=features.tokens[:0], mask=features.mask[:0]), COUNTS * 0)
    torch.testing.assert_close(nothing.pool()[0], together.pool()[1], rtol=1e-4, atol=1e-5)


def test_a_channel_without_cells_changes_nothing_and_channels_differ() -> None:
    part, features = bag("channels"), items()
    absent = features.mask.clone()
    absent[:, 1] = False
    without = features.replace(mask=absent)
    noise = without.replace(tokens=without.tokens.masked_fill(~absent[..., None], torch.nan))
    vectors = part(without, COUNTS).pooled
    torch.testing.assert_close(part(noise, COUNTS).pooled, vectors)
    assert vectors.isfinite().all()
    assert not torch.allclose(vectors[0], part(features, COUNTS).pooled[0], atol=1e-3)
    swapped = features.replace(tokens=features.tokens[:, [1, 0, 2]])
    assert not torch.allclose(part(swapped, COUNTS).pooled[0], part(features, COUNTS).pooled[0])


def test_gates_are_their_formula() -> None:
    part, tokens = GatedAttention(WIDTH, WIDTH, hidden=6), torch.randn(1, 5, WIDTH)
    gates = part.score(part.value(tokens).tanh() * part.gate(tokens).sigmoid())
    expected = (gates.softmax(1) * tokens).sum(1)
    torch.testing.assert_close(part(Features.dense(tokens)).pooled, expected)


def test_items_lie_on_a_grid() -> None:
    grouped = group(items(), COUNTS)
    assert grouped.grid == (4, CHANNELS) and grouped.lengths.tolist() == [12, 0, 6]
    one = group(items(1), COUNTS)
    assert one.grid == (4,) and one.mask[2].tolist() == [True, True, False, False]
    torch.testing.assert_close(one.tokens[2, :2], items(1).tokens[4:, 0])


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ValueError, match="expected items and 3 channels; set channels"):
        bag("channels")(items(2), COUNTS)
    with pytest.raises(ValueError, match="neither part is another bag"):
        Bag(WIDTH, 8, over=bag("set"))
