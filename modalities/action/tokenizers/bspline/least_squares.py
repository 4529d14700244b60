"""Least squares by precomputed matrices, in float64, for every kind of curve.

A curve has `N` control points and a degree. The first `start` and the last `end` of them follow
from conditions (order 1: the position; 2: position and velocity), the rest from the samples:

    free control points = points @ samples + shift @ conditions

Padded samples are ignored. Control points that the others do not determine follow their neighbours:
of all solutions, the one with the smallest steps between them.

Legend: `N` control points, `F` of them free, `C = start + end` conditions, a row for each.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from .basis import basis, phases

CONDITION = 1e4
"""Above this a change of a sample moves control points by far more than itself."""

DETERMINED = 1e-3
"""Smaller singular values, as a fraction of the largest, count as undetermined beside padding."""


class Curve(NamedTuple):
    """The number of control points and the degree of some joints, which determine their
    matrices."""

    num_basis: int
    degree: int
    start: int = 0
    end: int = 0

    @property
    def free(self) -> slice:
        """The number of control points that are fitted to samples."""
        return slice(self.start, self.num_basis - self.end)

    @property
    def least(self) -> int:
        """The smallest `num_basis` of this degree with these conditions."""
        return max(self.degree + 1, self.start + self.end + 1)

    def conditioned(self) -> np.ndarray:
        """Return `[N, C]`, the control points that conditions determine; rows of zeros for the free
        ones.

        `c_1 - c_0 = v (k_{degree+1} - k_1) / degree`, and the same at the other end.
        """
        matrix = np.zeros((self.num_basis, self.start + self.end))
        reach = 1.0 / (self.degree * (self.num_basis - self.degree)) if self.degree else 0.0
        if self.start:
            matrix[: self.start, 0] = 1.0
        if self.start > 1:
            matrix[1, 1] = reach
        if self.end:
            matrix[-self.end :, self.start] = 1.0
        if self.end > 1:
            matrix[-2, self.start + 1] = -reach
        return matrix


class LeastSquaresSolution(NamedTuple):
    """points `[F, steps]`, shift `[F, C]`, and the condition of the system."""

    points: np.ndarray
    shift: np.ndarray
    condition: float


def solve(curve: Curve, real: np.ndarray, ridge: float = 0.0) -> LeastSquaresSolution:
    """Return the matrices for chunks whose samples are real where `real [steps]` is True."""
    bases = basis(phases(len(real)), curve.num_basis, curve.degree)  # [steps, N]
    conditioned = bases @ curve.conditioned()  # [steps, C]
    used = bases[real][:, curve.free]
    if ridge:
        used = np.concatenate([used, np.sqrt(ridge) * np.eye(used.shape[1])])
    singular = np.linalg.svd(used, compute_uv=False)
    condition = float(singular[0] / singular[-1]) if singular[-1] > 0 else float("inf")
    if real.all():
        points = _inverse(used, real, 1e-15)
        return LeastSquaresSolution(points, -points @ conditioned, condition)
    points = _inverse(used, real, DETERMINED)
    follow = _neighbours(used, curve)  # [F, N - 1]
    steps = np.diff(np.eye(curve.num_basis), axis=0)  # [N - 1, N]
    points = points - follow @ steps[:, curve.free] @ points
    return LeastSquaresSolution(
        points, -points @ conditioned - follow @ steps @ curve.conditioned(), condition
    )


def _inverse(used: np.ndarray, real: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the pseudo-inverse `[F, steps]`, with columns of zeros for padding."""
    inverse = np.zeros((used.shape[1], len(real)))
    inverse[:, real] = np.linalg.pinv(used, rcond=tolerance)[:, : int(real.sum())]
    return inverse


def _neighbours(used: np.ndarray, curve: Curve) -> np.ndarray:
    """Return the map from steps between control points to corrections of the undetermined ones."""
    _, singular, right = np.linalg.svd(used)
    rank = int((singular > DETERMINED * singular[0]).sum())
    loose = right[rank:].T  # [F, F - kept]
    steps = np.diff(np.eye(curve.num_basis), axis=0)[:, curve.free]
    following: np.ndarray = loose @ np.linalg.pinv(steps @ loose)
    return following


def warn(curve: Curve, steps: int, condition: float) -> None:
    """Warn that a fit is badly conditioned."""
    if condition > CONDITION:
        warnings.warn(
            f"num_basis: {curve.num_basis} bases of degree {curve.degree} on {steps} steps have "
            f"condition {condition:.0e}, above {CONDITION:.0e}: noise in an action moves its "
            "tokens much further; use fewer bases, or a ridge",
            stacklevel=4,
        )
