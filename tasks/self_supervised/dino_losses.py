"""The losses of DINOv2, and measures of their collapse.

Oquab et al., "DINOv2", 2023. Sinkhorn-Knopp: Caron et al., "SwAV", 2020; Ruan et al., "Weighted
Ensemble Self-Supervised Learning", 2023. KoLeo: Sablayrolles et al., "Spreading vectors for
similarity search", 2019. Rank: Garrido et al., "RankMe", 2023.

Legend: `N` rows, `K` prototypes, `D` width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..common import all_reduce_max, all_reduce_sum


class DINOHead(nn.Module):
    """A three-layer MLP, normalization to a unit vector of width `bottleneck`, and its cosines with
    the prototypes."""

    def __init__(self, in_dim: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.map = nn.Sequential(
            nn.Linear(in_dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        for layer in self.map:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return cosines `[N, K]` of vectors `[N, in_dim]`."""
        unit = F.normalize(self.map(vectors).float(), dim=-1, eps=1e-6)
        return unit @ F.normalize(self.prototypes.float(), dim=-1).T


@torch.no_grad()
def sinkhorn(
    cosines: Tensor, temperature: Tensor | float, real: Tensor | None = None, iterations: int = 3
) -> Tensor:
    """Return targets `[N, K]` from cosines `[N, K]`: rows sum to one and prototypes are used
    equally, over the rows of all processes. real `[N]` bool: other rows are ignored and get zeros.
    """
    logits = cosines.float() / temperature
    targets = (logits - all_reduce_max(logits)).exp()
    if real is not None:
        targets = targets * real[:, None]
    number = all_reduce_sum(targets.new_tensor(float(len(targets))) if real is None else real.sum())
    for _ in range(iterations):
        used = all_reduce_sum(targets.sum(0)) * targets.shape[1]
        targets = targets / used.clamp(min=1e-30)
        rows = targets.sum(1, keepdim=True) * number
        targets = targets / rows.clamp(min=1e-30)
    return targets * number


def cross_entropy(cosines: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy `[...]` of cosines and targets `[..., K]`."""
    return -(targets * (cosines / temperature).log_softmax(-1)).sum(-1)


def koleo(vectors: Tensor) -> Tensor:
    """Return `-mean log` of the distance to the nearest neighbour, of vectors `[N, D]` at unit
    length."""
    unit = F.normalize(vectors.float(), dim=-1, eps=1e-8)
    cosines = (unit @ unit.T).detach().clone()
    cosines.fill_diagonal_(-2.0)
    nearest = unit[cosines.argmax(1)]
    return -(F.pairwise_distance(unit, nearest, eps=1e-8) + 1e-8).log().mean()


def entropy(targets: Tensor) -> Tensor:
    """Return the entropy `[N]` of targets `[N, K]`, in nats; log K if they are uniform."""
    return -torch.special.xlogy(targets, targets).sum(-1)


def rankme(vectors: Tensor) -> Tensor:
    """Return the effective rank of vectors `[N, D]` at unit length: the exponential of the entropy
    of their singular values; 1 if all are equal."""
    values = torch.linalg.svdvals(F.normalize(vectors.float(), dim=-1, eps=1e-8))
    shares = values / values.sum().clamp(min=1e-12)
    return entropy(shares[None])[0].exp()
