"""Two-valued joints (a gripper) as their first state and the times at which they switch.

The state flips wherever a time has passed, so that any times give a trajectory: times past the
end say nothing, two that are equal undo each other. On the samples that a chunk was encoded with
the states come back exactly, as long as there are no more switches than tokens (then the first
ones are kept) and the bins of a token tell the samples apart.

Tokens here are `z` in [0, 1], `[B, K]`: the first state (high from 1/2 on), then `K - 1` times.
The chunk's end lies at `z = END`, and 1 is no switch at all, so that a small error in a regressed
token makes no switch out of nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

END = 8 / 9


def longest(vocab: int) -> int:
    """The largest number of steps whose switches `vocab` bins tell apart."""
    return int((vocab - 1) * END - 1e-9) + 1


def encode(high: Tensor, count: int) -> Tensor:
    """States `[B, steps]` bool (True = high) -> `[B, count]`: half-way between two samples."""
    flips = high[:, 1:] != high[:, :-1]  # [B, steps - 1]
    halfway = torch.arange(flips.shape[1], device=high.device) + 0.5
    times = torch.where(flips, END * halfway / max(flips.shape[1], 1), 1.0)
    times = times.sort(1).values[:, : count - 1]
    rest = times.new_ones(len(high), count - 1 - times.shape[1])
    return torch.cat([high[:, :1].to(times.dtype), times, rest], 1)


def decode(z: Tensor, phases: Tensor) -> Tensor:
    """`[B, K]` -> states `[B, S]` bool at `phases [S]` in [0, 1]."""
    passed = z[:, 1:, None] <= END * phases.to(z.dtype)  # [B, K - 1, S]
    flipped: Tensor = passed.sum(1) % 2 == 1
    return flipped != (z[:, :1] >= 0.5)
