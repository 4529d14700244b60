"""Chunks <-> tokens in [0, 1], once bounds are fitted: one matrix product a batch, each way.

Legend: `B` chunks, `L` tokens, of which `P` are control points; `R` free control points of all
curves, `A` all of them; `C` conditions; `S` places.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import validation
from ..quantiles import scale
from . import boundary, gripper
from .layout import Layout
from .matrices import SplineMatrices

FAR = 10.0
"""Distance of control points outside the bounds, in widths of the bounds, from which a warning
suspects other units."""

FEW = 16
"""Up to this many joints one large product is faster than a small one a chunk, despite the copy."""


class Codec:
    """state: `low`, `high [P]` and `levels [G, 2]`, as fitted."""

    def __init__(
        self,
        layout: Layout,
        stack: SplineMatrices,
        orders: boundary.BoundaryOrder,
        state: Mapping[str, Any],
    ) -> None:
        self.layout, self.stack, self.orders = layout, stack, orders
        low, high = np.asarray(state["low"]), np.asarray(state["high"])
        inverse = scale(low, high)
        self._arrays = {
            "inverse": inverse,
            # A constant joint is at the middle for any token.
            "offset": 0.5 - (low + high) / 2 * inverse,
            "low": layout.spread(np.where(inverse > 0, low, (low + high) / 2)),
            "width": layout.spread(np.where(inverse > 0, high - low, 0.0)),
            "levels": np.asarray(state["levels"]),
            "owners": layout.owners(),
            "cells": layout.cells,
            "order": layout.order,
            "token": layout.spread(layout.smooth),
            "free": layout.free(),
        }
        self._made: dict[Any, dict[str, Tensor]] = {}

    def encode(
        self, values: Tensor, real: Tensor | None, start: Tensor | None, end: Tensor | None
    ) -> Tensor:
        """Return `[B, L]` of `[B, steps, dof]`. Raise ValueError for values that are not finite."""
        with torch.autocast(values.device.type, enabled=False):
            z = self._control_points(values, real, start, end)
        self._check_range(z, values)
        z = z.clamp(0, 1)
        if not self.layout.switches:
            return z
        high, parts = self._high(values, real), [z]
        for g, joint in enumerate(self.layout.switches):
            parts.append(gripper.encode(high[:, :, g], len(self.layout.tokens[joint])).to(z))
        return torch.cat(parts, 1).index_select(1, self._tensors(z)["order"])

    def _control_points(
        self, values: Tensor, real: Tensor | None, start: Tensor | None, end: Tensor | None
    ) -> Tensor:
        """Return `[B, P]`, scaled so that the bounds are 0 and 1, not yet clipped."""
        filled = validation.forward_fill(values, real) if self.orders.both else values
        ends = boundary.boundary_of_chunks(self.orders, filled, start, end)
        points, shift = self.stack.solver(values.shape[1], real, values)
        points_of = _product(points, values)  # [B, R, dof]
        if ends is not None:
            points_of = points_of + shift @ ends
        fitted = self._tensors(values)
        flat = points_of.flatten(1)
        if not self.layout.whole:
            flat = flat.index_select(1, fitted["cells"])
        return torch.addcmul(fitted["offset"], flat, fitted["inverse"])

    def decode(
        self,
        z: Tensor,
        phase: np.ndarray,
        start: Tensor | None,
        end: Tensor | None,
        derivative: int,
    ) -> Tensor:
        """Return `[B, S, dof]` of `[B, L]` at positions in [0, 1], or its derivative."""
        ends = boundary.boundary_values(
            self.orders, start, end, z.new_empty(len(z), self.layout.dof)
        )
        with torch.autocast(z.device.type, enabled=False):
            bases, conditioned = self.stack.curve(phase, derivative, z)  # [S, A], [A, C]
            curve = _product(bases, self._points(z, ends, conditioned))
        if self.layout.switches and not derivative:
            levels, at = self._tensors(z)["levels"], torch.as_tensor(phase).to(z)
            for g, joint in enumerate(self.layout.switches):
                high = gripper.decode(z[:, self.layout.tokens[joint]], at)
                curve[:, :, joint] = torch.where(high, levels[g, 1], levels[g, 0])
        return curve

    def _points(self, z: Tensor, ends: Tensor | None, conditioned: Tensor) -> Tensor:
        """Return `[B, A, dof]`, every control point, zero in the rows of other joints' curves."""
        fitted = self._tensors(z)
        spread = z if self.layout.whole else z.index_select(1, fitted["token"])
        flat = torch.addcmul(fitted["low"], spread, fitted["width"])
        points = flat.unflatten(1, (self.layout.rows, self.layout.dof))
        if ends is None:
            return points
        return ((conditioned @ ends) * fitted["owners"]).index_copy(1, fitted["free"], points)

    def outside(self, values: Tensor, real: Tensor | None) -> list[float]:
        """Return `[dof]`, the fraction of a joint's control points that encoding clips; for joints
        with switch times, of chunks with more switches than tokens."""
        z = self._control_points(values, real, None, None).double()
        wrong = ((z < -1e-6) | (z > 1 + 1e-6)).double().mean(0).cpu().numpy()
        means = self.layout.by_joint(wrong)
        high = self._high(values, real)
        flips = (high[:, 1:] != high[:, :-1]).sum(1)  # [B, G]
        for joint, number in zip(self.layout.switches, flips.T, strict=True):
            often = number > len(self.layout.tokens[joint]) - 1
            means[joint] = float(often.double().mean())
        return means

    def _high(self, values: Tensor, real: Tensor | None) -> Tensor:
        """Return `[B, steps, G]` bool: the states of the joints that have switch times."""
        with_steps = values[:, :, self.layout.switches]
        if not bool(torch.isfinite(with_steps).all()):
            validation.refuse_infinite(values)
        return validation.forward_fill(with_steps, real) >= self._tensors(values)["levels"].mean(1)

    def _check_range(self, z: Tensor, values: Tensor) -> None:
        """Raise or warn about values that are not finite or far outside, from the extremes only."""
        if not z.numel():
            return
        low, high = (float(end) for end in z.aminmax())
        if not (np.isfinite(low) and np.isfinite(high)):
            validation.refuse_infinite(values)
        if low < -FAR or high > 1 + FAR:
            beyond = torch.maximum(z.amax(0) - 1, -z.amin(0))
            joint = int(self.layout.joint[self.layout.smooth][int(beyond.argmax())])
            warnings.warn(
                f"actions: joint {joint} lies {float(beyond.max()):.0f} times the width of its "
                "fitted bounds outside them and is clipped; has it other units than the data "
                "that was fitted?",
                stacklevel=5,
            )

    def _tensors(self, like: Tensor) -> dict[str, Tensor]:
        """Return the fitted arrays and the indices, on a device and in a precision."""
        key = (like.device, like.dtype)
        if key not in self._made:
            self._made[key] = {
                name: torch.as_tensor(
                    array,
                    device=like.device,
                    dtype=like.dtype if array.dtype.kind == "f" else torch.long,
                )
                for name, array in self._arrays.items()
            }
        return self._made[key]


def _product(matrix: Tensor, stack: Tensor) -> Tensor:
    """`[R, T]` or `[B, R, T]` times `[B, T, dof]` -> `[B, R, dof]`."""
    if matrix.ndim == 3 or stack.shape[2] > FEW:
        return matrix @ stack
    count, inner, dof = stack.shape
    rows = stack.transpose(1, 2).reshape(count * dof, inner) @ matrix.T
    return rows.view(count, dof, len(matrix)).transpose(1, 2)
