"""A volume among larger ones gives what it gives alone, also when it comes from the cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.connectors.base import Connector
from sensorium.connectors.poolers import Mean
from sensorium.engine.cache import from_records, to_records
from sensorium.engine.recipe import find, registered
from sensorium.modalities.base import Features
from sensorium.modalities.groups import merge

SHAPES = [(2, 4, 2), (4, 2, 6), (4, 4, 4)]
ALL = [
    (kind, name)
    for kind in ("connector", "head")
    for name in registered(kind)
    if name != "channel_transformer"  # reads items and channels, no volumes
]
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("connector", "aggregate"): {"lexical_dim": 4, "vocabulary": 40},
    ("connector", "bag"): {"over": Mean(16, 8)},
    ("connector", "latent_attention"): {"latents": 5},
    ("connector", "resampler"): {"queries": 4, "self_attention": True},
    ("connector", "stack"): {"factor": 3},
    ("head", "detr"): {"queries": 3, "width": 16, "depth": 1},
    **{(kind, "flatten"): {"grid": [4, 4, 6], "width": 3} for kind in ("connector", "head")},
    ("connector", "pixel_shuffle"): {"axes": 3},
    ("head", "unetr"): {"ups": 1, "width": 16, "layers": [0], "axes": 3},
}


def volume(shape: tuple[int, ...], seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)

    def tokens() -> torch.Tensor:
        count = shape[0] * shape[1] * shape[2]
        return torch.randn(1, count, 16, generator=generator)

    place = {
        "grid": shape,
        "spacing": (2.0,) * 3,
        "origin": (0.5,) * 3,
        "affine": torch.eye(4)[None],
    }
    layers = tuple(Features.dense(tokens(), **place) for _ in range(4))
    return Features.dense(tokens(), **place, hidden_states=layers, pooled=tokens()[:, 0])


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_volume_gives_the_same_beside_larger_ones(kind: str, name: str, cached: bool) -> None:
    options = OPTIONS.get((kind, name), {})
    torch.manual_seed(0)
    connector: Connector = find(kind, name, "here")(16, 8, **options).eval()
    volumes = [volume(shape, i) for i, shape in enumerate(SHAPES)]
    if cached:
        batch = from_records([record for v in volumes for record in to_records(v)])
    else:
        batch = merge([([i], v) for i, v in enumerate(volumes)])
    assert batch.grid == (4, 4, 6)
    assert batch.extents().tolist() == [list(shape) for shape in SHAPES]
    with torch.no_grad():
        together = connector(batch)
        for i, v in enumerate(volumes):
            alone = connector(v)
            torch.testing.assert_close(
                together.tokens[i][together.mask[i]], alone.tokens[0][alone.mask[0]],
                rtol=1e-4, atol=1e-5,
            )  # fmt: skip
            if alone.pooled is not None and together.pooled is not None:
                torch.testing.assert_close(together.pooled[i], alone.pooled[0])
