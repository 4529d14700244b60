"""Boxes of any number of axes: low corner, then high corner.

Rezatofighi et al., "Generalized Intersection over Union", 2019: `IoU - (hull - union) / hull`, with
volumes for areas.

Legend: `B` batch, `N M` boxes, `n` axes; a box is `[2 n]`: its corners, or
in shares of a grid its centre and size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..common import transform_points

LEAST = 1e-9
"""A volume below this counts as this, so that a flat box divides by no zero."""


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Boxes `[..., 2 n]`, broadcast against each other -> `[...]` shares between 0 and 1."""
    both, union, _ = _measures(a, b)
    return both / union.clamp(min=LEAST)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """As `iou`, less the share of the hull that is in neither: between -1 and 1."""
    both, union, hull = _measures(a, b)
    hull = hull.clamp(min=LEAST)
    return both / union.clamp(min=LEAST) - (hull - union) / hull


def _measures(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`[...]` volumes of the intersection, of the union, of the smallest box round both."""
    (low_a, high_a), (low_b, high_b) = a.chunk(2, -1), b.chunk(2, -1)
    both = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(-1)
    hull = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).prod(-1)
    own = (high_a - low_a).prod(-1) + (high_b - low_b).prod(-1)
    return both, own - both, hull


def unit_to_world(to_world: Tensor, grid: tuple[int, ...]) -> Tensor:
    """`[B, n + 1, n + 1]` from the unit cube that holds a grid's tokens, edge to edge."""
    axes = len(grid)
    own = torch.eye(axes + 1, dtype=to_world.dtype, device=to_world.device)
    own[:axes, :axes] = torch.diag(own.new_tensor(grid))
    own[:axes, axes] = -0.5
    return to_world @ own


def world_to_cxcywh(boxes: Tensor, unit: Tensor) -> Tensor:
    """World `[B, N, 2 n]` -> centre and size in shares of the grid `[B, N, 2 n]`.

    The centre goes through the matrix; the size is measured along the world's axes, so that a box
    comes back exactly from a grid that lies askew.
    """
    low, high = boxes.chunk(2, -1)
    centre = transform_points(torch.linalg.inv(unit), (low + high) / 2)
    return torch.cat([centre, (high - low) / _extent(unit)], -1)


def cxcywh_to_world(found: Tensor, unit: Tensor) -> Tensor:
    """The way back: shares `[B, N, 2 n]` -> corners in the world `[B, N, 2 n]`."""
    centre, size = found.chunk(2, -1)
    middle, half = transform_points(unit, centre), size * _extent(unit) / 2
    return torch.cat([middle - half, middle + half], -1)


def _extent(unit: Tensor) -> Tensor:
    """`[B, 1, n]` how far the grid reaches along each of the world's axes."""
    axes = unit.shape[-1] - 1
    return unit[:, :axes, :axes].abs().sum(-1)[:, None]
