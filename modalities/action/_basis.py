"""Clamped uniform B-splines over a chunk, in float64 (BEAST, arXiv 2506.06072).

`y(u) = sum_n c_n Phi_n(u)`, u in [0, 1]: sample 0 of a chunk lies at 0, the last at 1.
Cox-de Boor; the last piece is closed on the right, so that `y(1)` is the last control point.

Legend: `N` bases, `S` places `u`.
"""

from __future__ import annotations

import numpy as np


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
    """`[S, N]` the bases at `u`, or their derivatives by `u`."""
    if derivative > degree:
        return np.zeros((len(u), num_basis))
    ends = knots(num_basis, degree)
    found = _pieces(u, ends)
    for order in range(1, degree - derivative + 1):
        found = _raised(u, ends, found, order)
    for order in range(degree - derivative + 1, degree + 1):
        found = _derived(ends, found, order)
    return found


def _pieces(u: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Degree 0: 1 in the piece that holds `u`, `[S, knots - 1]`."""
    last = int(np.searchsorted(ends, 1.0)) - 1
    place = np.clip(np.searchsorted(ends, u, side="right") - 1, 0, last)
    found = np.zeros((len(u), len(ends) - 1))
    found[np.arange(len(u)), place] = 1.0
    return found


def _raised(u: np.ndarray, ends: np.ndarray, low: np.ndarray, order: int) -> np.ndarray:
    """From degree `order - 1` to `order`; a term over an empty span is zero."""
    before, after = low[:, :-1], low[:, 1:]
    left = (u[:, None] - ends[: -order - 1]) * _inverse(ends, order)[:-1]
    right = (ends[order + 1 :] - u[:, None]) * _inverse(ends, order)[1:]
    return left * before + right * after


def _derived(ends: np.ndarray, low: np.ndarray, order: int) -> np.ndarray:
    """The derivative of degree `order` from values (or derivatives) of `order - 1`."""
    scaled: np.ndarray = order * low * _inverse(ends, order)
    return scaled[:, :-1] - scaled[:, 1:]


def _inverse(ends: np.ndarray, order: int) -> np.ndarray:
    """`1 / (k[i + order] - k[i])`, and 0 where the span is empty."""
    spans = ends[order:] - ends[:-order]
    return np.divide(1.0, spans, out=np.zeros_like(spans), where=spans > 0)
