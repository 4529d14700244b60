"""Boxes with any number of axes: low corner, then high corner.

Rezatofighi et al., "Generalized Intersection over Union", 2019: `IoU - (hull - union) / hull`, with
volumes for areas.

Legend: `B` batch, `N M` boxes, `n` axes; a box is `[2 n]`: its corners, or its centre and size as
fractions of a grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..common import transform_points

LEAST = 1e-9
"""Lower bound of a volume, so that a flat box causes no division by zero."""


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU `[...]` of boxes `[..., 2 n]`, broadcast against each other."""
    both, union, _ = _measures(a, b)
    return both / union.clamp(min=LEAST)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Return the generalized IoU `[...]`, between -1 and 1."""
    both, union, hull = _measures(a, b)
    hull = hull.clamp(min=LEAST)
    return both / union.clamp(min=LEAST) - (hull - union) / hull


def _measures(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return volumes `[...]` of the intersection, the union and the hull."""
    (low_a, high_a), (low_b, high_b) = a.chunk(2, -1), b.chunk(2, -1)
    both = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(-1)
    hull = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).prod(-1)
    volumes = (high_a - low_a).prod(-1) + (high_b - low_b).prod(-1)
    return both, volumes - both, hull


def unit_to_world(to_world: Tensor, extents: Tensor) -> Tensor:
    """Return `[B, n + 1, n + 1]`, from the unit cube around a sample's tokens to the world.

    extents: `[B, n]`, the number of tokens along each axis.
    """
    axes = extents.shape[-1]
    to_index = torch.eye(axes + 1, dtype=to_world.dtype, device=to_world.device)
    to_index = to_index.repeat(len(to_world), 1, 1)
    to_index[:, :axes, :axes] = torch.diag_embed(extents.to(to_index.dtype))
    to_index[:, :axes, axes] = -0.5
    return to_world @ to_index


def world_to_cxcywh(boxes: Tensor, unit: Tensor) -> Tensor:
    """Convert boxes in the world `[B, N, 2 n]` to centre and size as fractions of the grid.

    The centre is mapped by the matrix; the size is measured along the world's axes, so that a box
    comes back exactly from an oblique grid.
    """
    low, high = boxes.chunk(2, -1)
    centre = transform_points(torch.linalg.inv(unit), (low + high) / 2)
    return torch.cat([centre, (high - low) / _extent(unit)], -1)


def cxcywh_to_world(boxes: Tensor, unit: Tensor) -> Tensor:
    """Convert centre and size as fractions of the grid `[B, N, 2 n]` to corners in the world."""
    centre, size = boxes.chunk(2, -1)
    middle, half = transform_points(unit, centre), size * _extent(unit) / 2
    return torch.cat([middle - half, middle + half], -1)


def _extent(unit: Tensor) -> Tensor:
    """Return `[B, 1, n]`, the extent of the grid along each of the world's axes."""
    axes = unit.shape[-1] - 1
    return unit[:, :axes, :axes].abs().sum(-1)[:, None]
