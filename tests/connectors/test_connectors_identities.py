"""What each connector promises, against an explicit formula or an inverse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sensorium.connectors.heads import AttentionProbe, Flatten, LinearHead, MLPHead
from sensorium.connectors.layout import sincos
from sensorium.connectors.poolers import AttentionPool, Cls, LatentAttention, Max, Mean
from sensorium.connectors.projectors import MLP, Linear
from sensorium.connectors.resampler import Resampler
from sensorium.connectors.shorteners import Conv, FrameStack, PixelShuffle
from sensorium.modalities.base import Features


def transparent(part: PixelShuffle | FrameStack) -> None:
    """Make the map of a shortener the identity."""
    with torch.no_grad():
        part.map.weight.copy_(torch.eye(part.out_dim))
        part.map.bias.zero_()


def ragged(*lengths: int, dim: int = 8) -> Features:
    torch.manual_seed(1)
    return Features.pad([torch.randn(n, dim) for n in lengths])


@pytest.mark.parametrize(
    ("grid", "axes"), [((4, 6), 2), ((3, 4, 6), 2), ((4, 2, 6), 3), ((6, 2, 2), 1)]
)
def test_pixel_shuffle_loses_nothing(grid: tuple[int, ...], axes: int) -> None:
    """Each new token is its neighbours, in the order of the grid."""
    part = PixelShuffle(5, 5 * 2**axes, factor=2, axes=axes)
    transparent(part)
    where = {"grid": grid, "spacing": (2.0,) * len(grid), "origin": (1.0,) * len(grid)}
    tokens = torch.randn(2, math.prod(grid), 5)
    output = part(Features.dense(tokens, **where))

    fixed = len(grid) - axes
    assert output.grid == tuple(n if a < fixed else n // 2 for a, n in enumerate(grid))
    assert output.spacing == (2.0,) * fixed + (4.0,) * axes
    assert output.origin == (1.0,) * fixed + (2.0,) * axes
    old, new = tokens.unflatten(1, grid), output.tokens.unflatten(1, output.grid)
    for place in torch.cartesian_prod(*(torch.arange(n) for n in grid)).tolist():
        home = [p if a < fixed else p // 2 for a, p in enumerate(place)]
        part_of = 0
        for p in place[fixed:]:
            part_of = part_of * 2 + p % 2
        result = new[(slice(None), *home)][:, part_of * 5 : (part_of + 1) * 5]
        assert torch.equal(result, old[(slice(None), *place)])


@pytest.mark.parametrize("grid", [None, (12,), (3, 4)])
def test_pixel_shuffle_refuses(grid: tuple[int, ...] | None) -> None:
    features = Features.dense(torch.randn(1, 12, 4), grid=grid)
    with pytest.raises(ValueError, match=r"factor 2" if grid == (3, 4) else r"folds 2 axes"):
        PixelShuffle(4, 4)(features)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_stack_loses_nothing(k: int) -> None:
    part, features = FrameStack(8, 8 * k, factor=k), ragged(7, 4, 1)
    transparent(part)
    line = features.replace(grid=(7,), spacing=(0.02,), origin=(0.01,))
    output = part(line)
    assert output.lengths.tolist() == [math.ceil(n / k) for n in (7, 4, 1)]
    assert output.grid == (math.ceil(7 / k),)
    assert output.spacing == pytest.approx((0.02 * k,))
    # The centre of a group is the mean of the centres of its parts.
    assert output.origin == pytest.approx((sum(0.01 + 0.02 * i for i in range(k)) / k,))
    assert torch.equal(output.tokens.unflatten(2, (k, 8)).flatten(1, 2)[:, :7], features.tokens)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 2), (5, 2), (5, 3)])
def test_conv_equals_each_sample_alone(kernel: int, stride: int) -> None:
    """The library's convolution of the unpadded sequence, and lengths by arithmetic."""
    lengths = (11, 6, 1)
    part, features = Conv(8, 12, kernel=kernel, stride=stride), ragged(*lengths)
    output = part(features.replace(grid=(11,), spacing=(0.01,), origin=(0.005,)))
    assert output.lengths.tolist() == [math.ceil(n / stride) for n in lengths]
    assert output.spacing == pytest.approx((0.01 * stride,)) and output.origin == (0.005,)
    for row, length in enumerate(lengths):
        alone = part.map(features.tokens[row : row + 1, :length].mT).mT[0]
        torch.testing.assert_close(output.tokens[row, : len(alone)], alone)


def test_linear_and_mlp_are_the_library() -> None:
    features = ragged(5, 5)
    linear, mlp = Linear(8, 4), MLP(8, 4, depth=3, hidden=6, activation="silu", norm=True)
    torch.testing.assert_close(linear(features).tokens, linear.map(features.tokens))
    weights = [p for p in mlp.map if isinstance(p, nn.Linear)]
    hidden = nn.functional.layer_norm(features.tokens, (8,))
    hidden = weights[2](nn.functional.silu(weights[1](nn.functional.silu(weights[0](hidden)))))
    torch.testing.assert_close(mlp(features).tokens, hidden)
    assert [w.out_features for w in weights] == [6, 6, 4]


def test_plain_poolers() -> None:
    features = ragged(5, 2).replace(pooled=torch.randn(2, 8))
    rows = [features.tokens[0, :5], features.tokens[1, :2]]
    torch.testing.assert_close(Mean(8, 8)(features).pooled, torch.stack([r.mean(0) for r in rows]))
    torch.testing.assert_close(Max(8, 8)(features).pooled, torch.stack([r.amax(0) for r in rows]))
    assert torch.equal(Cls(8, 8)(features).pooled, features.pooled)
    assert not list(Mean(8, 8).parameters()) and len(list(Mean(8, 9).parameters())) == 2
    with pytest.raises(ValueError, match="no pooled vector"):
        Cls(8, 8)(features.replace(pooled=None))


def test_attention_pool_of_one_token_is_its_projection() -> None:
    part, features = AttentionPool(8, 4, heads=2), ragged(1, 1)
    value = part.attention.in_proj_weight[16:] @ features.tokens[:, 0].T
    value = part.attention.out_proj(value.T + part.attention.in_proj_bias[16:])
    torch.testing.assert_close(part(features).pooled, part.map(value))


@pytest.mark.parametrize("part", [AttentionPool(8, 4, heads=2), LatentAttention(8, 4, heads=2)])
def test_order_does_not_matter(part: nn.Module) -> None:
    features = ragged(6, 6)
    turned = features.replace(tokens=features.tokens.flip(1))
    torch.testing.assert_close(part(features).pooled, part(turned).pooled)


def test_latent_attention_formula() -> None:
    part, features = LatentAttention(8, 6, latents=5, heads=2), ragged(4, 2)
    for row, length in enumerate((4, 2)):
        reads = []
        for head in range(2):
            queries = features.tokens[row, :length, head * 4 : head * 4 + 4]
            memory = part.latents[:, head * 4 : head * 4 + 4]
            reads.append((queries @ memory.T / 2).softmax(-1) @ memory)  # sqrt(4) = 2
        mean = part.mlp(torch.cat(reads, -1)).mean(0)
        torch.testing.assert_close(part(features).pooled[row], mean)


def test_latent_attention_latents_are_a_set() -> None:
    part, features = LatentAttention(8, 6, latents=5, heads=2), ragged(4, 2)
    known = part(features).pooled
    with torch.no_grad():
        part.latents.copy_(part.latents[torch.tensor([3, 0, 4, 2, 1])])
    torch.testing.assert_close(part(features).pooled, known)


def test_latent_attention_with_one_latent_sees_no_token() -> None:
    part = LatentAttention(8, 6, latents=1, heads=2)
    read = part.attend(torch.randn(2, 3, 8))
    torch.testing.assert_close(read, part.latents.expand(2, 3, 8))


def test_resampler_length_and_missing_sample() -> None:
    features = ragged(5, 3)
    features = features.replace(mask=features.mask & torch.tensor([True, False])[:, None])
    output = Resampler(8, 16, queries=7, heads=4)(features)
    assert output.tokens.shape == (2, 7, 16)
    assert output.lengths.tolist() == [7, 0]


def test_heads_read_the_vector() -> None:
    features = ragged(5, 2)
    for head in (LinearHead(8, 3), MLPHead(8, 3, hidden=4).eval()):
        torch.testing.assert_close(head(features).pooled, head.map(features.mean()))
        vector = torch.randn(2, 8)
        torch.testing.assert_close(head(features.replace(pooled=vector)).pooled, head.map(vector))


def test_attention_probe_knows_where() -> None:
    """With a grid the place of a token matters; without one it does not."""
    probe = AttentionProbe(8, 3, heads=2)
    features = Features.dense(torch.randn(2, 12, 8))
    turned = features.replace(tokens=features.tokens.flip(1))
    torch.testing.assert_close(probe(features).pooled, probe(turned).pooled)
    forth, back = (probe(f.replace(grid=(3, 4))).pooled for f in (features, turned))
    assert (forth - back).abs().max() > 1e-4


@pytest.mark.parametrize("kind", [Linear, MLP])
def test_a_projector_maps_the_whole_by_a_map_of_its_own(kind: type[Linear | MLP]) -> None:
    torch.manual_seed(0)
    part, features = kind(8, 5, project_pooled=True), Features.dense(torch.randn(2, 3, 8))
    assert part.whole is not None
    vector = torch.randn(2, 8)
    result = part(features.replace(pooled=vector))
    torch.testing.assert_close(result.pooled, part.whole(vector))
    torch.testing.assert_close(result.tokens, part.map(features.tokens))
    assert not torch.allclose(result.pooled, part.map(vector))
    padded = torch.nn.functional.pad(features.tokens, [0, 0, 0, 2], value=torch.nan)
    mask = torch.nn.functional.pad(features.mask, [0, 2])
    mean = part(features.replace(tokens=padded, mask=mask)).pooled  # without a vector, the mean
    torch.testing.assert_close(mean, part.whole(features.tokens.mean(1)))


def test_flatten_reads_every_place_by_itself() -> None:
    head = Flatten(8, 3, grid=[3, 4], width=2)
    features = Features.dense(torch.randn(2, 12, 8)).replace(grid=(3, 4))
    turned = features.replace(tokens=features.tokens.flip(1))
    assert (head(features).pooled - head(turned).pooled).abs().max() > 1e-4
    wide = torch.nn.functional.pad(features.tokens.unflatten(1, (3, 4)), [0, 0, 0, 1, 0, 2])
    mask = torch.nn.functional.pad(features.mask.unflatten(1, (3, 4)), [0, 1, 0, 2]).flatten(1)
    padded = features.replace(tokens=wide.flatten(1, 2), mask=mask, grid=(5, 5))
    torch.testing.assert_close(head(padded).pooled, head(features).pooled)
    with pytest.raises(ValueError, match="tokens lie beyond the grid"):
        head(padded.replace(mask=torch.ones_like(mask)))
    with pytest.raises(ValueError, match="reads a grid of 2 axes, the features have"):
        head(features.replace(grid=(3, 2, 2)))
    with pytest.raises(ValueError, match="expected one axis or more"):
        Flatten(8, 3, grid=[])


@pytest.mark.parametrize("grid", [(7,), (3, 5), (2, 3, 4)])
def test_positions_tell_places_apart(grid: tuple[int, ...]) -> None:
    table = sincos(grid, 20, torch.zeros(1))
    assert table.shape == (math.prod(grid), 20)
    apart = torch.cdist(table, table) + 10 * torch.eye(len(table))
    assert apart.min() > 0.1
    bigger = sincos(tuple(n + 2 for n in grid), 20, torch.zeros(1))  # a place keeps its vector
    remaining = bigger.unflatten(0, [n + 2 for n in grid])[tuple(slice(n) for n in grid)]
    torch.testing.assert_close(remaining.reshape(-1, 20), table)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttentionPool(10, 4), "heads 8 does not divide the width 10"),
        (lambda: Resampler(8, 10), "heads 8 does not divide the width 10"),
        (lambda: Conv(4, 4, kernel=2), "kernel 2 is even; use 1 or 3"),
        (lambda: FrameStack(4, 4, factor=0), "factor is 0, must be at least 1"),
        (lambda: FrameStack(4, 4, depth=0), "depth is 0, must be at least 1"),
        (lambda: MLP(4, 4, depth=0), "depth is 0, must be at least 1"),
    ],
)
def test_mistakes_are_named(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
