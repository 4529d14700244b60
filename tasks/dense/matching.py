"""Matching of predictions to targets at least cost.

Kuhn, "The Hungarian method", 1955, by scipy; for detection as in DETR (Carion et al. 2020).
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def hungarian_match(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows and columns `[min(Q, N)]` of the cheapest pairs of a cost `[Q, N]`, each row
    and column at most once. NaN costs more than any number."""
    if cost.is_meta:  # a dry run has no values
        indices = torch.arange(min(cost.shape), device=cost.device)
        return indices, indices
    finite_cost = torch.nan_to_num(
        cost.detach().double().cpu(), nan=1e12, posinf=1e12, neginf=-1e12
    )
    rows, columns = linear_sum_assignment(finite_cost.numpy())
    return torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)
