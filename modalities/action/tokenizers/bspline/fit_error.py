"""Reconstruction errors for other numbers of bases, over the training data.

Mean and largest absolute error of a joint, in its own units, before tokens are rounded.

Legend: `b` chunks, `d` joints of one kind, `N` bases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ....base import Chart
from .basis import basis, phases
from .least_squares import Curve, solve

MOST = 32
"""The largest number of bases that is evaluated."""
ROUNDING = 1e-9
"""Errors below this fraction of the largest are rounding."""
JOINTS = 5
"""Joints of one chart."""


class JointErrors(NamedTuple):
    """A joint's errors by number of bases: `mean[i]` and `max[i]` with `num_basis[i]`."""

    joint: int
    num_basis: list[int]
    mean: list[float]
    max: list[float]

    def enough(self, error: float, measure: str) -> int | None:
        """Return the smallest number of bases within an error; None if there is none."""
        pairs = zip(self.num_basis, getattr(self, measure), strict=True)
        return next((count for count, value in pairs if value <= error), None)


class ErrorAccumulator:
    """Sums and maxima of the errors of some joints, for every number of bases."""

    def __init__(self, joints: Sequence[int], counts: Sequence[int]) -> None:
        self.joints = list(joints)
        self.sums = {count: np.zeros(len(self.joints)) for count in counts}
        self.largest = {count: np.zeros(len(self.joints)) for count in counts}
        self.samples = dict.fromkeys(counts, 0)

    def add(self, count: int, errors: np.ndarray, samples: int) -> None:
        """errors: `[b, steps, d]` absolute, zero where padded."""
        self.sums[count] += errors.sum((0, 1))
        self.largest[count] = np.maximum(self.largest[count], errors.max((0, 1)))
        self.samples[count] += samples

    def errors(self) -> list[JointErrors]:
        counts = [count for count, samples in self.samples.items() if samples]
        return [
            JointErrors(
                joint,
                counts,
                [float(self.sums[n][i] / self.samples[n]) for n in counts],
                [float(self.largest[n][i]) for n in counts],
            )
            for i, joint in enumerate(self.joints)
        ]


class CurveErrors:
    """The errors of joints that share a curve, over blocks of chunks."""

    def __init__(self, curve: Curve, joints: Sequence[int], ridge: float) -> None:
        self.curve, self.ridge = curve, ridge
        counts = sorted({*range(curve.least, MOST + 1), curve.num_basis})
        self.tally = ErrorAccumulator(joints, counts)
        self._smoothers: dict[tuple[int, bytes], tuple[np.ndarray, np.ndarray]] = {}

    def add(self, values: np.ndarray, real: np.ndarray, conditions: np.ndarray) -> None:
        """values `[b, steps, dof]`, real `[b, steps]`, conditions `[b, C, dof]`."""
        for pattern in np.unique(real, axis=0):
            same = (real == pattern).all(1)
            chunks = values[same][:, :, self.tally.joints]
            conditions_of = conditions[same][:, :, self.tally.joints]
            for count in self.tally.sums:
                if count > len(pattern):
                    continue
                smoother, shift = self._smoother(count, pattern)
                errors = np.abs(chunks - smoother @ chunks - shift @ conditions_of)
                errors *= pattern[None, :, None]
                self.tally.add(count, errors, int(pattern.sum()) * len(chunks))

    def _smoother(self, count: int, pattern: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return `[steps, steps]` and `[steps, C]`, the reconstruction of a chunk and its
        conditions."""
        key = (count, pattern.tobytes())
        if key not in self._smoothers:
            curve = self.curve._replace(num_basis=count)
            bases = basis(phases(len(pattern)), count, curve.degree)
            solution = solve(curve, pattern, self.ridge)
            free = bases[:, curve.free]
            self._smoothers[key] = (
                free @ solution.points,
                free @ solution.shift + bases @ curve.conditioned(),
            )
        return self._smoothers[key]


def states(errors: Sequence[JointErrors]) -> list[dict[str, Any]]:
    """Return JSON values; `[JointErrors(**row) for row in ...]` restores them."""
    return [row._asdict() for row in errors]


def charts(errors: Sequence[JointErrors], num_basis: int | Sequence[int]) -> list[Chart]:
    """Return charts of mean and largest error over the number of bases.

    num_basis: in use, of all joints or of each.
    """
    fitted = [row for row in errors if row.num_basis]
    used = num_basis if isinstance(num_basis, int) else dict(enumerate(num_basis))
    result = []
    for rows in (fitted[i : i + JOINTS] for i in range(0, len(fitted), JOINTS)):
        names = {row.joint: f"joint {row.joint}, with {_of(used, row.joint)}" for row in rows}
        at = {names[row.joint]: float(_of(used, row.joint)) for row in rows}
        for statistic, label in (("mean", "Mean"), ("max", "Largest")):
            lines = {names[r.joint]: _points(r.num_basis, getattr(r, statistic)) for r in rows}
            title = f"{label} error of a chunk, by bases"
            result.append(Chart(title, "bases", "in the joint's units", lines, at))
    return result


def _of(used: int | dict[int, int], joint: int) -> int:
    return used if isinstance(used, int) else used[joint]


def _points(counts: Sequence[int], values: Sequence[float]) -> list[tuple[float, float]]:
    """Return the points of a curve; with as many bases as samples only rounding is left, which is
    set to 0."""
    least = ROUNDING * max(values)
    errors = [value if value > least else 0.0 for value in values]
    return [(float(n), error) for n, error in zip(counts, errors, strict=True)]
