"""Motions -> normalised values, and a small disturbance for training.

Legend: `steps` of time, `dof` joints.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..base import Processor, ReadError, Sample
from .normalizer import Normalizer
from .read import Motion


class MotionProcessor(Processor):
    """`{"values": float32 [steps, dof]}`, normalised. Another number of joints than the
    normalizer was fitted on is a ReadError."""

    def __init__(self, normalizer: Normalizer) -> None:
        self.normalizer = normalizer

    def prepare(self, raw: Motion) -> Sample:
        if raw.dof != self.normalizer.dof:
            raise ReadError(
                raw.values,
                f"{raw.dof} joints a step",
                f"{self.normalizer.dof}, as in the data that it was fitted on",
            )
        return {"values": torch.from_numpy(self.normalizer.encode(raw.values))}

    def settings(self) -> dict[str, Any]:
        state = self.normalizer.state()
        learned = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in state.items()}
        return {"clip": self.normalizer.clip, **learned}


class Noise:
    """Gaussian noise on every value: `std` is in deviations (or half ranges) of the joints.

    shift: deviation of a further offset that all steps of a sample share, as of a sensor that
    is not calibrated.
    """

    def __init__(self, *, std: float = 0.05, shift: float = 0.0) -> None:
        if std < 0 or shift < 0:
            raise ValueError(f"augment: std {std}, shift {shift}; deviations are not negative")
        self.std, self.shift = std, shift

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """A new sample; the same generator state gives the same values."""
        values = sample["values"]  # [steps, dof]
        grain = self.std * rng.standard_normal(values.shape)
        grain += self.shift * rng.standard_normal(values.shape[1])
        return {**sample, "values": values + torch.from_numpy(grain).to(values.dtype)}
