"""One pass over the training split: control points for the bounds, states, and the errors.

Legend: `b` chunks of a block, `P` tokens that are control points, `G` joints with switch times.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from . import _given, _switch
from ._bounds import Reservoir, bounds
from ._ends import Orders, of_chunks
from ._errors import MOST, CurveErrors, JointErrors, Tally
from ._layout import Layout
from ._stack import Stack


class Fitting:
    """Takes blocks by `add`, and gives a state by `found`."""

    def __init__(self, layout: Layout, stack: Stack, orders: Orders) -> None:
        self.layout, self.stack, self.orders = layout, stack, orders
        self.points = Reservoir()
        self.states: list[tuple[np.ndarray, np.ndarray]] = []
        self.errors = [
            CurveErrors(curve, [d for d, j in enumerate(layout.joints) if j == curve], stack.ridge)
            for curve in layout.curves
        ]

    def add(self, values: np.ndarray, real: np.ndarray) -> None:
        """values `[b, steps, dof]`, zero where padded; real `[b, steps]`."""
        chunks, mask = torch.from_numpy(values), torch.from_numpy(real)
        held = _given.held(chunks, mask)
        ends = of_chunks(self.orders, held, None, None)
        given = np.zeros((len(values), 0, values.shape[2])) if ends is None else ends.numpy()
        points, shift = self.stack.solver(chunks.shape[1], None if real.all() else mask, chunks)
        found = points @ chunks if ends is None else points @ chunks + shift @ ends
        self.points.add(found.flatten(1)[:, self.layout.cells].numpy())
        for errors in self.errors:
            errors.add(values, real, given[:, : errors.curve.start + errors.curve.end])
        if self.layout.switches:
            self.states.append((held[:, :, self.layout.switches].numpy(), real))

    def found(self, quantiles: tuple[float, float]) -> dict[str, Any]:
        """Bounds `low`, `high [P]`, `levels [G, 2]`, and the errors a joint."""
        rows = self.points.rows()  # [n, P]
        low, high = bounds(rows, quantiles)
        margin = 1e-9 * np.maximum(np.abs(low), np.abs(high))
        outside = ((rows < low - margin) | (rows > high + margin)).mean(0)
        levels = np.array([self._levels(g) for g in range(len(self.layout.switches))])
        errors = [row for each in self.errors for row in each.tally.found()]
        errors += [self._switching(g, levels[g]) for g in range(len(levels))]
        return {
            "low": low,
            "high": high,
            "levels": levels.reshape(-1, 2),
            "clipped": self.layout.by_joint(outside),
            "errors": [row._asdict() for row in sorted(errors)],
        }

    def _levels(self, g: int) -> list[float]:
        """The two states: medians of what lies above and below the middle."""
        seen = np.concatenate([held[:, :, g][real] for held, real in self.states])
        high = seen >= (seen.min() + seen.max()) / 2
        low = seen[~high] if not high.all() else seen
        return [float(np.median(low)), float(np.median(seen[high]))]

    def _switching(self, g: int, levels: np.ndarray) -> JointErrors:
        tally = Tally([self.layout.switches[g]], range(1, MOST + 1))
        for held, real in self.states:
            states = torch.from_numpy(held[:, :, g])
            high = states >= float(levels.mean())
            for count in tally.sums:
                back = _switch.decode(
                    _switch.encode(high, count), torch.linspace(0, 1, high.shape[1])
                )
                error = np.abs(np.where(back.numpy(), levels[1], levels[0]) - held[:, :, g])
                tally.add(count, (error * real)[:, :, None], int(real.sum()))
        return tally.found()[0]
