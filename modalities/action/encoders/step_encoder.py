"""What encoders of motions share: padded values of any number of steps, and position embeddings.

Legend: `B` batch, `T` steps (tokens), `dof` joints, `D` width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...base import Encoder, Sample
from ..normalizer import Normalizer
from ..processor import MotionProcessor


class StepEncoder(Encoder):
    """One token a step. normalizer: fitted before; it holds the number of joints."""

    def __init__(self, normalizer: Normalizer, dim: int) -> None:
        super().__init__()
        if not normalizer.dof:
            raise ValueError("normalizer: is not fitted, so that the number of joints is unknown")
        if dim < 2 or dim % 2:
            raise ValueError(f"dim: found {dim}, expected an even width of at least 2")
        self.dim = dim
        self.processor = MotionProcessor(normalizer)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return values `[B, T, dof]`, zero-padded on the right, and mask `[B, T]`."""
        values = [sample["values"] for sample in samples]
        lengths = torch.tensor([len(v) for v in values])
        padded = nn.utils.rnn.pad_sequence(values, batch_first=True)
        return {"values": padded, "mask": torch.arange(padded.shape[1]) < lengths[:, None]}


def sinusoids(steps: Tensor, dim: int) -> Tensor:
    """Return sines and cosines `[..., dim]` of step numbers `[...]` (Vaswani et al., 2017, 3.5)."""
    half = torch.arange(dim // 2, device=steps.device, dtype=torch.float32)
    angles = steps[..., None] * torch.exp(-math.log(10_000.0) * half / (dim // 2))
    return torch.cat([angles.sin(), angles.cos()], -1)
