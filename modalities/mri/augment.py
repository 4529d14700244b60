"""Variation of prepared volumes in training: what another scan of the same head would differ by.

Spatial changes move the sample's affine with them, so masks and boxes in mm stay true. There is no
mirror here: left and right are named in labels and texts that are not part of a sample; data that
holds them mirrors both (`source: phantom`, `flip_lr`).

Legend: `C` contrasts, `X Y Z` voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from monai.transforms import GibbsNoise, RandBiasField, RandRicianNoise
from torch import Tensor

from ..base import Sample
from .io import rotation
from .processor import lookup, pull

Share = Annotated[float, Ge(0), Le(1)]


class MRIAugment:
    """rotate: degrees about each axis, at most. scale, shift: share of the size, at most. bias:
    strength of the bias field. gibbs: share of k-space that is cut, at most. noise: Rician, its
    deviation against the body's, at most. drop: share of the contrasts that are left out; one at
    least stays. A value of 0 turns a step off."""

    def __init__(
        self,
        *,
        rotate: Annotated[float, Ge(0), Le(180)] = 8.0,
        scale: Share = 0.08,
        shift: Share = 0.05,
        bias: Share = 0.2,
        gibbs: Share = 0.3,
        noise: Share = 0.1,
        drop: Share = 0.0,
    ) -> None:
        self.rotate, self.scale, self.shift = rotate, scale, shift
        self.bias, self.gibbs, self.noise, self.drop = bias, gibbs, noise, drop

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a varied copy: `volume [C, X, Y, Z]`, `inside`, `contrasts`, `affine` as they
        were."""
        augmented = self._transform(dict(sample), rng)
        augmented["contrasts"] = self._drop_contrasts(sample["contrasts"], rng)
        volume = torch.zeros_like(augmented["volume"])
        steps = self._steps(rng)
        for channel in augmented["contrasts"].nonzero().flatten().tolist():
            volume[channel] = _varied(augmented["volume"][channel], steps)
        augmented["volume"] = volume
        return augmented

    def _transform(self, sample: Sample, rng: np.random.Generator) -> Sample:
        size = sample["inside"].shape
        move = _motion(rng, size, math.radians(self.rotate), self.scale, self.shift)
        if torch.equal(move, torch.eye(4).double()):
            return sample
        eye = torch.eye(4).double()
        grid = lookup(move, tuple(size), eye, tuple(size))
        within = (grid.abs() <= 1 + 1e-6).all(-1)
        sample["volume"] = pull(sample["volume"], grid)
        sample["inside"] = (pull(sample["inside"][None], grid, "nearest")[0] > 0.5) & within
        sample["affine"] = (sample["affine"].double() @ move).float()
        return sample

    def _drop_contrasts(self, contrasts: Tensor, rng: np.random.Generator) -> Tensor:
        present = contrasts.nonzero().flatten().numpy()
        draws = rng.random(len(present))
        is_kept = draws >= self.drop
        is_kept[draws.argmax()] = True
        contrasts_kept = torch.zeros_like(contrasts)
        contrasts_kept[torch.from_numpy(present[is_kept])] = True
        return contrasts_kept

    def _steps(self, rng: np.random.Generator) -> list[Callable[[Tensor], Tensor]]:
        """Return the same for every contrast of a sample: one coil, one noise level."""
        steps: list[Callable[[Tensor], Tensor]] = []
        if self.bias:
            field = RandBiasField(coeff_range=(0.0, self.bias * rng.random()), prob=1.0)
            field.set_random_state(int(rng.integers(2**31)))
            steps.append(lambda image: torch.as_tensor(field(image)))
        if self.gibbs:
            steps.append(GibbsNoise(alpha=float(self.gibbs * rng.random())))
        if self.noise:
            deviation = float(self.noise * rng.random())
            grain = RandRicianNoise(prob=1.0, std=deviation, sample_std=False)
            grain.set_random_state(int(rng.integers(2**31)))
            steps.append(lambda image: torch.as_tensor(grain(image)))
        return steps


def _varied(channel: Tensor, steps: list[Callable[[Tensor], Tensor]]) -> Tensor:
    """Apply steps that take a magnitude image to a channel of scores, and standardize it again."""
    body = channel != 0
    if not steps or int(body.sum()) < 2:
        return channel
    low = channel[body].min()
    image = torch.where(body, channel - low, 0.0)[None]
    for step in steps:
        image = torch.as_tensor(step(image)).as_subclass(Tensor)
    values = image[0][body]
    return torch.where(body, (image[0] - values.mean()) / values.std().clamp(min=1e-6), 0.0)


def _motion(
    rng: np.random.Generator, size: torch.Size, rotate: float, scale: float, shift: float
) -> Tensor:
    """`[4, 4]` a voxel of the new sample -> a voxel of the old, about the middle."""
    angles, sizes = rng.uniform(-rotate, rotate, 3), 1 + rng.uniform(-scale, scale, 3)
    moves = rng.uniform(-shift, shift, 3) * np.array(size)
    middle = (np.array(size) - 1) / 2
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) * sizes
    affine[:3, 3] = middle + moves - affine[:3, :3] @ middle
    return torch.from_numpy(affine)
