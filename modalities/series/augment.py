"""Augmentation of prepared series.

Legend: `C` channels, `N` samples.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import Count, NonNegativeFloat, Probability, Sample

FASTEST = 0.5
"""The largest change of speed."""


class SeriesAugment:
    """New values for `values [C, N]` and `mask [C, N]`, at random; options of 0 are off.

    In this order: speed: largest change of the number of samples, 0.1 for 0.9 to 1.1. noise:
    deviation of white noise, gain and shift: those of a factor and of an offset of each channel,
    all in deviations of the normalized values. time_masks, time_width: number of gaps, and the
    widest as a share of the samples. drop_channel: share of the channels that go missing; one is
    always left.
    """

    def __init__(
        self,
        *,
        speed: NonNegativeFloat = 0.0,
        noise: NonNegativeFloat = 0.0,
        gain: NonNegativeFloat = 0.0,
        shift: NonNegativeFloat = 0.0,
        time_masks: Count = 0,
        time_width: Probability = 0.1,
        drop_channel: Probability = 0.0,
    ) -> None:
        if not 0 <= speed <= FASTEST:
            raise ValueError(f"speed: found {speed}, expected 0 to {FASTEST}")
        for name, value in (("noise", noise), ("gain", gain), ("shift", shift)):
            if value < 0:
                raise ValueError(f"{name}: found {value}, expected 0 or more")
        for name, share in (("time_width", time_width), ("drop_channel", drop_channel)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name}: found {share}, expected a share from 0 to 1")
        self.speed, self.noise, self.gain, self.shift = speed, noise, gain, shift
        self.time_masks, self.time_width, self.drop_channel = time_masks, time_width, drop_channel

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a new sample; equal generator states give equal values."""
        if "values" not in sample or sample["values"].ndim != 2:
            shapes = ", ".join(f"{k} {tuple(v.shape)}" for k, v in sample.items())
            raise ValueError(f"augment: found samples of {shapes}, expected values [C, N]")
        values, mask = sample["values"], sample["mask"]
        if self.speed:
            values, mask = _resampled(values, mask, 1 + rng.uniform(-self.speed, self.speed))
        channels, steps = values.shape
        factor = 1 + self.gain * rng.standard_normal((channels, 1))
        offset = self.shift * rng.standard_normal((channels, 1))
        grain = self.noise * rng.standard_normal((channels, steps))
        values = values * _like(factor, values) + _like(offset + grain, values)
        mask = mask.clone()
        for _ in range(self.time_masks):
            width = int(rng.integers(0, int(steps * self.time_width) + 1))
            first = int(rng.integers(0, steps - width + 1))
            if mask[:, :first].any() or mask[:, first + width :].any():
                mask[:, first : first + width] = False
        dropped = rng.random(channels) < self.drop_channel
        measured = np.flatnonzero(mask.any(1).numpy())
        if dropped[measured].all():
            dropped[rng.choice(measured)] = False
        mask[torch.from_numpy(dropped)] = False
        return {**sample, "values": values.masked_fill(~mask, 0), "mask": mask}


def _like(array: np.ndarray, values: Tensor) -> Tensor:
    return torch.from_numpy(array).to(values.dtype)


def _resampled(values: Tensor, mask: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Return `[C, round(N * factor)]`, linear between samples; a mask by the nearest one."""
    steps = max(2, round(values.shape[1] * factor))
    stretched = F.interpolate(values[None], size=steps, mode="linear", align_corners=False)[0]
    kept = F.interpolate(mask[None].to(values.dtype), size=steps, mode="nearest")[0] > 0
    return stretched, kept
