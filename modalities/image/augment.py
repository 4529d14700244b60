"""Augmentation of prepared pictures: small moves, light, noise and holes, from one generator.

Legend: `C` channels, `H` height, `W` width. Values are normalised, so that brightness and noise
are in deviations of the training set of the weights.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import TO_SOURCE, NonNegativeFloat, Sample
from .geometry import flipped, moved


class ImageAugment:
    """New values for `pixel_values [C, H, W]`, at random; options of 0 or false are off.

    flip: mirror half of the pictures (not where left and right, or letters, matter).
    shift: largest move, as a share of a side. rotate: largest turn in degrees. scale: largest
    change of size, 0.1 for 0.9 to 1.1. brightness: largest offset. contrast: largest change of
    the factor. noise: deviation of the noise added to each value. erase: chance that a rectangle
    of up to a third of each side is blanked. Borders are repeated where a move uncovers them. The
    sample's matrix to the source moves along, so that boxes and masks stay true.
    """

    def __init__(
        self,
        *,
        flip: bool = False,
        shift: NonNegativeFloat = 0.0,
        rotate: NonNegativeFloat = 0.0,
        scale: NonNegativeFloat = 0.0,
        brightness: NonNegativeFloat = 0.0,
        contrast: NonNegativeFloat = 0.0,
        noise: NonNegativeFloat = 0.0,
        erase: NonNegativeFloat = 0.0,
    ) -> None:
        if not (0 <= shift < 1 and 0 <= scale < 1 and 0 <= erase <= 1):
            raise ValueError(
                f"augment: shift {shift}, scale {scale}, erase {erase}; shares lie within 0 and 1"
            )
        if min(rotate, brightness, contrast, noise) < 0:
            raise ValueError("augment: rotate, brightness, contrast and noise are not negative")
        self.flip, self.shift, self.rotate, self.scale = flip, shift, rotate, scale
        self.brightness, self.contrast, self.noise = brightness, contrast, noise
        self.erase = erase

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a new sample; equal generator states give equal values."""
        picture, to_source = sample["pixel_values"], sample.get(TO_SOURCE)
        if picture.ndim != 3:
            raise ValueError(
                f"augment: wants pixel_values [C, H, W], found {tuple(picture.shape)}; "
                "this encoder's processor cuts patches itself, take augment out"
            )
        if self.flip and rng.random() < 0.5:
            picture = picture.flip(-1)
            to_source = None if to_source is None else flipped(to_source, picture.shape[2])
        if self.shift or self.rotate or self.scale:
            theta = self._motion(picture, rng)
            picture = _move(picture, theta)
            if to_source is not None:
                to_source = moved(to_source, theta, (picture.shape[1], picture.shape[2]))
        if self.contrast or self.brightness:
            factor = 1 + rng.uniform(-self.contrast, self.contrast)
            picture = picture * factor + rng.uniform(-self.brightness, self.brightness)
        if self.noise:
            grain = rng.standard_normal(picture.shape, dtype=np.float32)
            picture = picture + self.noise * torch.from_numpy(grain).to(picture.dtype)
        if self.erase and rng.random() < self.erase:
            picture = _blank(picture, rng)
        matrix = {} if to_source is None else {TO_SOURCE: to_source}
        return {**sample, "pixel_values": picture, **matrix}

    def _motion(self, picture: Tensor, rng: np.random.Generator) -> Tensor:
        """Return `[2, 3]`, a turn, a change of size and a shift, for `affine_grid` (from -1 to
        1)."""
        angle = math.radians(rng.uniform(-self.rotate, self.rotate))
        size = 1 + rng.uniform(-self.scale, self.scale)
        dx, dy = 2 * rng.uniform(-self.shift, self.shift, 2)
        height, width = picture.shape[1:]
        cos, sin, aspect = math.cos(angle) / size, math.sin(angle) / size, height / width
        matrix = [[cos, -sin * aspect, float(dx)], [sin / aspect, cos, float(dy)]]
        return torch.tensor(matrix, dtype=picture.dtype)


def _move(picture: Tensor, theta: Tensor) -> Tensor:
    """Sample a picture `[C, H, W]` once, bilinearly."""
    grid = F.affine_grid(theta[None], [1, *picture.shape], align_corners=False)
    return F.grid_sample(picture[None], grid, padding_mode="border", align_corners=False)[0]


def _blank(picture: Tensor, rng: np.random.Generator) -> Tensor:
    height, width = picture.shape[1:]
    h, w = (int(rng.integers(1, max(2, side // 3 + 1))) for side in (height, width))
    top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    picture = picture.clone()
    picture[:, top : top + h, left : left + w] = 0.0
    return picture
