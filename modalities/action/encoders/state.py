"""A window of a robot's state as tokens, one a step.

Legend: `B` batch, `T` steps (tokens), `dof` joints, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...base import Count, Features, PositiveInt
from ..normalizer import Normalizer
from .step_encoder import StepEncoder, sinusoids


class State(StepEncoder):
    """Each step by a linear map, or a perceptron, plus its position before the last one.

    dim: width of a token. hidden: width of the hidden layers; without it the map is linear.
    depth: residual blocks between the first layer and the last: a robot's hand goes by
    differences of places that are small beside the room, and one hidden layer learns them slowly.
    """

    def __init__(
        self,
        *,
        normalizer: Normalizer,
        dim: PositiveInt = 128,
        hidden: PositiveInt | None = None,
        depth: Count = 0,
    ) -> None:
        super().__init__(normalizer, dim)
        if hidden is not None and hidden < 1:
            raise ValueError(f"hidden: found {hidden}, expected a width of at least 1")
        if depth < 0 or (depth and hidden is None):
            raise ValueError(
                f"depth: found {depth} with hidden: {hidden}; expected 0 or more blocks, and the "
                "width of what is hidden beside them"
            )
        self.values = (
            nn.Linear(normalizer.dof, dim)
            if hidden is None
            else nn.Sequential(
                nn.Linear(normalizer.dof, hidden),
                *(Residual(hidden) for _ in range(depth)),
                nn.LayerNorm(hidden) if depth else nn.GELU(),
                nn.Linear(hidden, dim),
            )
        )
        self.place = nn.Linear(dim, dim, bias=False)

    def blocks(self) -> Sequence[nn.Module]:
        return [self.values]

    def forward(self, values: Tensor, mask: Tensor) -> Features:
        """Return tokens `[B, T, D]` of normalized values `[B, T, dof]` and mask `[B, T]`."""
        ages = torch.arange(values.shape[1], device=values.device) - mask.sum(1, keepdim=True) + 1
        tokens = self.values(values) + self.place(sinusoids(ages.to(values.dtype), self.dim))
        return Features(tokens.masked_fill(~mask.unsqueeze(-1), 0), mask, grid=mask.shape[1:])


class Residual(nn.Module):
    """`x + f(norm(x))` of two layers of one width; `[..., width]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, values: Tensor) -> Tensor:
        output: Tensor = values + self.change(values)
        return output
