"""Clamped uniform B-splines over a chunk, in float64 (BEAST, arXiv 2506.06072).

`y(u) = sum_n c_n Phi_n(u)`, u in [0, 1]: sample 0 of a chunk lies at 0, the last at 1, where
the curve equals its first and last control point.

Legend: `N` bases, `S` places `u`.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import BSpline


def phases(steps: int) -> np.ndarray:
    """`[steps]` where the samples of a chunk lie, in [0, 1]."""
    return np.arange(steps) / max(steps - 1, 1)


def knots(num_basis: int, degree: int) -> np.ndarray:
    """`[N + degree + 1]`: `degree` zeros, the uniform pieces' ends, `degree` ones."""
    pieces = num_basis - degree
    # A division for each, as in `phases`: equal fractions are equal numbers.
    return np.concatenate([np.zeros(degree), np.arange(pieces + 1) / pieces, np.ones(degree)])


def greville(num_basis: int, degree: int) -> np.ndarray:
    """`[N]` the control points of `y(u) = u`: means of `degree` neighbouring knots."""
    ends = knots(num_basis, degree)
    return np.stack([ends[i + 1 : i + 1 + degree].mean() for i in range(num_basis)])


def basis(u: np.ndarray, num_basis: int, degree: int, derivative: int = 0) -> np.ndarray:
    """Return the design matrix `[S, N]` at `u`, or its derivative by `u`."""
    # As `BSpline.design_matrix`, which has no derivatives and makes a sparse matrix first.
    splines = BSpline(knots(num_basis, degree), np.eye(num_basis), degree)
    values: np.ndarray = splines(u, derivative)
    return values
