"""The losses of DINOv2, and what tells that they collapse.

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
    """An MLP of three layers, a unit vector `bottleneck` wide, and its cosines with prototypes."""

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
        """`[N, in_dim] -> [N, K]` cosines."""
        found = F.normalize(self.map(vectors).float(), dim=-1, eps=1e-6)
        return found @ F.normalize(self.prototypes.float(), dim=-1).T


@torch.no_grad()
def sinkhorn(
    cosines: Tensor, temperature: Tensor | float, real: Tensor | None = None, iterations: int = 3
) -> Tensor:
    """cosines `[N, K]` -> targets `[N, K]` whose rows sum to one, the prototypes used alike, over
    the rows of all processes. real `[N]` bool: others count for nothing, and get zeros."""
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
    """cosines and targets `[..., K]` -> `[...]` the cross-entropy of each."""
    return -(targets * (cosines / temperature).log_softmax(-1)).sum(-1)


def koleo(vectors: Tensor) -> Tensor:
    """`-mean log` of the distance to the nearest other one, of vectors `[N, D]` at unit length."""
    found = F.normalize(vectors.float(), dim=-1, eps=1e-8)
    cosines = (found @ found.T).detach().clone()
    cosines.fill_diagonal_(-2.0)
    nearest = found[cosines.argmax(1)]
    return -(F.pairwise_distance(found, nearest, eps=1e-8) + 1e-8).log().mean()


def entropy(targets: Tensor) -> Tensor:
    """`[N]` of targets `[N, K]`, in nats; log K where nothing is told apart."""
    return -torch.special.xlogy(targets, targets).sum(-1)


def rankme(vectors: Tensor) -> Tensor:
    """How many directions vectors `[N, D]` at unit length use: the exponential of the entropy of
    their singular values; 1 where they are all alike."""
    values = torch.linalg.svdvals(F.normalize(vectors.float(), dim=-1, eps=1e-8))
    shares = values / values.sum().clamp(min=1e-12)
    return entropy(shares[None])[0].exp()
