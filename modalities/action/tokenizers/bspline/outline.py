"""What a trajectory is made of, a joint at a time: its curve, knots and control points.

A decoded trajectory lies in the space of its joint's splines, so its samples determine the control
points exactly: nothing else of the prediction is needed.

Legend: `N` bases, `S` samples, `F` places of a fine grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..base import Outline
from .basis import basis, greville, knots, phases
from .least_squares import Curve

FINE = 8
"""Places between two samples at which a curve is drawn."""


def outlines(joints: Sequence[Curve | int], actions: np.ndarray) -> list[Outline | None]:
    """Of `[S, dof]`, a joint each; None where the samples are too few for the curve. Empty
    for joints of another robot."""
    if len(joints) != actions.shape[1]:
        return []
    return [_outline(joint, actions[:, d]) for d, joint in enumerate(joints)]


def _outline(joint: Curve | int, samples: np.ndarray) -> Outline | None:
    if not isinstance(joint, Curve):
        return _steps(samples)
    count, degree = joint.num_basis, joint.degree
    steps = len(samples)
    if steps < max(count, 2):
        return None
    points = np.linalg.lstsq(basis(phases(steps), count, degree), samples, rcond=None)[0]
    fine = phases((steps - 1) * FINE + 1)
    ends = np.unique(knots(count, degree))
    at = greville(count, degree) if degree else (ends[:-1] + ends[1:]) / 2
    return Outline(
        _pairs(fine, basis(fine, count, degree) @ points),
        _pairs(ends, basis(ends, count, degree) @ points),
        _pairs(at, points),
    )


def _steps(samples: np.ndarray) -> Outline:
    """Two states, and knots where they switch: half-way between two samples."""
    at, flips = phases(len(samples)), np.flatnonzero(np.diff(samples))
    between = (at[flips] + at[flips + 1]) / 2
    x = np.concatenate([at[:1], np.repeat(between, 2), at[-1:]])
    y = np.concatenate([samples[:1], np.repeat(samples[flips + 1], 2), samples[-1:]])
    y[1:-1:2] = samples[flips]
    return Outline(_pairs(x, y), _pairs(between, samples[flips]), np.zeros((0, 2)))


def _pairs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([x, y], axis=1)
