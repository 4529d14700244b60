"""The order of a chunk's tokens: basis-major, so that all joints of one time are adjacent.

Joints with the same curve share the rows of one stack of matrices, so that a batch is one product
for any joints; `cells` selects the tokens' values from `stack [R, dof]`.

Legend: `L` tokens of a chunk, `R` rows of the stack (free control points of every curve), `A` all
control points of every curve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .boundary import BoundaryOrder
from .least_squares import Curve

HIGHEST = 10
"""The highest degree that is accepted."""


class Layout:
    """curves: a joint's `Curve`, or the number of tokens of one that has switch times."""

    def __init__(self, joints: Sequence[Curve | int]) -> None:
        self.joints, self.dof = tuple(joints), len(joints)
        self.curves = sorted({joint for joint in joints if isinstance(joint, Curve)})
        self.switches = [d for d, joint in enumerate(joints) if not isinstance(joint, Curve)]
        counts = [_count(joint) for joint in joints]
        order = sorted((m, d) for d, count in enumerate(counts) for m in range(count))
        self.length = len(order)
        self.grid = (max(counts), len(counts)) if len(set(counts)) == 1 else None
        self.joint = np.array([d for _, d in order], int)  # [L]
        self.tokens = [np.flatnonzero(self.joint == d) for d in range(len(counts))]
        self.smooth = np.array([i for i, (_, d) in enumerate(order) if d not in self.switches], int)
        # Control points first, then the switches: the index of each token among them.
        self.order = np.argsort(
            np.concatenate([self.smooth, *(self.tokens[d] for d in self.switches)])
        )
        tops = dict(zip(self.curves, self._tops([_count(c) for c in self.curves]), strict=True))
        rows = [tops[joint] + m for m, d in order if isinstance(joint := self.joints[d], Curve)]
        self.rows = sum(_count(curve) for curve in self.curves)
        self.cells = np.array(rows, int) * self.dof + self.joint[self.smooth]
        # Every cell is a token, in order.
        self.whole = not self.switches and np.array_equal(
            self.cells, np.arange(self.rows * self.dof)
        )

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Return `[R * dof]` of `[P]`, one value a token: zero in the cells of other joints'
        curves."""
        cells_of = np.zeros(self.rows * self.dof, values.dtype)
        cells_of[self.cells] = values
        return cells_of

    def by_joint(self, values: np.ndarray) -> list[float]:
        """Return the mean of each joint's values in `[P]`, one a control point; 0 if it has
        none."""
        owner = self.joint[self.smooth]
        means = [values[owner == d].mean() if (owner == d).any() else 0.0 for d in range(self.dof)]
        return [float(mean) for mean in means]

    @staticmethod
    def _tops(counts: Sequence[int]) -> list[int]:
        return [sum(counts[:i]) for i in range(len(counts))]

    def owners(self) -> np.ndarray:
        """Return `[A, dof]`, 1 for the control points of each joint's curve."""
        return np.concatenate(
            [
                np.tile([float(curve == joint) for joint in self.joints], (curve.num_basis, 1))
                for curve in self.curves
            ]
            or [np.zeros((0, len(self.joints)))]
        )

    def free(self) -> np.ndarray:
        """Return `[R]`, which of the `A` control points are fitted to samples."""
        tops = self._tops([curve.num_basis for curve in self.curves])
        flags = [
            top + np.arange(curve.num_basis)[curve.free]
            for top, curve in zip(tops, self.curves, strict=True)
        ]
        return np.concatenate([*flags, np.zeros(0, int)])


def joints(
    dof: int,
    num_basis: int | list[int],
    degree: int,
    grippers: Sequence[int],
    gripper: str,
    orders: BoundaryOrder,
) -> list[Curve | int]:
    """Return the curve of each joint. Raise ValueError for an invalid option."""
    counts = [num_basis] * dof if isinstance(num_basis, int) else num_basis
    if len(counts) != dof:
        raise ValueError(f"num_basis: found {len(counts)} numbers, expected one a joint: {dof}")
    if not 0 <= degree <= HIGHEST:
        raise ValueError(f"degree: found {degree}, expected 0 to {HIGHEST}")
    if degree < max(orders) - 1 or (degree < 1 and orders.both):
        raise ValueError(f"degree: found {degree}, a curve with known ends needs at least 1")
    wrong = [column for column in grippers if not -dof <= column < dof]
    if wrong:
        raise ValueError(f"grippers: there is no column {wrong[0]}; the actions have {dof}")
    steps = {column % dof for column in grippers}
    kinds: list[Curve | int] = []
    for d, count in enumerate(counts):
        curve = Curve(count, 0) if d in steps else Curve(count, degree, *orders)
        if count < curve.least:
            raise ValueError(
                f"num_basis: found {count} for joint {d}, expected at least {curve.least} for "
                f"degree {curve.degree}"
            )
        kinds.append(count if d in steps and gripper == "switch_times" else curve)
    return kinds


def _count(joint: Curve | int) -> int:
    if not isinstance(joint, Curve):
        return joint
    return joint.num_basis - joint.start - joint.end
