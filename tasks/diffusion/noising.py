"""The forward process of masked diffusion, and the weights of its loss.

LLaDA (Nie et al. 2025, eq. 3 and its guidelines for SFT): a row has one timestep `t ~ U(0, 1)`
and a mask probability `p = (1 - eps) t + eps`; each token of the response is masked with
probability `p`, the prompt never is. The bound on `-log p(response)` is the cross-entropy of the
masked tokens, each divided by `p`; here also by the length of the response, which includes the
`eos` that it is padded with and so teaches where to stop.

Legend: `B` rows, `L` positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

MIN_MASK_PROB = 1e-3
"""`eps`: the weight `1 / p` would explode at small timesteps."""


def sample_timesteps(rows: int, offset: float, eps: float = MIN_MASK_PROB) -> Tensor:
    """Return the mask probabilities `[B]` of timesteps that are spread evenly over (0, 1), which
    has a lower variance than independent draws (Kingma et al. 2021, appendix I.1).

    offset: the first timestep, uniform in [0, 1).
    """
    timestep = (offset + torch.arange(rows) / max(rows, 1)) % 1
    return (1 - eps) * timestep + eps


def apply_mask(
    ids: Tensor, response: Tensor, mask_prob: Tensor, noise: Tensor, mask_id: int
) -> Tensor:
    """Return ids `[B, L]` with `mask_id` where `response [B, L]` is True and the uniform
    `noise [B, L]` is below `mask_prob [B]`."""
    return ids.masked_fill(response & (noise < mask_prob[:, None]), mask_id)


def elbo_weights(masked: Tensor, mask_prob: Tensor, response: Tensor) -> Tensor:
    """Return the weight of each position's cross-entropy, `[B, L]`: `1 / (p * length)` where it is
    masked, 0 elsewhere."""
    length = response.sum(1).clamp(min=1)
    return masked / (mask_prob * length)[:, None]


def reveal_schedule(masks: int, steps: int) -> list[int]:
    """Return how many masks each of `steps` passes reveals, evenly, larger ones first."""
    quotient, remainder = divmod(masks, steps)
    return [quotient + (step < remainder) for step in range(steps)]
