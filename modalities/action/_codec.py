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

from . import _ends, _given, _switch
from ._bounds import scale
from ._layout import Layout
from ._stack import Stack

FAR = 10.0
"""Control points outside the bounds by this many times their width: other units, it seems."""


class Codec:
    """state: `low`, `high [P]` and `levels [G, 2]`, as fitted."""

    def __init__(
        self, layout: Layout, stack: Stack, orders: _ends.Orders, state: Mapping[str, Any]
    ) -> None:
        self.layout, self.stack, self.orders = layout, stack, orders
        low, high = state["low"], state["high"]
        middle, inverse = (low + high) / 2, scale(low, high)
        self._arrays = (middle, high - low, inverse, 0.5 - middle * inverse, state["levels"])
        self._made: dict[Any, tuple[Tensor, ...]] = {}

    def encode(
        self, values: Tensor, real: Tensor | None, start: Tensor | None, end: Tensor | None
    ) -> Tensor:
        """`[B, steps, dof]` -> `[B, L]`. ValueError for values that are not finite."""
        with torch.autocast(values.device.type, enabled=False):
            z = self._control_points(values, real, start, end)
        self._look(z, values)
        z = z.clamp_(0, 1)
        if not self.layout.switches:
            return z
        found = z.new_empty(len(z), self.layout.length)
        found[:, self._index(self.layout.smooth, z)] = z
        levels = self._tensors(z)[4]
        high = _given.held(values, real)[:, :, self.layout.switches] >= levels.mean(1)
        for g, joint in enumerate(self.layout.switches):
            places = self.layout.tokens[joint]
            coded = _switch.encode(high[:, :, g], len(places))
            found[:, self._index(places, z)] = coded.to(z.dtype)
        return found

    def _control_points(
        self, values: Tensor, real: Tensor | None, start: Tensor | None, end: Tensor | None
    ) -> Tensor:
        """`[B, P]` between the bounds at 0 and 1, not yet clipped."""
        held = _given.held(values, real) if self.orders.both else values
        ends = _ends.of_chunks(self.orders, held, start, end)
        points, shift = self.stack.solver(values.shape[1], real, values)
        found = points @ values  # [B, R, dof]
        if ends is not None:
            found = found + shift @ ends
        flat = found.flatten(1)
        if not self.layout.whole:
            flat = flat[:, self._index(self.layout.cells, values)]
        _, _, inverse, offset, _ = self._tensors(values)
        return torch.addcmul(offset, flat, inverse)

    def decode(
        self,
        z: Tensor,
        places: np.ndarray,
        start: Tensor | None,
        end: Tensor | None,
        derivative: int,
    ) -> Tensor:
        """`[B, L]` -> `[B, S, dof]` at places in [0, 1], or its derivative by them."""
        dof = len(self.layout.joints)
        ends = _ends.given(self.orders, start, end, z.new_empty(len(z), dof))
        with torch.autocast(z.device.type, enabled=False):
            bases, held = self.stack.curve(places, derivative, z)  # [S, A], [A, C]
            found = bases @ self._points(z, ends, held)
        if self.layout.switches and not derivative:
            levels, at = self._tensors(z)[4], torch.as_tensor(places, device=z.device)
            for g, joint in enumerate(self.layout.switches):
                high = _switch.decode(z[:, self._index(self.layout.tokens[joint], z)], at)
                found[:, :, joint] = torch.where(high, levels[g, 1], levels[g, 0])
        return found

    def _points(self, z: Tensor, ends: Tensor | None, held: Tensor) -> Tensor:
        """`[B, A, dof]` every control point, zero in the rows of other joints' curves."""
        middle, width = self._tensors(z)[:2]
        layout, dof = self.layout, len(self.layout.joints)
        smooth = z[:, self._index(layout.smooth, z)] if layout.switches else z
        flat = torch.addcmul(middle, smooth - 0.5, width)
        if not layout.whole:
            free = flat.new_zeros(len(z), layout.rows * dof)
            flat = free.index_copy(1, self._index(layout.cells, z), flat)
        points = flat.unflatten(1, (layout.rows, dof))
        if ends is None:
            return points
        owners = torch.as_tensor(layout.owners(), dtype=z.dtype, device=z.device)
        return ((held @ ends) * owners).index_copy(1, self._index(layout.free(), z), points)

    def outside(self, values: Tensor, real: Tensor | None) -> list[float]:
        """`[dof]` the share of a joint's control points that encoding would clip."""
        z = self._control_points(values, real, None, None).double()
        wrong = ((z < -1e-6) | (z > 1 + 1e-6)).double().mean(0).cpu().numpy()
        owner = self.layout.joint[self.layout.smooth]
        return [
            float(wrong[owner == d].mean()) if (owner == d).any() else 0.0
            for d in range(len(self.layout.joints))
        ]

    def _look(self, z: Tensor, values: Tensor) -> None:
        """One look at the extremes finds what is not finite and what is far outside."""
        if self.layout.switches:
            _given.refuse_infinite(values)
        if not z.numel():
            return
        low, high = (float(end) for end in z.aminmax())
        if not (np.isfinite(low) and np.isfinite(high)):
            _given.refuse_infinite(values)
        if low < -FAR or high > 1 + FAR:
            beyond = torch.maximum(z.amax(0) - 1, -z.amin(0))
            joint = int(self.layout.joint[self.layout.smooth][int(beyond.argmax())])
            warnings.warn(
                f"actions: joint {joint} lies {float(beyond.max()):.0f} times the width of its "
                "fitted bounds outside them and is clipped; has it other units than the data "
                "that was fitted?",
                stacklevel=5,
            )

    def _tensors(self, like: Tensor) -> tuple[Tensor, ...]:
        """The fitted arrays, on a device and in a precision."""
        key = (like.device, like.dtype)
        if key not in self._made:
            self._made[key] = tuple(
                torch.as_tensor(array, device=like.device, dtype=like.dtype)
                for array in self._arrays
            )
        return self._made[key]

    def _index(self, places: np.ndarray, like: Tensor) -> Tensor:
        return torch.as_tensor(places, device=like.device)
