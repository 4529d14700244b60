"""Boundary conditions of a curve: positions, and velocities in units a chunk.

Legend: `B` chunks, `C` conditions (start position, start velocity, end position, end velocity, as
far as the orders go).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class BoundaryOrder(NamedTuple):
    """0: free; 1: the position is given; 2: the velocity too."""

    start: int
    end: int

    @property
    def both(self) -> int:
        return self.start + self.end


def boundary_of_chunks(
    orders: BoundaryOrder, values: Tensor, start: Tensor | None, end: Tensor | None
) -> Tensor | None:
    """Return `[B, C, dof]` for chunks `[B, steps, dof]`: the given conditions, by default the
    chunks' own ends."""
    if not orders.both:
        return boundary_values(orders, start, end, values[:, 0])
    rate = max(values.shape[1] - 1, 1)
    first, last = values[:, 0], values[:, -1]
    if start is None:
        speed = (values[:, min(1, rate)] - first) * rate
        start = torch.stack([first, speed], 1)[:, : orders.start] if orders.start else None
    if end is None:
        speed = (last - values[:, max(-2, -values.shape[1])]) * rate
        end = torch.stack([last, speed], 1)[:, : orders.end] if orders.end else None
    return boundary_values(orders, start, end, first)


def boundary_values(
    orders: BoundaryOrder, start: Tensor | None, end: Tensor | None, like: Tensor
) -> Tensor | None:
    """Return `[B, C, dof]` of the given ends for as many chunks as `like [B, dof]`; None if `C` is
    0.

    Raise ValueError for an end that is missing, has another shape, or is not used.
    """
    parts = [
        _checked(name, value, order, like)
        for name, value, order in (("start", start, orders.start), ("end", end, orders.end))
    ]
    return torch.cat(parts, 1) if orders.both else None


def _checked(name: str, value: Tensor | None, order: int, like: Tensor) -> Tensor:
    shape = (len(like), order, like.shape[1])
    expected = f"[{shape[0]}, {shape[2]}]" if order == 1 else str(list(shape))
    if not order:
        if value is not None:
            raise ValueError(f"{name}: is set, but {name}_order is 0; leave it out, or set it to 1")
        return like.new_zeros(shape)
    if value is None:
        raise ValueError(f"{name}: is missing, {name}_order is {order}; give {name} {expected}")
    values = torch.as_tensor(value, device=like.device).to(like.dtype)
    if values.ndim == 2 and order == 1:
        values = values[:, None]
    if tuple(values.shape) != shape:
        raise ValueError(f"{name}: found {list(value.shape)}, expected {expected}")
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name}: holds numbers that are not finite; expected finite ones")
    return values
