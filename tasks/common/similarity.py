"""Unit vectors, and the limit of the scale of their similarities."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def l2_normalize(vectors: Tensor) -> Tensor:
    """Return vectors `[B, D]` at unit length, in float32."""
    return F.normalize(vectors.float(), dim=-1)


MAX_LOGIT_SCALE = 100.0
"""CLIP's limit of the scale, `1 / temperature`."""
