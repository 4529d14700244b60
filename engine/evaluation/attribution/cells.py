"""The cells of a sample that a map gives values to: patches, voxels, frames, knots.

Legend: `C` channels, `K` cells.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ....modalities.base import Encoder, Features
from .scorer import Place, Scorer

MAX_CHANNELS = 4
"""An axis of at most this size is taken for the channels of a picture or volume."""


@dataclass(frozen=True)
class Cells:
    """How a tensor falls into cells.

    place: of the tensor. axes: its axes (without the batch's) that the cells lie along. grid: cells
    along each of them. bounds: of each axis the first element of each cell, and the end.
    """

    place: Place
    axes: tuple[int, ...]
    grid: tuple[int, ...]
    bounds: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return math.prod(self.grid)

    def slices(self) -> Iterator[tuple[slice, ...]]:
        """Yield the part of the axes that each cell covers, in the order of the grid."""
        for index in itertools.product(*(range(n) for n in self.grid)):
            yield tuple(slice(b[i], b[i + 1]) for b, i in zip(self.bounds, index, strict=True))

    def index(self, part: tuple[slice, ...], ndim: int) -> tuple[slice, ...]:
        """Return the part as an index of the whole tensor of `ndim` axes."""
        result = [slice(None)] * ndim
        for axis, span in zip(self.axes, part, strict=True):
            result[axis] = span
        return tuple(result)

    def replaced(self, value: Tensor, other: Tensor, chosen: Sequence[int]) -> Tensor:
        """Return a tensor with the chosen cells taken from another one."""
        result, parts = value.clone(), list(self.slices())
        for cell in chosen:
            where = self.index(parts[cell], value.ndim)
            result[where] = other[where]
        return result

    def sums(self, values: Tensor) -> np.ndarray:
        """Return `grid` sums of a tensor over each cell, channels included."""
        parts = (float(values[self.index(p, values.ndim)].sum()) for p in self.slices())
        return np.fromiter(parts, np.float64, len(self)).reshape(self.grid)

    def background(self, value: Tensor) -> np.ndarray:
        """Return the tensor along the cells' axes, the mean over the others."""
        others = [axis for axis in range(value.ndim) if axis not in self.axes]
        mean = value.float().mean(others) if others else value.float()
        return mean.cpu().numpy()


def find_cells(scorer: Scorer, stream: str, cells: int | None = None) -> Cells:
    """Return the cells of a stream's signal: those of its encoder's tokens, if they have a grid.

    cells: how many along each axis instead. Raise ValueError if the stream reads ids.
    """
    inputs = scorer.batch.streams[stream]["main"]
    signals = {
        name: value
        for name, value in inputs.items()  # type: ignore[union-attr]
        if torch.is_tensor(value) and value.is_floating_point()
    }
    if not signals:
        raise ValueError(f"{stream}: is no signal of numbers; a text is explained by reagent")
    name = max(signals, key=lambda key: signals[key].numel())
    shape = tuple(signals[name].shape[1:])
    features = scorer.features(stream)
    encoder = scorer.model.stream(stream).encoder
    axes = signal_axes(shape, features, encoder.time_inputs.get(name), encoder)
    grid = features.grid if features.grid and len(features.grid) == len(axes) else None
    sizes = [min(shape[axis], cells or (grid[i] if grid else 16)) for i, axis in enumerate(axes)]
    bounds = [
        tuple(round(i * shape[axis] / n) for i in range(n + 1))
        for axis, n in zip(axes, sizes, strict=True)
    ]
    return Cells((stream, name), axes, tuple(sizes), tuple(bounds))


def signal_axes(
    shape: Sequence[int], features: Features, steps: int | None, encoder: Encoder
) -> tuple[int, ...]:
    """Return the axes of a sample that are time or space: all but the channels."""
    if steps is not None:
        return (0,)
    count = len(features.grid) if features.grid is not None else max(1, len(shape) - 1)
    if len(shape) <= count:
        return tuple(range(len(shape)))
    if count == 1:  # frames: the axis whose length is nearest a multiple of the tokens
        tokens = features.tokens.shape[1]
        remainder = [min(n % tokens, -n % tokens) / n if n >= tokens else 1.0 for n in shape]
        return (min(range(len(shape)), key=lambda axis: (remainder[axis], -shape[axis])),)
    channels = [axis for axis, n in enumerate(shape) if n <= MAX_CHANNELS]
    removed = (channels + [axis for axis in range(len(shape)) if axis not in channels])[
        : len(shape) - count
    ]
    return tuple(axis for axis in range(len(shape)) if axis not in removed)
