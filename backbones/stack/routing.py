"""Statistics of the routers of a mixture of experts, and the loss that balances them.

Legend: `B` rows, `N` positions, `E` experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func


def balances(config: Any) -> bool:
    """Return whether a configuration enables the auxiliary loss of its routers."""
    return bool(getattr(config, "output_router_logits", False))


def router_terms(
    router_logits: Sequence[Tensor], real: Tensor, config: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted balancing loss of one forward, and what to log of it.

    router_logits: `[B * N, E]` of each layer with experts. real: bool `[B, N]`, which positions are
    no padding. The loss is that of Fedus et al., "Switch Transformer", 2021, equations 4 to 6, as
    transformers computes it: 1 x top_k for routers that use all experts alike. Logged are the
    loss without its weight, `router_balance`, and the share of choices that falls on the most
    chosen expert, `router_busiest` (1 / E if all are alike).
    """
    logits = tuple(each.reshape(-1, each.shape[-1]) for each in router_logits)
    experts, top_k = logits[0].shape[-1], int(config.num_experts_per_tok)
    real = real.expand(logits[0].shape[0] // real.shape[-1], -1)
    loss = load_balancing_loss_func(logits, experts, top_k, real.long())
    chosen = torch.stack([each.topk(top_k, -1).indices for each in logits])[:, real.reshape(-1)]
    counts = torch.zeros(experts, device=chosen.device)
    counts.scatter_add_(0, chosen.flatten(), torch.ones_like(chosen.flatten(), dtype=counts.dtype))
    weight = float(getattr(config, "router_aux_loss_coef", 0.001))
    busiest = counts.max() / counts.sum()
    return weight * loss, {"router_balance": loss.detach(), "router_busiest": busiest}
