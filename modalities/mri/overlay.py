"""Masks, maps and boxes over slices of a volume, in the volume's own voxels.

Legend: `X Y Z` voxels of the volume. A place in voxels is of their centres: the first voxel
reaches from -0.5 to 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image, ImageDraw, ImageFilter

from ..base import Annotations
from .io import read, read_mask
from .processor import lookup, pull

HEIGHT = 180
"""px of a slice on the page."""

COLOURS = {"predicted": (255, 140, 0), "reference": (60, 200, 90)}
NEAR = 2
"""Voxels from a slice within which a place is marked on it."""
FILL = 0.35
"""Opacity of a mask, and of the highest value of a map."""


@dataclass(frozen=True)
class Plane:
    """A slice: the axes that run across and up, the one it is cut from, and the voxel `at`."""

    across: int
    up: int
    through: int
    at: Sequence[int]
    shape: Sequence[int]
    edges: Sequence[float]

    def size(self) -> tuple[int, int]:
        """px of its picture, in the proportions of the body."""
        wide = self.shape[self.across] * self.edges[self.across]
        high = self.shape[self.up] * self.edges[self.up]
        return max(1, round(HEIGHT * wide / high)), HEIGHT

    def picture(self, values: np.ndarray) -> Image.Image:
        """Of uint8 `[X, Y, Z]`, in radiological convention: the side of the patient towards which
        x grows (the right) is on the left."""
        section = values.take(self.at[self.through], axis=self.through)
        turned = np.ascontiguousarray(np.flip(section.T))
        return Image.fromarray(turned).resize(self.size(), Image.Resampling.BILINEAR)

    def point(self, voxel: Sequence[float]) -> tuple[float, float]:
        """px of a place in voxels."""
        wide, high = self.size()
        x = (voxel[self.across] + 0.5) / self.shape[self.across]
        y = (voxel[self.up] + 0.5) / self.shape[self.up]
        return wide * (1 - x), high * (1 - y)


@dataclass(frozen=True)
class Area:
    """who: `predicted` or `reference`. values: `[X, Y, Z]` from 0 to 1. sharp: a mask, with an
    outline."""

    who: str
    values: np.ndarray
    sharp: bool

    @property
    def centre(self) -> list[float] | None:
        voxels = np.argwhere(self.values >= 0.5)
        return voxels.mean(0).tolist() if len(voxels) else None

    def draw(self, picture: Image.Image, plane: Plane) -> Image.Image:
        level = plane.picture((self.values * 255).astype(np.uint8))
        opacity = level.point(lambda value: FILL * value)
        if self.sharp:
            inside = level.point(lambda value: 255 if value >= 128 else 0)
            thin = inside.filter(ImageFilter.MinFilter(3))
            edge = np.asarray(inside) > np.asarray(thin)
            opacity = Image.fromarray(np.where(edge, 255, np.asarray(opacity)).astype(np.uint8))
        colour = Image.new("RGB", picture.size, COLOURS[self.who])
        return Image.composite(colour, picture, opacity)


@dataclass(frozen=True)
class Box:
    """low, high: its corners in voxels."""

    who: str
    low: list[float]
    high: list[float]

    @property
    def centre(self) -> list[float] | None:
        return [(a + b) / 2 for a, b in zip(self.low, self.high, strict=True)]

    def draw(self, picture: Image.Image, plane: Plane) -> Image.Image:
        """Drawn where the slice goes through it."""
        at = plane.at[plane.through]
        if not self.low[plane.through] - 0.5 <= at <= self.high[plane.through] + 0.5:
            return picture
        (right, bottom), (left, top) = plane.point(self.low), plane.point(self.high)
        corners = (round(left), round(top), round(right), round(bottom))
        ImageDraw.Draw(picture).rectangle(corners, outline=COLOURS[self.who], width=2)
        return picture


@dataclass(frozen=True)
class Peak:
    """A place in voxels that was pointed at."""

    who: str
    centre: list[float] | None

    def draw(self, picture: Image.Image, plane: Plane) -> Image.Image:
        """Drawn where the slice is nearest to it."""
        centre = self.centre
        if centre is None or abs(centre[plane.through] - plane.at[plane.through]) > NEAR:
            return picture
        x, y = plane.point(centre)
        pen = ImageDraw.Draw(picture)
        for line in ((x - 7, y, x + 7, y), (x, y - 7, x, y + 7)):
            pen.line(line, fill=COLOURS[self.who], width=2)
        return picture


Shape = Area | Box | Peak


def shapes_of(raw: MetaTensor, marks: Annotations) -> list[Shape]:
    """Return the marks in the volume's voxels; the reference first, so that it lies
    below."""
    drawn: list[Shape] = []
    for who, index in (("reference", 1), ("predicted", 0)):
        annotations = {name: pair[index] for name, pair in marks.items() if pair[index] is not None}
        if "map" in annotations:
            drawn.append(Area(who, _map(annotations["map"], raw), sharp=False))
        if "mask" in annotations:
            drawn.append(Area(who, _resample(read_mask(annotations["mask"]), raw), sharp=True))
        drawn += [_box(who, box, raw) for box in annotations.get("boxes", ()) if len(box) == 6]
        if len(annotations.get("peak", ())) == 3:
            drawn.append(Peak(who, _voxels(np.array([annotations["peak"]]), raw)[0].tolist()))
    return drawn


def middle(drawn: Sequence[Shape], shape: Sequence[int]) -> list[int]:
    """Return the voxel that the slices go through: of the first that is there, or of the volume."""
    centres = [shape_.centre for shape_ in drawn if shape_.centre is not None]
    if not centres:
        return [n // 2 for n in shape]
    return [min(max(round(c), 0), n - 1) for c, n in zip(centres[0], shape, strict=True)]


def _resample(values: MetaTensor, raw: MetaTensor, mode: str = "nearest") -> np.ndarray:
    """Return `[1, U, V, W]` of any grid on the volume's own."""
    mask = values.as_tensor()[0]
    grid = lookup(raw.affine, tuple(raw.shape[1:]), values.affine, tuple(mask.shape))
    resampled: np.ndarray = pull(mask[None].float(), grid, mode)[0].numpy()
    return resampled


def _map(value: Any, raw: MetaTensor) -> np.ndarray:
    level = _resample(read(value), raw, "bilinear")
    low, high = float(level.min()), float(level.max())
    return (level - low) / max(high - low, 1e-12)


def _box(who: str, box: Sequence[float], raw: MetaTensor) -> Box:
    """In voxels: the box around its eight corners."""
    corners = np.array([[box[a], box[1 + b], box[2 + c]] for a, b, c in product((0, 3), repeat=3)])
    voxels = _voxels(corners, raw)
    return Box(who, voxels.min(0).tolist(), voxels.max(0).tolist())


def _voxels(points: np.ndarray, raw: MetaTensor) -> np.ndarray:
    """`[n, 3]` mm -> voxels."""
    inverse = torch.linalg.inv(raw.affine.double()).numpy()
    voxels: np.ndarray = points @ inverse[:3, :3].T + inverse[:3, 3]
    return voxels
