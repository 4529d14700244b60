"""Two-valued joints (a gripper) as their first state and the times at which they switch.

The state flips at every time, so that any times form a trajectory: times past the end have no
effect, two that are equal cancel. On the samples of the encoded chunk the states are decoded
exactly, if there are at most as many switches as tokens (otherwise the first ones are kept) and the
bins of a token resolve the samples.

Tokens here are `z` in [0, 1], `[B, K]`: the first state (high from 1/2 on), then `K - 1` times. The
chunk's end lies at `z = END`, and 1 is no switch, so that a small error in a regressed token
creates no switch.
"""

from __future__ import annotations

import torch
from torch import Tensor

END = 8 / 9


def longest(vocab: int) -> int:
    """Return the largest number of steps whose switches `vocab` bins resolve."""
    return int((vocab - 1) * END - 1e-9) + 1


def encode(high: Tensor, count: int) -> Tensor:
    """Return `[B, count]` of states `[B, steps]` bool (True = high); times are half-way between two
    samples."""
    flips = high[:, 1:] != high[:, :-1]  # [B, steps - 1]
    row, step = flips.nonzero(as_tuple=True)  # in order of rows, then of time
    number = flips.sum(1)
    rank = torch.arange(len(row), device=high.device) - (number.cumsum(0) - number)[row]
    used = rank < count - 1
    tokens = torch.ones(len(high), count, device=high.device)
    tokens[:, 0] = high[:, 0].to(tokens.dtype)
    tokens[row[used], 1 + rank[used]] = END * (step[used] + 0.5) / max(flips.shape[1], 1)
    return tokens


def decode(z: Tensor, phases: Tensor) -> Tensor:
    """Return states `[B, S]` bool at `phases [S]` in [0, 1]."""
    high = (z[:, :1] >= 0.5).expand(-1, len(phases))
    for time in z[:, 1:, None].unbind(1):
        high = high ^ (time <= END * phases)
    return high
