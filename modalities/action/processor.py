"""Normalization of motions, with augmentation in training.

Legend: `steps` of time, `dof` joints.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..base import Processor, ReadError, Sample
from .normalizer import Normalizer
from .read import Trajectory


class MotionProcessor(Processor):
    """`{"values": float32 [steps, dof]}`, normalised. Another number of joints than the
    normalizer was fitted on is a ReadError."""

    def __init__(self, normalizer: Normalizer) -> None:
        self.normalizer = normalizer

    def prepare(self, raw: Trajectory) -> Sample:
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
