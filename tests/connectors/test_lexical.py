"""Lexical vectors, aggregates, and pooling of bags and sequences, by their definitions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sensorium.connectors.lexical import Aggregate, Lexical, aggregate, keep
from sensorium.connectors.poolers import GatedAttention, Recurrent
from sensorium.modalities.base import Features


def ragged(*lengths: int, dim: int = 12) -> Features:
    torch.manual_seed(1)
    return Features.pad([torch.randn(n, dim) for n in lengths])


def test_a_splade_vector_is_its_formula() -> None:
    """Of logits as they are: no map, never negative, padding adds nothing."""
    part, features = Lexical(12, 12), ragged(5, 2)
    assert not list(part.parameters())
    vectors = part(features).pooled
    for row, length in enumerate((5, 2)):
        expected = features.tokens[row, :length].relu().log1p().max(0).values
        torch.testing.assert_close(vectors[row], expected)
    negative = features.replace(tokens=-features.tokens.abs())
    assert not part(negative).pooled.any()
    summed = Lexical(12, 12, pool="sum")(features).pooled
    torch.testing.assert_close(summed[1], features.tokens[1, :2].relu().log1p().sum(0))
    elu = Lexical(12, 12, activation="elu")(features).pooled
    torch.testing.assert_close(elu[1], (F.elu(features.tokens[1, :2]) + 1).max(0).values)


def test_pruning_keeps_the_largest_and_the_ranking() -> None:
    vectors = torch.rand(6, 40, generator=torch.Generator().manual_seed(0)) ** 4
    pruned = keep(vectors, 20)
    assert ((pruned > 0).sum(1) == 20).all()
    assert torch.equal(pruned.amax(1), vectors.amax(1))
    assert torch.equal((pruned @ pruned.T).argmax(1), (vectors @ vectors.T).argmax(1))
    lone = keep(vectors, 1)  # the control: too few lose it
    assert ((lone > 0).sum(1) == 1).all()
    with pytest.raises(ValueError, match="top_k 41, expected 1 to 40"):
        Lexical(12, 40, top_k=41)


def test_an_aggregate_is_maxima_of_slices_with_signs() -> None:
    """Aggretriever: slices of twice the width, then pairs."""
    weights = torch.tensor([[1.0, 5.0, 2.0, 0.0, 4.0, 0.5, 0.0, 3.0]])  # two slices of 4
    assert aggregate(weights, 2).tolist() == [[-5.0, -3.0]]
    assert aggregate(weights[:, :7], 2).tolist() == [[-5.0, 2.0]]


def test_the_score_of_an_aggregate_is_the_sum_of_its_parts() -> None:
    part, features = Aggregate(12, 10, lexical_dim=4, vocabulary=30), ragged(5, 2, 3)
    vectors = part(features).pooled
    dense, lexical = vectors.split([6, 4], 1)
    torch.testing.assert_close(vectors @ vectors.T, dense @ dense.T + lexical @ lexical.T)
    assert lexical.abs().sum() > 0
    with torch.no_grad():
        part.weight.weight.zero_()
        part.weight.bias.zero_()
    vectors = part(features).pooled
    assert not vectors[:, 6:].any()  # zero lexical weight: the pooled vector alone
    torch.testing.assert_close(vectors @ vectors.T, dense @ dense.T)
    for options in ({"lexical_dim": 10, "vocabulary": 30}, {"lexical_dim": 4, "vocabulary": 7}):
        with pytest.raises(ValueError, match="aggregate: "):
            Aggregate(12, 10, **options)


def test_the_order_of_a_bag_does_not_matter_and_that_of_a_text_does() -> None:
    features = ragged(5, 3)
    places = torch.tensor([[3, 0, 4, 1, 2], [2, 0, 1, 3, 4]])
    shuffled = features.replace(
        tokens=features.tokens.gather(1, places[..., None].expand_as(features.tokens))
    )
    bag, text = GatedAttention(12, 12, hidden=4), Recurrent(12, 12, hidden=4)
    torch.testing.assert_close(bag(features).pooled, bag(shuffled).pooled)
    assert not torch.allclose(text(features).pooled, text(shuffled).pooled)


def test_a_gated_bag_is_its_formula() -> None:
    features, bag = ragged(4), GatedAttention(12, 12, hidden=4)
    tokens = features.tokens[0]
    gated = bag.value(tokens).tanh() * bag.gate(tokens).sigmoid()
    shares = (gated @ bag.score.weight[0]).softmax(0)
    torch.testing.assert_close(bag(features).pooled[0], shares @ tokens)


def test_a_recurrent_pool_is_that_of_torch() -> None:
    """Of one row, a bidirectional GRU; rows of several lengths are as alone by the contract."""
    part, features = Recurrent(12, 6, hidden=5), ragged(7)
    both = torch.nn.GRU(12, 5, batch_first=True, bidirectional=True)
    state = dict(part.forth.state_dict())
    state |= {f"{name}_reverse": value for name, value in part.back.state_dict().items()}
    both.load_state_dict(state)
    expected = part.map(both(features.tokens)[0].mean(1))
    torch.testing.assert_close(part(features).pooled, expected)
