"""One contract for every connector and head of the catalogues."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from sensorium.connectors import CONNECTORS, HEADS
from sensorium.connectors.base import Connector
from sensorium.modalities.base import Features

IN, OUT, BATCH = 16, 24, 3
ALL = {**{f"connector:{k}": v for k, v in CONNECTORS.items()}}
ALL |= {f"head:{k}": v for k, v in HEADS.items()}
POOLERS = ("attention_pool", "cls", "flatten", "latent_attention", "max", "mean")
VECTORS = {f"connector:{k}" for k in POOLERS}
VECTORS |= {f"head:{k}" for k in HEADS if k not in ("detr", "per_token", "unetr")}
PLACED = {"connector:flatten", "head:flatten"}  # told the grid that they read
GRIDDED = {"connector:pixel_shuffle", "head:unetr"}
POOLED = {"connector:cls", "head:linear", "head:mlp"}  # read `pooled` where there is one
OPTIONS: dict[str, dict[str, Any]] = {
    "connector:latent_attention": {"latents": 5},
    "connector:resampler": {"queries": 4, "self_attention": True},
    "connector:stack": {"depth": 2},
    "head:detr": {"queries": 3, "width": 16, "depth": 1},
    **{name: {"grid": [4, 4], "width": 3} for name in PLACED},
    "head:unetr": {"ups": 1, "width": 16, "layers": [0], "axes": 2},
}
GRIDS: tuple[tuple[int, ...] | None, ...] = (None, (16,), (4, 4), (2, 2, 4))


def build(name: str, in_dim: int = IN, out_dim: int = OUT, **options: Any) -> Connector:
    module, _, cls = ALL[name].partition(":")
    part = getattr(importlib.import_module(module), cls)
    made: Connector = part(in_dim, out_dim, **{**OPTIONS.get(name, {}), **options})
    if made.hidden_layers:
        made.register_forward_pre_hook(with_layers)
    return made


def with_layers(part: Any, args: tuple[Any, ...]) -> tuple[Features]:
    """The features with hidden layers, each another multiple of the tokens."""
    plain = args[0].replace(layers=())
    deep = (plain.replace(tokens=plain.tokens * (i + 1)) for i in range(len(part.hidden_layers)))
    return (plain.replace(layers=tuple(deep)),)


def some(name: str, grid: tuple[int, ...] | None = (4, 4), **changes: Any) -> Features:
    """16 tokens; those of a ragged batch are padded from 16, 10 and 1 on."""
    torch.manual_seed(0)
    mask = torch.arange(16) < torch.tensor([16, 10, 1])[:, None]
    features = Features(
        torch.randn(BATCH, 16, IN),
        mask,
        grid=grid,
        step=None if grid is None else (2.0,) * len(grid),
        origin=None if grid is None else (1.0,) * len(grid),
        pooled=torch.randn(BATCH, IN) if name in POOLED else None,
    )
    return features.replace(**changes)


def options_for(name: str, grid: tuple[int, ...] | None) -> dict[str, Any]:
    if name in PLACED:
        return {"grid": list(grid or (16,))}
    solid = name in GRIDDED and grid is not None and len(grid) == 3
    return {"axes": 3} if solid else {}


def suits(name: str, grid: tuple[int, ...] | None) -> bool:
    return name not in GRIDDED or (grid is not None and len(grid) > 1)


CASES = [(n, g) for n in ALL for g in GRIDS if suits(n, g)]


@pytest.mark.parametrize(("name", "grid"), CASES)
def test_shapes(name: str, grid: tuple[int, ...] | None) -> None:
    part = build(name, **options_for(name, grid)).eval()
    given = part(some(name, grid))  # Features itself checks mask and grid against the tokens
    assert (part.in_dim, part.out_dim) == (IN, OUT)
    assert given.dim == OUT and len(given.tokens) == BATCH
    assert given.tokens.isfinite().all()
    assert given.tokens[~given.mask].eq(0).all()
    assert given.mask.eq(given.mask.cummin(1).values).all() or grid is not None
    if name in VECTORS:
        assert given.tokens.shape[1] == 1 and given.mask.all() and given.grid is None
        assert torch.equal(given.pooled, given.tokens[:, 0])
    else:
        assert given.pooled is None
    for place in (given.step, given.origin):
        assert (place is None) == (given.grid is None)


@pytest.mark.parametrize("name", ALL)
def test_padding_changes_nothing(name: str) -> None:
    """What stands in padded places does not matter, nor how many of them there are."""
    part, features = build(name).eval(), some(name)
    known = part(features)
    garbage = features.tokens.masked_fill(~features.mask.unsqueeze(-1), torch.nan)
    again = part(features.replace(tokens=garbage))
    torch.testing.assert_close(again.tokens, known.tokens, rtol=0, atol=0)

    grid = (8, 4) if name in GRIDDED | PLACED else None
    longer = features.replace(
        tokens=torch.nn.functional.pad(garbage, (0, 0, 0, 16)),
        mask=torch.nn.functional.pad(features.mask, (0, 16)),
        grid=grid,
        step=None,
        origin=None,
    )
    shorter = features if grid else features.replace(grid=None, step=None, origin=None)
    known, padded = part(shorter), part(longer)
    length = known.tokens.shape[1]
    torch.testing.assert_close(padded.tokens[:, :length], known.tokens, rtol=1e-5, atol=1e-6)
    assert torch.equal(padded.mask[:, :length], known.mask) and not padded.mask[:, length:].any()


@pytest.mark.parametrize("name", ALL)
def test_samples_do_not_mix(name: str) -> None:
    part, features = build(name).eval(), some(name)
    whole = part(features)
    for row in range(BATCH):
        pooled = None if features.pooled is None else features.pooled[row : row + 1]
        alone = part(
            features.replace(
                tokens=features.tokens[row : row + 1],
                mask=features.mask[row : row + 1],
                pooled=pooled,
            )
        )
        torch.testing.assert_close(alone.tokens[0], whole.tokens[row], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_a_sample_without_tokens_is_finite(name: str) -> None:
    features = some(name)
    empty = features.replace(mask=features.mask & torch.tensor([True, True, False])[:, None])
    part = build(name)
    given = part(empty)
    given.tokens.square().sum().backward()
    assert given.tokens.isfinite().all()
    assert all(p.grad.isfinite().all() for p in part.parameters())


@pytest.mark.parametrize("name", ALL)
def test_gradients_reach_all(name: str) -> None:
    part, features = build(name), some(name)
    features.tokens.requires_grad_()
    given = part(features)
    (given.tokens * torch.randn_like(given.tokens)).sum().backward()
    for key, weight in part.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, key
    if name not in POOLED:
        reached = features.tokens.grad.abs().sum(-1) > 0
        assert reached[~features.mask].logical_not().all()
        assert reached[features.mask].float().mean() > 0.5  # Max reads some tokens only


@pytest.mark.parametrize("name", ALL)
def test_state_round_trip(name: str) -> None:
    first, second, features = build(name).eval(), build(name).eval(), some(name)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(features).tokens, second(features).tokens)


@pytest.mark.parametrize("name", ALL)
def test_meta(name: str) -> None:
    with torch.device("meta"):
        part = build(name)
        given = part(some(name).to("meta"))
    assert given.tokens.is_meta
    assert given.tokens.shape == build(name)(some(name)).tokens.shape


@pytest.mark.parametrize("name", ALL)
def test_autocast(name: str) -> None:
    part, features = build(name).eval(), some(name)
    known = part(features).tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = part(features).tokens
    assert rough[~part(features).mask].eq(0).all()
    torch.testing.assert_close(rough.float(), known, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", ALL)
def test_layers_pass(name: str) -> None:
    part, features = build(name), some(name)
    deep = features.replace(layers=(features,))
    assert part(deep).layers == (() if part.hidden_layers else (features,))
