"""Augmentation of states and actions."""

from __future__ import annotations

import numpy as np
import torch

from ..base import NonNegativeFloat, Sample


class Noise:
    """Gaussian noise on every value: `std` is in deviations (or half ranges) of the joints.

    shift: deviation of a further offset that all steps of a sample share, as of an
    uncalibrated sensor.
    """

    def __init__(self, *, std: NonNegativeFloat = 0.05, shift: NonNegativeFloat = 0.0) -> None:
        if std < 0 or shift < 0:
            raise ValueError(f"augment: std {std}, shift {shift}; deviations are not negative")
        self.std, self.shift = std, shift

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a new sample; equal generator states give equal values."""
        values = sample["values"]  # [steps, dof]
        grain = self.std * rng.standard_normal(values.shape)
        grain += self.shift * rng.standard_normal(values.shape[1])
        return {**sample, "values": values + torch.from_numpy(grain).to(values.dtype)}
