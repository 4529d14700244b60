"""The matrices of a layout's curves, one above the other, kept for each length, padding, device.

Legend: `R` free control points of all curves, `A` all of them, `C` conditions, `S` places,
`U` patterns of padding.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
import torch
from torch import Tensor

from .basis import basis
from .layout import Layout
from .least_squares import solve, warn

KEPT = 512
"""Matrices that are kept; the longest unused goes first."""


class SplineMatrices:
    """Everything linear about a tokenizer: samples to control points, and back."""

    def __init__(self, layout: Layout, conditions: int, ridge: float) -> None:
        self.layout, self.conditions, self.ridge = layout, conditions, ridge
        self._kept: OrderedDict[Hashable, tuple[np.ndarray, ...]] = OrderedDict()
        self._tensors: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()

    def solver(self, steps: int, real: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return `[R, steps]` and `[R, C]`; with padding `[B, R, steps]` and `[B, R, C]`."""
        if real is None:
            mask = np.ones(steps, bool)
            points, shift = self._cast(("solve", steps), lambda: self._solved(mask), like)
            return points, shift
        patterns, which = torch.unique(real, dim=0, return_inverse=True)
        solutions = [self._padded(pattern, like) for pattern in patterns.cpu().numpy()]
        points, shift = (torch.stack(each)[which] for each in zip(*solutions, strict=True))
        return points, shift

    def curve(self, phase: np.ndarray, derivative: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return `[S, A]` the bases at places in [0, 1], and `[A, C]` what conditions decide."""
        key = ("basis", derivative, phase.tobytes())
        bases, conditioned = self._cast(key, lambda: self._evaluated(phase, derivative), like)
        return bases, conditioned

    def _padded(self, pattern: np.ndarray, like: Tensor) -> tuple[Tensor, ...]:
        return self._cast(("solve", pattern.tobytes()), lambda: self._solved(pattern), like)

    def _cast(
        self, key: Hashable, make: Callable[[], tuple[np.ndarray, ...]], like: Tensor
    ) -> tuple[Tensor, ...]:
        """float64 is made once, and cast once for a device and a precision."""
        tensor_key = (key, like.device, like.dtype)
        if tensor_key not in self._tensors:
            if key not in self._kept:
                self._kept[key] = make()
            self._tensors[tensor_key] = tuple(
                torch.as_tensor(array, device=like.device, dtype=like.dtype)
                for array in self._kept[key]
            )
        for cache, used in ((self._kept, key), (self._tensors, tensor_key)):
            cache.move_to_end(used)
            while len(cache) > KEPT:
                cache.popitem(last=False)
        return self._tensors[tensor_key]

    def _solved(self, real: np.ndarray) -> tuple[np.ndarray, ...]:
        points, shifts = [np.zeros((0, len(real)))], [np.zeros((0, self.conditions))]
        for curve in self.layout.curves:
            solution = solve(curve, real, self.ridge)
            if real.all():
                warn(curve, len(real), solution.condition)
            points.append(solution.points)
            shifts.append(self._wide(solution.shift))
        return np.concatenate(points), np.concatenate(shifts)

    def _evaluated(self, phase: np.ndarray, derivative: int) -> tuple[np.ndarray, ...]:
        bases, conditioned = [np.zeros((len(phase), 0))], [np.zeros((0, self.conditions))]
        for curve in self.layout.curves:
            bases.append(basis(phase, curve.num_basis, curve.degree, derivative))
            conditioned.append(self._wide(curve.conditioned()))
        return np.concatenate(bases, axis=1), np.concatenate(conditioned)

    def _wide(self, matrix: np.ndarray) -> np.ndarray:
        """Return zeros in the columns of a step-like joint, which has no conditions."""
        wide = np.zeros((len(matrix), self.conditions))
        wide[:, : matrix.shape[1]] = matrix
        return wide
