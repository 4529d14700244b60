"""Clamped uniform B-splines over a chunk, in float64 (BEAST, arXiv 2506.06072).

`y(u) = sum_n c_n Phi_n(u)`, u in [0, 1]: sample 0 of a chunk lies at 0, the last at 1, where
the curve equals its first and last control point.

Legend: `N` bases, `S` positions `u`.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import BSpline


def phases(steps: int) -> np.ndarray:
    """Return `[steps]`, the positions of a chunk's samples in [0, 1]."""
    return np.arange(steps) / max(steps - 1, 1)


def knots(num_basis: int, degree: int) -> np.ndarray:
    """Return `[N + degree + 1]`: `degree` zeros, the ends of the uniform pieces, `degree` ones."""
    pieces = num_basis - degree
    # Divided one by one, as in `phases`, so that equal fractions are equal numbers.
    return np.concatenate([np.zeros(degree), np.arange(pieces + 1) / pieces, np.ones(degree)])


def greville(num_basis: int, degree: int) -> np.ndarray:
    """Return `[N]`, the control points of `y(u) = u`: means of `degree` neighbouring knots."""
    ends = knots(num_basis, degree)
    return np.stack([ends[i + 1 : i + 1 + degree].mean() for i in range(num_basis)])


def basis(u: np.ndarray, num_basis: int, degree: int, derivative: int = 0) -> np.ndarray:
    """Return the design matrix `[S, N]` at `u`, or its derivative by `u`."""
    # As `BSpline.design_matrix`, which has no derivatives and returns a sparse matrix.
    splines = BSpline(knots(num_basis, degree), np.eye(num_basis), degree)
    values: np.ndarray = splines(u, derivative)
    return values
