"""The forward process of masked diffusion, and the weights of its loss.

LLaDA (Nie et al. 2025, eq. 3 and its guidelines for SFT): a row has one level `t ~ U(0, 1)`,
`p = (1 - eps) t + eps`; each place of the answer is masked with probability `p`, the prompt
never is. The bound on `-log p(answer)` is the masked places' cross entropy, each over `p`; here
over the answer's length too, padding with `eos` included, which teaches where to stop.

Legend: `B` rows, `L` places of the canvas.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-3
"""Least share of masks: `1 / p` would explode at small levels."""


def sample_timesteps(rows: int, offset: float, floor: float = FLOOR) -> Tensor:
    """`[B]` shares `p`, one in each of `B` equal parts of (0, 1): lower variance than free draws.

    offset: in [0, 1), where the first of them begins (Kingma et al. 2021, appendix I.1).
    """
    level = (offset + torch.arange(rows) / max(rows, 1)) % 1
    return (1 - floor) * level + floor


def apply_mask(ids: Tensor, answer: Tensor, share: Tensor, draws: Tensor, mask_id: int) -> Tensor:
    """ids `[B, L]` with `mask_id` where `answer [B, L]` is True and `draws [B, L] < share [B]`."""
    return ids.masked_fill(answer & (draws < share[:, None]), mask_id)


def elbo_weights(masked: Tensor, share: Tensor, answer: Tensor) -> Tensor:
    """`[B, L]` what each place's cross entropy counts: `1 / (p * length)` where it is masked."""
    length = answer.sum(1).clamp(min=1)
    return masked / (share * length)[:, None]


def reveal_schedule(masks: int, steps: int) -> list[int]:
    """How many places each of `steps` passes reveals: as even as can be, the larger ones first."""
    each, more = divmod(masks, steps)
    return [each + (step < more) for step in range(steps)]
