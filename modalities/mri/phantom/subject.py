"""One subject of the phantom: its labels, and how its head differs from the template.

Everything is drawn from (seed, split, subject), the lesion first, so that nothing about a series
can derive from a label. Coordinates in mm, RAS: +x is the patient's right.

Legend: `N` points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..io import rotation
from .anatomy import OFF_MIDLINE, Anatomy

CELLS = (5, 6, 5)
"""Of the lattice of random displacements."""
REACH = 110.0
"""mm from the middle to the lattice's border."""
VENTRICLE = (14.0, -18.0, 14.0)
FRONTAL, OCCIPITAL = (26.0, 62.0, 4.0), (24.0, -96.0, 2.0)
CAPSULE, CAPSULE_RADIUS = (80.0, -8.0, -4.0), 7.0


@dataclass(frozen=True)
class Lesion:
    """side: left or right. centre: mm in the template, RAS. diameter: mm in the subject."""

    side: str
    region: str
    centre: tuple[float, float, float]
    diameter: float


@dataclass(frozen=True)
class Subject:
    """ventricles: scale of the left and the right one. bulges: mm at the right frontal and the
    left occipital pole. scale: of the whole head. noise: deviation against the brightest value.
    mirrored: everything lies on the other side, names and all. seed: of the rest."""

    lesion: Lesion | None
    ventricles: tuple[float, float]
    bulges: tuple[float, float]
    scale: float
    capsule: bool
    noise: float
    mirrored: bool
    seed: int

    @property
    def ventricle(self) -> float:
        return sum(self.ventricles) / 2


def draw(rng: np.random.Generator, anatomy: Anatomy, healthy: float, flip_lr: bool) -> Subject:
    lesion = _lesion(rng, anatomy) if rng.random() >= healthy else None
    ventricle, asymmetry = rng.uniform(0.75, 1.5), rng.uniform(0.04, 0.1)
    mirrored = bool(flip_lr and rng.random() < 0.5)
    if mirrored and lesion is not None:
        side = "left" if lesion.side == "right" else "right"
        lesion = Lesion(side, lesion.region, lesion.centre, lesion.diameter)
    return Subject(
        lesion,
        (ventricle + asymmetry, ventricle - asymmetry),
        (rng.uniform(3, 6), rng.uniform(3, 6)),
        rng.uniform(0.92, 1.06),
        bool(rng.random() < 0.5),
        rng.uniform(0.008, 0.03),
        mirrored,
        int(rng.integers(2**62)),
    )


def _lesion(rng: np.random.Generator, anatomy: Anatomy) -> Lesion:
    region = str(rng.choice(sorted(anatomy.places)))
    candidates = anatomy.places[region]
    x, y, z = candidates[rng.integers(len(candidates))] + rng.normal(0, 2, 3)
    x = max(float(x), OFF_MIDLINE)
    side = "right" if rng.random() < 0.5 else "left"
    diameter = float(round(rng.uniform(14, min(30, 1.6 * x + 6))))
    centre = (x if side == "right" else -x, float(y), float(z))
    return Lesion(side, region, centre, diameter)


class Warp:
    """World places of a subject -> the template's: pose, scale, ventricles, bulges, and a smooth
    random field."""

    def __init__(self, subject: Subject, pose: np.random.Generator) -> None:
        rng = np.random.default_rng(subject.seed)
        self.subject = subject
        self.field = torch.from_numpy(rng.normal(0, 2.0, (1, 3, *CELLS))).float()
        self.turn = torch.from_numpy(rotation(pose.normal(0, 0.05, 3))).float()
        self.shift = torch.from_numpy(pose.normal(0, 2.0, 3)).float()

    def __call__(self, points: Tensor) -> Tensor:
        """`[..., 3]` mm in the scanner -> `[..., 3]` mm in the template."""
        warped = (points - self.shift) @ self.turn / self.subject.scale
        if self.subject.mirrored:
            warped = warped * warped.new_tensor([-1.0, 1.0, 1.0])
        warped = warped - self._bulge(warped)
        warped = warped + self._ventricles(warped)
        return warped + self._random(warped)

    def _bulge(self, points: Tensor) -> Tensor:
        """Right in front and left behind, as in most people (the Yakovlevian torque)."""
        front, back = self.subject.bulges
        right = points.new_tensor(FRONTAL)
        left = points.new_tensor(OCCIPITAL) * points.new_tensor([-1.0, 1.0, 1.0])
        ahead = points.new_tensor([0.25, 1.0, 0.0])
        return near(points, right, 26.0) * front * ahead - near(points, left, 26.0) * back * ahead

    def _ventricles(self, points: Tensor) -> Tensor:
        shift = torch.zeros_like(points)
        for sign, scale in zip((-1.0, 1.0), self.subject.ventricles, strict=True):
            centre = points.new_tensor(VENTRICLE) * points.new_tensor([sign, 1.0, 1.0])
            shift += near(points, centre, 27.0) * (centre - points) * (1 - 1 / scale)
        return shift

    def _random(self, points: Tensor) -> Tensor:
        grid = (points / REACH).flip(-1).reshape(1, -1, 1, 1, 3)
        shift = F.grid_sample(self.field, grid, padding_mode="border", align_corners=True)
        return shift.reshape(3, -1).T.reshape(points.shape)


def near(points: Tensor, centre: Tensor, width: float) -> Tensor:
    """Return `[..., 1]` 1 at the centre, falling off over `width` mm."""
    return (-((points - centre) ** 2).sum(-1, keepdim=True) / (2 * width**2)).exp()
