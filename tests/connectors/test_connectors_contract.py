"""Every connector and head meets the contract that `sensorium.testing` checks."""

from __future__ import annotations

from typing import Any

import pytest

from sensorium.engine.recipe import find, registered
from sensorium.testing.connectors import check_connector

ALL = [(kind, name) for kind in ("connector", "head") for name in registered(kind)]
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("connector", "aggregate"): {"lexical_dim": 8, "vocabulary": 40},
    ("connector", "bag"): {"item": "linear", "over": {"type": "transformer", "depth": 1}},
    ("connector", "channel_transformer"): {"channels": 4, "hidden": 6, "depth": 1},
    ("connector", "transformer"): {"depth": 1},
    ("connector", "gated_attention"): {"hidden": 6},
    ("connector", "recurrent"): {"hidden": 6},
    ("connector", "latent_attention"): {"latents": 5},
    ("connector", "resampler"): {"queries": 4, "self_attention": True},
    ("connector", "stack"): {"depth": 2},
    ("head", "key_values"): {"heads": 3, "keys": 5},
    ("head", "detr"): {"queries": 3, "width": 16, "depth": 1},
    ("head", "unetr"): {"ups": 1, "width": 16, "layers": [0], "axes": 2},
    **{(kind, "flatten"): {"grid": [4, 4], "width": 3} for kind in ("connector", "head")},
}
GRIDS = {
    ("connector", "channel_transformer"): [(4, 4)],
    ("connector", "flatten"): [(4, 4)],
    ("head", "flatten"): [(4, 4)],
    ("connector", "pixel_shuffle"): [(4, 4), (2, 2, 4)],
    ("head", "unetr"): [(4, 4)],
}
"""Those that take no other."""

POOLED = {
    ("connector", "cls"),
    *(("head", name) for name in ("linear", "mlp", "key_values")),
}
"""Those that read `pooled` where there is one."""


def check(kind: str, name: str, **changes: Any) -> None:
    options = {**OPTIONS.get((kind, name), {}), **changes}
    grids = options.pop("grids", GRIDS.get((kind, name)))
    limits = {} if grids is None else {"grids": grids}
    check_connector(find(kind, name, "here"), pooled=(kind, name) in POOLED, **limits, **options)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_connector_meets_the_contract(kind: str, name: str) -> None:
    check(kind, name)


def test_volumes_too() -> None:
    check("head", "unetr", axes=3, grids=[(2, 2, 4)])
    check("connector", "flatten", grid=[2, 2, 4], grids=[(2, 2, 4)])
    check("head", "flatten", grid=[16], grids=[(16,)])
