"""One pass over the training split: control points for the bounds, states, and the errors.

Legend: `b` chunks of a block, `P` tokens that are control points, `G` joints with switch times.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from .. import validation
from ..quantiles import KEPT, Reservoir, bounds
from . import gripper
from .boundary import BoundaryOrder, boundary_of_chunks
from .fit_error import MOST, CurveErrors, ErrorAccumulator, JointErrors
from .layout import Layout
from .matrices import SplineMatrices

UNEVEN = 0.02
"""Mean error of a two-valued joint, as a fraction of the distance of its values, from which a
warning is given."""


class Fitting:
    """Accumulates blocks by `add`; `found` returns the fitted state."""

    def __init__(self, layout: Layout, stack: SplineMatrices, orders: BoundaryOrder) -> None:
        self.layout, self.stack, self.orders = layout, stack, orders
        self.points = Reservoir()
        self.steps = StepJoints(layout)
        self.errors = [
            CurveErrors(curve, [d for d, j in enumerate(layout.joints) if j == curve], stack.ridge)
            for curve in layout.curves
        ]

    def add(self, values: np.ndarray, real: np.ndarray) -> None:
        """values `[b, steps, dof]`, zero where padded; real `[b, steps]`."""
        chunks, mask = torch.from_numpy(values), torch.from_numpy(real)
        filled = validation.forward_fill(chunks, mask)
        ends = boundary_of_chunks(self.orders, filled, None, None)
        end_values = np.zeros((len(values), 0, values.shape[2])) if ends is None else ends.numpy()
        points, shift = self.stack.solver(chunks.shape[1], None if real.all() else mask, chunks)
        control_points = points @ chunks if ends is None else points @ chunks + shift @ ends
        self.points.add(control_points.flatten(1)[:, self.layout.cells].numpy())
        for errors in self.errors:
            errors.add(values, real, end_values[:, : errors.curve.start + errors.curve.end])
        self.steps.add(filled.numpy(), real)

    def state(self, quantiles: tuple[float, float]) -> dict[str, Any]:
        """Return bounds `low`, `high [P]`, `levels [G, 2]`, and the errors of each joint."""
        rows = self.points.rows()  # [n, P]
        low, high = bounds(rows, quantiles)
        margin = 1e-9 * np.maximum(np.abs(low), np.abs(high))
        outside = ((rows < low - margin) | (rows > high + margin)).mean(0)
        levels, errors, unreached = self.steps.result()
        errors += [row for each in self.errors for row in each.tally.errors()]
        clipped = self.layout.by_joint(outside)
        return {
            "low": low,
            "high": high,
            "levels": levels,
            "clipped": [unreached.get(d, share) for d, share in enumerate(clipped)],
            "errors": [row._asdict() for row in sorted(errors)],
        }


class StepJoints:
    """The samples of joints with switch times, of the first `KEPT` chunks."""

    def __init__(self, layout: Layout) -> None:
        self.joints = layout.switches
        self.counts = [len(layout.tokens[joint]) for joint in self.joints]
        self.blocks: list[tuple[np.ndarray, np.ndarray]] = []
        self.seen = 0

    def add(self, filled: np.ndarray, real: np.ndarray) -> None:
        """held `[b, steps, dof]`, the last real sample repeated over padding."""
        if self.joints and self.seen < KEPT:
            self.seen += len(filled)
            self.blocks.append((filled[:, :, self.joints], real))

    def result(self) -> tuple[np.ndarray, list[JointErrors], dict[int, float]]:
        """Return levels `[G, 2]`, the errors by number of tokens, and each joint's fraction of
        chunks with more switches than tokens. Warn of a joint with more than two values."""
        levels = np.array([self._levels(g) for g in range(len(self.joints))]).reshape(-1, 2)
        errors = [self._errors(g, levels[g]) for g in range(len(self.joints))]
        unreached = [self._unreached(g, levels[g]) for g in range(len(self.joints))]
        for row, (low, high) in zip(errors, levels, strict=True):
            if min(row.mean) > UNEVEN * (high - low):
                warnings.warn(
                    f"grippers: joint {row.joint} has more than two values (with {low:.3g} and "
                    f"{high:.3g} it is {min(row.mean):.2g} off in the mean); leave it out of the "
                    "grippers, or set gripper: degree0",
                    stacklevel=4,
                )
        return levels, errors, dict(zip(self.joints, unreached, strict=True))

    def _levels(self, g: int) -> list[float]:
        """Return the two states: medians of the samples above and below the middle."""
        samples = np.concatenate([filled[:, :, g][real] for filled, real in self.blocks])
        high = samples >= (samples.min() + samples.max()) / 2
        low = samples[~high] if not high.all() else samples
        return [float(np.median(low)), float(np.median(samples[high]))]

    def _unreached(self, g: int, levels: np.ndarray) -> float:
        high = [filled[:, :, g] >= levels.mean() for filled, _ in self.blocks]
        number = np.concatenate([(states[:, 1:] != states[:, :-1]).sum(1) for states in high])
        return float((number > self.counts[g] - 1).mean())

    def _errors(self, g: int, levels: np.ndarray) -> JointErrors:
        tally = ErrorAccumulator([self.joints[g]], range(1, MOST + 1))
        for filled, real in self.blocks:
            high = torch.from_numpy(filled[:, :, g] >= levels.mean())
            phases = torch.linspace(0, 1, high.shape[1])
            for count in tally.sums:
                decoded = gripper.decode(gripper.encode(high, count), phases)
                error = np.abs(np.where(decoded.numpy(), levels[1], levels[0]) - filled[:, :, g])
                tally.add(count, (error * real)[:, :, None], int(real.sum()))
        return tally.errors()[0]
